"""Data flow of a program: the values that each name is computed from, as CodeBLEU compares it (Ren et al. 2020, 3.3).

Every use of a name, and every literal, has a position in the program. An edge says that the value at a position *comes
from* the last positions that set the name, or that it is *computed from* the names on the right of an assignment. Names
are numbered in order of appearance, so that renaming a variable changes nothing. One walk serves all languages; `RULES`
gives the meaning of the nodes of each grammar.

    flows(parse("b = a", "python"), "python")  # two edges: b is computed from a, and a comes from nowhere known

The walk finds the edges of the published extractors (CodeXGLUE's, and XLCoST's for C), with these differences:

- They merge the sources of a position in the order of a hash set, and thus at random; here the order is that of
  appearance.
- They name nodes that the grammars do not have (C and C++ borrow those of C#), or never enter a function (Rust); here
  the grammars' own nodes are named. The body of Python's for ... else is included, and the invisible tokens that error
  recovery inserts are not counted.
- A loop inside the second pass of another loop is walked once instead of twice, so that the time grows linearly with
  the depth; theirs doubles with every level.

Gaps that are part of published scores are kept: JavaScript's `=` and Go's `:=` set a name without a source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studykit.evaluation.metrics.syntax_trees import Node, SyntaxTree

States = dict[str, tuple[int, ...]]  # name -> the positions that may have set it last
Walk = Generator[tuple[Node, States], Any, States]  # yields a node to walk, and receives the states after it
Fields = Mapping[str, tuple[str | int, str | int]]  # kind of node -> fields (or indices) of its target and source


@dataclass(frozen=True)
class Rules:
    """The kinds of nodes of one language's grammar, by their meaning."""

    assign: Fields = field(default_factory=dict)  # the target is computed from the source
    # Assignments and loops over values that pair their parts (`a, b = c, d`). In a language that has any, assignments
    # keep every occurrence of a source.
    split: frozenset[str] = frozenset()
    define: Fields = field(default_factory=dict)  # the target comes from the source
    update: frozenset[str] = frozenset()  # all names are computed from each other (`i++`)
    branch: frozenset[str] = frozenset()  # a choice between alternatives
    alternatives: frozenset[str] = frozenset()  # each starts from the states before the choice
    rest_follows: bool = True  # so does everything after the first alternative
    skippable: bool = True  # the states before a choice may hold after it even if there is an "else"
    each: Fields = field(default_factory=dict)  # a loop over values
    repeat: frozenset[str] = frozenset()  # a loop that is walked twice
    counted: Mapping[str, str] = field(default_factory=dict)  # a loop -> its head; the part after it is walked twice
    first: str = ""  # a kind that is walked before its siblings


def _kinds(words: str) -> frozenset[str]:
    return frozenset(words.split())


SIDES = ("left", "right")
_C = Rules(
    assign={"assignment_expression": SIDES},
    define={"init_declarator": ("declarator", "value")},
    update=_kinds("update_expression"),
    branch=_kinds("if_statement"),
    alternatives=_kinds("else_clause"),
    each={"for_range_loop": ("declarator", "right")},
    repeat=_kinds("while_statement"),
    counted={"for_statement": "declaration"},
)
RULES = {
    "c": _C,
    "c++": _C,
    "c#": Rules(
        assign={"assignment_expression": SIDES},
        define={"variable_declarator": ("name", 1)},
        update=_kinds("postfix_unary_expression"),
        branch=_kinds("if_statement"),
        alternatives=_kinds("if_statement else"),
        each={"foreach_statement": SIDES},
        repeat=_kinds("while_statement"),
        counted={"for_statement": "variable_declaration"},
    ),
    "go": Rules(
        assign={"assignment_statement": SIDES},
        define={"var_spec": ("name", "value")},
        update=_kinds("inc_statement"),
        branch=_kinds("if_statement"),
        alternatives=_kinds("if_statement else"),
        counted={"for_statement": "for_clause"},
    ),
    "java": Rules(
        assign={"assignment_expression": SIDES},
        define={"variable_declarator": ("name", "value")},
        update=_kinds("update_expression"),
        branch=_kinds("if_statement"),
        alternatives=_kinds("if_statement else"),
        each={"enhanced_for_statement": ("name", "value")},
        repeat=_kinds("while_statement"),
        counted={"for_statement": "local_variable_declaration"},
    ),
    "javascript": Rules(
        assign={"assignment_pattern": SIDES, "augmented_assignment_expression": SIDES},
        define={"variable_declarator": ("name", "value")},
        update=_kinds("update_expression"),
        branch=_kinds("if_statement"),
        alternatives=_kinds("if_statement else"),
        repeat=_kinds("while_statement"),
        counted={"for_statement": "variable_declaration"},
    ),
    "php": Rules(
        assign={"assignment_expression": SIDES, "augmented_assignment_expression": SIDES},
        define={"simple_parameter": ("name", "default_value")},
        update=_kinds("update_expression"),
        branch=_kinds("if_statement"),
        alternatives=_kinds("if_statement else_clause"),
        each={"foreach_statement": (1, 0)},
        repeat=_kinds("while_statement"),
        counted={"for_statement": "assignment_expression"},
    ),
    "python": Rules(
        assign={"assignment": SIDES, "augmented_assignment": SIDES, "for_in_clause": SIDES},
        split=_kinds("assignment augmented_assignment for_statement"),
        define={"default_parameter": ("name", "value")},
        branch=_kinds("if_statement"),
        alternatives=_kinds("elif_clause else_clause"),
        rest_follows=False,
        skippable=False,
        each={"for_statement": SIDES},
        repeat=_kinds("while_statement"),
        first="for_in_clause",
    ),
    "ruby": Rules(
        assign={"assignment": SIDES, "operator_assignment": SIDES},
        split=_kinds("assignment"),
        define={"keyword_parameter": ("name", "value")},
        branch=_kinds("if elsif else unless when"),
        alternatives=_kinds("if elsif else unless when"),
        rest_follows=False,
        each={"for": ("pattern", "value")},
        repeat=_kinds("while_modifier until"),
    ),
    "rust": Rules(
        assign={"assignment_expression": SIDES, "compound_assignment_expr": SIDES},
        define={"let_declaration": ("pattern", "value"), "let_condition": ("pattern", "value")},
        branch=_kinds("if_expression"),
        alternatives=_kinds("else_clause"),
        skippable=False,
        each={"for_expression": ("pattern", "value")},
        repeat=_kinds("while_expression loop_expression"),
    ),
}


def flows(tree: SyntaxTree, language: str) -> Counter:
    """Returns how often each edge occurs: (variable, relation, its sources in order), with variables as numbers."""
    extractor = _Extractor(tree.nodes, RULES[language])
    extractor.run()
    incoming = sorted(extractor.incoming.items())
    linked = {position for target, (*_, origins) in incoming if origins for position in (target, *origins)}
    numbers: dict[str, int] = {}
    edges: Counter = Counter()
    for position, (relation, names, _) in incoming:
        if position in linked:
            sources = tuple(numbers.setdefault(name, len(numbers)) for name in names)
            target = numbers.setdefault(tree.nodes[position].text, len(numbers))
            edges[target, relation, sources] += 1
    return edges


class _Extractor:
    """A walk over a syntax tree that fills `incoming`: position -> [relation, names of sources, their positions]."""

    def __init__(self, nodes: list[Node], rules: Rules):
        self.nodes, self.rules, self.again = nodes, rules, False
        self.incoming: dict[int, list] = {}
        meanings = {self._assign: rules.assign, self._define: rules.define, self._update: rules.update}
        meanings |= {self._branch: rules.branch, self._each: rules.each, self._repeat: rules.repeat}
        meanings |= {self._counted: rules.counted}
        self.walks = {kind: walk for walk, kinds in meanings.items() for kind in kinds}

    def run(self) -> None:
        """Walks the tree with a stack of unfinished walks instead of recursion."""
        stack: list[Walk] = [self._walk(self.nodes[0], {})]
        states = None
        while stack:
            try:
                node, before = stack[-1].send(states)
            except StopIteration as done:
                stack.pop()
                states = done.value
            else:
                stack.append(self._walk(node, before))
                states = None

    def _walk(self, node: Node, states: States) -> Walk:
        if node.token:
            self._use(node, states)
            return self._children([], states)
        return self.walks[node.kind](node, states) if node.kind in self.walks else self._default(node, states)

    def _default(self, node: Node, states: States) -> Walk:
        children = node.children
        if self.rules.first:
            children = sorted(children, key=lambda child: child.kind != self.rules.first)
        return self._children(children, states)

    def _children(self, children: Sequence[Node], states: States) -> Walk:
        for child in children:
            if child.token:
                self._use(child, states)
            else:
                states = yield child, states
        return states

    def _use(self, node: Node, states: States) -> None:
        """Adds a token, which comes from where its name was set; at its first use, a name sets itself."""
        if not node.variable:
            return
        if node.text in states:
            self._add(node, "comesFrom", [node.text], states[node.text])
        else:
            if node.kind == "identifier":
                states[node.text] = (node.index,)
            self._add(node, "comesFrom", [], ())

    def _add(self, node: Node, relation: str, names: list[str], positions: Iterable[int]) -> None:
        """Adds sources of a node; the first relation holds, and names that are merged are kept once."""
        if node.index not in self.incoming:
            self.incoming[node.index] = [relation, names, set(positions)]
            return
        known = self.incoming[node.index]
        if not isinstance(known[1], dict):
            known[1] = dict.fromkeys(known[1])
        known[1].update(dict.fromkeys(names))
        known[2].update(positions)

    def _set(self, target: Node, source: Node, relation: str, states: States) -> None:
        """Sets the names in `target` from those in `source`."""
        sources = self._variables(source)
        names, positions = [one.text for one in sources], [one.index for one in sources]
        for node in self._variables(target):
            if self.rules.split:
                self._add(node, relation, names, positions)
            elif sources:
                self._add(node, relation, list(dict.fromkeys(names)), positions)
            states[node.text] = (node.index,)

    def _variables(self, node: Node) -> list[Node]:
        return [one for one in self.nodes[node.index : node.end] if one.variable]

    def _parts(self, node: Node, fields: Fields) -> tuple[Node | None, Node | None]:
        target, source = fields[node.kind]
        return node.part(target), node.part(source)

    def _assign(self, node: Node, states: States) -> Walk:
        target, source = self._parts(node, self.rules.assign)
        if target is None or source is None:
            return states
        return (yield from self._pairs(node.kind, target, source, states))

    def _pairs(self, kind: str, target: Node, source: Node, states: States) -> Walk:
        targets, sources = ([part for part in side.children if part.kind != ","] for side in (target, source))
        if kind not in self.rules.split or len(targets) != len(sources) or not targets:
            targets, sources = [target], [source]
        states = yield from self._children(sources, states)
        for left, right in zip(targets, sources, strict=True):
            self._set(left, right, "computedFrom", states)
        return states

    def _define(self, node: Node, states: States) -> Walk:
        target, source = self._parts(node, self.rules.define)
        if source is not None:
            states = yield from self._children([source], states)
        sources = self._variables(source) if source is not None else []
        for name in self._variables(target) if target is not None else ():
            if sources or source is None:
                names = list(dict.fromkeys(one.text for one in sources))
                self._add(name, "comesFrom", names, [one.index for one in sources])
            states[name.text] = (name.index,)
        return states

    def _update(self, node: Node, states: States) -> Walk:
        self._set(node, node, "computedFrom", states)
        return self._children([], states)

    def _branch(self, node: Node, states: States) -> Walk:
        current, ends, rest = dict(states), [], False
        skippable = self.rules.skippable or not any("else" in child.kind for child in node.children)
        for child in node.children:
            if child.kind in self.rules.alternatives or rest:
                rest = self.rules.rest_follows
                ends.append((yield child, dict(states)))
            else:
                current = yield child, current
        return _join([*ends, current, states] if skippable else [*ends, current])

    def _each(self, node: Node, states: States) -> Walk:
        target, source = self._parts(node, self.rules.each)
        if target is None or source is None:
            return (yield from self._default(node, states))
        rest = [part for part in (node.part("body"), node.part("alternative")) if part is not None]
        outer = self.again
        for self.again in (True,) if outer else (False, True):
            states = yield from self._pairs(node.kind, target, source, states)
            states = yield from self._children(rest, states)
        self.again = outer
        return states

    def _repeat(self, node: Node, states: States) -> Walk:
        outer = self.again
        for self.again in (True,) if outer else (False, True):
            states = yield from self._default(node, states)
        self.again = outer
        return states

    def _counted(self, node: Node, states: States) -> Walk:
        states = yield from self._default(node, states)
        heads = [i for i, child in enumerate(node.children) if child.kind == self.rules.counted[node.kind]]
        if not self.again and heads:
            update = node.children[heads[0]].part("update")
            self.again = True
            states = yield from self._children([*([update] if update else []), *node.children[heads[0] + 1 :]], states)
            self.again = False
        return states


def _join(ends: list[States]) -> States:
    """Returns the states that may hold after a choice: for each name, the positions of all ends."""
    joined: States = {}
    for states in ends:
        for name, positions in states.items():
            known = joined.setdefault(name, positions)
            if known is not positions:
                joined[name] = tuple(sorted({*known, *positions}))
    return joined
