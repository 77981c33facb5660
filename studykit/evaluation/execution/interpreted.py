"""Programs of a completion and a benchmark's tests in Python, JavaScript, Ruby, Julia and Lua; see `hardening`.

The completion is compiled from a string, so that it cannot see the names around it.
"""

from __future__ import annotations

import re

from studykit.evaluation.execution.calls import quoted
from studykit.evaluation.execution.hardening import FORGED, at_the_end_of_function, fill, hidden_name

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


def python(before: str, completion: str, after: str) -> str:
    """Lets tests see the completion's functions, and Python's built-in ones as they were before it ran."""
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
    """Restores built-in objects before the tests begin, and checks that they are the same when they end."""
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
  tools = [Test::Unit::Assertions, Test::Unit::TestCase, Test::Unit::AutoRunner]
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
    """Keeps test/unit from starting when the program ends, after the token."""
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
    """Relies on a failed @testset, which throws."""
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
    """Runs only functions of the tests as tests, whatever the completion calls its own."""
    name = hidden_name(before, completion, after)
    names = ", ".join(quoted("lua", test) for test in re.findall(r"^function (test\w*)", after, flags=re.M))
    after = re.sub(r"os\.exit\((\s*\w+\.LuaUnit\.run\(\)\s*)\)", r"\1", after)
    text = f"local {name} = ... {before}{completion}\n{name}()\n{after}\n"
    return fill(LUA, names=names, text=quoted("lua", text))
