"""Wrong answers that try to be judged right: none passes, in any language, whichever way its tests judge it.

`pytest -rA tests/evaluation/execution/test_forgery.py` prints how many were tried, contained and forged by language.
"""

from collections import Counter

import pytest

from studykit.data.checks import BenchmarkCheck, Call, FunctionCheck, StdioCheck, StdioTest
from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.execution.programs import executable
from tests.evaluation.execution.test_programs import CASES

TWICE = FunctionCheck("twice", [Call([2], 4), Call([-1], -2)])
STDIO = StdioCheck((StdioTest("2\n", ("4",)), StdioTest("-1\n", ("-2",))))
READ_JS = "require('fs').readFileSync"
ALWAYS = "class Always:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"

# How the completion is judged ("call" and "stdio" apart from the judge, else the form of a benchmark), language, what
# it tries, and the completion, which never computes twice its argument.
FORGERIES = [
    # Python
    ("call", "python", "nonce from its own file", "import os, re\n"
     "print((re.findall('[0-9a-f]{32}', open('program.py').read()) or [0])[-1])\nos._exit(0)"),
    ("call", "python", "no exit", "import sys\nsys.exit = lambda *a: None\ndef twice(x): return 0"),
    ("call", "python", "equal to everything", ALWAYS + "def twice(x): return Always()"),
    ("call", "python", "the judge's function", "import sys\n"
     "sys.modules['__main__'].same = lambda *a: True\nsys.modules['__main__'].plain = lambda v: v\ndef twice(x): return 0"),
    ("call", "python", "an integer equal to everything", "class I(int):\n    def __eq__(s, o): return True\n"
     "def twice(x): return I(3)"),
    ("call", "python", "results of its own", "print('results: [true, true]', flush=True)\nimport os\nos._exit(0)"),
    ("call", "python", "a child that fails", "import os\nif os.fork() == 0: raise SystemExit(1)\nos.wait()\n"
     "print('results: [0, 0]', flush=True)\nos._exit(0)"),
    ("humaneval", "python", "equal to everything", "    return Always()\n" + ALWAYS),
    ("humaneval", "python", "a list equal to everything", "    return [] and x or type('A', (), "
     "{'__eq__': lambda s, o: True})()"),
    ("humaneval", "python", "no exit", "    return 0\nimport sys, os, builtins\n"
     "sys.exit = os._exit = builtins.exit = lambda *a: None"),
    ("humaneval", "python", "another AssertionError", "    return 0\nimport builtins\n"
     "class Quiet(BaseException): pass\nbuiltins.AssertionError = Quiet"),
    ("humaneval", "python", "a check of its own", "    return 0\ndef check(f): pass"),
    ("humaneval", "python", "an excepthook", "    return 0\nimport sys, os\nsys.excepthook = lambda *a: os._exit(0)"),
    ("humaneval", "python", "a fork", "    import os\n    if os.fork() == 0: return 0\n    os.wait()\n    os._exit(0)"),
    ("humaneval", "python", "an exit handler", "    return 0\nimport atexit, os\natexit.register(lambda: os._exit(0))"),
    ("humaneval", "python", "nonce from its own file", "    import os, re\n"
     "    print((re.findall('[0-9a-f]{32}', open('program.py').read()) or [0])[-1], flush=True)\n    os._exit(0)"),
    ("stdio", "python", "answers in all forms", "print('4\\n-2\\npassed')"),
    # Lua
    ("call", "lua", "no exit", "os.exit = function() end\nfunction twice(x) return 0 end"),
    ("call", "lua", "the judge's locals", "for i = 1, 20 do pcall(debug.setupvalue, debug.getinfo(2, 'f').func, i, "
     "function() return true end) end\nfunction twice(x) return 0 end"),
    ("call", "lua", "equal to everything", "function twice(x) return setmetatable({}, {__eq = function() return true "
     "end, __len = function() return 0 end}) end"),
    ("multipl-e", "lua", "no error", "  return 0\nend\nerror = function() end\nassert = function() return true end"),
    ("multipl-e", "lua", "no exit", "  return 0\nend\nos.exit = function() end"),
    ("multipl-e", "lua", "a luaunit of its own", "  return 0\nend\npackage.loaded.luaunit = {assertEquals = function() "
     "end, LuaUnit = {run = function() return 0 end}}\nlocal r = require\nfunction require(n) return "
     "package.loaded.luaunit end"),
    ("multipl-e", "lua", "tests that are not defined", "  return 0\nend\n"
     "setmetatable(_G, {__newindex = function() end})"),
    ("multipl-e", "lua", "the judge's locals", "  return 0\nend\nfor l = 1, 9 do local i = debug.getinfo and "
     "debug.getinfo(l, 'f') if i then for u = 1, 40 do debug.setupvalue(i.func, u, function() end) end end end"),
    ("multipl-e", "lua", "nonce from its own file", "  return 0\nend\n"
     "print(io.open('program.lua'):read('a'):match('%x+$')) os.exit(0)"),
    ("multipl-e", "lua", "other pairs", "  return {}\nend\npairs = function() return function() end end\n"
     "next = function() end\nrawequal = function() return true end"),
    ("stdio", "lua", "answers in all forms", "print('4\\n-2')"),
    # JavaScript
    ("call", "javascript", "no exit", "process.exit = () => {};\nfunction twice(x) { return 0; }"),
    ("call", "javascript", "other arrays", "Array.prototype.every = () => true;\nArray.isArray = () => true;\n"
     "JSON.stringify = () => 'true';\nfunction twice(x) { return 'x'; }"),
    ("multipl-e", "javascript", "a patched assert", "  return 0;\n}\n{ const a = require('assert');\n"
     "for (const k of Object.keys(a)) if (typeof a[k] === 'function') a[k] = () => {};"),
    ("multipl-e", "javascript", "a require of its own", "  return 0;\n}\nrequire = () => new Proxy({}, {get: () => () => 0});\n"
     "{"),
    ("multipl-e", "javascript", "a hoisted require", "  return 0;\n}\nfunction require() { return new Proxy({}, {get: () => "
     "() => 0}); }\n{"),
    ("multipl-e", "javascript", "another loader", "  return 0;\n}\nrequire('module')._load = () => new Proxy({}, "
     "{get: () => () => 0});\n{"),
    ("multipl-e", "javascript", "a handler of errors", "  return 0;\n}\n"
     "process.on('uncaughtException', () => console.log('done'));\n{"),
    ("multipl-e", "javascript", "no exit", "  return 0;\n}\nprocess.exit = () => {}; process.abort = () => {};\n{"),
    ("multipl-e", "javascript", "later patches", "  const a = require('assert'); a.deepEqual = () => {}; return 0;"),
    ("humaneval-x", "javascript", "console.assert", "  return 0\n}\nconsole.assert = () => {}\n"),
    ("humaneval-x", "javascript", "nonce from its own file", "  console.log((" + READ_JS + "(__filename, 'utf8')"
     ".match(/[0-9a-f]{32}/g) || [0]).pop());\n  process.exit(0)\n}"),
    ("stdio", "javascript", "answers in all forms", "console.log('4\\n-2')"),
    # Ruby
    ("call", "ruby", "no abort", "def abort(*a) end\ndef exit(*a) end\ndef twice(x) 0 end"),
    ("call", "ruby", "the judge's function", "def harness_same(a, b) true end\ndef harness_encode(v) 'true' end\n"
     "def twice(x) 0 end"),
    ("call", "ruby", "integers equal to everything", "class Integer; def ==(o) true end; end\ndef twice(x) 0 end"),
    ("multipl-e", "ruby", "a patched assert_equal", "  0\nend\nmodule Test::Unit::Assertions\n"
     "  def assert_equal(*a) end\nend"),
    ("multipl-e", "ruby", "a patched runner", "  0\nend\nclass Test::Unit::AutoRunner\n  def self.run(*a) true end\n"
     "  def run(*a) true end\nend"),
    ("multipl-e", "ruby", "integers equal to everything", "  0\nend\nclass Integer; def ==(o) true end; end"),
    ("multipl-e", "ruby", "equal to everything", "  Class.new { def ==(o) true end\n def coerce(o) [0, 0] end }.new\nend"),
    ("multipl-e", "ruby", "no exit", "  0\nend\ndef exit(*a) end\ndef exit!(*a) end\ndef abort(*a) end\n"
     "module Kernel; def exit(*a) end; end"),
    ("multipl-e", "ruby", "an exit handler", "  0\nend\nat_exit { exit!(0) }"),
    ("multipl-e", "ruby", "at the beginning", "  0\nend\nBEGIN { exit!(0) }"),
    ("multipl-e", "ruby", "nonce from its own file", "  0\nend\nputs File.read($0).scan(/[0-9a-f]{32}/).last.to_s\nexit!(0)"),
    ("stdio", "ruby", "answers in all forms", "puts 4, -2"),
    # Go
    ("call", "go", "a type that marshals", "type t struct{}\nfunc (t) MarshalJSON() ([]byte, error) { return "
     "[]byte(\"true\"), nil }\nfunc twice(x int) any { return t{} }"),
    ("call", "go", "init", "func init() { os.Exit(0) }\nfunc twice(x int) int { return 0 }"),
    ("humaneval-x", "go", "init with its own file", "    return 0\n}\nfunc init() {\n    b, _ := os.ReadFile(\"program.go\")\n"
     "    fmt.Println(string(b[len(b)-40:]))\n    os.Exit(0)\n}\n"),
    ("humaneval-x", "go", "true is false", "    return 0\n}\nconst true = 1 == 2\n"),
    ("humaneval-x", "go", "a panic of its own", "    return 0\n}\nfunc panic(x any) {}\n"),
    ("multipl-e", "go", "recover", "    defer func() { recover() }()\n    return 0"),
    # Rust
    ("humaneval-x", "rust", "macro_rules! assert_eq", "    0\n}\nmacro_rules! assert_eq { ($($x:tt)*) => {}; }\n"
     "macro_rules! assert { ($($x:tt)*) => {}; }\n"),
    ("multipl-e", "rust", "macro_rules! assert_eq", "    0\n}\nmacro_rules! assert_eq { ($($x:tt)*) => {}; }\n"
     "fn other() {\n"),
    ("humaneval-x", "rust", "its own file", "    println!(\"{}\", include_str!(\"program.rs\").len());\n"
     "    std::process::exit(0)\n}\n"),
    ("multipl-e", "rust", "a panic hook", "    std::panic::set_hook(Box::new(|_| std::process::exit(0)));\n    0"),
    # Java
    ("humaneval-x", "java", "a static block", "        return 0;\n    }\n    static { System.exit(0); }\n}\n"),
    ("humaneval-x", "java", "an Arrays of its own", "        return 0;\n    }\n}\nclass Arrays {\n"
     "    static List<Boolean> asList(Boolean... x) { return List.of(); }\n}\n"),
    ("multipl-e", "java", "no assertions", "        ClassLoader.getSystemClassLoader().clearAssertionStatus();\n"
     "        Problem.class.getClassLoader().setDefaultAssertionStatus(false);\n        return 0;"),
    ("multipl-e", "java", "a handler of errors", "        Thread.setDefaultUncaughtExceptionHandler((t, e) -> "
     "Runtime.getRuntime().halt(0));\n        return 0;"),
    ("multipl-e", "java", "another stdout", "        System.setOut(new java.io.PrintStream(System.err));\n        return 0;"),
    # C++
    ("humaneval-x", "c++", "#define assert", "    return 0;\n}\n#undef assert\n#define assert(x)\n"),
    ("humaneval-x", "c++", "#define twice", "    return 0;\n}\n#define twice(x) 2 * (x)\n#define int auto\n#undef int\n"),
    ("humaneval-x", "c++", "__assert_fail", "    return 0;\n}\nextern \"C\" void __assert_fail(const char *, const char *, "
     "unsigned, const char *) noexcept { _Exit(0); }\n"),
    ("humaneval-x", "c++", "a handler of abort", "    return 0;\n}\n#include <csignal>\nstruct A { A() { std::signal(SIGABRT, "
     "[](int) { std::_Exit(0); }); } } a;\n"),
    ("humaneval-x", "c++", "a constructor", "    return 0;\n}\nstruct A { A() { puts(\"x\"); _Exit(0); } } a;\n"),
    ("stdio", "c++", "answers in all forms", "#include <cstdio>\nint main() { puts(\"4\\n-2\"); }"),
]  # fmt: skip


def check_of(way: str, language: str):
    if way in ("call", "stdio"):
        return TWICE if way == "call" else STDIO
    before, _, after, *_ = CASES[language, way]
    return BenchmarkCheck(way, before, after, "twice")


@pytest.fixture(scope="module")
def verdicts():
    """{(way, language, trick): verdict} of all forgeries whose language has a runtime here."""
    tried = [case for case in FORGERIES if runtimes.find(case[1])]
    programs = [executable(language, text, check_of(way, language)) for way, language, _, text in tried]
    ended = execute.execute(programs, timeout=20)
    return {case[:3]: verdict for case, verdict in zip(tried, ended, strict=True)}


@pytest.mark.parametrize("case", [case[:3] for case in FORGERIES], ids=lambda case: ", ".join(case))
def test_no_wrong_answer_passes(verdicts, case):
    if case not in verdicts:
        pytest.skip("its runtime is not here")
    assert not verdicts[case].passed


def test_table(verdicts):
    tried, forged = Counter(case[1] for case in verdicts), Counter(case[1] for case, v in verdicts.items() if v.passed)
    print(f"\n{'language':12} {'tried':>6} {'contained':>10} {'forged':>7}")
    for language, count in tried.items():
        print(f"{language:12} {count:6} {count - forged[language]:10} {forged[language]:7}")
    assert not forged


RIGHT = [  # programs that are right, though they look odd
    ("humaneval", "python", "a helper with a built-in name", "    return abs(x) * (1 if x > 0 else -1) * 2\n"
     "def abs(x):\n    return x if x > 0 else -x\n"),
    ("humaneval", "python", "prints and reads", "    print('x', end='')\n    return 2 * x\nimport sys\nsys.stdin.read()\n"),
    ("multipl-e", "javascript", "a polyfill", "  Array.prototype.sum = function () { return this[0]; };\n  return [2 * x].sum();"),
    ("multipl-e", "ruby", "an equality of its own", "  2 * x\nend\nclass P; def ==(o) o.is_a?(P) end; end"),
    ("multipl-e", "lua", "a test_ of its own", "  return {2 * x, {y = true}}\nend\nfunction test_other() error('x') end"),
    ("humaneval-x", "c++", "a macro", "    return TWO * x;\n}\n".replace("TWO", "2") + "#define TWO 2\n"),
    ("humaneval-x", "go", "a helper", "    return double(x)\n}\nfunc double(x int) int { return 2 * x }\n"),
]  # fmt: skip


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: ", ".join(case[:3]))
def test_what_is_right_still_passes(case):
    way, language, _, text = case
    if not runtimes.find(language):
        pytest.skip("its runtime is not here")
    [verdict] = execute.execute([executable(language, text, check_of(way, language))], timeout=20)
    assert verdict.passed, verdict
