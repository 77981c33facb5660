"""The conditions under which programs are judged: ExecEval's for xCodeEval, processor time, and linear reading."""

import os
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from studykit.data.checks import BenchmarkCheck, StdioCheck, StdioTest
from studykit.data.rows import Row
from studykit.evaluation import scoring
from studykit.evaluation.execution import execute, java, runtimes
from studykit.evaluation.execution.executable import Executable, Outputs
from studykit.evaluation.execution.programs import executable, missing_package

THREE = StdioCheck((StdioTest("1 2\n", ("3",)),))
C_MAIN = 'int main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'
JAVA_MAIN = (
    "public static void main(String[] a) { java.util.Scanner s = new java.util.Scanner(System.in);"
    " System.out.println(s.nextInt() + s.nextInt()); }"
)
EXECEVAL = [
    ("c", "ONLINE_JUDGE", '#include <stdio.h>\n#ifndef ONLINE_JUDGE\n#include "debug.h"\n#endif\n' + C_MAIN),
    ("c++", "freopen", '#include <cstdio>\n#ifndef ONLINE_JUDGE\n#define X freopen("in.txt", "r", stdin)\n#else\n#define X 0\n'
     "#endif\nint main() { X; int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\", a + b); }"),
    ("c", "INT_MAX", "#include <stdio.h>\nint most = INT_MAX;\n" + C_MAIN),
    ("c++", "INT_MAX and sqrt", "#include <stdio.h>\nint most = INT_MAX; double root = sqrt(2.0);\n" + C_MAIN),
    ("rust", "overflow", "use std::io::Read;\nfn main() { let mut s = String::new(); std::io::stdin().read_to_string(&mut s)"
     ".unwrap(); let mut h: u32 = 5; for _ in 0..40 { h = h * 33; } if h == 1 { return; }\n"
     'println!("{}", s.split_whitespace().map(|x| x.parse::<i32>().unwrap()).sum::<i32>()); }'),
    ("java", "ONLINE_JUDGE", "class A { static { if (System.getProperty(\"ONLINE_JUDGE\") == null) throw new Error(); }\n"
     + JAVA_MAIN + " }"),
    ("java", "assert", "class A { static { assert 1 == 2; } " + JAVA_MAIN + " }"),
    ("java", "an annotation", '@SuppressWarnings({"unchecked", "rawtypes"}) public class A { ' + JAVA_MAIN + " }"),
    ("java", "strictfp", "strictfp public class A { " + JAVA_MAIN + " }"),
    ("java", "two mains", "public class A { " + JAVA_MAIN + " }\nclass Helper { public static void main(String[] a) "
     '{ System.out.println("helper"); } }'),
]  # fmt: skip


@pytest.mark.parametrize("language", ["c", "c++", "rust", "java"])
def test_xcodeeval_is_judged_as_execeval_judges(language):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    cases = {name: executable(language, text, THREE) for of, name, text in EXECEVAL if of == language}
    verdicts = execute.execute([*cases.values()], timeout=20)
    assert {name: verdict.status for name, verdict in zip(cases, verdicts, strict=True)} == dict.fromkeys(
        cases, "passed"
    )


@pytest.mark.parametrize("text, name", [
    ("class A {}\nclass B { static void main(String[] a) {} }", "B"),
    ('class A { String s = "class B { static void main("; /* } */ char c = \'}\'; }\nfinal class C { '
     "static final void main(String... a) {} } class D {}", "C"),
    ("record R(int x) {}\nenum E { X; public static void main(String[] a) {} }", "E"),
    ("class A { class Inner { } public static void main(String[] a) {} /* never ends", "Main"),
    ("", "Main"),
])  # fmt: skip
def test_the_class_with_the_main_is_found_by_its_structure(text, name):
    assert f"{name}.main(args)" in java.program(text)


@pytest.mark.parametrize(
    "hostile", ['"' * 50_000, "/*" * 50_000, "{(" * 50_000, "class A " * 20_000, "#[test]" + "// " * 5000]
)
def test_texts_are_scanned_in_linear_time(hostile):
    began = time.perf_counter()
    java.program(hostile)
    for language in ("rust", "c++", "javascript", "lua", "java"):
        executable(language, hostile, BenchmarkCheck("multipl-e", "", hostile))
    assert time.perf_counter() - began < 5


def test_what_needs_javatuples_is_left_out_and_counted():
    before = "import org.javatuples.*;\nclass Problem {\n    public static %s f(long x) {\n"
    after = "    }\n    public static void main(String[] args) {\n    assert(f(2l) != null);\n    }\n}\n"
    checks = [BenchmarkCheck("multipl-e", before % kind, after) for kind in ("Pair<Long, Long>", "Long")]
    assert [missing_package("java", check) for check in checks] == ["javatuples", None]
    rows = [Row(str(at), "java", "p", "return 2l;", check=check) for at, check in enumerate(checks)]
    predictions = [{"id": row.id, "text": "        return 2l;\n", "finished": True} for row in rows]
    if not runtimes.find("java"):
        pytest.skip("no java here")
    found = scoring.score_predictions(rows, predictions, timeout=20)
    assert found.counts.checked == 1 and found.counts.left_out == {"javatuples": 1}
    score = found.scores["pass_at_1"]
    assert (score.per_example, score.rows) == ([100], [1])


@pytest.mark.parametrize("character", ["\\0", "\\xff"])
def test_reading_output_takes_linear_time(character):
    source = f"import sys\nsys.stdout.buffer.write(b'{character}' * (8_300_000))"
    began = time.monotonic()
    [verdict] = execute.execute([Executable("python", source, Outputs((("", ("x",)),) * 3))], timeout=20)
    assert verdict.status == "failed" and time.monotonic() - began < 8


def test_a_busy_machine_makes_no_timeout():
    """Programs of half a second of processor time pass with a limit of 0.8 seconds, six of them at a time per core."""
    source = "import time\nwhile time.process_time() < 0.5: pass\nprint('done')"
    programs = [Executable("python", source, Outputs((("", ("done",)),)))] * (6 * len(os.sched_getaffinity(0)))
    verdicts = execute.execute(programs, timeout=0.8, workers=len(programs))
    assert [verdict.status for verdict in verdicts] == ["passed"] * len(programs)
    assert max(verdict.seconds for verdict in verdicts) > 0.8, "the machine was not busy enough to tell"


def test_a_program_that_sleeps_ends_at_its_limit():
    began = time.monotonic()
    sleeper = Executable("python", "import time\ntime.sleep(60)", Outputs((("", ("",)),)))
    threads = Executable("python", "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, "
                         "args=(60,)).start()", Outputs((("", ("",)),)))  # fmt: skip
    assert [v.status for v in execute.execute([sleeper, threads], timeout=0.5)] == ["timeout"] * 2
    assert time.monotonic() - began < 10


BOMBS = [
    ("c++", "template<int n> struct A { A<n + 1> a; typename A<n + 2>::x b; };\nint main() { A<0> a; }"),
    ("c", '#include "program.c"\nint main() { return 0; }'),
    ("c", "#define A(x) B(x, x)\n" + "".join(f"#define {c}(x, y) {d}(x x, y y)\n" for c, d in pairwise("BCDEFGHIJKLMNOPQRSTUVWX"))
     + "#define X(x, y) x y x y\nint f() { return 0; }\nint main() { return A(A(+1)); }"),
]  # fmt: skip


@pytest.mark.parametrize("language, bomb", BOMBS, ids=["template", "include", "macro"])
def test_a_bomb_for_the_compiler_ends_at_its_limits(language, bomb, monkeypatch):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    about = runtimes.LANGUAGES[language]
    monkeypatch.setitem(runtimes.LANGUAGES, language, replace(about, build_seconds=2.0))
    began = time.monotonic()
    [verdict] = execute.execute([Executable(language, bomb, Outputs((("", ("",)),)))], timeout=5)
    assert verdict.status in ("error", "timeout", "memory") and time.monotonic() - began < 15
