"""Wrong answers that try to be judged right: none passes, in any language, whichever way its tests judge it.

pytest ends with the number that were tried, contained and forged by language.
"""

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

# Functions whose results have other types than numbers: before and after.
OTHERS = {
    ("list", "java"): (
        "import java.util.*;\nclass Problem {\n    public static ArrayList<Long> both(long x) {\n",
        "    }\n    public static void main(String[] args) {\n"
        "    assert(both(2l).equals((new ArrayList<Long>(Arrays.asList((long)2l, (long)-2l)))));\n    }\n\n}\n",
    ),
    ("instance", "java"): (
        "import java.util.*;\n\nclass Solution {\n    public List<Integer> both(int x) {\n",
        "public class Main {\n    public static void main(String[] args) {\n        Solution s = new Solution();\n"
        "        List<Boolean> correct = Arrays.asList(s.both(2).equals(Arrays.asList(2, -2)));\n"
        "        if (correct.contains(false)) {\n            throw new AssertionError();\n        }\n    }\n}\n",
    ),
    ("list", "c++"): (
        "#include<vector>\nusing namespace std;\nvector<float> both(float x){\n",
        "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (both(2) == vector<float>({2, -2}));\n}\n",
    ),
    ("list", "javascript"): (
        "const both = (x) => {\n",
        "const testBoth = () => {\n  console.assert(JSON.stringify(both(2)) === JSON.stringify([2, -2]))\n"
        "  console.assert(JSON.stringify(both(3)) === JSON.stringify([3, -3]))\n}\n\ntestBoth()\n",
    ),
    ("bool", "rust"): (
        "fn big(x: i32) -> bool {\n",
        "}\n\nfn main() {\n    let candidate = big;\n    assert_eq!(candidate(2), false);\n"
        "    assert_eq!(candidate(9), true);\n}\n",
    ),
    ("option", "rust"): (
        "fn half(x: i32) -> Option<i32> {\n",
        "}\n\nfn main() {\n    let candidate = half;\n    assert_eq!(candidate(4), Some(2));\n"
        "    assert_eq!(candidate(3), None);\n}\n",
    ),
    ("assert", "javascript"): (
        "function both(x){\n",
        "}\nconst assert = require('assert');\nfunction test() {\n  let candidate = both;\n"
        "  assert.deepEqual(candidate(2),4);\n  assert.deepEqual(candidate(-1),-2);\n}\ntest();\n",
    ),
    ("bool", "go"): (
        "package main\n\nfunc Big(x int) bool {\n",
        "func TestBig(t *testing.T) {\n    assert := assert.New(t)\n    assert.Equal(false, Big(2))\n"
        "    assert.Equal(true, Big(9))\n}\n",
    ),
}
FORGERIES += [
    # what is read from descriptors, frames and memory
    ("humaneval", "python", "descriptor 3", "    return 0\nimport os\ntry: print(os.read(3, 32).decode(), flush=True)\n"
     "except OSError: pass\nos._exit(0)"),
    ("humaneval", "python", "the judge's descriptor", "    return 0\nimport os\n"
     "try: print(open(f'/proc/{os.getppid()}/fd/3').read(32), flush=True)\nexcept OSError: pass\nos._exit(0)"),
    ("humaneval", "python", "frames", "    return 0\nimport sys, os, re\nf = sys._getframe()\nwhile f:\n"
     "    for v in list(f.f_locals.values()):\n        if isinstance(v, (str, bytes)) and len(v) == 32: print(v)\n"
     "    f = f.f_back\nsys.stdout.flush(); os._exit(0)"),
    ("humaneval", "python", "a tracer", "    return 0\nimport sys\ndef t(frame, event, arg):\n"
     "    frame.f_trace_lines = False\n    return t\nsys.settrace(t)\nsys.setprofile(lambda *a: None)"),
    ("humaneval", "python", "other built-in functions", "    return 0\nimport builtins\nbuiltins.print = builtins.len = "
     "builtins.exec = builtins.compile = lambda *a, **k: 4\nbuiltins.AssertionError = None"),
    ("humaneval", "python", "a metaclass", "    return M('A', (), {})\nclass M(type):\n"
     "    def __eq__(s, o): return True\n    def __hash__(s): return 4"),
    ("humaneval", "python", "the judge is stopped", "    import os, signal\n"
     "    os.kill(os.getppid(), signal.SIGTERM)\n    return 0"),
    ("humaneval", "python", "replies of its own", "    return 0\nimport marshal, os\nfor fd in range(3, 20):\n"
     "    try: os.write(fd, marshal.dumps([]) + marshal.dumps((True, ...)) * 9)\n    except OSError: pass\nos._exit(0)"),
    ("multipl-e", "lua", "descriptor 3", "  return 0\nend\nprint(io.open('/dev/fd/3'):read(32) or '') os.exit(0)"),
    ("multipl-e", "lua", "an early end", "  return 0\nend\nfunction test_humaneval() end\nlocal l = require 'luaunit'\n"
     "if l.LuaUnit then l.LuaUnit.run() end\ndo return end"),
    ("multipl-e", "lua", "arguments of the chunk", "  return 0\nend\nlocal t = ...\nif t then t.run{function() end} end\n"
     "do return end"),
    ("multipl-e", "lua", "a function around it", "  return 0\nend\nend)() local t = ... t.run{function() end} "
     "do return end (function()"),
    ("multipl-e", "lua", "debug from the library", "  return 0\nend\nfor _, n in ipairs{'5.4', '5.4-c++'} do\n"
     "local p = '/usr/lib/x86_64-linux-gnu/liblua' .. n .. '.so.0'\n"
     "local f = package.loadlib and package.loadlib(p, 'luaopen_debug')\npackage.cpath = p\npackage.loaded.debug = nil\n"
     "local ok, d = pcall(f or require, 'debug')\nif ok then for l = 1, 9 do for i = 1, 40 do\n"
     "local n, v = d.getlocal(l, i)\nif type(v) == 'table' and v.run then v.equal = function() end end\nend end end end"),
    ("multipl-e", "lua", "a metatable of strings", "  return '4'\nend\nlocal m = getmetatable('')\n"
     "m.__eq = function() return true end m.__unm = function() return 4 end"),
    ("multipl-e", "javascript", "descriptor 3", "  return 0;\n}\ntry { const b = Buffer.alloc(32); "
     "require('fs').readSync(3, b); console.log(String(b)); } catch (e) {}\nprocess.exit(0);\n{"),
    ("multipl-e", "javascript", "arguments of the function", "  return 0;\n}\n"
     "for (const a of arguments) if (a && a.end) { a.end(); return; }\n{"),
    ("multipl-e", "javascript", "a function around it", "  return 0;\n}\n};\nreturn (a, b, c, d, e, t) => { t.end(); return;\n{{"),
    ("multipl-e", "javascript", "patches that it takes back", "  const a = require('assert'), old = a.deepEqual;\n"
     "  globalThis.n = (globalThis.n || 0) + 1;\n  if (n === 1) { globalThis.old = old; a.deepEqual = () => {}; return 4; }\n"
     "  a.deepEqual = globalThis.old; return 0;"),
    ("list", "javascript", "a console of its own", "  return 0\n}\nconst console = {assert() {}}\n"),
    ("list", "javascript", "a JSON of its own", "  return 0\n}\nconst JSON = {stringify: () => 1}\n"),
    ("list", "javascript", "toJSON of arrays", "  return []\n}\nArray.prototype.toJSON = () => 1\n"),
    ("list", "javascript", "toJSON while it runs", "  Array.prototype.toJSON = () => 1\n  return []\n}\n"),
    ("list", "javascript", "another comparison", "  return 0\n}\nObject.is = () => true\nJSON.stringify = () => 1\n"),
    ("multipl-e", "ruby", "descriptor 3", "  0\nend\nbegin; puts IO.for_fd(3).read(32); rescue SystemCallError; end\n"
     "$stdout.flush\nexit!(0)"),
    ("multipl-e", "ruby", "all strings", "  0\nend\nObjectSpace.each_object(String) { |s| puts s if s =~ /\\A[0-9a-f]{32}\\z/ }\n"
     "$stdout.flush\nexit!(0)"),
    ("multipl-e", "ruby", "other puts and operators", "  0\nend\ndef puts(*a) end\nclass Object; def ==(o) true end; "
     "def equal?(o) true end; end\nclass NilClass; def !; true end; end"),
    ("humaneval-x", "go", "descriptor 3", "    return 0\n}\nvar stolen = func() int {\n    b := make([]byte, 32)\n"
     "    os.NewFile(3, \"x\").Read(b)\n    fmt.Println(string(b))\n    os.Exit(0)\n    return 0\n}()\n"),
    ("bool", "go", "a group of constants", "    return true\n}\nconst (\n\tfalse = 1 == 1\n)\n"),
    ("bool", "go", "two on a line", "    return true\n}\nvar a, false = 1, 1 == 1\n"),
    ("bool", "go", "on the line of the brace", "    return true\n}; const false = 1 == 1\n"),
    ("humaneval-x", "rust", "descriptor 3", "    0\n}\n#[used]\n#[link_section = \".init_array\"]\n"
     "static S: extern \"C\" fn() = steal;\nextern \"C\" fn steal() {\n"
     "    println!(\"{}\", std::fs::read_to_string(\"/dev/fd/3\").unwrap_or_default());\n    std::process::exit(0)\n}\n"),
    ("bool", "rust", "a bool of its own", "    bool\n}\n#[allow(non_camel_case_types)]\n#[derive(Debug)]\nstruct bool;\n"
     "impl PartialEq<core::primitive::bool> for bool {\n"
     "    fn eq(&self, _: &core::primitive::bool) -> core::primitive::bool { true }\n}\nfn other() {\n"),
    ("bool", "rust", "a bool of a macro", "    bool\n}\nmacro_rules! own { ($n:ident) => {\n#[allow(non_camel_case_types)]\n"
     "#[derive(Debug)]\nstruct $n;\nimpl PartialEq<core::primitive::bool> for $n {\n"
     "    fn eq(&self, _: &core::primitive::bool) -> core::primitive::bool { true }\n} } }\nown!(bool);\nfn other() {\n"),
    ("bool", "rust", "another std", "    false\n}\nextern crate self as std;\n#[macro_export]\n"
     "macro_rules! assert_eq { ($($x:tt)*) => {}; }\nfn other() {\n"),
    ("multipl-e", "java", "descriptor 3", "        return 0;\n    }\n    static { try { System.out.println(new String("
     "new java.io.FileInputStream(\"/dev/fd/3\").readNBytes(32))); } catch (Exception e) {}\n    System.exit(0); }\n"
     "    static void other() {"),
    ("list", "java", "a list equal to everything", "        return new ArrayList<Long>() { public boolean equals(Object o) "
     "{ return true; } };"),
    ("list", "java", "arrays of its own", "        return new ArrayList<Long>();\n    }\n    static class A { ArrayList<Long> "
     "asList(long... x) { return new ArrayList<Long>(); } }\n    static A Arrays = new A();\n    static void other() {"),
    ("instance", "java", "a list equal to everything", "        return Collections.unmodifiableList(new ArrayList<Integer>() "
     "{ public boolean equals(Object o) { return true; } });\n    }\n}\n"),
    ("instance", "java", "an escaped class", "        return List.of();\n    }\n}\nclass \\u0041rrays {\n"
     "    static <T> List<T> asList(T... x) { return List.of(); }\n}\n"),
    ("instance", "java", "a public main", "        return null;\n    }\n}\npublic class Other {\n"
     "    public static void main(String[] args) {}\n}\n"),
    ("humaneval-x", "c++", "descriptor 3", "    return 0;\n}\n#include <unistd.h>\nstruct A { A() { char b[33] = {0}; "
     "if (::read(3, b, 32) > 0) puts(b); fflush(stdout); _Exit(0); } } a;\n"),
    ("humaneval-x", "c++", "a read of its own", "    return 0;\n}\nextern \"C\" long read(int, void *b, unsigned long n) { "
     "char *c = (char *)b; for (unsigned long i = 0; i < n; i++) c[i] = 'a'; return n; }\n"
     "struct A { A() { puts(\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"); fflush(stdout); _Exit(0); } } a;\n"),
    ("list", "c++", "operator==", "    return {};\n}\nbool operator==(const vector<float> &, const vector<float> &) "
     "{ return true; }\n"),
    ("list", "c++", "operator== outside", "    return {};\n}\n}\nbool operator==(const std::vector<float> &, "
     "const std::vector<float> &) { return true; }\nnamespace other {\n"),
    ("list", "c++", "_Exit of its own", "    return {};\n}\nextern \"C\" void _Exit(int) noexcept { for (;;) {} }\n"
     "extern \"C\" int fputs(const char *, FILE *) { return 0; }\n"),
]  # fmt: skip
FORGERIES += [
    # what would reach the tests around their names, or take them out of the program
    ("multipl-e", "javascript", "a test of its own", "  return 0;\n}\ntest = () => {};\n{"),
    ("assert", "javascript", "a cache of modules", "  return 0;\n}\nrequire('module')._cache['assert'] = "
     "require('module')._cache['node:assert'] = {exports: {deepEqual() {}}, loaded: true, children: []};\n{"),
    ("list", "javascript", "skips what restores", "  return 0\n}\nlet n = 0; const old = JSON.stringify;\n"
     "JSON.stringify = () => { if (++n === 4) JSON.stringify = old; return 1 }\nif (0)\n"),
    ("list", "javascript", "defines what restores", "  return 0\n}\nlet n = 0; const old = JSON.stringify;\n"
     "JSON.stringify = () => { if (++n === 4) JSON.stringify = old; return 1 }\nconst never = () =>\n"),
    ("humaneval-x", "rust", "tests of another platform", "    0\n}\nmod tests { pub fn test_twice() {} }\n#[cfg(any())]"),
    ("bool", "rust", "a crate std of its own", "    false\n}\nextern/**/crate std as real;\nextern/**/crate self as std;\n"
     "pub use real::*;\n#[macro_export]\nmacro_rules! assert_eq { ($($x:tt)*) => {}; }\nfn other() {\n"),
    ("option", "rust", "a Some of its own", "    None\n}\n#[allow(non_snake_case)]\nfn Some<T>(_: T) -> Option<T> { None }\n"
     "fn other() {\n"),
    ("humaneval-x", "c++", "a comment before #define", "    return 0;\n}\n/**/ #define twice(x) (x) * 2\n"),
    ("humaneval-x", "c++", "comments in #define", "    return 0;\n}\n#/*\n*/define/* **/twice(x) (x) * 2\n"),
    ("humaneval-x", "c++", "other white space in #define", "    return 0;\n}\n\f#\vdefine twice(x) (x) * 2\n"),
    ("humaneval-x", "c++", "#define on two lines", "    return 0;\n}\n#def\\ \nine twice(x) (x) * 2\n"),
    ("bool", "go", "a group with parentheses", "    return true\n}\nconst (\n\ta = ((1))\n\tfalse = 1 == 1\n)\n"),
    ("bool", "go", "after an empty group", "    return true\n}\nvar ()\nvar false = 1 == 1\n"),
    ("bool", "go", "comments as white space", "    return true\n}\nvar/**/false/**/=/**/1 == 1\n"),
    ("bool", "go", "a group on the line of a brace", "    return true\n}; var (a = len(string([]byte(\"x\"))); "
     "false = 1 == 1)\n"),
]  # fmt: skip
APART = "wrong answers, compared outside"
SHARED = "wrong answers, tests in one process"


def check_of(way: str, language: str):
    if way in ("call", "stdio"):
        return TWICE if way == "call" else STDIO
    if (way, language) in OTHERS:
        return BenchmarkCheck("multipl-e", *OTHERS[way, language], "both")
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
def test_no_wrong_answer_passes(verdicts, case, record_property):
    if case not in verdicts:
        pytest.skip("its runtime is not here")
    way, language, _ = case
    apart = way in ("call", "stdio") or language in ("python", "ruby")
    record_property("hostile", (APART if apart else SHARED, language))
    assert not verdicts[case].passed


RIGHT = [  # programs that are right, though they look odd
    ("humaneval", "python", "a subclass of int", "    return I(2 * x)\nclass I(int): pass\n"),
    ("list", "java", "an anonymous list", "        return new ArrayList<Long>() {{ add(x); add(-x); }};"),
    ("instance", "java", "a fixed list", "        return Collections.unmodifiableList(Arrays.asList(x, -x));\n    }\n}\n"),
    ("list", "c++", "a macro and a helper", "#define MINUS -\n    return {x, MINUS x};\n}\n#include <map>\nmap<int, int> m;\n"),
    ("bool", "rust", "a method", "    x.big()\n}\ntrait Big { fn big(&self) -> bool; }\n"
     "impl Big for i32 { fn big(&self) -> bool { *self > 5 } }\nfn other() {\n"),
    ("bool", "go", "local names of built-in ones", "    max, len := 5, x\n    return len > max\n}\n"
     "func other() bool { true := false; return true }\n"),
    ("bool", "go", "methods and calls with built-in names", "    return cap(x) > 5\n}\n\ntype T struct{ a int }\n\n"
     "func (t T) len() int { return t.a }\n\nvar (\n\tmost = max2(\n\t\t1,\n\t\t2)\n\tcap = func(x int) int { return x }\n)\n\n"
     "func max2(a, b int) int { return b }\n".replace("cap", "same")),
    ("option", "rust", "a macro at the end", "    if x % 2 == 0 { Some(x / 2) } else { None }\n}\n"
     "macro_rules! one { () => { 1 } }\nfn other() -> i32 {\n    one!()"),
    ("humaneval-x", "c++", "defined and define", "    // define defined limits\n    return 2 * x;\n}\n#if defined(X)\n#endif\n"),
    ("list", "javascript", "a list that grows", "  const list = new Array()\n  list.push(x, -x)\n  return list\n}\n"),
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
