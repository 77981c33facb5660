"""Programs out of a completion and the check of its row.

A `BenchmarkCheck` brings the text of a benchmark around the completion: HumanEval (arXiv:2107.03374), HumanEval-X
(arXiv:2303.17568) or MultiPL-E (arXiv:2208.08227). Each language's function below makes that a program which writes a
nonce as its last act, after every test ran and passed. What the benchmarks take from packages (Go's testify, luaunit)
is here in the small; imports of other packages are dropped, so that only programs which need them fail. A
`StdioCheck` brings inputs and outputs (xCodeEval, arXiv:2303.03004); the completion is the whole program. A
`FunctionCheck` is the polyglot's.
"""

from __future__ import annotations

import json
import re

from studykit.data.checks import Check, FunctionCheck, StdioCheck
from studykit.errors import UserError
from studykit.evaluation.execution import calls
from studykit.evaluation.execution.execute import Executable
from studykit.evaluation.execution.runtimes import LANGUAGES


def program(language: str, completion: str, check: Check, nonce: str) -> Executable:
    """The program that shows whether `completion` is right. UserError for a language that the check cannot be run in."""
    if isinstance(check, FunctionCheck):
        return Executable(language, calls.script(language, completion, check, nonce), nonce)
    known = LANGUAGES if isinstance(check, StdioCheck) else FORMS
    if language not in known:
        raise UserError(f"{language} has no checks of kind {check.kind!r}; {', '.join(known)} have")
    if isinstance(check, StdioCheck):
        if not check.tests:
            raise UserError("a check of kind 'stdio' has no tests")
        return Executable(
            language,
            java_main(completion) if language == "java" else completion,
            tests=tuple((test.input, test.outputs) for test in check.tests),
            timeout=check.time_limit and check.time_limit * LANGUAGES[language].time_factor,
            memory_mb=check.memory_limit_mb,
        )
    after = check.after + (f"\ncheck({check.entry_point})\n" if check.form == "humaneval" else "")
    return Executable(language, FORMS[language](check.before, completion, after, nonce), nonce)


def python(before: str, completion: str, after: str, nonce: str) -> str:
    return f'{before}{completion}\n{after}\n__import__("sys").stdout.write("\\n{nonce}\\n")\n'


def javascript(before: str, completion: str, after: str, nonce: str) -> str:
    """Node's console.assert only prints."""
    throws = 'console.assert = require("assert").ok;'
    return f'{throws}\n{before}{completion}\n{after}\nglobalThis.process.stdout.write("\\n{nonce}\\n");\n'


def ruby(before: str, completion: str, after: str, nonce: str) -> str:
    """test/unit would start when the program ends, after the nonce."""
    start = 'require "test/unit"\nTest::Unit::AutoRunner.need_auto_run = false\n'
    tests = "exit 1 unless Test::Unit::AutoRunner.run\n"
    return f'{start}{before}{completion}\n{after}\n{tests}STDOUT.write("\\n{nonce}\\n")\n'


def julia(before: str, completion: str, after: str, nonce: str) -> str:
    return f'{before}{completion}\n{after}\nprintln(Base.stdout, "\\n{nonce}")\n'


LUAUNIT = """\
package.preload.luaunit = function()
  local function same(a, b)
    if type(a) ~= "table" or type(b) ~= "table" then return a == b end
    for key, value in pairs(a) do if not same(value, b[key]) then return false end end
    for key in pairs(b) do if a[key] == nil then return false end end
    return true
  end
  local function show(value)
    if type(value) ~= "table" then return tostring(value) end
    local parts = {}
    for _, item in pairs(value) do parts[#parts + 1] = show(item) end
    return "{" .. table.concat(parts, ", ") .. "}"
  end
  local unit = {LuaUnit = {}}
  function unit.assertEquals(got, expected)
    if not same(got, expected) then error("luaunit: expected " .. show(expected) .. ", got " .. show(got), 2) end
  end
  function unit.LuaUnit.run()
    for name, test in pairs(_G) do
      if type(name) == "string" and name:find("^test") and type(test) == "function" then test() end
    end
    return 0
  end
  return unit
end
"""


def lua(before: str, completion: str, after: str, nonce: str) -> str:
    """The tests' last line is os.exit(lu.LuaUnit.run())."""
    after = re.sub(r"os\.exit\((\s*\w+\.LuaUnit\.run\(\)\s*)\)", r"assert(\1 == 0)", after)
    return f'{LUAUNIT}{before}{completion}\n{after}\nio.stdout:write("\\n{nonce}\\n")\n'


GO_PACKAGES = {path.rpartition("/")[2]: path for path in (
    "bufio", "bytes", "container/heap", "container/list", "crypto/md5", "encoding/hex", "errors", "fmt", "math",
    "math/big", "math/bits", "math/rand", "os", "regexp", "sort", "strconv", "strings", "time", "unicode",
    "unicode/utf8",
)}  # fmt: skip
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
@calls	studykitFmt.Print("\\n@nonce\\n")
}
"""


def go(before: str, completion: str, after: str, nonce: str) -> str:
    """Tests get a T of ours, which ends the program, and testify's assert.New, Equal, True and False.

    Go refuses imports that are missing, doubled or not used, and a completion changes what is used.
    """
    completion = re.sub(r"^func main\(", "func candidateMain(", completion, flags=re.M)
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
    main = GO_MAIN.replace("@calls", calls).replace("@nonce", nonce)
    return "package main\n\nimport (\n\t" + "\n\t".join(imports) + "\n)\n" + text + main


def rust(before: str, completion: str, after: str, nonce: str) -> str:
    """Functions marked #[test] in `mod tests`, or a main that tests, become what our main calls."""
    completion = re.sub(r"^(\s*(?:pub )?fn )main\(", r"\1candidate_main(", completion, flags=re.M)
    after = re.sub(r"^(\s*(?:pub )?fn )main\(", r"\1studykit_tests(", after, flags=re.M)
    after = after.replace("#[cfg(test)]", "")
    module = re.search(r"^\s*(?:pub )?mod (\w+)\s*\{", after, flags=re.M)
    marked = r"#\[test\](?:\s|//.*)*(?:pub )?fn (\w+)"
    calls = [f"{module[1]}::{name}" if module else name for name in re.findall(marked, after)] or ["studykit_tests"]
    after = re.sub(marked, r"pub fn \1", after)
    text = f"{before}{completion}\n{after}\n"
    ours = {"std", "core", "alloc", "self", "super", "crate", *re.findall(r"\b(?:mod|enum|struct|trait) (\w+)", text)}
    text = re.sub(r"^\s*use (?:::)?(\w+)[^;]*;", lambda use: use[0] if use[1] in ours else "", text, flags=re.M)
    body = "".join(f"    {call}();\n" for call in calls)
    return f'{text}\nfn main() {{\n{body}    std::println!("\\n{nonce}");\n}}\n'


def java(before: str, completion: str, after: str, nonce: str) -> str:
    return java_main(f"{before}{completion}\n{after}", f'System.out.println("\\n{nonce}");')


def java_main(text: str, last: str = "") -> str:
    """One file whose class StudykitMain runs the class with a main, the last such, and then `last`."""
    text = re.sub(r"^import (?:static )?(?!static |javax?\.)[\w.*]+;|^package .*;", "", text, flags=re.M)
    text = re.sub(r"^public\s+((?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|interface|enum|record)\b)", r"\1",
                  text, flags=re.M)  # fmt: skip
    mains = [found.start() for found in re.finditer(r"\bstatic\s+(?:final\s+)?void\s+main\s*\(", text)]
    classes = re.findall(r"^(?:(?:final|abstract|strictfp)\s+)*(?:class|enum|record|interface)\s+(\w+)",
                         text[: mains[-1]] if mains else "", flags=re.M)  # fmt: skip
    run = f"{classes[-1] if classes else 'Main'}.main(args); {last}"
    return f"{text}\nclass StudykitMain {{ public static void main(String[] args) throws Throwable {{ {run} }} }}\n"


def cpp(before: str, completion: str, after: str, nonce: str) -> str:
    """`auto`, since a function that is not main must not end without returning its int."""
    includes = "".join(f"#include <{name}>\n" for name in ("algorithm", "climits", "cmath", "cstdio", "cstdlib",
                                                           "cstring", "iostream", "string", "vector"))  # fmt: skip
    completion = re.sub(r"^int\s+main\s*\(", "int candidate_main(", completion, flags=re.M)
    after = re.sub(r"^int\s+main\s*\(\s*(?:void)?\s*\)", "auto studykit_tests()", after, flags=re.M)
    main = f'int main() {{ studykit_tests(); std::fflush(nullptr); std::puts("\\n{nonce}"); }}\n'
    return f"{includes}{before}{completion}\n{after}\n{main}"


FORMS = {"python": python, "javascript": javascript, "ruby": ruby, "julia": julia, "lua": lua, "go": go, "rust": rust,
         "java": java, "c++": cpp}  # fmt: skip
