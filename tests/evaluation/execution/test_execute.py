"""Execution: every ending has its verdict, and at every isolation level that works here programs stay inside."""

import os
import shutil
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from studykit.errors import UserError
from studykit.evaluation.execution import execute, mounts, runtimes, sandbox
from studykit.evaluation.execution.executable import Executable, Outputs, ProgramResult, Token
from studykit.evaluation.execution.runner import Runner, RunnerDied, Sandbox, is_root

GOOD = "print('NONCE')"
ENDINGS = [  # (status, source): cheap ones, run in one batch at every level
    ("passed", GOOD),
    ("failed", "print('NONCE')\nprint('more')"),
    ("failed", "import sys\nsys.exit(0)\nprint('NONCE')"),
    ("failed", "exit(0)"),
    ("failed", "import os\nos._exit(0)"),
    ("error", "print('NONCE')\nraise ValueError('boom')"),
    ("error", "def f(:"),
    ("error", "import sys\nprint('NONCE')\nsys.exit(3)"),
    ("error", "import os\nos.abort()"),
    ("error", "import numpy"),  # the standard library only
    ("timeout", "while True: pass"),
    ("timeout", "import time\nprint('NONCE', flush=True)\ntime.sleep(60)"),
    ("memory", "x = []\nwhile True: x.append(bytes(1 << 20))"),
    ("memory", "x = bytearray(8 << 30)"),
    ("output", "while True: print('y' * 1000)"),
    ("output", "open('file', 'wb').write(bytes(64 << 20))"),
    ("passed", "import threading\nthreading.Thread(target=lambda: print('NONCE')).start()"),
    ("passed", "import atexit\natexit.register(print, 'NONCE')"),
    ("passed", "if __name__ == '__main__':\n    print('NONCE')"),
    ("passed", "import random, sys\nassert sys.stdin.read() == ''\nprint('NONCE')"),
]
LUA = [
    ("passed", "io.write('NON') print('CE')"),
    ("failed", "print(1 // 1)"),
    ("failed", "os.exit(0)"),
    ("error", "error('boom')"),
    ("error", "end end"),
    ("timeout", "while true do end"),
    ("memory", "local t = {} while true do t[#t + 1] = string.rep(tostring(#t), 100000) end"),
    ("output", "while true do print(string.rep('y', 1000)) end"),
    ("failed", "print(python, package.loaded.python, os.getenv('HOME') ~= nil)"),
]
JAVA = "class StudykitMain { public static void main(String[] args) throws Exception { %s } }"
RUST = "fn main() { %s }"
CPP = "#include <iostream>\n#include <vector>\nint main() { %s }"
OTHERS = {
    "javascript": [
        ("passed", "console.log('NONCE')"), ("error", "null.x"), ("timeout", "while (true) {}"),
        ("memory", "const x = []; while (true) x.push(new Array(1e6).fill(1.5))"),
    ],
    "ruby": [("passed", "puts 'NONCE'"), ("error", "raise 'boom'"), ("memory", "x = 'a' * (8 << 30)")],
    "go": [
        ("passed", 'package main\nimport "fmt"\nfunc main() { fmt.Println("NONCE") }'),
        ("error", "package main\nfunc main() { x }"),
        ("memory", "package main\nvar x [][]byte\nfunc main() { for { x = append(x, make([]byte, 1<<24)) } }"),
    ],
    "julia": [("passed", 'println("NONCE")'), ("error", "error()")],
    "rust": [
        ("passed", RUST % 'println!("NONCE");'),
        ("failed", RUST % "std::process::exit(0);"),
        ("error", RUST % "x"),
        ("error", RUST % "let v: Vec<i32> = vec![]; let i = v.len(); println!(\"{}\", v[i]);"),
        ("timeout", RUST % "loop {}"),
        ("memory", RUST % "let mut v = vec![]; loop { v.push(vec![1u8; 1 << 24]); }"),
    ],
    "java": [
        ("passed", JAVA % 'System.out.println("NONCE");'),
        ("failed", JAVA % "System.exit(0);"),
        ("error", JAVA % "x"),
        ("error", JAVA % 'throw new Exception("boom");'),
        ("timeout", JAVA % "while (true) {}"),
        ("memory", JAVA % "var x = new java.util.ArrayList<byte[]>(); while (true) x.add(new byte[1 << 24]);"),
    ],
    "c++": [
        ("passed", CPP % 'std::cout << "NONCE";'),
        ("error", CPP % "x"),
        ("error", CPP % "volatile int *p = 0; return *p;"),
        ("timeout", CPP % "for (volatile int i = 0;; ) i = 1;"),
        ("memory", CPP % "std::vector<std::vector<char>> v; while (true) v.emplace_back(1 << 24, 1);"),
    ],
    "c": [
        ("passed", '#include <stdio.h>\nint main() { puts("NONCE"); }'),
        ("error", "int main() { return 3; }"),
    ],
}  # fmt: skip
ECHO = {  # reads two numbers, writes their sum
    "python": "print(sum(map(int, input().split())))",
    "lua": "local a, b = io.read('n', 'n') print(a + b)",
    "ruby": "puts gets.split.sum(&:to_i)",
    "javascript": "console.log(require('fs').readFileSync(0, 'utf8').split(' ').reduce((a, b) => +a + +b))",
    "go": 'package main\nimport "fmt"\nfunc main() { var a, b int; fmt.Scan(&a, &b); fmt.Println(a + b) }',
    "julia": "println(sum(parse.(Int, split(readline()))))",
    "rust": "fn main() { let mut s = String::new(); std::io::stdin().read_line(&mut s).unwrap(); "
    'println!("{}", s.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum::<i64>()); }',
    "java": JAVA % "var in = new java.util.Scanner(System.in); System.out.println(in.nextInt() + in.nextInt());",
    "c++": CPP % "int a, b; std::cin >> a >> b; std::cout << a + b;",
    "c": '#include <stdio.h>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }',
}
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "MARK"])
    os._exit(0)
time.sleep(0.3)
print("NONCE")
"""
SECONDS = 10.0


@pytest.fixture(params=sandbox.LEVELS)
def level(request, monkeypatch):
    """Each isolation level that works on this machine, as the only one.

    Without isolation a program of root's runs as nobody, who cannot read a Python below /root; the system's can be.
    """
    chosen = Sandbox(request.param, is_root())
    python, system = runtimes.find("python"), shutil.which("python3", path="/usr/bin")
    if chosen.level == "rlimits" and is_root() and system and sandbox.closed_folder():
        assert "nobody, who cannot enter" in sandbox.probe(chosen)
        found, other = runtimes.find, replace(python, path=os.path.realpath(system))
        monkeypatch.setattr(runtimes, "find", lambda language: other if language == "python" else found(language))
        monkeypatch.setattr(sandbox, "probe", sandbox.probe.__wrapped__)
    if reason := sandbox.probe(chosen):
        pytest.skip(f"{request.param} does not work here: {reason}")
    monkeypatch.setattr(sandbox, "probe", lambda box: "" if box == chosen else "not asked for")
    return chosen


def printing(language: str, source: str) -> Executable:
    """A program that is right if NONCE is all that it prints."""
    return Executable(language, source, Outputs((("", ("NONCE",)),)))


@pytest.fixture
def open_folder():
    """A directory that any user may write to: what stops a program there is the sandbox, not permissions."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def run(*sources: str, language: str = "python", timeout: float = SECONDS, **options) -> list[ProgramResult]:
    return execute.execute([printing(language, s) for s in sources], timeout=timeout, allow_unsandboxed=True, **options)


def statuses(cases: list[tuple[str, str]], language: str = "python") -> list[str]:
    """Short timeouts for the programs that are meant to time out only:

    a busy machine must not turn others into timeouts.
    """
    slow = [case for case in cases if case[0] == "timeout"]
    fast = [case for case in cases if case[0] != "timeout"]
    found = dict(zip(slow, run(*(s for _, s in slow), language=language, timeout=0.5), strict=True))
    found |= dict(zip(fast, run(*(s for _, s in fast), language=language, memory_mb=256), strict=True))
    return [found[case].status for case in cases]


def test_every_ending_has_its_verdict(level):
    assert statuses(ENDINGS) == [status for status, _ in ENDINGS]


@pytest.mark.parametrize("name", ["binary", "lupa"])
def test_lua_through_a_binary_or_lupa(monkeypatch, name):
    found = runtimes.find("lua")
    if name == "lupa" and (spec := runtimes._lupa()):
        found = runtimes.Runtime("lua", "lupa", os.path.dirname(spec.origin), "Lua 5.4")
    if found is None or (found.name == "lupa") != (name == "lupa"):
        pytest.skip(f"no Lua as {name}")
    python = runtimes.find("python")
    monkeypatch.setattr(runtimes, "find", lambda language: {"lua": found, "python": python}.get(language))
    assert statuses(LUA, "lua") == [status for status, _ in LUA]


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_where_their_runtime_is_present(language):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    assert statuses(OTHERS[language], language) == [status for status, _ in OTHERS[language]]


@pytest.mark.parametrize("language", ECHO)
def test_stdin_comes_in_and_stdout_is_compared(language):
    if not runtimes.find(language):
        pytest.skip(f"no {language} here")
    programs = [
        Executable(language, ECHO[language], Outputs((("1 2\n", ("3",)), ("20 22\n", ("4 2", "42.0"))))),
        Executable(language, ECHO[language], Outputs((("1 2\n", ("3",)), ("1 1\n", ("3", "4")), ("no number", ())))),
        Executable(language, ECHO[language], Outputs((("no number\n", ("0x",)),))),
    ]
    verdicts = execute.execute(programs, timeout=SECONDS, allow_unsandboxed=True, workers=1)
    assert [verdict.status for verdict in verdicts][:2] == ["passed", "failed"] and not verdicts[2].passed
    assert verdicts[1].stderr_tail.startswith("test 2: expected '3', got '2")


def test_a_program_is_judged_by_all_of_its_tests_and_within_its_own_limits():
    def judge(source: str, *tests: tuple[str, str], **limits) -> str:
        program = Executable("python", source, Outputs(tuple((stdin, (output,)) for stdin, output in tests)), **limits)
        return execute.execute([program], timeout=SECONDS, allow_unsandboxed=True)[0].status

    assert judge("print(open(0).read()[::-1])", ("ab", "ba"), ("é\u2028x" * 9, "x\u2028é" * 9)) == "passed"
    assert judge("print(input())", ("x", "x"), ("", "")) == "error"
    assert judge("import time; time.sleep(float(input()))", ("0", ""), ("60", ""), timeout=0.5) == "timeout"
    assert judge("bytearray(int(input()) << 20)", ("10", ""), ("200", ""), memory_mb=150) == "memory"
    assert judge("while True: print(input() * 1000000)", ("x" * 10, ""), timeout=SECONDS) == "output"
    assert judge("print(len(input()))", ("x" * (4 << 20), str(4 << 20))) == "passed"


def test_stderr_comes_back_as_the_programs_own():
    verdict, syntax = run("def f():\n    return 1 / 0\nf()", "x = (")
    assert verdict.stderr_tail.startswith(
        'Traceback (most recent call last):\n  File "program.py", line 3, in <module>'
    )
    assert verdict.stderr_tail.endswith("ZeroDivisionError: division by zero\n")
    assert syntax.stderr_tail.startswith('  File "program.py", line 1')
    assert len(run("import sys\nsys.stderr.write('x' * 100000)")[0].stderr_tail) == 2000


def test_many_programs_keep_their_order():
    programs = [printing("python", f"print('NONCE' if {i} % 3 else 'no')") for i in range(200)]
    verdicts = execute.execute(programs, timeout=SECONDS, allow_unsandboxed=True, workers=3)
    assert [verdict.passed for verdict in verdicts] == [i % 3 > 0 for i in range(200)]
    assert execute.execute([]) == []


def test_programs_share_nothing_and_leave_nothing(level, monkeypatch, open_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    monkeypatch.setenv("SECRET_TOKEN", "for nobody")
    look = "import os\nassert os.listdir('.') == ['program.py'] and 'SECRET_TOKEN' not in os.environ\n"
    look += "assert os.listdir('..') == [os.path.basename(os.getcwd())]\n"
    look += "os.mkdir('left')\nopen('left/file', 'w')\nopen('../beside', 'w')\nprint('NONCE')"
    assert [verdict.status for verdict in run(look, look, look, workers=1)] == ["passed"] * 3
    assert not list(open_folder.glob("studykit-box-*"))


def test_files_outside_are_out_of_reach(level, open_folder):
    if level.level == "rlimits":
        pytest.skip("not isolated")
    victim = open_folder / "victim"
    victim.write_text("mine")
    victim.chmod(0o666)
    places = [str(open_folder / "new"), str(victim), "/usr/studykit-test", f"{Path.home()}/studykit-test"]
    verdicts = run(*(f"open({place!r}, 'w')\nprint('NONCE')" for place in places))
    assert [v.status for v in verdicts] == ["error"] * 4
    assert victim.read_text() == "mine" and os.listdir(open_folder) == ["victim"]
    hidden = [str(victim), str(Path.home() / ".ssh"), "/root/.ssh", execute.__file__, "/etc/passwd"]
    for path in hidden:
        assert run(f"import os\nassert not os.path.exists({path!r})\nprint('NONCE')")[0].passed


def test_the_network_is_out_of_reach(level):
    with socket.create_server(("127.0.0.1", 0)) as server:
        verdict = run(f"import socket\nsocket.create_connection({server.getsockname()!r}, 5)\nprint('NONCE')")[0]
    assert verdict.passed == (level.level == "rlimits")


def test_a_daemonised_grandchild_is_gone_with_its_program(level):
    mark = f"31.{os.getpid()}{time.time_ns() % 10**9}"
    with Runner(level) as runner:
        program = printing("python", DAEMON.replace("MARK", mark))
        assert execute.judge(runner, program, SECONDS, 256).passed and not _processes_with(mark)


def test_a_fork_bomb_ends(level, monkeypatch, open_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    if os.getuid() == 0 and not level.drop:
        bomb = "import os, time\nfor _ in range(5): os.fork()\ntime.sleep(60)"  # RLIMIT_NPROC does not hold for root
    assert [verdict.status for verdict in run(bomb, GOOD, timeout=1.0, workers=1)] == ["timeout", "passed"]
    assert not [link for link in Path("/proc").glob("[0-9]*/cwd") if str(open_folder) in _target(link)]


def test_a_runner_killed_by_its_program_costs_no_other_verdict(level):
    kill = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.write(1, b'NONCE')"
    verdicts = run(GOOD, kill, GOOD, "print()", workers=1)
    assert [verdict.status for verdict in verdicts][::2] == ["passed", "passed"] and verdicts[3].status == "failed"
    # As process 1 of its namespace the keeper cannot be killed; a bare one can, and its program is tried once more.
    assert verdicts[1].status == ("passed" if level.isolated else "error")


def test_without_isolation_nothing_runs_unless_asked_for(monkeypatch):
    monkeypatch.setattr(sandbox, "probe", lambda box: "" if box.level == "rlimits" else "broken")
    with pytest.raises(UserError, match=r"bwrap: broken; unshare: broken.*install bubblewrap.*allow_unsandboxed: true"):
        execute.execute([printing("python", GOOD)])
    with pytest.raises(UserError, match="allow_unsandboxed"):
        execute.isolation()
    assert execute.isolation(allow_unsandboxed=True).endswith("(NOT isolated)")
    monkeypatch.setattr(sandbox, "probe", lambda box: "broken")
    with pytest.raises(UserError, match="rlimits: broken"):
        execute.execute([printing("python", GOOD)], allow_unsandboxed=True)


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setattr(runtimes, "find", lambda language: None)
    with pytest.raises(UserError, match="julia programs cannot be executed: no working `julia`"):
        execute.execute([printing("julia", "")])
    with pytest.raises(UserError, match="pip install lupa"):
        execute.runtime_version("lua")


def test_an_unknown_language_is_named():
    with pytest.raises(UserError, match="'cobol' cannot be executed; known are python"):
        printing("cobol", "") and runtimes.find("cobol")


def test_a_broken_sandbox_is_found_by_running_it(monkeypatch):
    monkeypatch.setattr(mounts, "bwrap", lambda *_: ["sh", "-c", "echo no user namespaces >&2; exit 1"])
    monkeypatch.setattr(mounts, "bubblewrap", lambda: "/somewhere/bwrap")
    for level in ("bwrap", "bwrap-renewed"):
        assert sandbox.probe.__wrapped__(Sandbox(level)) == "no user namespaces"


def test_a_slow_sandbox_is_tried_again_and_never_left_for_a_weaker_one(monkeypatch):
    tried = []

    def slow(box):
        tried.append(box.level)
        raise RunnerDied("no answer for 30 s", slow=True)

    monkeypatch.setattr(sandbox, "Runner", slow)
    monkeypatch.setattr(sandbox, "probe", sandbox.probe.__wrapped__)
    with pytest.raises(UserError, match="bwrap did not answer in time in any of 3 attempts"):
        sandbox.choose(allow_unsandboxed=True)
    assert tried == ["bwrap"] * 3


def test_a_program_that_ends_its_sandbox_twice_passes_none_of_its_tests(monkeypatch):
    def dies(*_):
        raise RunnerDied("it was killed")

    monkeypatch.setattr(execute, "judge", dies)
    counted = Executable("python", "", Outputs((("1", ("1",)), ("2", ("2",)))))
    results = execute.execute([counted, Executable("python", "", Token())], allow_unsandboxed=True)
    assert [(result.status, result.tests) for result in results] == [("error", (0, 2)), ("error", None)]
    assert "did not survive this program: it was killed" in results[0].stderr_tail


@pytest.mark.parametrize("named, message", [
    ("bubblewrap", "STUDYKIT_ISOLATION is 'bubblewrap'; accepted here are bwrap, "),
    ("rlimits", "which isolates nothing; it needs allow_unsandboxed: true as well"),
])  # fmt: skip
def test_a_level_by_name_is_that_level_or_nothing(monkeypatch, named, message):
    monkeypatch.setenv("STUDYKIT_ISOLATION", named)
    with pytest.raises(UserError, match=message):
        sandbox.choose()
    monkeypatch.setenv("STUDYKIT_ISOLATION", "unshare")
    monkeypatch.setattr(sandbox, "probe", lambda box: "denied" if box.level == "unshare" else "")
    with pytest.raises(UserError, match="unshare: denied"):
        sandbox.choose()


def test_root_is_used_by_name_only(monkeypatch):
    monkeypatch.setattr(sandbox, "is_root", lambda: True)
    assert all(box.drop for box in sandbox.candidates(True))
    monkeypatch.setattr("studykit.evaluation.execution.runner.is_root", lambda: True)
    monkeypatch.setenv("STUDYKIT_ISOLATION", "unshare as root")
    assert sandbox.candidates() == [Sandbox("unshare", drop=False)]


@pytest.mark.parametrize("limits", [{"memory_mb": 10**13}, {"timeout": 1e12}, {"timeout": 0}])
def test_limits_have_bounds(limits):
    [(name, value)] = limits.items()
    with pytest.raises(UserError, match=f"{name} is .*accepted are numbers above 0, up to"):
        run(GOOD, **{"timeout": SECONDS} | limits)
    with pytest.raises(UserError, match=f"the {name} of a program is"):
        Executable("python", GOOD, Outputs(()), **limits)


def test_a_program_that_cannot_start_stops_the_evaluation(monkeypatch):
    lost = runtimes.Runtime("lua", "lua", "/usr/bin/lua-that-is-gone", "Lua 9")
    real = runtimes.find
    monkeypatch.setattr(runtimes, "find", lambda language: lost if language == "lua" else real(language))
    with pytest.raises(UserError, match="could not start: FileNotFoundError"):
        run("print('NONCE')", language="lua")


def test_a_language_has_one_name():
    assert {Executable(name, "", Outputs(())).language for name in ("cpp", "C++", "c++")} == {"c++"}
    names = {"js": "javascript", "golang": "go", "rb": "ruby", "py": "python", "rs": "rust"}
    assert {name: runtimes.find(name) for name in names} == {name: runtimes.find(names[name]) for name in names}


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _processes_with(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in (line := path.read_bytes()):
                found.append(line)
        except OSError:
            continue
    return found
