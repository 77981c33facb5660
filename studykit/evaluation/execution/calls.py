"""Calls of a candidate's function, whose results are compared outside.

A script loads the candidate, calls its function with each test's arguments, and prints what came back, as JSON, after
every call. The expected results are not in the script: `problem` compares them here. Whatever a candidate replaces,
redefines or prints, it has to compute the results.

The candidate is arbitrary text. In Python, JavaScript, Ruby, Julia and Lua the script compiles it from a string, so
that text which does not parse, returns early or opens a comment cannot swallow the calls; Go compiles it in place, with
`package` lines dropped and missing imports of a few standard packages added. `check.function` is in snake_case and
is looked up as `function_name` spells it (camelCase in JavaScript and Go). Arguments and results are None, bool, int,
float, str and lists of these; lists compare by content, numbers by value, and a bool is no number.
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
from studykit.evaluation.execution.executable import Results

GO_IMPORTS = {"strings", "math", "sort", "strconv", "fmt", "errors", "unicode"}
MARK = "results: "  # begins a line of results


def literal(language: str, value: Any, like: Any = None) -> str:
    """Writes `value` as a literal of the language.

    `like` is a list whose element type an empty one takes (Go, Julia).
    """
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
    raise UserError(f"a test has the value {value!r}; accepted are None, bool, finite numbers, str and lists of these")


def quoted(language: str, text: str) -> str:
    """Returns a double-quoted string literal."""
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
import json, sys

def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, (bool, float, str)) else {"type": type(value).__name__}

def call(name, args):
    results.append(plain(space[name](*args)))
    print("\\n" + @mark + json.dumps(results), flush=True)

space, results = {"__name__": "candidate"}, []
exec(compile(@source, "candidate", "exec"), space)
@calls
"""

JAVASCRIPT = """\
function encode(value) {
  if (value === null || value === undefined) return "null";
  if (Array.isArray(value)) {
    let items = "";
    for (let i = 0; i < value.length; i++) items += (i ? "," : "") + encode(value[i]);
    return "[" + items + "]";
  }
  if (typeof value === "string") return JSON.stringify(value);
  return typeof value === "boolean" || Number.isFinite(value) ? String(value) : "{}";
}
const results = [];
function call(name, args) {
  results.push(encode(space[name](...args)));
  console.log("\\n" + @mark + "[" + results.join(",") + "]");
}
const space = new Function("require", @source + "\\n;return {" + @names + "};")(require);
@calls
"""

RUBY = """\
def harness_encode(value)
  case value
  when nil then "null"
  when true, false, Integer then value.to_s
  when Float then value.finite? ? value.to_s : "{}"
  when String then '"' + value.scrub.gsub(/[\\x00-\\x1f"\\\\]/) { |c| format("\\\\u%04x", c.ord) } + '"'
  when Array then "[" + value.map { |item| harness_encode(item) }.join(",") + "]"
  else "{}"
  end
end
HARNESS_RESULTS = []
def harness_call(name, args)
  HARNESS_RESULTS << harness_encode(send(name, *args))
  STDOUT.write("\\n" + @mark + "[" + HARNESS_RESULTS.join(",") + "]\\n")
  STDOUT.flush
end
eval(@source, TOPLEVEL_BINDING, "candidate")
@calls
"""

JULIA = """\
harness_encode(value) = "{}"
harness_encode(::Nothing) = "null"
harness_encode(value::Union{Bool, Integer}) = string(value)
harness_encode(value::AbstractFloat) = isfinite(value) ? string(Float64(value)) : "{}"
harness_encode(value::AbstractVector) = "[" * join([harness_encode(item) for item in value], ",") * "]"
function harness_encode(value::AbstractString)
    special(c) = c < ' ' || c == '"' || c == '\\\\'
    escape(c) = special(c) ? "\\\\u" * string(UInt32(c), base = 16, pad = 4) : string(c)
    return "\\"" * join(map(escape, collect(value))) * "\\""
end
const harness_results = String[]
function harness_call(name, args)
    got = Base.invokelatest(Base.invokelatest(getfield, Main, Symbol(name)), args...)
    push!(harness_results, Base.invokelatest(harness_encode, got))
    println(Base.stdout, "\\n", @mark, "[", join(harness_results, ","), "]")
    flush(Base.stdout)
end
include_string(Main, @source, "candidate")
@calls
"""

LUA = """\
local write, out, format, type, kind, huge = io.stdout.write, io.stdout, string.format, type, math.type, math.huge
local gsub, byte, concat, flush, unpack = string.gsub, string.byte, table.concat, io.stdout.flush, table.unpack
local function escape(c) return format("\\\\u%04x", byte(c)) end
local function encode(value)
  if value == nil then return "null" end
  if type(value) == "boolean" then return value and "true" or "false" end
  if type(value) == "string" then return '"' .. gsub(value, '[%c"\\\\]', escape) .. '"' end
  if type(value) == "number" then
    if kind(value) == "integer" then return format("%d", value) end
    return value == value and value < huge and value > -huge and format("%.17g", value) or "{}"
  end
  if type(value) ~= "table" then return "{}" end
  local items = {}
  for i = 1, #value do items[i] = encode(value[i]) end
  return "[" .. concat(items, ",") .. "]"
end
local space = assert(load(@source .. "\\nreturn {" .. @names .. "}", "=candidate"))()
local results = {}
local function call(name, args)
  results[#results + 1] = encode((space[name](unpack(args))))
  write(out, "\\n", @mark, "[", concat(results, ","), "]\\n")
  flush(out)
end
@calls
"""

GO = """\
package main

import (
\tharnessJSON "encoding/json"
\tharnessOS "os"
)

@source

var harnessResults string

func harnessCall(got any) {
\ttext, failure := harnessJSON.Marshal(got)
\tif failure != nil {
\t\ttext = []byte("{}")
\t}
\tif harnessResults != "" {
\t\tharnessResults += ","
\t}
\tharnessResults += string(text)
\tharnessOS.Stdout.WriteString("\\n" + @mark + "[" + harnessResults + "]\\n")
}

func main() {
@calls
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

# a script, and a call as a statement of the language
SCRIPTS = {
    "python": (PYTHON, "call({name}, [{args}])"),
    "javascript": (JAVASCRIPT, "call({name}, [{args}]);"),
    "ruby": (RUBY, "harness_call({name}, [{args}])"),
    "julia": (JULIA, "harness_call({name}, Any[{args}])"),
    "lua": (LUA, "call({name}, {{{args}}})"),
    "go": (GO, "\tharnessCall({plain}({args}))"),
}


def _full(values: Iterable[Any]) -> list | None:
    """The first list that is not empty."""
    return next((value for value in values if isinstance(value, list) and value), None)


def go_source(code: str) -> str:
    """Returns candidate code as a file has it: imports first, missing ones added, max and min for Go before 1.21."""
    code = re.sub(r"^[ \t]*package[ \t]+\w+[ \t]*$", "", code, flags=re.M)
    pattern = r'^import\s+(?:\([^)]*\)|(?:\w+\s+)?"[^"\n]*")[ \t]*$'
    imports = re.findall(pattern, code, flags=re.M)
    code = re.sub(pattern, "", code, flags=re.M)
    used = {name for name in re.findall(r"\b([a-z]+)\.[A-Z]", re.sub("//.*", "", code)) if name in GO_IMPORTS}
    imports += [f'import "{name}"' for name in sorted(used) if f'"{name}"' not in "".join(imports)]
    for name, operator in (("max", ">"), ("min", "<")):
        if re.search(rf"\b{name}\(", code) and not re.search(rf"\bfunc {name}\b", code):
            code += GO_EXTREME.format(name, operator)
    return "\n".join([*imports, code])


def script(language: str, code: str, checks: Sequence[FunctionCheck]) -> tuple[str, Results]:
    """Returns the script that makes the calls of all checks, and the results that it must print.

    Raises UserError for an unknown language, an unusable function name or a test value without a literal.
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    prelude, template = SCRIPTS[language]
    names, statements, calls, expected = [], [], [], []
    for check in checks:
        if not re.fullmatch(r"[A-Za-z_]\w*", check.function):
            raise UserError(f"the function name {check.function!r} in a check is not an identifier")
        names.append(name := function_name(language, check.function))
        likes = [_full(column) for column in zip(*(test.args for test in check.tests), strict=True)]
        for test in check.tests:
            args = ", ".join(literal(language, value, like) for value, like in zip(test.args, likes, strict=True))
            literal(language, test.expected)  # refuses values that cannot be compared
            statements.append(template.format(name=quoted(language, name), plain=name, args=args))
            calls.append(f"{name}({json.dumps(test.args)[1:-1]})"[:100])
            expected.append(test.expected)
    separator = " = " if language == "lua" else ": "
    fields = ", ".join(f"{name}{separator}{name}" for name in names)
    parts = {
        "source": go_source(code) if language == "go" else quoted(language, code),
        "names": quoted(language, fields) if language in ("javascript", "lua") else "",
        "calls": "\n".join(statements),
        "mark": quoted(language, MARK),
    }
    text = re.sub(r"@(source|names|calls|mark)\b", lambda match: parts[match[1]], prelude)
    return text, Results(tuple(calls), tuple(expected))


def problem(language: str, wanted: Results, stdout: str, complete: bool = True) -> str:
    """Returns the first way in which a script's results are not those wanted, or "".

    complete: whether the program ended by itself, so that a missing result is a problem, too.
    """
    results = _results(stdout)
    for call, expected, got in zip(wanted.calls, wanted.expected, results, strict=False):
        if not same(language, got, expected):
            return f"{call}: expected {json.dumps(expected)[:100]}, got {json.dumps(got)[:100]}\n"
    if complete and len(results) != len(wanted.expected):
        return f"the program ended after {len(results)} of {len(wanted.expected)} calls\n"
    return ""


def count_right(language: str, wanted: Results, stdout: str) -> int:
    """Returns how many of a script's results are those wanted; a call that crashes ends the script, so none follows."""
    pairs = zip(_results(stdout), wanted.expected, strict=False)
    return sum(same(language, got, expected) for got, expected in pairs)


def _results(stdout: str) -> list:
    """The results in the last line that has some; one that no call returns for a line that is no list."""
    lines = [line[len(MARK) :] for line in stdout.split("\n") if line.startswith(MARK)]
    try:
        results = json.loads(lines[-1]) if lines else []
    except (ValueError, RecursionError):
        results = [{}]
    return results if isinstance(results, list) else [{}]


def same(language: str, got: Any, expected: Any) -> bool:
    """Says whether a result, read from JSON, is the expected one in its language."""
    if isinstance(got, list) and isinstance(expected, list):
        return len(got) == len(expected) and all(same(language, *pair) for pair in zip(got, expected, strict=True))
    if language == "go" and got is None and expected == []:
        return True  # a nil slice
    if isinstance(got, bool) != isinstance(expected, bool):
        return False
    if language == "javascript" and isinstance(got, int | float) and isinstance(expected, int | float):
        try:
            return float(got) == float(expected)
        except OverflowError:
            return False
    return got == expected
