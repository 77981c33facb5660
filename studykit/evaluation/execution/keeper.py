"""The keeper of one program: process 1 of the program's namespaces, which starts it and collects its children.

Part of the text that `runner.py` sends into the sandbox, so standard library only.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from os import _exit  # a program may replace the module's

from studykit.evaluation.execution import confinement
from studykit.evaluation.execution.confinement import libc
from studykit.evaluation.execution.usage import family, processes

LUA: type | None = None  # lupa's LuaRuntime class, where Lua has no binary


def keep(setup: dict, job: dict, control: socket.socket) -> None:
    """Builds and runs a program as often as the supervisor says, and reports how each run ended."""
    box = setup["box"]
    if setup["isolated"]:
        confinement.enter_namespaces(job)
    confinement.drop_privileges(setup)
    cwd = os.path.join(box, "program")
    os.mkdir(cwd)
    with open(os.path.join(cwd, job["file"]), "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(job["source"])
    places = [os.open(path, os.O_RDONLY) for path in ((box,) if setup["level"] == "rlimits" else (box, "/dev/shm"))]
    socket.send_fds(control, [b"ready"], places)
    for place in places:
        os.close(place)
    while True:
        word, descriptors, _, _ = socket.recv_fds(control, 64, 8)
        if not word:
            _exit(0)
        trouble = os.pipe()  # closed when the program starts
        pid = os.fork()
        if pid == 0:
            try:
                trouble_file = fcntl.fcntl(trouble[1], fcntl.F_DUPFD_CLOEXEC, 200)
                become_program(job, job[word.decode()], cwd, descriptors, trouble_file)
            except BaseException as error:
                os.write(trouble_file, f"{type(error).__name__}: {error}".encode()[:1000])
            finally:
                _exit(127)
        os.close(trouble[1])
        for descriptor in descriptors:
            os.close(descriptor)
        code = None
        while code is None:
            ended, status, usage = os.wait4(-1, 0)
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
        sweep(pid)
        reason = os.read(trouble[0], 1000).decode("utf-8", "replace")
        os.close(trouble[0])
        cpu = usage.ru_utime + usage.ru_stime
        control.sendall(json.dumps({"code": code, "cpu": cpu, "trouble": reason}).encode())


def limit(name: int, value: int) -> None:
    """Lowers one rlimit of this process, never above the hard limit that it has."""
    ceiling = resource.getrlimit(name)[1]
    value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
    resource.setrlimit(name, (value, value))


def become_program(job: dict, step: dict, cwd: str, files: list[int], trouble_file: int) -> None:
    """Turns a forked child into the program. It returns only where the program cannot be started."""
    os.setsid()
    if sys.platform == "linux":
        libc("prctl", confinement.PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.chdir(cwd)
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 64) for file in files]
    for number, file in enumerate(high):
        os.dup2(file, number)
    os.closerange(len(files), trouble_file)
    os.closerange(trouble_file + 1, 4096)
    os.environ.update(job["env"], HOME=cwd, TMPDIR=cwd)
    limit(resource.RLIMIT_CPU, int(4 * step["seconds"]) + 2)  # the supervisor measures more finely
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 256)
    limit(resource.RLIMIT_FSIZE, step["file_bytes"])
    limit(resource.RLIMIT_NPROC, job["processes"])
    if sys.platform == "linux":
        limit(resource.RLIMIT_AS if step["address_space"] else resource.RLIMIT_DATA, step["memory_bytes"])
    for number in (signal.SIGXFSZ, signal.SIGPIPE):  # Python ignores them, and a program would inherit that
        signal.signal(number, signal.SIG_DFL)
    if step["argv"]:
        os.execve(step["argv"][0], step["argv"], dict(os.environ))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        libc("prctl", confinement.DUMPABLE, 1, 0, 0, 0)
    os.close(trouble_file)
    run = run_lua if job["language"] == "lua" else run_python
    code = 1
    try:
        code = run(job["source"], job["file"], cwd)
    except MemoryError:  # before anything else: printing a traceback takes memory
        os.write(2, b"MemoryError\n")
    except BaseException as error:
        frames = error.__traceback__
        for _ in range(2):  # the first two are of this function and of `run`
            frames = frames.tb_next if frames else None
        traceback.print_exception(type(error), error, frames)
    finally:
        try:
            for stream in (sys.stdout, sys.__stdout__, sys.stderr):  # a program may have replaced the first
                assert stream is not None
                stream.flush()
        finally:
            _exit(code)


def run_python(source: str, file: str, cwd: str) -> int:
    """Runs `source` as the main module and returns its exit code. Exceptions of the program pass through."""
    main = type(sys)("__main__")
    vars(main).update(__file__=file, __builtins__=__builtins__)
    sys.modules["__main__"], sys.argv = main, [file]
    sys.path.insert(0, cwd)
    code: object = 0
    try:
        exec(compile(source, file, "exec"), main.__dict__)
    except SystemExit as stop:
        code = stop.code
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def run_lua(source: str, file: str, cwd: str) -> int:
    """Runs `source` through lupa, without a way from Lua to Python, and returns its exit code."""
    assert LUA is not None
    lua = LUA(register_eval=False, register_builtins=False)
    lua.execute("python = nil; package.loaded.python = nil")
    failure = ""
    try:
        lua.execute(source)
    except Exception as error:
        failure = f"lua: {str(error) or 'not enough memory'}"  # lupa's memory error has no text
    lua.execute("io.stdout:flush() io.stderr:flush()")
    if failure:
        print(failure, file=sys.stderr)
    return 1 if failure else 0


def sweep(pid: int) -> None:
    """Kills and collects a program and whatever it left behind, as its keeper or as the supervisor."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        if os.getpid() == 1:
            send_signal(-1, signal.SIGKILL)
        else:
            kill_family()
        time.sleep(0.0005)


def kill_family() -> None:
    """Stops every descendant of this process before it kills one, since a stopped process starts no other."""
    stopped = {os.getpid()}
    while running := {member.pid for member in family(os.getpid(), processes())} - stopped:
        for pid in running:
            send_signal(pid, signal.SIGSTOP)
        stopped |= running
    for pid in stopped - {os.getpid()}:
        send_signal(pid, signal.SIGKILL)


def send_signal(pid: int, number: int) -> None:
    """Sends a signal to a process, which may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
