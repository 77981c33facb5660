"""The process inside the sandbox that runs model-written programs, one at a time.

Standard library only: `sandbox.py` sends this file's text as `python -c`, so that it needs no file of the project in
there. The first line of stdin is the set-up; each later line brings a program to build, or the stdin of one run of the
program that was built last; each is answered by one line of JSON on stdout. A program gets

- a forked child in a session of its own: interpreter start-up is paid once per runner, not once per program;
- rlimits, a fresh working directory, an environment that holds nothing of the user's;
- stdin, stdout and stderr as files, not pipes: no deadlock, and RLIMIT_FSIZE bounds them;
- the end of its whole family when it ends: as pid 1 of a pid namespace the runner kills everything else in it,
  elsewhere it is a subreaper and kills the children that it inherits.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback

# Numbers of <linux/prctl.h>, <linux/sched.h>, <linux/mount.h>, which Python 3.11 does not have.
PDEATHSIG, DUMPABLE, SUBREAPER, NO_NEW_PRIVS = 1, 4, 36, 38
NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, ATTR_RDONLY = 442, -100, 0x8000, 1
LUA = None  # lupa's LuaRuntime class, where Lua has no binary


def libc(name: str, *arguments) -> None:
    """Call a C function that returns 0 on success; OSError otherwise."""
    if getattr(LIBC, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


LIBC = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """unshare(2); in a new user namespace this process keeps its user and group."""
    uid, gid = os.getuid(), os.getgid()
    libc("unshare", flags)
    if flags & NEW_USER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def enter_namespaces(box: str, user: bool) -> bool:
    """Move to namespaces of our own (network, processes, mounts, ...); return True if files outside `box` became
    read-only.

    `user`: through a user namespace, for processes that are not root. The caller's process stays outside and waits,
    since a process cannot move itself to another pid namespace.
    """
    unshare(NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET | (NEW_USER if user else 0))
    inside = os.fork()
    if inside:
        os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])))
    libc("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    libc("mount", b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV, None)
    if os.path.isdir("/run"):  # sockets of services: no read-only mount or network of our own keeps them away
        libc("mount", b"run", b"/run", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755")
    libc("mount", b"box", box.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755")
    os.chdir(box)
    try:
        read_only("/", True, AT_RECURSIVE)
        read_only(box, False, 0)
    except OSError:  # Linux before 5.12
        return False
    return True


def read_only(path: str, on: bool, flags: int) -> None:
    """mount_setattr(2)."""
    attributes = (ctypes.c_uint64 * 4)(ATTR_RDONLY if on else 0, 0 if on else ATTR_RDONLY, 0, 0)
    number, where, flags = map(ctypes.c_long, (MOUNT_SETATTR, AT_FDCWD, flags))
    libc("syscall", number, where, path.encode(), flags, ctypes.byref(attributes), ctypes.c_size_t(32))


def drop_privileges(box: str, uid: int | None) -> None:
    """Become `uid` (root only), then give up every capability and every way back to one."""
    if uid is not None:
        os.chown(box, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        try:  # RLIMIT_NPROC counts per user namespace: in one of our own, another runner's fork bomb costs us nothing
            libc("prctl", DUMPABLE, 1, 0, 0, 0)  # the change of user cleared it, and the maps could not be written
            unshare(NEW_USER)
        except OSError:
            pass
    if sys.platform == "linux":
        libc("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
        libc("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
        libc("prctl", SUBREAPER, 1, 0, 0, 0)
        libc("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc("prctl", DUMPABLE, 0, 0, 0, 0)  # else a program, having our uid, could write verdicts to /proc/<pid>/fd


def limit(name: int, value: int, hard: int | None = None) -> None:
    """Lower one rlimit of this process, never above the hard limit that it has."""
    ceiling = resource.getrlimit(name)[1]
    fits = (lambda wanted: wanted) if ceiling == resource.RLIM_INFINITY else (lambda wanted: min(wanted, ceiling))
    resource.setrlimit(name, (fits(value), fits(value if hard is None else hard)))


def become_program(job: dict, step: dict, cwd: str, files: tuple[int, int, int]) -> None:
    """In the forked child: shut the doors, then run the program. Does not return."""
    os.setsid()
    if sys.platform == "linux":
        libc("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.chdir(cwd)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 1024)
    os.environ.update(job["env"], HOME=cwd, TMPDIR=cwd)
    seconds = int(step["seconds"]) + 1
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)
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
    run = run_lua if job["language"] == "lua" else run_python
    code = 1
    try:
        code = run(job["source"], job["file"], cwd)
    except MemoryError:  # before anything else: printing a traceback takes memory
        os.write(2, b"MemoryError\n")
    except BaseException as error:
        traceback.print_exception(type(error), error, error.__traceback__.tb_next.tb_next)
    finally:
        try:
            for stream in (sys.stdout, sys.__stdout__, sys.stderr):  # a program may have replaced the first
                stream.flush()
        finally:
            os._exit(code)


def run_python(source: str, file: str, cwd: str) -> int:
    """Run `source` as the main module; the exit code. Exceptions of the program pass through."""
    main = type(sys)("__main__")
    main.__file__, main.__builtins__ = file, __builtins__
    sys.modules["__main__"], sys.argv = main, [file]
    sys.path.insert(0, cwd)
    code = 0
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
    """Run `source` through lupa, without a way from Lua to Python."""
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
    """Kill and reap the program and whatever it left behind."""
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
        for child in [-1] if os.getpid() == 1 else children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.001)


def children() -> list[int]:
    """Process ids whose parent is this process."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid():
            found.append(int(name))
    return found


def run_step(job: dict, step: dict, cwd: str, files: tuple[int, int, int]) -> str:
    """One forked child: its outcome, one of ok, exit, killed, timeout, output. files: its stdin, stdout and stderr."""
    out, err = files[1:]
    os.lseek(files[0], 0, os.SEEK_SET)
    for file in (out, err):
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
    deadline = time.monotonic() + step["seconds"]
    pid = os.fork()
    if pid == 0:
        try:
            become_program(job, step, cwd, files)
        finally:
            os._exit(127)
    code, pause, cpu, full, before = None, 0.0003, 0.0, False, used(out)
    while code is None and time.monotonic() < deadline and not full:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
            full = any(0 < most < now - then for most, now, then in zip(job["box"], used(out), before, strict=True))
    if code is None:
        os.kill(pid, signal.SIGKILL)  # it may not have come as far as its own group
    sweep(pid)
    full = full or max(os.fstat(out).st_size, os.fstat(err).st_size) >= step["file_bytes"]
    if code == -signal.SIGXFSZ or full:
        return "output"
    if code is None or code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu > step["seconds"]):
        return "timeout"
    return "ok" if code == 0 else "killed" if code == -signal.SIGKILL else "exit"


def used(file: int) -> tuple[int, int]:
    """Bytes and files in the file system of an open file."""
    found = os.fstatvfs(file)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def tail(file: int, length: int = 2000) -> str:
    """The last bytes of an open file."""
    return os.pread(file, length, max(0, os.fstat(file).st_size - length)).decode("utf-8", "replace")


def build(job: dict, cwd: str, files: tuple[int, int, int]) -> dict:
    """Write the program's file into `cwd`, and compile it if the language needs it: status ok, error or timeout."""
    with open(os.path.join(cwd, job["file"]), "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(job["source"])
    if not job["build"]:
        return {"status": "ok"}
    os.ftruncate(files[0], 0)
    outcome = run_step(job, job["build"], cwd, files)
    status = outcome if outcome in ("ok", "timeout") else "error"
    return {"status": status, "seconds": 0.0, "stderr": tail(files[2]) or tail(files[1])}


def run_once(job: dict, request: dict, cwd: str, files: tuple[int, int, int]) -> dict:
    """One run of a program that was built, on `request["stdin"]`: status ok, error, timeout, memory or output."""
    data = request["stdin"].encode("utf-8", "surrogatepass")
    os.ftruncate(files[0], 0)
    os.pwrite(files[0], data, 0)
    started = time.monotonic()
    status = run_step(job, job["run"], cwd, files)
    seconds = time.monotonic() - started
    if status in ("exit", "killed"):
        # Some runtimes say it first and then print long stacks.
        said = os.pread(files[2], 2000, 0).decode("utf-8", "replace") + "\n" + tail(files[2])
        status = "memory" if status == "killed" or re.search(job["memory_error"], said, re.MULTILINE) else "error"
    stdout = tail(files[1], request["stdout_bytes"]) if status == "ok" else ""
    stderr = tail(files[2]) or ("" if status == "ok" else tail(files[1]))  # some say there what went wrong
    return {"status": status, "seconds": seconds, "stderr": stderr, "stdout": stdout}


def remove(path: str) -> None:
    """Remove a directory or whatever else a program left, also what it locked."""
    if os.path.islink(path) or not os.path.isdir(path):
        return os.unlink(path)
    os.chmod(path, 0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            if not os.path.islink(inner := os.path.join(folder, name)):
                os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def serve() -> None:
    """Set up, say so, then answer programs until stdin ends."""
    global LUA
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:  # if memory runs out, this and its programs end first
            file.write("1000")
    # Programs see the standard library only, whatever is installed beside it.
    sys.path = [path for path in sys.path if not path.endswith(("site-packages", "dist-packages"))]
    setup = json.loads(requests.readline())
    if setup["hidden"] and os.path.exists(setup["hidden"]):  # then /tmp is the host's, and must not be cleaned
        sys.exit("the container shows the files of its host")
    contained = enter_namespaces(setup["box"], setup["uid"] is None) if setup["unshare"] else setup["contained"]
    drop_privileges(setup["box"], setup["uid"])
    if setup["lupa"]:
        sys.path.insert(0, setup["lupa"])
        from lupa.lua54 import LuaRuntime as LUA  # noqa: N814

        sys.path.pop(0)
    held = [tempfile.TemporaryFile(dir=setup["box"]) for _ in range(3)]
    files = tuple(file.fileno() for file in held)
    print(json.dumps({"ready": True, "contained": contained}), file=replies, flush=True)
    job, cwd, kept = {}, "", {"cache", *os.listdir(setup["box"])}  # a runtime may lie in there
    for number, line in enumerate(requests):
        request = json.loads(line)
        if "source" in request:
            for name in set(os.listdir(setup["box"])) - kept:
                remove(os.path.join(setup["box"], name))
            job, cwd = request, os.path.join(setup["box"], str(number))
            os.mkdir(cwd)
            reply = build(job, cwd, files)
        else:
            reply = run_once(job, request, cwd, files)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    serve()
