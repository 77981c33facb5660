"""Tests of a benchmark and the completion that they test, as one program.

HumanEval (arXiv:2107.03374), HumanEval-X (arXiv:2303.17568) and MultiPL-E (arXiv:2208.08227) bring their tests as text
of the language: assertions that call the completion, so that both share a process. Each function here makes a program
of `before`, completion and `after`, whose last act, after every test ran and passed, is to print the token that it
reads from descriptor 3. What keeps a completion from passing without being right:

- no file and no constant holds the token;
- what the end of the program needs (reading, writing, raising, comparing) is taken before the completion runs, under
  names that it cannot know, or in languages and scopes that let nobody replace it;
- what the completion replaced of the tests' tools (assertions, macros, built-in functions, equality of built-in types)
  is put back before the tests, or the token is not printed; so it is for results that equal everything.

A program that knows this file can still read descriptor 3 by itself, and in Java, Go and Rust a completion can declare
types by which its results equal everything.

What the benchmarks take from packages (Go's testify, luaunit) is here in the small; imports of other packages are
dropped, so that only programs which need them fail.
"""

from __future__ import annotations

import hashlib
import json
import re

from studykit.errors import UserError
from studykit.evaluation.execution import java as java_source
from studykit.evaluation.execution.calls import quoted

FORGED = "the completion changed what its tests are made of"


def hidden_name(*texts: str) -> str:
    """Returns a name that no text can contain which it is made from."""
    return "studykit_" + hashlib.sha256("".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def at_the_end_of_function(after: str) -> tuple[str, str]:
    """Splits MultiPL-E's tests behind the brace with which they end the completion's function."""
    brace = re.match(r"\s*\}[ \t]*;?[ \t]*\n", after)
    return (brace[0], after[brace.end() :]) if brace else ("", after)


PYTHON = """\
def studykit(candidate, tests, kept):
    import builtins, math, os, sys
    read, write, out, error = os.pread, os.write, sys.stdout, sys.stderr
    run, build, names, numbers = exec, compile, dict(vars(builtins)), dict(vars(math))
    space, function, forged = globals(), type(studykit), []
    probes = object(), "studykit", [object()], 8765432123
    scalars, lists = (type(None), bool, int, float, complex, str, bytes), (list, tuple, set, frozenset)

    def equals_everything(value):
        if type(value) in scalars:
            return False
        if type(value) in lists:
            return any(equals_everything(item) for item in value)
        if type(value) is dict:
            return equals_everything(list(value.values()))
        try:
            return any(bool(value == probe) for probe in probes)
        except Exception:
            return False

    def watched(original):
        def call(*args, **options):
            value = original(*args, **options)
            if equals_everything(value):
                forged.append(value)
            return value

        return call

    any = names["any"]
    del space["studykit"]
    run(build(candidate, "program.py", "exec"), space)
    vars(math).update(numbers)
    fresh = {name: value for name, value in space.items() if name not in names or name in kept or name[:2] == "__"}
    fresh = {name: watched(value) if type(value) is function else value for name, value in fresh.items()}
    fresh["__builtins__"] = names
    run(build(tests, "tests.py", "exec"), fresh)
    if forged or sys.gettrace() or any(vars(math)[name] is not numbers[name] for name in numbers):
        return error.write(@forged)
    out.flush()
    write(1, b"\\n" + read(3, 32, 0) + b"\\n")

studykit(@candidate, @tests, @kept)
"""


def fill(template: str, **parts: str) -> str:
    """Returns a template with each @name replaced by its part."""
    return re.sub(r"@(" + "|".join(parts) + r")\b", lambda match: parts[match[1]], template)


def python(before: str, completion: str, after: str) -> str:
    """Tests see the completion's functions, and Python's built-in ones as they were before it ran."""
    kept = re.findall(r"^(?:async )?(?:def|class) (\w+)", before, flags=re.M)
    return fill(PYTHON, forged=repr(FORGED), candidate=repr(before + completion), tests=repr(after), kept=repr(kept))


JAVASCRIPT = """\
const fs = require("fs"), loader = require("module"), assert = require("assert");
console.assert = assert.ok;  // Node's only prints
const objects = [
  assert, assert.strict, console, fs, loader, loader.prototype, JSON, Math, Reflect, Object, Object.prototype, Array,
  Array.prototype, String, String.prototype, Number, Number.prototype, Boolean.prototype, Set.prototype, Map.prototype,
];
const describe = Reflect.getOwnPropertyDescriptor, define = Reflect.defineProperty, is = Object.is;
const saved = [];
for (const object of objects) {
  for (const key of Reflect.ownKeys(object)) saved[saved.length] = [object, key, describe(object, key)];
}
const read = fs.readSync, write = fs.writeSync, token = Buffer.alloc(32), original = require;
function restore(repair) {
  let changed = false;
  for (let i = 0; i < saved.length; i++) {
    const now = describe(saved[i][0], saved[i][1]), then = saved[i][2];
    if (now && is(now.value, then.value) && now.get === then.get) continue;
    changed = true;
    if (repair) define(saved[i][0], saved[i][1], then);
  }
  return repair ? original : changed;
}
let ended = false;
new Function("require", "module", "exports", "__filename", "__dirname", @name, @text)(
  require, module, exports, __filename, __dirname, (repair) => repair ? restore(true) : (ended = true));
if (ended) {
  if (restore(false)) write(2, @forged);
  else {
    read(3, token, 0, 32, 0);
    write(1, "\\n" + token + "\\n");
  }
}
"""


def javascript(before: str, completion: str, after: str) -> str:
    """Built-in objects are as before the completion when the tests begin, and the same objects when they end."""
    name, (closing, tests) = hidden_name(before, completion, after), at_the_end_of_function(after)
    text = f"{before}{completion}\n{closing}require = {name}(true);\n{tests}\n{name}(false);\n"
    quote = "javascript"
    return fill(JAVASCRIPT, name=quoted(quote, name), text=quoted(quote, text), forged=quoted(quote, FORGED))


RUBY = """\
require "test/unit"
Test::Unit::AutoRunner.need_auto_run = false
-> do
  same, ended = UnboundMethod.instance_method(:==), Test::Unit::AutoRunner.method(:run)
  token, out, warning = IO.for_fd(3, autoclose: false).pread(32, 0), STDOUT.method(:write), STDERR.method(:write)
  flush = STDOUT.method(:flush)
  equality = %i[== != ! === eql? equal? hash <=>]
  core = [BasicObject, Object, Integer, Float, String, Symbol, Array, Hash, NilClass, TrueClass, FalseClass]
  tools = [Test::Unit::Assertions, Test::Unit::TestCase, Test::Unit::AutoRunner, Test::Unit::TestResult]
  methods = core.flat_map { |kind| equality.select { |name| kind.method_defined?(name) }.map { |name| [kind, name] } }
  methods += tools.flat_map { |kind| kind.instance_methods(false).map { |name| [kind, name] } }
  saved = methods.map { |kind, name| [kind, name, kind.instance_method(name)] }
  probe = Object.new
  eval(@candidate, TOPLEVEL_BINDING, $0)
  unchanged = saved.all? { |kind, name, then_| same.bind_call(kind.instance_method(name), then_) }
  Test::Unit::TestCase.prepend(Module.new do
    define_method(:assert_equal) do |expected, actual, *rest|
      flunk("equal to everything") if actual == probe
      super(expected, actual, *rest)
    end
  end)
  eval(@tests, TOPLEVEL_BINDING, $0)
  if ended.call
    core_saved = saved.select { |kind, _, _| core.include?(kind) }
    unchanged &&= core_saved.all? { |kind, name, then_| same.bind_call(kind.instance_method(name), then_) }
    flush.call
    unchanged ? out.call("\\n" + token + "\\n") : warning.call(@forged)
  else
    exit! 1
  end
end.call
"""


def ruby(before: str, completion: str, after: str) -> str:
    """test/unit would start when the program ends, after the token."""
    quote = "ruby"
    parts = {"candidate": quoted(quote, before + completion), "tests": quoted(quote, after)}
    return fill(RUBY, forged=quoted(quote, FORGED), **parts)


JULIA = """\
include_string(Main, @candidate, "program.jl")
include_string(Main, @tests, "tests.jl")
if !(Base.invokelatest(==, 1, 2) || Base.invokelatest(==, [1], [2]))
    println(Base.stdout, "\\n", read("/dev/fd/3", String))
end
"""


def julia(before: str, completion: str, after: str) -> str:
    """A failed @testset throws."""
    return fill(JULIA, candidate=quoted("julia", before + completion), tests=quoted("julia", after))


LUA = """\
local next, type, rawget, rawequal, tostring, error, pairs = next, type, rawget, rawequal, tostring, error, pairs
local open, load, write, out, flush, concat = io.open, load, io.stdout.write, io.stdout, io.stdout.flush, table.concat
local setmetatable, require, loaded, globals, preload = setmetatable, require, package.loaded, _G, package.preload
debug = {traceback = debug.traceback}
loaded.debug = debug
local names, ended = {@names}, false

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return rawequal(a, b) end
  for key, value in next, a do if not same(value, rawget(b, key)) then return false end end
  for key in next, b do if rawget(a, key) == nil then return false end end
  return true
end
local function show(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for _, item in next, value do parts[#parts + 1] = show(item) end
  return "{" .. concat(parts, ", ") .. "}"
end
local unit = {LuaUnit = {}}
function unit.assertEquals(got, expected)
  if not same(got, expected) then error("luaunit: expected " .. show(expected) .. ", got " .. show(got), 2) end
end
local assertEquals = unit.assertEquals
function unit.LuaUnit.run()
  for i = 1, #names do
    local test = rawget(globals, names[i])
    if type(test) ~= "function" then error("luaunit: " .. names[i] .. " is no function") end
    test()
  end
  ended = #names > 0 and unit.assertEquals == assertEquals
  return 0
end
local function restore()
  setmetatable(globals, nil)
  globals.require, loaded.luaunit = require, unit
end
preload.luaunit = function() return unit end
local program, failure = load(@text, "=program.lua")
if not program then error(failure, 0) end
program(restore)
if ended then
  local file = open("/dev/fd/3")
  flush(out)
  write(out, "\\n", file:read(32), "\\n")
end
"""


def lua(before: str, completion: str, after: str) -> str:
    """Only functions of the tests are run as tests, whatever the completion calls its own."""
    name = hidden_name(before, completion, after)
    names = ", ".join(quoted("lua", test) for test in re.findall(r"^function (test\w*)", after, flags=re.M))
    after = re.sub(r"os\.exit\((\s*\w+\.LuaUnit\.run\(\)\s*)\)", r"\1", after)
    text = f"local {name} = ... {before}{completion}\n{name}()\n{after}\n"
    return fill(LUA, names=names, text=quoted("lua", text))


GO_PACKAGES = {
    path.rpartition("/")[2]: path
    for path in """bufio bytes container/heap container/list crypto/md5 encoding/hex errors fmt math math/big math/bits
    math/rand os regexp sort strconv strings time unicode unicode/utf8""".split()
}
GO_NAMES = "true|false|nil|iota|any|bool|byte|error|float64|int|rune|string|append|cap|len|make|new|panic|recover"
GO_MAIN = """
type studykitT struct{}

func (t *studykitT) Errorf(format string, args ...interface{}) {
	studykitFmt.Fprintf(studykitOS.Stderr, "assertion failed: "+format+"\\n", args...)
	studykitOS.Exit(1)
}
func (t *studykitT) Error(args ...interface{})                 { t.Errorf("%v", args) }
func (t *studykitT) Fatal(args ...interface{})                 { t.Errorf("%v", args) }
func (t *studykitT) Fatalf(format string, args ...interface{}) { t.Errorf(format, args...) }
func (t *studykitT) FailNow()                                  { t.Errorf("FailNow") }
func (t *studykitT) Fail()                                     { t.Errorf("Fail") }
func (t *studykitT) Log(args ...interface{})                   {}
func (t *studykitT) Helper()                                   {}
func (t *studykitT) Run(_ string, test func(*studykitT)) bool  { test(t); return true }

type studykitAssert struct{ t *studykitT }

var assert studykitAssert

func (studykitAssert) New(t *studykitT) studykitAssert { return studykitAssert{t} }

func (a studykitAssert) Equal(expected, got interface{}, _ ...interface{}) bool {
	if !studykitReflect.DeepEqual(expected, got) {
		a.t.Errorf("expected %#v, got %#v", expected, got)
	}
	return true
}
func (a studykitAssert) True(got bool, _ ...interface{}) bool  { return a.Equal(true, got) }
func (a studykitAssert) False(got bool, _ ...interface{}) bool { return a.Equal(false, got) }

func main() {
@calls	token := make([]byte, 32)
	studykitOS.NewFile(3, "token").ReadAt(token, 0)
	studykitFmt.Print("\\n" + string(token) + "\\n")
}
"""


def go(before: str, completion: str, after: str) -> str:
    """Tests get a T of ours, which ends the program, and testify's assert.New, Equal, True and False.

    Go refuses imports that are missing, doubled or not used, and a completion changes what is used.
    """
    completion = re.sub(r"^func main\(", "func candidateMain(", completion, flags=re.M)
    if re.search(rf"^(?:func|var|const|type)\s+(?:{GO_NAMES})\b", completion, flags=re.M):
        completion += "\nstudykit: a name of the language itself is declared, which would reach the tests\n"
    after = re.sub(r"\btesting\.T\b", "studykitT", after)
    text = re.sub(r"^package\s+\w+[ \t]*$", "", f"{before}{completion}\n{after}\n", flags=re.M)
    pattern = r'^import\s+(?:\([^)]*\)|(?:[\w.]+\s+)?"[^"\n]*")[ \t]*$'
    specs = re.findall(r'(?:([\w.]+)[ \t]+)?"([^"\n]+)"', "\n".join(re.findall(pattern, text, flags=re.M)))
    text = re.sub(pattern, "", text, flags=re.M)
    bare = re.sub(r'//.*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|`[^`]*`', "", text)
    names = GO_PACKAGES | {name or path.rpartition("/")[2]: path for name, path in specs}
    names.pop("assert", None)
    imports = [f"{name} {json.dumps(names[name])}" for name in names if re.search(rf"\b{name}\.[A-Z]", bare)]
    imports += ['studykitFmt "fmt"', 'studykitOS "os"', 'studykitReflect "reflect"']
    tests = re.findall(r"^func (Test\w*)\(\w+ \*studykitT\)", after, flags=re.M)
    if not tests:
        raise UserError(f"a check of Go has no function `TestX(t *testing.T)` in {after[:60]!r}")
    calls = "".join(f"\t{name}(&studykitT{{}})\n" for name in tests)
    main = fill(GO_MAIN, calls=calls)
    return "package main\n\nimport (\n\t" + "\n\t".join(imports) + "\n)\n" + text + main


RUST_MAIN = """
fn main() {
@calls    let token = ::std::fs::read_to_string("/dev/fd/3").unwrap();
    ::std::println!("\\n{}", token);
}
"""


def rust(before: str, completion: str, after: str) -> str:
    """Functions marked #[test] in `mod tests`, or a main that tests, become what our main calls.

    Assertions of the tests are those of the standard library, whatever macros a completion defines.
    """
    completion = re.sub(r"^(\s*(?:pub )?fn )main\(", r"\1candidate_main(", completion, flags=re.M)
    after = re.sub(r"^(\s*(?:pub )?fn )main\(", r"\1studykit_tests(", after, flags=re.M)
    after = after.replace("#[cfg(test)]", "")
    after = re.sub(r"(?<![\w:])(assert|assert_eq|assert_ne|panic)!", r"::std::\1!", after)
    module = re.search(r"^\s*(?:pub )?mod (\w+)\s*\{", after, flags=re.M)
    marked = r"#\[test\]\s*(?://[^\n]*\n\s*)*(?:pub )?fn (\w+)"
    calls = [f"{module[1]}::{name}" if module else name for name in re.findall(marked, after)] or ["studykit_tests"]
    after = re.sub(marked, r"pub fn \1", after)
    text = f"{before}{completion}\n{after}\n"
    ours = {"std", "core", "alloc", "self", "super", "crate", *re.findall(r"\b(?:mod|enum|struct|trait) (\w+)", text)}
    text = re.sub(r"^\s*use (?:::)?(\w+)[^;]*;", lambda use: use[0] if use[1] in ours else "", text, flags=re.M)
    return text + fill(RUST_MAIN, calls="".join(f"    {call}();\n" for call in calls))


JAVA_NAMES = (
    "ArrayList|Arrays|AssertionError|Boolean|Collections|Double|HashMap|Integer|List|Long|Map|Math|Object|Objects|"
    "Optional|String|System"
)
JAVA_LAST = (
    "java.io.PrintStream out = java.lang.System.out; {run} "
    'byte[] token = new java.io.FileInputStream("/dev/fd/3").readAllBytes(); '
    "out.println(); out.write(token); out.println(); out.flush();"
)


def java(before: str, completion: str, after: str) -> str:
    """Tests are the main of a class, or the assertions in it."""
    if re.search(rf"\b(?:class|interface|enum|record)\s+(?:{JAVA_NAMES})\b", completion):
        completion += "\nstudykit: a class of the language itself is declared, which would reach the tests\n"
    return java_source.program(f"{before}{completion}\n{after}", JAVA_LAST)


CPP_INCLUDES = "algorithm climits cmath cstdio cstdlib cstring iostream string vector".split()
CPP_MAIN = """
#ifdef __linux__
extern "C" int studykit_fork() __asm__("fork");
extern "C" int studykit_wait(int, int *, int) __asm__("waitpid");
extern "C" void studykit_exit(int) __asm__("_exit");
static bool studykit_asserts() {
  int status = 0, child = studykit_fork();
  if (child == 0) {
    if (!std::freopen("/dev/null", "w", stderr)) studykit_exit(1);
    assert(1 == 2);
    studykit_exit(0);
  }
  studykit_wait(child, &status, 0);
  return status != 0;
}
#else
static bool studykit_asserts() { return true; }
#endif
static bool studykit_compares() {
  std::vector<int> one{1}, two{2};
  std::vector<double> half{0.5}, third{0.3};
  std::string a("a"), b("b");
  std::vector<std::string> as{a}, bs{b};
  return !(one == two) && !(half == third) && !(a == b) && !(as == bs);
}
int main() {
  studykit_tests();
  std::fflush(nullptr);
  if (!studykit_asserts() || !studykit_compares()) return std::fputs(@forged, stderr) < 0;
  char token[33] = {0};
  std::FILE *file = std::fopen("/dev/fd/3", "r");
  if (file && std::fgets(token, 33, file)) std::printf("\\n%s\\n", token);
}
"""


def cpp(before: str, completion: str, after: str) -> str:
    """Macros of the completion end with it, and `assert` is defined again behind it.

    `auto`, since a function that is not main must not end without returning its int.
    """
    includes = "".join(f"#include <{name}>\n" for name in CPP_INCLUDES)
    completion = re.sub(r"^int\s+main\s*\(", "int candidate_main(", completion, flags=re.M)
    closing, tests = at_the_end_of_function(after)
    tests = re.sub(r"^int\s+main\s*\(\s*(?:void)?\s*\)", "auto studykit_tests()", tests, flags=re.M)
    macros = re.findall(r"^[ \t]*(?:#|%:|\?\?=)[ \t]*define[ \t]+(\w+)", completion.replace("\\\n", ""), flags=re.M)
    ends = "".join(f"#undef {name}\n" for name in dict.fromkeys(macros))
    ends += "#undef NDEBUG\n#undef assert\n#include <assert.h>\n"
    main = fill(CPP_MAIN, forged=json.dumps(FORGED))
    return f"{includes}{before}{completion}\n{closing}{ends}{tests}\n{main}"


HARNESSES = {
    "python": python,
    "javascript": javascript,
    "ruby": ruby,
    "julia": julia,
    "lua": lua,
    "go": go,
    "rust": rust,
    "java": java,
    "c++": cpp,
}
