"""Programs of a completion and a benchmark's tests in Go, Rust, Java and C++; see `hardening`."""

from __future__ import annotations

import json
import re

from studykit.errors import UserError
from studykit.evaluation.execution import java as java_source
from studykit.evaluation.execution.hardening import FORGED, at_the_end_of_function, fill

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
    """Gives tests a T of ours, which ends the program, and testify's assert.New, Equal, True and False.

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
    """Makes the tests the main of a class, or puts the assertions in it."""
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
