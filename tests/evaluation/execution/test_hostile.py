"""Hostile programs: each is contained and gets its verdict, and the program after it runs clean.

They run in the best sandbox of this machine. NONCE is what makes a program pass: an attack prints it when it succeeds.
"""

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from studykit.errors import UserError
from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.execution.executable import Executable, Outputs

MARK = f"31.{os.getpid()}"  # an argument that no other process has
C = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(name, *args):\n"
C += "    if getattr(libc, name)(*args) != 0: raise OSError(ctypes.get_errno(), name)\n"
WIN = "\nprint('NONCE')"
NONCE = Outputs((("", ("NONCE",)),))
ANSWER = '{"status": "ok", "seconds": 0.1, "stderr": "", "stdout": "NONCE"}'
HOSTILE = [  # name, verdict, language, source
    # the network
    ("tcp", "error", "python", "import socket\nsocket.create_connection(('127.0.0.1', @tcp), 5)" + WIN),
    ("udp", "error", "python", "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n"
     "s.sendto(b'x', ('127.0.0.1', @udp))\ns.sendto(b'x', ('192.0.2.1', 9))" + WIN),
    ("unix socket", "error", "python", "import socket\nsocket.socket(socket.AF_UNIX).connect('@folder/socket')" + WIN),
    ("abstract socket", "error", "python", "import socket\n"
     "socket.socket(socket.AF_UNIX).connect('\\0@abstract')" + WIN),
    ("name lookup", "error", "python", "import socket\nsocket.getaddrinfo('example.org', 80)" + WIN),
    # files outside
    ("read a file", "error", "python", "open('@folder/secret').read()" + WIN),
    ("read the project", "error", "python", "open('@project').read()" + WIN),
    ("read shadow", "error", "python", "open('/etc/shadow').read()" + WIN),
    ("read through pid 1", "error", "python", "open('/proc/1/root@folder/secret').read()" + WIN),
    ("write a file", "error", "python", "open('@folder/secret', 'w')" + WIN),
    ("write beside it", "error", "python", "open('@folder/new', 'w')" + WIN),
    ("write into the system", "error", "python", "open('/usr/studykit-test', 'w')" + WIN),
    ("write into the settings", "error", "python", "open('/etc/studykit-test', 'w')" + WIN),
    ("write into the library", "error", "python", "import json\nopen(json.__file__, 'a')" + WIN),
    ("write through a link", "error", "python", "import os\nos.symlink('@folder/secret', 'l')\nopen('l', 'w')" + WIN),
    ("write to the host's tmp", "failed", "python", "open('/tmp/@mark', 'w')\nprint('beyond my own')"),
    ("put a link in its place", "failed", "python",
     "import os\nhere = os.getcwd()\nos.rename(here, here + 'x')\nos.symlink('@folder', here)"),
    ("read a disk", "error", "python", "assert any(open(f'/dev/{n}', 'rb').read(1) for n in ('sda', 'vda'))" + WIN),
    # processes
    ("fork bomb", "timeout", "python", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
    ("thread bomb", "error", "python", "import threading, time\n"
     "while True: threading.Thread(target=time.sleep, args=(9,), "
     "daemon=True).start()"),
    ("grandchild", "failed", "python", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
     "        os.execvp('sleep', ['sleep', '@mark'])\n    os._exit(0)\ntime.sleep(0.3)"),
    ("kill the parent", "failed", "python", "import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)"),
    ("kill everything", "failed", "python", "import os\ntry: os.kill(-1, 9)\nexcept ProcessLookupError: pass"),
    ("kill the host's", "error", "python", "import os\nos.kill(@pid, 0)" + WIN),
    ("trace the parent", "error", "python", C + "call('ptrace', 16, os.getppid(), 0, 0)" + WIN),
    ("parent's memory", "error", "python", "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')" + WIN),
    ("parent's files", "failed", "python", "import os\nfor n in range(20):\n"
     "    try: os.write(os.open(f'/proc/{os.getppid()}/fd/{n}', os.O_WRONLY), b'x')\n    except OSError: pass"),
    ("parent's environment", "error", "python", "import os\nopen(f'/proc/{os.getppid()}/environ').read()" + WIN),
    ("its environment", "error", "python", "import os\nassert 'SECRET_TOKEN' in os.environ" + WIN),
    # time, memory, disk
    ("endless loop", "timeout", "python", "while True: pass"),
    ("sleep", "timeout", "python", "import time\ntime.sleep(60)"),
    ("ignored signals", "timeout", "python", "import signal\nfor n in set(signal.Signals) - {9, 19}:\n"
     "    signal.signal(n, signal.SIG_IGN)\nwhile True: pass"),
    ("memory bomb", "memory", "python", "x = []\nwhile True: x.append(bytes(1 << 20))"),
    ("one huge object", "memory", "python", "x = bytearray(64 << 30)"),
    ("deep recursion", "error", "python", "def f(n): return f(n + 1)\nf(0)"),
    ("crash", "error", "python", "import ctypes\nctypes.string_at(0)"),
    ("core dump", "error", "python", "import os\nos.abort()"),
    ("lift the limits", "error", "python", "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (-1, -1))" + WIN),
    ("endless stdout", "output", "python", "while True: print('y' * 1000)"),
    ("endless stderr", "output", "python", "import sys\nwhile True: print('y' * 1000, file=sys.stderr)"),
    ("huge file", "output", "python", "open('f', 'wb').write(bytes(64 << 20))"),
    ("sparse file", "output", "python", "open('f', 'wb').truncate(1 << 40)"),
    ("full disk", "output", "python", "for i in range(10**6): open(f'f{i}', 'wb').write(bytes(7 << 20))"),
    ("many files", "output", "python", "for i in range(10**8): open(f'f{i}', 'wb').close()"),
    ("locked directory", "failed", "python", "import os\nos.mkdir('a')\nopen('a/b', 'w')\nos.chmod('a', 0)\n"
     "os.chmod('.', 0)"),
    ("its directory gone", "failed", "python", "import os, shutil\nshutil.rmtree(os.getcwd())"),
    # privileges
    ("mount", "error", "python", C + "call('mount', b'x', b'/usr', b'tmpfs', 0, None)" + WIN),
    ("remount in a new namespace", "error", "python",
     C + "libc.unshare(0x10020000)\ncall('mount', None, b'/usr', None, 0x1020, None)" + WIN),
    ("enter a namespace", "error", "python", C + "call('setns', os.open('/proc/1/ns/net', os.O_RDONLY), 0)" + WIN),
    ("chroot", "error", "python", "import os\nos.chroot('/')" + WIN),
    ("setuid", "error", "python", "import os\nos.setresuid(0, 0, 0) if os.getuid() else os.chroot('/')" + WIN),
    ("clock", "error", "python", "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)" + WIN),
    ("sysrq", "error", "python", "open('/proc/sysrq-trigger', 'w').write('h')" + WIN),
    # the verdict
    ("early exit", "failed", "python", "import sys\nsys.exit(0)" + WIN),
    ("earlier exit", "failed", "python", "import os\nos._exit(0)" + WIN),
    ("says passed", "failed", "python", f"print('passed')\nprint({ANSWER!r})"),
    ("no stdout", "failed", "python", "import os\nos.close(1)"),
    ("another stdout", "failed", "python", "import io, sys\nsys.stdout = io.StringIO()" + WIN),
    ("writes verdicts", "failed", "python", f"import os\nfor fd in range(3, 1024):\n"
     f"    try: os.write(fd, b'{ANSWER}\\n')\n    except OSError: pass"),
    ("no text", "failed", "python", "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100)"),
    ("no text on stderr", "error", "python", "import os\nos.write(2, bytes(range(256)) * 100)\nraise SystemExit(1)"),
    # other languages
    ("js: tcp", "error", "javascript", "require('net').connect(@tcp, '127.0.0.1', () => console.log('NONCE'))"),
    ("js: write", "error", "javascript", "require('fs').writeFileSync('@folder/new', '')\nconsole.log('NONCE')"),
    ("js: endless stdout", "output", "javascript", "while (true) console.log('y'.repeat(1000))"),
    ("js: a lasting child", "failed", "javascript",
     "require('child_process').spawn('sleep', ['@mark'], {detached: true, stdio: 'ignore'}).unref()"),
    ("lua: shell", "error", "lua", "assert(os.execute('touch @folder/new'))\nprint('NONCE')"),
    ("lua: read", "error", "lua", "print(assert(io.open('@folder/secret')))\nprint('NONCE')"),
    ("lua: endless string", "memory", "lua", "local s = 'x' while true do s = s .. s end"),
    ("ruby: fork bomb", "timeout", "ruby", "loop { begin; fork; rescue SystemCallError; end }"),
    ("ruby: tcp", "error", "ruby", "require 'socket'\nTCPSocket.new('127.0.0.1', @tcp)\nputs 'NONCE'"),
    ("go: tcp", "error", "go", 'package main\nimport ("fmt"; "net")\nfunc main() {\n\tif _, err := net.Dial("tcp", '
     '"127.0.0.1:@tcp"); err != nil { panic(err) }\n\tfmt.Println("NONCE")\n}'),
    ("c: include a secret", "error", "c", '#include "@folder/secret"\nint main() { return 0; }'),
    ("c++: endless template", "error", "c++", "template<int n> struct A { A<n + 1> a; };\nint main() { A<0> a; }"),
]  # fmt: skip


@contextlib.contextmanager
def services(folder: Path):
    """A listener per kind of socket, and the number of messages that came in."""
    seen: list[str] = []
    names = {"tcp": ("127.0.0.1", 0), "udp": ("127.0.0.1", 0)}
    names |= {"unix": str(folder / "socket"), "abstract": f"\0studykit-{MARK}"}
    with contextlib.ExitStack() as stack:
        for name, address in names.items():
            family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
            kind = socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM
            server = stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            server.settimeout(0.01)
            names[name] = server
            if name != "udp":
                server.listen()
        (folder / "socket").chmod(0o777)
        values = {"tcp": str(names["tcp"].getsockname()[1]), "udp": str(names["udp"].getsockname()[1])}

        def heard() -> list[str]:
            for name, server in names.items():
                with contextlib.suppress(TimeoutError):
                    seen.append(f"{name}: {server.recv(9) if name == 'udp' else server.accept()}")
            return seen

        yield values | {"abstract": f"studykit-{MARK}"}, heard


@pytest.fixture(scope="module")
def found():
    """{name: (verdict of the hostile program, verdict of the one after it)} and what the host noticed of them."""
    try:
        execute.isolation()
    except UserError as error:
        pytest.skip(str(error))
    os.environ["SECRET_TOKEN"] = "for nobody"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text("mine")
        (folder / "secret").chmod(0o666)
        with services(folder) as (values, heard):
            values |= {"folder": name, "mark": MARK, "pid": str(os.getpid()), "project": execute.__file__}
            cases = [case for case in HOSTILE if runtimes.find(case[2])]
            verdicts = {}
            for slow in (True, False):  # a short limit for what is meant to reach it
                batch = [case for case in cases if (case[1] == "timeout") == slow]
                programs = [program for case in batch for program in (written(case, values), AFTER)]
                limit = 0.7 if slow else 30.0
                ended = execute.execute(programs, timeout=limit, memory_mb=256, workers=1)
                verdicts |= {case[0]: ended[2 * i : 2 * i + 2] for i, case in enumerate(batch)}
            noticed = {
                "messages": heard(), "files": sorted(os.listdir(folder)), "secret": (folder / "secret").read_text(),
                "strays": [*filter(os.path.exists, (f"/tmp/{MARK}", "/usr/studykit-test", "/etc/studykit-test"))],
                "processes": processes_with(MARK),
            }  # fmt: skip
    del os.environ["SECRET_TOKEN"]
    return verdicts, noticed


AFTER = Executable("python", "import os, time\nassert os.listdir('.') == ['program.py']\n"
                "open('f', 'w').write('x' * 1000)\nassert len(os.listdir('..')) <= 4\n"
                "print('NONCE')", NONCE)  # fmt: skip


def written(case: tuple, values: dict[str, str]) -> Executable:
    source = case[3]
    for name, value in values.items():
        source = source.replace(f"@{name}", value)
    return Executable(case[2], source, NONCE)


def processes_with(word: str) -> list[bytes]:
    time.sleep(0.05)
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return [line for line in lines if word.encode() in line and b"bwrap" not in line]


@pytest.mark.parametrize("name, status", [case[:2] for case in HOSTILE], ids=[f"{c[0]} -> {c[1]}" for c in HOSTILE])
def test_verdict(found, name, status, record_property):
    if name not in found[0]:
        pytest.skip("its runtime is not here")
    record_property("hostile", ("attacks on the sandbox", next(case[2] for case in HOSTILE if case[0] == name)))
    hostile, after = found[0][name]
    assert hostile.status == status, hostile
    assert after.passed, f"the program after {name}: {after}"


def test_the_host_noticed_nothing(found):
    noticed = found[1]
    assert noticed["messages"] == noticed["strays"] == noticed["processes"] == []
    assert noticed["files"] == ["secret", "socket"] and noticed["secret"] == "mine"
