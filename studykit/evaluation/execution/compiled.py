"""Programs of a completion and a benchmark's tests in Go, Rust, Java and C++; see `hardening`."""

from __future__ import annotations

import json
import re

from studykit.errors import UserError
from studykit.evaluation.execution import java as java_source
from studykit.evaluation.execution.hardening import FORGED, at_the_end_of_function, fill, hidden_name

GO_PACKAGES = {
    path.rpartition("/")[2]: path
    for path in """bufio bytes container/heap container/list crypto/md5 encoding/hex errors fmt math math/big math/bits
    math/rand os regexp sort strconv strings time unicode unicode/utf8""".split()
}
GO_NAMES = frozenset(
    """true false nil iota any append cap copy delete len make max min new panic print println recover bool byte error
    float32 float64 int int8 int16 int32 int64 rune string uint uint8 uint16 uint32 uint64""".split()
)
GO_TOKEN = """
var @name = func() string {
	token := make([]byte, 32)
	studykitOS.NewFile(3, "token").Read(token)
	return string(token)
}()
"""
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
@calls	studykitFmt.Print("\\n" + @name + "\\n")
}
"""


def go_declares(text: str) -> set[str]:
    """Returns the names that a file of Go, without its comments and strings, declares outside of all functions."""
    inside: list[str] = []  # what is open: a group of declarations, "(" or "{"
    top, groups = [""], [""]
    for part in re.split(r"([(){}])", text):
        if part in ("(", "{"):
            group = part == "(" and not inside and re.search(r"\b(?:var|const|type)\s*\Z", top[-1])
            (groups if inside else top).append("#")
            groups.append("\n" if group else "")
            inside.append("group" if group else part)
        elif part in (")", "}"):
            closed = inside.pop() if inside else ""
            top.append(";" if closed == "{" and not inside else "")
        elif not inside:
            top.append(part)
        elif inside == ["group"]:
            groups.append(part)
    single = re.findall(r"\b(?:func|var|const|type)\s+(\w+(?:\s*,\s*\w+)*)", "".join(top))
    grouped = re.findall(r"[;\n]\s*(\w+(?:\s*,\s*\w+)*)", "".join(groups))
    return {name.strip() for names in single + grouped for name in names.split(",")}


def go(before: str, completion: str, after: str) -> str:
    """Gives tests a T of ours, which ends the program, and testify's assert.New, Equal, True and False.

    Go refuses imports that are missing, doubled or not used, and a completion changes what is used.
    """
    name = hidden_name(before, completion, after)
    completion = re.sub(r"^func main\(", "func candidateMain(", completion, flags=re.M)
    after = re.sub(r"\btesting\.T\b", "studykitT", after)
    text = re.sub(r"^package\s+\w+[ \t]*$", "", f"{before}{completion}\n{after}\n", flags=re.M)
    pattern = r'^import\s+(?:\([^)]*\)|(?:[\w.]+\s+)?"[^"\n]*")[ \t]*$'
    specs = re.findall(r'(?:([\w.]+)[ \t]+)?"([^"\n]+)"', "\n".join(re.findall(pattern, text, flags=re.M)))
    text = re.sub(pattern, "", text, flags=re.M)
    bare = re.sub(r"""//.*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])+'|`[^`]*`""", " ", text)
    if taken := GO_NAMES & go_declares(bare):
        text += (
            f"\nstudykit: the completion declares {min(taken)}, a name of the language, and would so change the tests\n"
        )
    names = GO_PACKAGES | {name or path.rpartition("/")[2]: path for name, path in specs}
    names.pop("assert", None)
    imports = [f"{name} {json.dumps(names[name])}" for name in names if re.search(rf"\b{name}\.[A-Z]", bare)]
    imports += ['studykitFmt "fmt"', 'studykitOS "os"', 'studykitReflect "reflect"']
    tests = re.findall(r"^func (Test\w*)\(\w+ \*studykitT\)", after, flags=re.M)
    if not tests:
        raise UserError(f"a check for Go needs a function `TestX(t *testing.T)`; this one begins with {after[:60]!r}")
    calls = "".join(f"\t{name}(&studykitT{{}})\n" for name in tests)
    first = "package main\n\nimport (\n\t" + "\n\t".join(imports) + "\n)\n" + fill(GO_TOKEN, name=name)
    return first + text + fill(GO_MAIN, calls=calls, name=name)


# `::core` and `::std` become hidden names of these crates, since a completion may call its own crate std. The system
# call is made directly, since a completion may define a function `read` for the linker. Its array is filled before any
# initialiser of the completion runs.
RUST_MAIN = """
extern crate core as @name_core;
extern crate std as @name_std;
static mut @name_TOKEN: [u8; 32] = [0; 32];
#[cfg_attr(target_os = "linux", link_section = ".preinit_array")]
#[used]
static @name_FIRST: extern "C" fn() = @name_read;
extern "C" fn @name_read() {
    let token = unsafe { ::core::ptr::addr_of_mut!(@name_TOKEN) };
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    unsafe {
        ::core::arch::asm!("syscall", inlateout("rax") 0usize => _, in("rdi") 3usize, in("rsi") token,
            in("rdx") 32usize, out("rcx") _, out("r11") _);
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    unsafe {
        ::core::arch::asm!("svc 0", in("x8") 63usize, inlateout("x0") 3usize => _, in("x1") token, in("x2") 32usize);
    }
}
#[allow(dead_code)]
fn @name_types(
    a: (bool, char, u8, u16, u32, u64, u128, usize), b: (i8, i16, i32, i64, i128, isize, f32, f64), c: &str,
    d: (String, Vec<u8>, Option<u8>, Result<u8, u8>, Box<u8>), e: ::std::collections::HashMap<u8, u8>,
) -> (
    (::core::primitive::bool, ::core::primitive::char, ::core::primitive::u8, ::core::primitive::u16,
        ::core::primitive::u32, ::core::primitive::u64, ::core::primitive::u128, ::core::primitive::usize),
    (::core::primitive::i8, ::core::primitive::i16, ::core::primitive::i32, ::core::primitive::i64,
        ::core::primitive::i128, ::core::primitive::isize, ::core::primitive::f32, ::core::primitive::f64),
    &::core::primitive::str,
    (::std::string::String, ::std::vec::Vec<::core::primitive::u8>, ::std::option::Option<::core::primitive::u8>,
        ::std::result::Result<::core::primitive::u8, ::core::primitive::u8>, ::std::boxed::Box<::core::primitive::u8>),
    ::std::collections::HashMap<::core::primitive::u8, ::core::primitive::u8>,
) { (a, b, c, d, e) }
fn main() {
@calls    let token = unsafe { *::core::ptr::addr_of!(@name_TOKEN) };
    ::std::println!("\\n{}", ::std::string::String::from_utf8_lossy(&token));
}
"""


def rust(before: str, completion: str, after: str) -> str:
    """Makes functions marked #[test] in `mod tests`, or a main that tests, what our main calls.

    Macros of the tests, and the variants of Option and Result, are those of the standard library, whatever a completion
    defines. A completion that declares a type with the name of a built-in one does not compile: the signature of a
    function at the end says which type each name must be.
    """
    name = hidden_name(before, completion, after)
    completion = re.sub(r"^([ \t]*(?:pub )?fn )main\(", r"\1candidate_main(", completion, flags=re.M)
    after = re.sub(r"^([ \t]*(?:pub )?fn )main\(", rf"\1{name}_tests(", after, flags=re.M)
    after = after.replace("#[cfg(test)]", "")
    after = re.sub(r"(?<![\w:])(assert|assert_eq|assert_ne|panic|vec|format|matches)!", rf"::{name}_std::\1!", after)
    for kind, variant in ("option::Option", "Some|None"), ("result::Result", "Ok|Err"):
        after = re.sub(rf"(?<![\w:])({variant})\b", rf"::{name}_std::{kind}::\1", after)
    module = re.search(r"^[ \t]*(?:pub )?mod (\w+)\s*\{", after, flags=re.M)
    marked = r"#\[test\]\s*(?://[^\n]*\n\s*)*(?:pub )?fn (\w+)"
    calls = [f"{module[1]}::{test}" if module else test for test in re.findall(marked, after)] or [f"{name}_tests"]
    after = re.sub(marked, r"pub fn \1", after)
    closing, after = at_the_end_of_function(after)
    text = f"{before}{completion}\n{closing}struct {name};\n{after}\n"  # takes an attribute that ends the completion
    ours = {"std", "core", "alloc", "self", "super", "crate", *re.findall(r"\b(?:mod|enum|struct|trait) (\w+)", text)}
    text = re.sub(r"^[ \t]*use (?:::)?(\w+)[^;]*;", lambda use: use[0] if use[1] in ours else "", text, flags=re.M)
    main = fill(RUST_MAIN, calls="".join(f"    {call}();\n" for call in calls))
    return text + re.sub("::(core|std)::", r"::@name_\1::", main).replace("@name", name)


JAVA_NAMES = (
    "java|ArrayList|Arrays|AssertionError|Boolean|Character|Collections|Double|Float|HashMap|HashSet|Integer|List|Long|"
    "Map|Math|Object|Objects|Optional|Set|String|System"
)
JAVA_TOKEN = 'byte[] token = new byte[32]; new java.io.FileInputStream("/dev/fd/3").read(token); '
JAVA_LAST = (
    "java.io.PrintStream out = java.lang.System.out; " + JAVA_TOKEN + "{run} "
    "out.println(); out.write(token); out.println(); out.flush();"
)
JAVA_METHOD = r"^[ \t]*public ((?:static )?)(?!class )(?:final )?([\w<>\[\], .?]+?)\s+(\w+)\s*\(([^)]*)\)([^{};]*)\{"
JAVA_PLAIN = """
class @name @of{
@methods
    @SuppressWarnings("unchecked")
    static <T> T plain(Object value) {
        if (value instanceof java.util.List) {
            java.util.List<Object> copy = new java.util.ArrayList<>();
            for (Object item : (java.util.List<?>) value) copy.add(plain(item));
            return (T) copy;
        }
        if (value instanceof java.util.Map) {
            java.util.Map<Object, Object> copy = new java.util.HashMap<>();
            for (java.util.Map.Entry<?, ?> item : ((java.util.Map<?, ?>) value).entrySet())
                copy.put(plain(item.getKey()), plain(item.getValue()));
            return (T) copy;
        }
        if (value instanceof java.util.Set) {
            java.util.Set<Object> copy = new java.util.HashSet<>();
            for (Object item : (java.util.Set<?>) value) copy.add(plain(item));
            return (T) copy;
        }
        if (value instanceof java.util.Optional) return (T) ((java.util.Optional<?>) value).map(item -> plain(item));
        if (value instanceof Object[])
            for (int i = 0; i < ((Object[]) value).length; i++) ((Object[]) value)[i] = plain(((Object[]) value)[i]);
        else if (value != null && value.getClass().getClassLoader() != null) throw new Error(@forged);
        return (T) value;
    }
"""


def java(before: str, completion: str, after: str) -> str:
    """Makes the tests the main of a class, or puts the assertions in it.

    They call a class of ours, which hands on to the completion's and returns what came back as objects of the
    language's own classes: an object that equals everything is copied, or refused.
    """
    name = "S" + hidden_name(before, completion, after)
    text = re.sub(r"\\u+([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), completion)
    text = java_source.QUIET.sub(" ", text)
    if re.search(rf"\b(?:class|interface|enum|record)\s+(?:{JAVA_NAMES})\b", text):
        completion += "\nstudykit: the completion declares a class of the language, and would so change the tests\n"
    of = re.search(r"^(?:public )?class (\w+)", before, flags=re.M)
    methods = re.findall(JAVA_METHOD, before, flags=re.M)
    if of is None or not methods:
        return java_source.program(f"{before}{completion}\n{after}", JAVA_LAST)
    static = bool(methods[-1][0])
    wrappers = []
    for _, kind, method, parameters, throws in methods:
        bare = parameters
        while (inner := re.sub(r"<[^<>]*>", "", bare)) != bare:
            bare = inner
        names = ", ".join(re.findall(r"(\w+)\s*(?:\[\]\s*)*(?:,|$)", bare))
        call = f"{of[1] if static else 'inner'}.{method}({names})"
        call = call + ";" if kind == "void" else f"return {name}.<{boxed(kind)}>plain({call});"
        wrappers.append(f"    public {'static ' * static}{kind} {method}({parameters}){throws}{{ {call} }}")
    wrappers += [] if static else [f"    private final {of[1]} inner = new {of[1]}();"]
    ours = fill(
        JAVA_PLAIN,
        name=name,
        of="" if static else f"extends {of[1]} ",
        methods="\n".join(wrappers),
        forged=json.dumps(FORGED),
    )
    if not static:
        tests = re.sub(rf"\b{of[1]}\b", name, after)
        return java_source.program(f"{before}{completion}\n{ours}}}\n{tests}", JAVA_LAST)
    closing, tests = at_the_end_of_function(after)
    tests = re.sub(r"^(\s*)assert\s*\(", rf"\1{name}.that(", tests, flags=re.M)
    that = 'static void that(boolean right) { if (!right) throw new AssertionError("a test failed"); }\n'
    return java_source.program(f"{before}{completion}\n{closing}}}\n{ours}    {that}{tests}", JAVA_LAST)


def boxed(kind: str) -> str:
    """Returns the class of a type of Java, also of a primitive one."""
    return {"int": "Integer", "char": "Character"}.get(kind) or (
        kind.capitalize() if kind in ("boolean", "byte", "double", "float", "long", "short") else kind
    )


CPP_INCLUDES = "algorithm climits cmath cstdio cstdlib cstring iostream string vector".split()
CPP_FIRST = """
static char @name_token[34] = "\\n";
static bool @name_failed = false;
static void @name_read() {
#if defined(__linux__) && defined(__x86_64__)
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(0), "D"(3), "S"(@name_token + 1), "d"(32) : "rcx", "r11", "memory");
#elif defined(__linux__) && defined(__aarch64__)
  register long number __asm__("x8") = 63, file __asm__("x0") = 3, length __asm__("x2") = 32;
  register char *into __asm__("x1") = @name_token + 1;
  __asm__ volatile("svc 0" : "+r"(file) : "r"(number), "r"(into), "r"(length) : "memory");
#endif
}
#ifdef __linux__
__attribute__((section(".preinit_array"), used)) static void (*@name_first)() = @name_read;
#endif
static void @name_check(bool right) {
  if (right) return;
  @name_failed = true;
  std::fputs("Assertion of a test failed\\n", stderr);
  std::_Exit(1);
}
namespace @name {
"""
CPP_LAST = """
int main() {
  @name_tests();
  std::fflush(nullptr);
  if (!@name_failed) std::puts(@name_token);
}
"""


def cpp(before: str, completion: str, after: str) -> str:
    """Puts the completion in a namespace of its own, of which the tests see the functions that `before` begins.

    So no operator of the completion reaches them. Its macros end with it, and `assert` is a function of ours.
    """
    name = hidden_name(before, completion, after)
    completion = re.sub(r"^int\s+main\s*\(", "int candidate_main(", completion, flags=re.M)
    closing, tests = at_the_end_of_function(after)
    include = r"^[ \t]*#[ \t]*include[^\n]*"
    headers = [f"#include <{header}>" for header in CPP_INCLUDES]
    headers += re.findall(r"^[ \t]*#[ \t]*include[ \t]*<\w[\w/.+-]*>", before + completion + tests, flags=re.M)
    before, completion, tests = (re.sub(include, "", text, flags=re.M) for text in (before, completion, tests))
    tests = re.sub(r"^[ \t]*int\s+main\s*\(\s*(?:void)?\s*\)", f"static auto {name}_tests()", tests, flags=re.M)
    tests = re.sub(r"\bassert\s*(?=\()", f"{name}_check", tests)
    declared = re.findall(r"^(?!else\b|return\b)[\w:<>,&*\t ]+?[\s&*](\w+)\s*\([^;{}]*\)\s*\{", before, flags=re.M)
    declared += re.findall(r"^(?:struct|class|union|enum)\s+(\w+)", before, flags=re.M)
    whole = re.sub(r"\\[ \t\f\v]*\r?\n", "", completion)  # lines that a backslash continues
    macros = re.findall(r"define(?:\s|/\*[^*]*\*+(?:[^*/][^*]*\*+)*/)*(?!defined\b)(\w+)", whole)  # wherever it stands
    ends = "".join(f"#undef {macro}\n" for macro in dict.fromkeys(macros))
    uses = "".join(f"using {name}::{word};\n" for word in dict.fromkeys([*declared, f"{name}_end"]))
    uses += "".join(re.findall(r"^using namespace [\w:]+;\n", before, flags=re.M))
    text = f"{before}{completion}\n{closing}extern int {name}_end;\n}}\n{ends}{uses}{tests}\n"
    return "\n".join(headers) + CPP_FIRST.replace("@name", name) + text + CPP_LAST.replace("@name", name)
