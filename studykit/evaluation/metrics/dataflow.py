"""Data flow of a program: which values each name is computed from, as CodeBLEU compares it (Ren et al. 2020, 3.3).

Every use of a name, and every literal, is a place in the program. An edge says that the value at a place *comes from*
the last places that set the name, or that it is *computed from* the names on the right of an assignment. Names are
numbered in order of appearance, so that renaming a variable changes nothing. One walk serves all languages; `RULES`
says which nodes of a grammar mean what.

The walk finds what the published extractors (CodeXGLUE's, and XLCoST's for C) find, with the following differences.
Where they merge the sources of a place in the order of a hash set, and thus at random, here they stay in order of
appearance. Where they name nodes that the grammars do not have (C and C++ borrow C#'s) or never enter a function
(Rust), the grammars' own nodes stand here; nor is the body of Python's for ... else left out, or an invisible token,
which error recovery puts in, counted. Gaps that are part of published scores are kept: JavaScript's `=` and Go's `:=`
set a name without saying from what. A loop inside a second pass of another loop is walked once, not twice: time stays
linear in the depth, where theirs doubles with every level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from studykit.evaluation.metrics.syntax_trees import Node, Program

States = dict[str, tuple[int, ...]]  # name -> the places that may have set it last
Walk = Generator[tuple[Node, States], States, States]  # asks for the walk of a node, and is sent the states after it
Fields = Mapping[str, tuple[str | int, str | int]]


@dataclass(frozen=True)
class Rules:
    """Kinds of nodes by meaning; pairs are the fields (or indices of named children) of target and source.

    assign: the target is computed from the source. split: those of them, and loops over values, that pair their parts
    (`a, b = c, d`); a rule with any is of a language whose assignments keep every occurrence of a source. define: the
    target comes from the source. update: all names are computed from each other (`i++`). branch: a choice, whose
    alternatives start from what held before it; rest_follows: so does all that stands behind the first of them.
    skippable: what held before a choice may hold after it even if there is an "else". each: a loop over values.
    repeat: walked twice. counted: a loop, all after whose head (a kind) is walked twice.
    """

    assign: Fields = field(default_factory=dict)
    split: frozenset[str] = frozenset()
    define: Fields = field(default_factory=dict)
    update: frozenset[str] = frozenset()
    branch: frozenset[str] = frozenset()
    alternatives: frozenset[str] = frozenset()
    rest_follows: bool = True
    skippable: bool = True
    each: Fields = field(default_factory=dict)
    repeat: frozenset[str] = frozenset()
    counted: Mapping[str, str] = field(default_factory=dict)
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


def flows(program: Program, language: str) -> Counter:
    """Normalised edges with their numbers: (variable, relation, its sources in order), variables as numbers."""
    extractor = _Extractor(program.nodes, RULES[language])
    extractor.run()
    found = sorted(extractor.found.items())
    linked = {place for target, (*_, places) in found if places for place in (target, *places)}
    numbers: dict[str, int] = {}
    edges: Counter = Counter()
    for place, (relation, names, _) in found:
        if place in linked:
            sources = tuple(numbers.setdefault(name, len(numbers)) for name in names)
            target = numbers.setdefault(program.nodes[place].text, len(numbers))
            edges[target, relation, sources] += 1
    return edges


class _Extractor:
    """found: place -> [relation, names of its sources in order, their places]."""

    def __init__(self, nodes: list[Node], rules: Rules):
        self.nodes, self.rules, self.again = nodes, rules, False
        self.found: dict[int, list] = {}
        meanings = {self._assign: rules.assign, self._define: rules.define, self._update: rules.update}
        meanings |= {self._branch: rules.branch, self._each: rules.each, self._repeat: rules.repeat}
        meanings |= {self._counted: rules.counted}
        self.walks = {kind: walk for walk, kinds in meanings.items() for kind in kinds}

    def run(self) -> None:
        """Walk the tree with a stack of half-done walks instead of recursion."""
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
        """A token: it comes from where its name was set; the first time it is seen, a name sets itself."""
        if not node.variable:
            return
        if node.text in states:
            self._add(node, "comesFrom", [node.text], states[node.text])
        else:
            if node.kind == "identifier":
                states[node.text] = (node.place,)
            self._add(node, "comesFrom", [], ())

    def _add(self, node: Node, relation: str, names: list[str], places: Iterable[int]) -> None:
        """More sources of a node; the first relation holds, and names are kept once as soon as they are merged."""
        if node.place not in self.found:
            self.found[node.place] = [relation, names, set(places)]
            return
        known = self.found[node.place]
        if not isinstance(known[1], dict):
            known[1] = dict.fromkeys(known[1])
        known[1].update(dict.fromkeys(names))
        known[2].update(places)

    def _set(self, target: Node, source: Node, relation: str, states: States) -> None:
        """Set the names in `target` from those in `source`."""
        sources = self._variables(source)
        names, places = [one.text for one in sources], [one.place for one in sources]
        for node in self._variables(target):
            if self.rules.split:
                self._add(node, relation, names, places)
            elif sources:
                self._add(node, relation, list(dict.fromkeys(names)), places)
            states[node.text] = (node.place,)

    def _variables(self, node: Node) -> list[Node]:
        return [one for one in self.nodes[node.place : node.end] if one.variable]

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
                self._add(name, "comesFrom", names, [one.place for one in sources])
            states[name.text] = (name.place,)
        return states

    def _update(self, node: Node, states: States) -> Walk:
        self._set(node, node, "computedFrom", states)
        return self._children([], states)

    def _branch(self, node: Node, states: States) -> Walk:
        current, ends, apart = dict(states), [], False
        skippable = self.rules.skippable or not any("else" in child.kind for child in node.children)
        for child in node.children:
            if child.kind in self.rules.alternatives or apart:
                apart = self.rules.rest_follows
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
    """What may hold after a choice: the places of all its ends."""
    joined: States = {}
    for states in ends:
        for name, places in states.items():
            known = joined.setdefault(name, places)
            if known is not places:
                joined[name] = tuple(sorted({*known, *places}))
    return joined
