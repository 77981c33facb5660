"""A complete script that runs a candidate's tests and prints a nonce as its last line if and only if all of them pass.

The candidate is arbitrary text. In Python, JavaScript, Ruby, Julia and Lua it is embedded as a string and compiled by
the script, so that text that does not parse, returns early or opens a comment cannot swallow the tests; Go compiles it
in place, with `package` lines dropped and missing imports of a few standard packages added. `check.function` is in
snake_case and is looked up as `function_name` spells it (camelCase in JavaScript and Go). Arguments and results are
None, bool, int, float, str and lists of these; lists compare by content, numbers by value, and a bool is no number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from studykit.data.checks import FunctionCheck
from studykit.data.polyglot.renderer import function_name
from studykit.data.polyglot.renderers import LANGUAGES
from studykit.errors import UserError

GO_IMPORTS = {"strings", "math", "sort", "strconv", "fmt", "errors", "unicode"}


def literal(language: str, value: Any, like: Any = None) -> str:
    """`value` as a literal of the language; `like` is a list whose element type an empty one takes (Go, Julia)."""
    if value is None:
        return {"python": "None", "javascript": "null", "julia": "nothing"}.get(language, "nil")
    if isinstance(value, bool):
        return str(value) if language == "python" else str(value).lower()
    if isinstance(value, int | float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return quoted(language, value)
    if isinstance(value, list):
        items = ", ".join(literal(language, item) for item in value)
        if language == "lua":
            return f"{{{items}}}"
        if language == "go":
            return f"{go_type(value or like or [0])}{{{items}}}"
        return f"{element_type(like)}[]" if language == "julia" and not value else f"[{items}]"
    raise UserError(f"a test's value {value!r} has no literal; None, bool, finite numbers, str and lists are accepted")


def quoted(language: str, text: str) -> str:
    """A double-quoted string literal."""
    if language == "python":
        return repr(text)
    if language == "lua":  # decimal escapes of bytes
        return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03d}" for b in text.encode()) + '"'
    escaped = json.dumps(text, ensure_ascii=False)
    escaped = re.sub("[\x7f\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", escaped)
    interpolation = {"ruby": "#", "julia": "$"}.get(language)
    return escaped.replace(interpolation, "\\" + interpolation) if interpolation else escaped


def go_type(value: Any) -> str:
    if isinstance(value, list):
        return "[]" + go_type(next((item for item in value if item != []), 0))
    return {bool: "bool", int: "int", float: "float64", str: "string"}.get(type(value), "any")


def element_type(like: Any) -> str:
    return {bool: "Bool", float: "Float64", str: "String"}.get(type(like[0]), "Int") if like else "Int"


PYTHON = """\
import sys

def same(left, right):
    if isinstance(left, (list, tuple)) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)

def test(name, args, expected, call):
    got = space[name](*args)
    if not same(got, expected):
        sys.exit(f"{call}: expected {expected!r}, got {got!r}"[:300])

space = {"__name__": "candidate"}
exec(compile(@source, "candidate", "exec"), space)
@tests
print("\\n" + @nonce)
"""

JAVASCRIPT = """\
function same(left, right) {
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && right.every((x, i) => same(left[i], x));
  }
  return left === right || (left == null && right === null);
}
function test(name, args, expected, call) {
  const got = space[name](...args);
  if (!same(got, expected)) {
    console.error(`${call}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`.slice(0, 300));
    process.exit(1);
  }
}
const space = new Function("require", @source + "\\n;return {" + @names + "};")(require);
@tests
console.log("\\n" + @nonce);
"""

RUBY = """\
def harness_same(left, right)
  return left == right unless left.is_a?(Array) && right.is_a?(Array)
  left.length == right.length && left.zip(right).all? { |x, y| harness_same(x, y) }
end
def harness_test(name, args, expected, call)
  got = send(name, *args)
  abort "#{call}: expected #{expected.inspect}, got #{got.inspect}"[0, 300] unless harness_same(got, expected)
end
eval(@source, TOPLEVEL_BINDING, "candidate")
@tests
puts "\\n" + @nonce
"""

JULIA = """\
harness_same(left, right) = left isa Bool || right isa Bool ? left === right : (left == right) === true
function harness_same(left::AbstractVector, right::AbstractVector)
    return length(left) == length(right) && all(harness_same(x, y) for (x, y) in zip(left, right))
end
function harness_test(name, args, expected, call)
    got = Base.invokelatest(Base.invokelatest(getfield, Main, Symbol(name)), args...)
    if !Base.invokelatest(harness_same, got, expected)
        println(stderr, first("$call: expected $(repr(expected)), got $(repr(got))", 300))
        exit(1)
    end
end
include_string(Main, @source, "candidate")
@tests
println("\\n" * @nonce)
"""

LUA = """\
local function same(left, right)
  if type(left) ~= "table" or type(right) ~= "table" then return left == right end
  if #left ~= #right then return false end
  for i = 1, #right do
    if not same(left[i], right[i]) then return false end
  end
  return true
end
local function show(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for i = 1, #value do parts[i] = show(value[i]) end
  return "{" .. table.concat(parts, ", ") .. "}"
end
local space = assert(load(@source .. "\\nreturn {" .. @names .. "}", "=candidate"))()
local function test(name, args, expected, call)
  local got = space[name](table.unpack(args))
  if not same(got, expected) then
    io.stderr:write((call .. ": expected " .. show(expected) .. ", got " .. show(got)):sub(1, 300), "\\n")
    os.exit(1)
  end
end
@tests
print("\\n" .. @nonce)
"""

GO = """\
package main

import (
\tharnessJSON "encoding/json"
\tharnessFmt "fmt"
\tharnessOS "os"
)

@source

func harnessTest(got, expected any, call string) {
\tleft, _ := harnessJSON.Marshal(got)
\tright, _ := harnessJSON.Marshal(expected)
\tif string(left) == string(right) || string(left) == "null" && string(right) == "[]" {
\t\treturn
\t}
\tharnessFmt.Fprintf(harnessOS.Stderr, "%.100s: expected %.100s, got %.100s\\n", call, right, left)
\tharnessOS.Exit(1)
}

func main() {
@tests
\tharnessFmt.Println("\\n" + @nonce)
}
"""

GO_EXTREME = """
func {0}[T int | float64 | string](first T, rest ...T) T {{
\tfor _, value := range rest {{
\t\tif value {1} first {{
\t\t\tfirst = value
\t\t}}
\t}}
\treturn first
}}
"""

# prelude, and a test as a statement of the language: name, arguments, expected, call
SCRIPTS = {
    "python": (PYTHON, "test({name}, [{args}], {expected}, {call})"),
    "javascript": (JAVASCRIPT, "test({name}, [{args}], {expected}, {call});"),
    "ruby": (RUBY, "harness_test({name}, [{args}], {expected}, {call})"),
    "julia": (JULIA, "harness_test({name}, Any[{args}], {expected}, {call})"),
    "lua": (LUA, "test({name}, {{{args}}}, {expected}, {call})"),
    "go": (GO, "\tharnessTest({plain}({args}), {expected}, {call})"),
}


def _full(values: Iterable[Any]) -> list | None:
    """The first list that is not empty."""
    return next((value for value in values if isinstance(value, list) and value), None)


def go_source(code: str) -> str:
    """Candidate code as it may stand in a file: imports first, missing ones added, max and min for Go before 1.21."""
    code = re.sub(r"^\s*package\s+\w+\s*$", "", code, flags=re.M)
    pattern = r'^import\s+(?:\([^)]*\)|(?:\w+\s+)?"[^"\n]*")[ \t]*$'
    imports = re.findall(pattern, code, flags=re.M)
    code = re.sub(pattern, "", code, flags=re.M)
    used = {name for name in re.findall(r"\b([a-z]+)\.[A-Z]", re.sub("//.*", "", code)) if name in GO_IMPORTS}
    imports += [f'import "{name}"' for name in sorted(used) if f'"{name}"' not in "".join(imports)]
    for name, operator in (("max", ">"), ("min", "<")):
        if re.search(rf"\b{name}\(", code) and not re.search(rf"\bfunc {name}\b", code):
            code += GO_EXTREME.format(name, operator)
    return "\n".join([*imports, code])


def script(language: str, code: str, check: FunctionCheck | Sequence[FunctionCheck], nonce: str) -> str:
    """The script. It exits non-zero with a short message on stderr when a test fails; several checks run in one script.

    Raises UserError for an unknown language, an unusable function name or a test value without a literal.
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    prelude, template = SCRIPTS[language]
    names, tests = [], []
    for one in [check] if isinstance(check, FunctionCheck) else check:
        if not re.fullmatch(r"[A-Za-z_]\w*", one.function):
            raise UserError(f"function name {one.function!r} of a check is not an identifier")
        names.append(name := function_name(language, one.function))
        kinds = [_full(column) for column in zip(*(test.args for test in one.tests), strict=True)]
        result = _full(test.expected for test in one.tests)
        for test in one.tests:
            args = ", ".join(literal(language, value, like) for value, like in zip(test.args, kinds, strict=True))
            call = quoted(language, f"{name}({json.dumps(test.args)[1:-1]})")
            expected = literal(language, test.expected, result)
            text = quoted(language, name)
            tests.append(template.format(name=text, plain=name, args=args, expected=expected, call=call))
    separator = " = " if language == "lua" else ": "
    fields = ", ".join(f"{name}{separator}{name}" for name in names)
    parts = {
        "source": go_source(code) if language == "go" else quoted(language, code),
        "names": quoted(language, fields) if language in ("javascript", "lua") else "",
        "tests": "\n".join(tests),
        "nonce": quoted(language, nonce),
    }
    return re.sub(r"@(source|names|tests|nonce)\b", lambda match: parts[match[1]], prelude)
