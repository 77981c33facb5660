"""Namespaces, mounts and privileges: how processes inside the sandbox are shut in.

Part of the text that `runner.py` sends into the sandbox, so standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

# Numbers of <linux/prctl.h>, <linux/sched.h>, <linux/mount.h>, which Python 3.11 does not have.
PDEATHSIG, DUMPABLE, SECCOMP, SUBREAPER, NO_NEW_PRIVS = 1, 4, 22, 36, 38
NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 0x4000, 0x40000
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NETWORK = {  # what keeps data in flight small, which no process's memory shows: least, usual and most bytes of a buffer
    "ipv4/tcp_rmem": "4096 16384 32768", "ipv4/tcp_wmem": "4096 16384 32768", "core/somaxconn": "16",
}  # fmt: skip
LIBC = ctypes.CDLL(None, use_errno=True)


def libc(name: str, *arguments) -> None:
    """Calls a C function that returns 0 on success, and raises OSError otherwise."""
    if getattr(LIBC, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(kind: str, where: str, flags: int, options: str = "", source: str | None = None) -> None:
    """Calls mount(2)."""
    name = (source or kind).encode()
    libc("mount", name, where.encode(), kind.encode() or None, flags, options.encode() or None)


def read_only(path: str) -> None:
    """Makes a mount and everything below it read-only, with mount_setattr(2) of Linux 5.12."""
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    number, where, flags = map(ctypes.c_long, (MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE))
    libc("syscall", number, where, path.encode(), flags, ctypes.byref(attributes), ctypes.c_size_t(32))


def unshare(flags: int) -> None:
    """Calls unshare(2); in a new user namespace this process keeps its user and group."""
    uid, gid = os.getuid(), os.getgid()
    libc("unshare", flags)
    if flags & NEW_USER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def enter_sandbox(setup: dict) -> None:
    """Moves this process into namespaces and a root directory of its own, which shows only `setup["visible"]`.

    The calling process stays outside and waits: a process cannot move itself to another namespace of processes.
    """
    unshare(NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET | (0 if setup["drop"] else NEW_USER))
    inside = os.fork()
    if inside:
        os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])))
    libc("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    mount("", "/", MS_REC | MS_PRIVATE)
    root = setup["folder"]
    mount("tmpfs", root, MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    for path in (*setup["visible"], *(f"/dev/{name}" for name in setup["devices"])):
        inner = root + path
        os.makedirs(os.path.dirname(inner), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inner)
            continue
        if os.path.isdir(path):
            os.makedirs(inner, exist_ok=True)
        else:
            open(inner, "w").close()
        mount("", inner, MS_BIND | MS_REC, source=path)
    for name, target in setup["links"].items():
        os.symlink(target, f"{root}/dev/{name}")
    for name in ("proc", "tmp", "cache", "dev/shm"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    mount("proc", f"{root}/proc", MS_NOSUID | MS_NODEV)
    for path in setup["visible"]:
        if not os.path.islink(path):
            read_only(root + path)
    os.chdir(root)
    libc("pivot_root", b".", b".")
    libc("umount2", b".", MNT_DETACH)
    mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    mount("tmpfs", "/cache", MS_NOSUID | MS_NODEV, "mode=1777,size=2048m")
    mount("", "/", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def enter_namespaces(job: dict) -> None:
    """Moves the keeper, process 1 of a new namespace, into further new ones with empty directories to write to."""
    unshare(NEW_NS | NEW_UTS | NEW_IPC | NEW_NET)
    mount("", "/", MS_REC | MS_PRIVATE)
    size = f"size={job['box'][0]},nr_inodes={job['box'][1]}"
    mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, f"mode=1777,{size}")
    mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, f"mode=1777,{size}")
    mount("proc", "/proc", MS_NOSUID | MS_NODEV)
    if not job["prepares"]:
        mount("", "/cache", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lo:
        fcntl.ioctl(lo, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    for name, value in NETWORK.items():
        if os.access(path := f"/proc/sys/net/{name}", os.W_OK):
            with open(path, "w") as file:
                file.write(value)
    os.chdir("/tmp")


def drop_privileges(setup: dict) -> None:
    """Becomes nobody where root asks for it, and gives up every capability and every way back to one."""
    if setup["uid"] is not None:
        os.setgroups([])
        os.setresgid(setup["uid"], setup["uid"], setup["uid"])
        os.setresuid(setup["uid"], setup["uid"], setup["uid"])
    if sys.platform != "linux":
        return
    if setup["isolated"]:
        libc("prctl", DUMPABLE, 1, 0, 0, 0)  # the change of user cleared it, and the maps could not be written
        unshare(NEW_USER)  # RLIMIT_NPROC counts per user namespace
    libc("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
    libc("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    libc("prctl", SUBREAPER, 1, 0, 0, 0)
    libc("prctl", PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc("prctl", DUMPABLE, 0, 0, 0, 0)  # else a program, having this uid, could write to /proc/1/fd
    if setup["seccomp"]:
        code = bytes.fromhex(setup["seccomp"])
        array = ctypes.create_string_buffer(code, len(code))
        header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(array))
        libc("prctl", SECCOMP, 2, ctypes.c_char_p(header), 0, 0)
