"""One program, one verdict: whatever a program does, the next one runs as if it had been the first."""

import os

import pytest

from studykit.evaluation.execution import execute, runtimes
from studykit.evaluation.execution.executable import Executable, Outputs

CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
RIGHT = {
    "python": "import os, sys\nsys.stdout.write('y' * (1 << 20))\nopen('f', 'wb').write(bytes(1 << 20))\n"
    "x = bytearray(60 << 20)\nfiles = [open('f') for _ in range(100)]\nprint(open('/dev/stdin').read())\n"
    "assert os.getpriority(0, 0) == NICE and len(os.sched_getaffinity(0)) == CORES",
    "javascript": "console.log('y'.repeat(1 << 20) + require('fs').readFileSync('/dev/stdin', 'utf8'))",
    "go": 'package main\nimport ("fmt"; "net"; "strings")\nfunc main() {\n\t_, _, err := net.ParseCIDR("x")\n'
    '\tfmt.Println(strings.Repeat("y", 1<<20) + "in")\n\tif err.Error() != "invalid CIDR address: x" { panic(err) }\n}',
}
WIN = ("in", ("y" * (1 << 20) + "in",))

# name, the language of the next program, and what the first program does (in Python)
PAIRS = [
    ("file size of process 1", "python", "import resource as r\nr.prlimit(1, r.RLIMIT_FSIZE, (65536, 65536))"),
    ("address space of process 1", "python", "import resource as r\nr.prlimit(1, r.RLIMIT_AS, (60 << 20, 60 << 20))"),
    ("open files of process 1", "python", "import resource as r\nr.prlimit(1, r.RLIMIT_NOFILE, (12, 12))"),
    ("data of process 1", "javascript", "import resource as r\nr.prlimit(1, r.RLIMIT_DATA, (1 << 20, 1 << 20))"),
    ("processes of process 1", "javascript", "import resource as r\nr.prlimit(1, r.RLIMIT_NPROC, (1, 1))"),
    ("processor time of process 1", "python", "import resource as r\nr.prlimit(1, r.RLIMIT_CPU, (1, 1))"),
    ("limits of the parent", "python", "import os, resource as r\nr.prlimit(os.getppid(), r.RLIMIT_FSIZE, (9, 9))"),
    ("mode of stdin", "javascript", "import os\nos.fchmod(0, 0)"),
    ("mode of stdout", "python", "import os\nos.fchmod(1, 0)\nos.fchmod(2, 0)"),
    ("flags of stdout", "python", "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)"),
    ("a lock on stdout", "python", "import fcntl\nfcntl.flock(1, fcntl.LOCK_EX)\nfcntl.lockf(1, fcntl.LOCK_EX)"),
    ("a file as the cache", "go", "open('/tmp/cache', 'w')\nopen('/cache/x', 'w')"),
    ("a cache that is closed", "go", "import os\nos.makedirs('/tmp/cache/go')\nos.chmod('/tmp/cache', 0)\n"
     "os.chmod('/cache/go', 0)"),
    ("a poisoned cache", "go", "import os\nfor d, _, fs in os.walk('/cache'):\n    for f in fs:\n        p = d + '/' + f\n"
     "        b = open(p, 'rb').read()\n        open(p, 'r+b').write(b.replace(b'invalid CIDR', b'EVIL!!! CIDR'))"),
    ("niceness", "python", "import os\nfor p in (1, os.getppid()): os.setpriority(os.PRIO_PROCESS, p, 19)"),
    ("processors", "python", "import os\nfor p in (1, os.getppid()): os.sched_setaffinity(p, {0})"),
    ("priority of disks", "python", CALL + "for p in (1, os.getppid()): libc.syscall(251, 1, p, 3 << 13)"),
    ("System V shared memory", "python", CALL + "assert libc.shmget(7, 1 << 20, 0o1666) >= 0"),
    ("POSIX message queues", "python", CALL + "assert libc.syscall(240, b'q', 0o102, 0o666, None) >= 0"),
    ("a keyring", "python", CALL + "assert libc.syscall(248, b'user', b'k', b'secret', 6, -4) >= 0"),
    ("files in shared memory", "python", "open('/dev/shm/x', 'wb').write(bytes(7 << 20))\nopen('/tmp/x', 'w')"),
]  # fmt: skip
SEEN = {  # what a second program would see of the first one's
    "System V shared memory": CALL + "assert libc.shmget(7, 1, 0) < 0",
    "POSIX message queues": CALL + "assert libc.syscall(240, b'q', 0, 0, None) < 0",
    "a keyring": CALL + "assert libc.syscall(249, b'user', b'k', None, -4) < 0",
    "files in shared memory": "import os\nassert os.listdir('/dev/shm') == [] and os.listdir('/tmp') == ['program']",
}


@pytest.fixture(scope="module")
def verdicts():
    """{name: verdict of the program after the one of that name}."""
    cores, nice = len(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0)
    programs, names = [], []
    for name, language, source in PAIRS:
        if runtimes.find(language):
            after = RIGHT[language].replace("CORES", str(cores)).replace("NICE", str(nice))
            after = SEEN[name] + "\n" + after if name in SEEN else after
            programs += [
                Executable("python", source, Outputs((("", ("",)),))),
                Executable(language, after, Outputs((WIN,))),
            ]
            names.append(name)
    ended = execute.execute(programs, timeout=20, workers=1)
    return dict(zip(names, ended[1::2], strict=True))


@pytest.mark.parametrize("name", [name for name, *_ in PAIRS])
def test_no_program_decides_the_verdict_of_the_next(verdicts, name, record_property):
    if name not in verdicts:
        pytest.skip("its runtime is not here")
    record_property("hostile", ("attacks on the next program", next(pair[1] for pair in PAIRS if pair[0] == name)))
    assert verdicts[name].passed, verdicts[name]


GO_SHARED = """package main
import ("fmt"; "syscall")
func main() {
	b, err := syscall.Mmap(-1, 0, 1200<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil { panic(err) }
	for i := 0; i < len(b); i += 4096 { b[i] = 1 }
	fmt.Println("NONCE")
}"""
GO_TABLES = """package main
import ("fmt"; "syscall")
func main() {
	const size = 1 << 40
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil { panic(err) }
	syscall.Madvise(b, 15)
	n := 0
	for i := 0; i < size; i += 2 << 20 { n += int(b[i]) }
	if n != 0 { panic(n) }
	fmt.Println("NONCE")
}"""
SOCKETS = """import socket
server, total, kept = socket.create_server(("127.0.0.1", 0)), 0, []
for i in range(100):
    a = socket.create_connection(server.getsockname())
    b = server.accept()[0]
    a.setblocking(False)
    for end in (a, b):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 28)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 28)
    kept += [a, b]
    try:
        while total < 300 << 20: total += a.send(bytes(1 << 18))
    except BlockingIOError: pass
print("NONCE" if total > 256 << 20 else total)"""
HOARDS = {  # 1.2 GB each, with a limit of 256 MB
    "memory files": ("python", "import os\nfor i in range(200):\n    os.write(os.memfd_create('x'), bytes(6 << 20))\n"
                     "print('NONCE')"),
    "tmpfs in a namespace": ("python", CALL + "assert libc.unshare(0x10020000) == 0\nlibc.mount(b'x', b'/tmp', b'tmpfs', 0, 0)\n"
                             "for i in range(200): open(f'/tmp/{i}', 'wb').write(bytes(6 << 20))\nprint('NONCE')"),
    "shared pages": ("go", GO_SHARED),
    "page tables": ("go", GO_TABLES),
    "data in flight": ("python", SOCKETS),
    "60 children": ("python", "import os, time\nfor i in range(60):\n    if os.fork() == 0:\n"
                    "        x = bytearray(os.urandom(1 << 20) * 20)\n        time.sleep(60)\n"
                    "time.sleep(5)\nprint('NONCE')"),
    "System V": ("python", CALL + "for i in range(200):\n    n = libc.shmget(0, 6 << 20, 0o1666)\n    assert n >= 0\n"
                 "    libc.shmat.restype = ctypes.c_void_p\n    ctypes.memset(libc.shmat(n, None, 0), 1, 6 << 20)\nprint('NONCE')"),
    "the cache and /tmp": ("python", "for i in range(200):\n    open(f'/tmp/{i}', 'wb').write(bytes(6 << 20))\n"
                           "    open(f'/dev/shm/{i}', 'wb').write(bytes(6 << 20))\nprint('NONCE')"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOARDS)
def test_memory_is_that_of_the_whole_program(name, record_property):
    language, source = HOARDS[name]
    if not runtimes.find(language):
        pytest.skip("its runtime is not here")
    record_property("hostile", ("memory beyond the limit", language))
    program = Executable(language, source, Outputs((("", ("NONCE",)),)))
    [verdict] = execute.execute([program], timeout=20, memory_mb=256)
    assert verdict.status in ("memory", "output", "error", "failed"), verdict


def test_children_that_share_their_memory_are_counted_once():
    source = (
        "import os, time\nx = bytearray(os.urandom(1 << 20) * 100)\nfor i in range(20):\n"
        "    if os.fork() == 0:\n        time.sleep(0.3)\n        os._exit(0)\nfor i in range(20): os.wait()\nprint('NONCE')"
    )
    [verdict] = execute.execute([Executable("python", source, Outputs((("", ("NONCE",)),)))], timeout=20, memory_mb=256)
    assert verdict.passed, verdict


def test_options_of_sockets_work_but_for_the_size_of_their_buffers():
    source = (
        "import socket as s\na = s.socket()\nsize = a.getsockopt(s.SOL_SOCKET, s.SO_RCVBUF)\n"
        "for level, option in ((s.IPPROTO_TCP, s.TCP_NODELAY), (s.SOL_SOCKET, s.SO_REUSEADDR)):\n"
        "    a.setsockopt(level, option, 1)\n    assert a.getsockopt(level, option) == 1\n"
        "a.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 1 << 20)\n"
        "assert a.getsockopt(s.SOL_SOCKET, s.SO_RCVBUF) == size\nprint('NONCE')"
    )
    [verdict] = execute.execute([Executable("python", source, Outputs((("", ("NONCE",)),)))], timeout=20)
    assert verdict.passed, verdict


def test_multiprocessing_works():
    source = (
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n"
        "    with m.Pool(2) as pool: print(sum(pool.map(f, range(10))))"
    )
    [verdict] = execute.execute([Executable("python", source, Outputs((("", ("285",)),)))], timeout=20)
    assert verdict.passed, verdict
