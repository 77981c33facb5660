"""Programs of a completion and a benchmark's tests in Python, JavaScript, Ruby, Julia and Lua; see `hardening`."""

from __future__ import annotations

import re

from studykit.evaluation.execution.calls import quoted
from studykit.evaluation.execution.hardening import FORGED, at_the_end_of_function, fill, hidden_name

PYTHON = """\
def studykit(before, completion, tests):
    import builtins, ctypes, marshal, os, re, sys
    scalars = type(None), bool, int, float, complex, str, bytes
    pairs = [os.pipe(), os.pipe()]

    def dumpable(value):  # a process that is not shows nobody its memory and its files
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(4, value, 0, 0, 0)

    def plain(value):
        if type(value) in scalars:
            return value
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items()}
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return kind([plain(item) for item in value])
        for kind in scalars[2:]:
            if isinstance(value, kind):
                return kind(value)
        return ...  # equals nothing

    def serve(requests, replies):
        space = globals()
        del space["studykit"]
        exec(compile(before + completion, "program.py", "exec"), space)
        marshal.dump([name for name, value in space.items() if callable(value)], replies)
        while True:
            replies.flush()
            try:
                name, args, options = marshal.load(requests)
            except EOFError:
                return
            try:
                reply = True, plain(space[name](*args, **options))
            except Exception as error:
                reply = False, (type(error).__name__, str(error))
            marshal.dump(reply, replies)

    dumpable(0)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(3)
        os.close(pairs[0][1])
        os.close(pairs[1][0])
        dumpable(1)
        return serve(os.fdopen(pairs[0][0], "rb"), os.fdopen(pairs[1][1], "wb"))
    os.close(pairs[0][0])
    os.close(pairs[1][1])
    requests, replies = os.fdopen(pairs[0][1], "wb"), os.fdopen(pairs[1][0], "rb")

    def receive():
        try:
            return marshal.load(replies)
        except EOFError:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code < 0:
                os.kill(os.getpid(), -code)
            os._exit(code)

    def proxy(name):
        def call(*args, **options):
            marshal.dump((name, args, options), requests)
            requests.flush()
            fine, value = receive()
            if fine:
                return value
            kind = getattr(builtins, value[0], None)
            known = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
            failure = kind(value[1]) if known else RuntimeError(": ".join(value))
            raise failure

        return call

    target = [*re.finditer(r"^(?:async )?def (\\w+)", before, flags=re.M)][-1:]
    space = {"__name__": "__main__"}
    exec(compile(before[: target[0].start()] if target else "", "tests.py", "exec"), space)
    for name in receive():
        if target and name == target[0][1] or name not in space and not hasattr(builtins, name):
            space[name] = proxy(name)
    exec(compile(tests, "tests.py", "exec"), space)
    os.kill(child, 9)
    os.waitpid(child, 0)
    sys.stdout.flush()
    os.write(1, b"\\n" + os.read(3, 32) + b"\\n")

studykit(@before, @completion, @tests)
"""


def python(before: str, completion: str, after: str) -> str:
    """Runs the completion's functions in a child process; what they return comes back as values of built-in types."""
    return fill(PYTHON, before=repr(before), completion=repr(completion), tests=repr(after))


JAVASCRIPT = """\
const fs = require("fs"), loader = require("module"), assert = require("assert");
const token = Buffer.alloc(32), write = fs.writeSync, original = require;
fs.readSync(3, token);
const inherited = [Object.prototype, Array.prototype, String.prototype, Number.prototype, Boolean.prototype];
const objects = [
  assert, assert.strict, console, fs, loader, loader.prototype, JSON, Math, Reflect, Object, Array, String, Number,
  ...inherited, Set.prototype, Map.prototype,
];
const describe = Reflect.getOwnPropertyDescriptor, define = Reflect.defineProperty, is = Object.is;
const saved = [];
for (const object of objects) {
  for (const key of Reflect.ownKeys(object)) saved[saved.length] = [object, key, describe(object, key)];
}
function changed() {
  for (let i = 0; i < saved.length; i++) {
    const now = describe(saved[i][0], saved[i][1]), then = saved[i][2];
    if (!now || !is(now.value, then.value) || now.get !== then.get) return true;
  }
  return false;
}
let begun = false, ended = false;
const tools = {__proto__: null, JSON, Math, Object, Array, String, Number, assert: assert.ok};
tools.begin = () => {
  for (let i = 0; i < saved.length; i++) {
    const object = saved[i][0], then = saved[i][2];
    define(object, saved[i][1], then);
    if (object !== inherited[0] && then.writable) define(object, saved[i][1], {writable: false, configurable: false});
  }
  for (const object of inherited) {
    if (!define(object, "toJSON", {value: undefined, writable: false, configurable: false})) throw Error(@forged);
  }
  if (changed()) throw Error(@forged);
  begun = true;
  return original;
};
tools.end = () => { ended = begun; };
Object.freeze(tools);
const name = "studykit_" + Math.random().toString(36).slice(2) + Math.random().toString(36).slice(2);
const text = @text.split(@name).join(name), names = ["require", "module", "exports", "__filename", "__dirname", name];
new Function(...names, text);  // what is whole by itself cannot end the function around it
new Function("return (" + names.join(",") + ") => {\\n" + text + "\\n};")()(
  require, module, exports, __filename, __dirname, tools);
if (ended) {
  if (changed()) write(2, @forged);
  else write(1, "\\n" + token + "\\n");
}
"""


def javascript(before: str, completion: str, after: str) -> str:
    """Restores built-in objects before the tests begin, and lets nothing change them while they run.

    The tests are a block, so that their functions are not the completion's to replace.
    """
    name, (closing, tests) = hidden_name(before, completion, after), at_the_end_of_function(after)
    tests = re.sub(r"(?<![\w.])console\.assert(?=\()", f"{name}.assert", tests)
    tests = re.sub(r"(?<![\w.$])(JSON|Math|Object|Array|String|Number)(?=\.)", rf"{name}.\1", tests)
    tests = re.sub(r"""(\brequire\(['"])assert\b""", r"\1node:assert", tests)  # which no cache of modules replaces
    constants = "const undefined = void 0, NaN = 0 / 0, Infinity = 1 / 0;"
    text = f"{before}{completion}\n{closing};require = {name}.begin();\n{{ {constants}\n{tests}\n}}\n{name}.end();\n"
    quote = "javascript"
    return fill(JAVASCRIPT, name=quoted(quote, name), text=quoted(quote, text), forged=quoted(quote, FORGED))


RUBY = """\
require "json"
require "test/unit"
Test::Unit::AutoRunner.need_auto_run = false
-> do
  # a process that is not "dumpable" shows nobody its memory and its files
  number = {"x86_64" => 157, "aarch64" => 167}[RbConfig::CONFIG["host_cpu"]]
  dumpable = ->(value) { syscall(number, 4, value, 0, 0, 0) if number && RUBY_PLATFORM.include?("linux") }
  names = @before.scan(/^def ([a-zA-Z_]\\w*[?!]?)/).flatten
  encode = ->(value) do
    case value
    when nil, true, false, Integer then value
    when Float then value.finite? ? value : {"f" => value.to_s}
    when String then value.dup.force_encoding("UTF-8").valid_encoding? ? String.new(value) : {"o" => 1}
    when Symbol then {"y" => value.to_s}
    when Array then value.map { |item| encode.call(item) }
    when Hash then {"h" => value.to_a.map { |pair| encode.call(pair) }}
    else {"o" => 1}
    end
  end
  decode = ->(value) do
    next value.map { |item| decode.call(item) } if Array === value
    next value unless Hash === value
    case value.keys
    when ["f"] then {"NaN" => Float::NAN, "Infinity" => Float::INFINITY}.fetch(value["f"], -Float::INFINITY)
    when ["y"] then value["y"].to_sym
    when ["h"] then value["h"].to_h { |pair| decode.call(pair) }
    else Object.new
    end
  end
  asked, ask = IO.pipe
  answers, answer = IO.pipe
  dumpable.call(0)
  child = fork do
    IO.for_fd(3).close
    [ask, answers].each(&:close)
    dumpable.call(1)
    eval(@before + @completion, TOPLEVEL_BINDING, $0)
    answer.puts("[]")
    while (line = asked.gets)
      name, *args = decode.call(JSON.parse(line, max_nesting: 0))
      reply = begin
        JSON.generate([encode.call(send(name, *args))], max_nesting: 0)
      rescue StandardError => error
        JSON.generate([0, "#{error.class}: #{error.message}".scrub])
      end
      answer.puts(reply)
    end
  end
  [asked, answer].each(&:close)
  receive = -> do
    line = answers.gets
    next JSON.parse(line, max_nesting: 0) if line
    status = Process.wait2(child)[1]
    Process.kill(status.termsig, Process.pid) if status.signaled?
    exit! status.exitstatus
  end
  receive.call
  start = @before.rindex(/^def /) || 0
  eval(@before[0...start], TOPLEVEL_BINDING, $0)
  names.last(1).each do |name|
    Object.define_method(name) do |*args|
      ask.puts(JSON.generate([name, *args].map { |value| encode.call(value) }, max_nesting: 0))
      value, message = receive.call
      message ? raise(message) : decode.call(value)
    end
  end
  eval(@tests, TOPLEVEL_BINDING, $0)
  ended = Test::Unit::AutoRunner.run
  Process.kill(:KILL, child)
  Process.wait(child)
  exit! 1 unless ended
  STDOUT.flush
  STDOUT.syswrite("\\n" + IO.for_fd(3).read(32) + "\\n")
  exit! 0
end.call
"""


def ruby(before: str, completion: str, after: str) -> str:
    """Runs the completion's functions in a child process; what they return comes back as values of built-in types."""
    parts = {"before": before, "completion": completion, "tests": after}
    return fill(RUBY, **{name: quoted("ruby", text) for name, text in parts.items()})


JULIA = """\
studykit_token = open(file -> String(read(file, 32)), "/dev/fd/3")
let token = studykit_token
    global studykit_token = ""
    include_string(Main, @candidate, "program.jl")
    include_string(Main, @tests, "tests.jl")
    if !(Base.invokelatest(==, 1, 2) || Base.invokelatest(==, [1], [2]))
        println(Base.stdout, "\\n", token)
    end
end
"""


def julia(before: str, completion: str, after: str) -> str:
    """Relies on a failed @testset, which throws."""
    return fill(JULIA, candidate=quoted("julia", before + completion), tests=quoted("julia", after))


LUA = """\
local next, type, rawget, rawequal, tostring, error = next, type, rawget, rawequal, tostring, error
local load, loadfile, concat = load, loadfile, table.concat
local write, out, flush = io.stdout.write, io.stdout, io.stdout.flush
local setmetatable, require, globals, loaded = setmetatable, require, _G, package.loaded
local token = io.open("/dev/fd/3"):read(32)
debug = {traceback = debug.traceback}
loaded.debug = debug
package.loadlib, package.searchers[3], package.searchers[4], dofile = nil, nil, nil, nil  -- C libraries, byte code
function _G.load(text, name, _, ...) return load(text, name, "t", ...) end
function _G.loadfile(name, _, ...) return loadfile(name, "t", ...) end

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
local tools, ended = {}, false
function tools.begin()
  setmetatable(globals, nil)
  globals.require, loaded.luaunit = require, {}
end
function tools.equal(got, expected)
  if not same(got, expected) then error("luaunit: expected " .. show(expected) .. ", got " .. show(got), 2) end
end
function tools.run(tests)
  for i = 1, #tests do tests[i]() end
  ended = #tests > 0
end
local whole, failure = load(@text, "=program.lua")  -- what is whole by itself cannot end the function around it
if not whole then error(failure, 0) end
load("local @name = ...; (function(...) " .. @text .. "\\nend)()", "=program.lua")(tools)
if ended then
  flush(out)
  write(out, "\\n", token, "\\n")
end
"""


def lua(before: str, completion: str, after: str) -> str:
    """Runs only functions of the tests as tests; what they call are local variables that no completion can reach."""
    name = hidden_name(before, completion, after)
    tests = ", ".join(re.findall(r"^function (test\w*)", after, flags=re.M))
    after = re.sub(r"^function (?=test)", "local function ", after, flags=re.M)
    after = re.sub(r"\b\w+\.assertEquals\(", f"{name}.equal(", after)
    after = re.sub(r"os\.exit\(\s*\w+\.LuaUnit\.run\(\)\s*\)", f"{name}.run({{{tests}}})", after)
    text = f"{before}{completion}\n{name}.begin()\n{after}\n"
    return fill(LUA, name=name, text=quoted("lua", text))
