"""One small renderer per language over the shared base: the tree as idiomatic code.

A language says how it opens and closes blocks, spells operators (symbol, precedence) and writes built-ins (`%s`
patterns). Methods are overridden only where an idiom differs in shape: comprehensions in Python and Julia, blocks and
implicit return in Ruby, gofmt's spacing in Go. Go code uses the built-in max and min (Go 1.21); execution supplies them
to older compilers.
"""

from __future__ import annotations

from studykit.data.polyglot.renderer import ATOM, Renderer
from studykit.data.polyglot.syntax import Bin, Cmp, Expr, Fn, Fold, For, Function, If, Range, Var
from studykit.errors import UserError


class Python(Renderer):
    language, comment = "python", "#"
    head, end = "def %s(%s):", None
    if_ = "if %s:"
    infix = Renderer.infix | {"repeat": ("*", 6)}
    calls = Renderer.calls | {"len": "len(%s)", "first": "%s[0]", "last": "%s[-1]", "upper": "%s.upper()"}

    def fold(self, fold: Fold) -> str:
        over = f"range(1, {fold.over.stop.name} + 1)" if isinstance(fold.over, Range) else fold.over.name
        value = "1" if fold.kind == "count" else self.expr(fold.value)
        if value == fold.var and not fold.where:
            return f"{fold.kind}({over})"
        items = f"{value} for {fold.var} in {over}" + (f" if {self.expr(fold.where)}" if fold.where else "")
        return f"[{items}]" if fold.kind == "list" else f"{'sum' if fold.kind == 'count' else fold.kind}({items})"


class JavaScript(Renderer):
    language = "javascript"
    indent = "  "
    head = "function %s(%s) {"
    for_list, for_range = "for (const %s of %s) {", "for (let %s = 1; %s; %s++) {"
    return_, let, var = "return %s;", "const %s = %s;", "let %s = %s;"
    assign, compound = "%s = %s;", "%s += %s;"
    increment, append = "%s++;", "%s.push(%s);"
    infix = Renderer.infix | {"==": ("===", 3), "!=": ("!==", 3)}
    calls = {
        "max": "Math.max(%s, %s)",
        "min": "Math.min(%s, %s)",
        "len": "%s.length",
        "first": "%s[0]",
        "last": "%s[%s.length - 1]",
        "upper": "%s.toUpperCase()",
        "repeat": "%s.repeat(%s)",
    }

    def loop(self, stmt: For, pad: str) -> list[str]:
        if type(stmt.over) is not Range:
            return Renderer.loop(self, stmt, pad)
        head = self.for_range % (stmt.var, self.expr(Cmp("<=", Var(stmt.var), stmt.over.stop)), stmt.var)
        return [pad + head, *self.block(stmt.body, pad + self.indent), pad + "}"]

    def fold(self, fold: Fold) -> str | None:
        if type(fold.over) is Range or fold.kind == "sum":
            return None
        text = self.expr(fold.over)
        if fold.where:
            text += f".filter(({fold.var}) => {self.expr(fold.where)})"
        if fold.kind == "count":
            return text + ".length"
        return text if fold.value == Var(fold.var) else text + f".map(({fold.var}) => {self.expr(fold.value)})"


class Go(Renderer):
    language = "go"
    indent = "\t"
    if_ = "if %s {"
    for_list, for_range = "for _, %s := range %s {", "for %s := 1; %s; %s++ {"
    let = var = "%s := %s"
    increment, empty = "%s++", "[]int{}"
    calls = Renderer.calls | {
        "len": "len(%s)",
        "first": "%s[0]",
        "last": "%s[len(%s)-1]",
        "upper": "strings.ToUpper(%s)",
        "repeat": "strings.Repeat(%s, %s)",
    }
    types = {"int": "int", "list": "[]int", "string": "string"}

    def signature(self, function: Function) -> str:
        groups: list[list[str]] = []
        for name, kind in function.params:
            if groups and groups[-1][-1] == kind:
                groups[-1].insert(-1, self.name(name))
            else:
                groups.append([self.name(name), kind])
        params = ", ".join(f"{', '.join(names)} {self.types[kind]}" for *names, kind in groups)
        return f"func {self.name(function.name)}({params}) {self.types[function.returns]} {{"

    loop = JavaScript.loop

    def appended(self, name: str, value: Expr) -> str:
        return f"{name} = append({name}, {self.expr(value, 0, 2)})"

    def expr(self, expr, outer: int = 0, depth: int = 1) -> str:
        """Renders an expression with gofmt's blanks, by precedence and depth (go/printer, `binaryExpr`)."""
        kind = type(expr)
        if kind is Fn:
            return self.calls[expr.op].replace("%s", self.expr(expr.arg, 0, depth))
        if kind is not Bin and kind is not Cmp:
            return super().expr(expr, outer)
        if expr.op not in self.infix:
            return self.calls[expr.op] % (self.expr(expr.left, 0, depth + 1), self.expr(expr.right, 0, depth + 1))
        symbol, binding = self.infix[expr.op]
        if binding < outer:
            return f"({self.expr(expr, 0, max(1, depth - 1))})"
        inside = self.bindings(expr)
        cutoff = (6 if depth == 1 else 5) if inside >= {5, 6} else 7 if depth == 1 else 5
        left = self.expr(expr.left, binding, depth + (self.binding(expr.left) != binding))
        right = self.expr(expr.right, binding + 1, depth + 1)
        return f"{left} {symbol} {right}" if binding < cutoff else f"{left}{symbol}{right}"

    def binding(self, expr) -> int:
        return self.infix[expr.op][1] if type(expr) in (Bin, Cmp) and expr.op in self.infix else ATOM

    def bindings(self, expr) -> set[int]:
        """Precedences of the operators reached without entering parentheses or calls."""
        binding, left, right = self.binding(expr), self.binding(expr.left), self.binding(expr.right)
        below = self.bindings(expr.left) if binding <= left < ATOM else set()
        return {binding} | below | (self.bindings(expr.right) if binding < right < ATOM else set())


class Ruby(Renderer):
    language, comment = "ruby", "#"
    indent = "  "
    head, end = "def %s(%s)", "end"
    calls = {
        "max": "[%s, %s].max",
        "min": "[%s, %s].min",
        "len": "%s.length",
        "first": "%s.first",
        "last": "%s.last",
        "upper": "%s.upcase",
    }
    infix = Renderer.infix | {"repeat": ("*", 6)}

    def returned(self, text: str, last: bool) -> str:
        return text if last else f"return {text}"

    def branch(self, stmt: If, pad: str, last: bool) -> list[str]:
        (line,) = self.block(stmt.then, pad)
        return [f"{line} if {self.expr(stmt.test)}"]

    def items(self, over: Var | Range) -> str:
        return f"(1..{over.stop.name})" if isinstance(over, Range) else over.name

    def fold(self, fold: Fold) -> str:
        text, value = self.items(fold.over), self.expr(fold.value)
        if fold.kind == "count":
            return f"{text}.count {{ |{fold.var}| {self.expr(fold.where)} }}"
        if fold.where:
            text += f".select {{ |{fold.var}| {self.expr(fold.where)} }}"
        plain = value == fold.var
        if fold.kind == "list":
            return text if plain else f"{text}.map {{ |{fold.var}| {value} }}"
        return f"{text}.{fold.kind}" + ("" if plain else f" {{ |{fold.var}| {value} }}")


class Julia(Renderer):
    language, comment = "julia", "#"
    head, end = "function %s(%s)", "end"
    if_ = "if %s"
    infix = Renderer.infix | {"concat": ("*", 6)}
    calls = Renderer.calls | {
        "len": "length(%s)",
        "first": "%s[1]",
        "last": "%s[end]",
        "upper": "uppercase(%s)",
        "repeat": "repeat(%s, %s)",
    }

    def fold(self, fold: Fold) -> str:
        over = f"1:{fold.over.stop.name}" if isinstance(fold.over, Range) else fold.over.name
        if fold.kind == "count":
            return f"count({fold.var} -> {self.expr(fold.where)}, {over})"
        where = f" if {self.expr(fold.where)}" if fold.where else ""
        items = f"{self.expr(fold.value)} for {fold.var} in {over}{where}"
        if fold.kind == "list":
            return f"[{items}]"
        return f"sum({over})" if fold.value == Var(fold.var) and not fold.where else f"sum({items}; init=0)"


class Lua(Renderer):
    language, comment = "lua", "--"
    indent = "  "
    head, end = "local function %s(%s)", "end"
    if_ = "if %s then"
    for_list, for_range = "for _, %s in ipairs(%s) do", "for %s = 1, %s do"
    let = var = "local %s = %s"
    compound = None
    append, empty = "table.insert(%s, %s)", "{}"
    infix = Renderer.infix | {"!=": ("~=", 3), "concat": ("..", 4)}
    calls = {
        "max": "math.max(%s, %s)",
        "min": "math.min(%s, %s)",
        "len": "#%s",
        "first": "%s[1]",
        "last": "%s[#%s]",
        "upper": "%s:upper()",
        "repeat": "%s:rep(%s)",
    }


RENDERERS = {kind.language: kind for kind in (Python, JavaScript, Go, Ruby, Julia, Lua)}
COMMENTS = {language: kind.comment for language, kind in RENDERERS.items()}
LANGUAGES = tuple(RENDERERS)


def render(function: Function, language: str) -> str:
    """Returns the source of a function in one of `LANGUAGES`, without a trailing newline.

    Raises: UserError for another.
    """
    if language not in RENDERERS:
        raise UserError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    return RENDERERS[language]().function(function)
