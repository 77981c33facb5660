"""The system calls that no program may make, as a filter of the kernel (seccomp, classic BPF).

A program needs memory, files, processes and pipes. What it does not need, and what has let programs out of sandboxes or
kept memory where no limit counts it, answers with an error instead: new namespaces and mounts, tracing, keys, io_uring,
BPF, System V shared memory and message queues, memory files, and sockets of other families than Unix and internet.
A program may not enlarge the buffers of a socket either, and is answered as if it had. `clone3` is answered with "not
implemented", since a filter cannot read its flags; every libc then uses `clone`.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Any

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = (
    0x20,
    0x15,
    0x35,
    0x45,
    0x06,
)  # instructions of <linux/bpf_common.h>
# Offsets in struct seccomp_data, of an argument those of its low half on a little-endian machine
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, (16, 24, 32)
SOCKET_LEVEL, BUFFER_OPTIONS = 1, (7, 8, 32, 33)  # SOL_SOCKET; SO_SNDBUF, SO_RCVBUF and those of root
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000  # of <linux/seccomp.h>; ERROR takes an errno
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW... flag that clone takes
X32 = 0x40000000  # bit of the numbers by which a 64-bit kernel serves x32 programs

# Numbers that all architectures have in common, and those before them, by architecture.
COMMON = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "mount_setattr": 442,
    "pidfd_getfd": 438, "memfd_secret": 447,
}  # fmt: skip
REFUSED = (  # name, number on x86_64, number on aarch64
    ("ptrace", 101, 117), ("process_vm_readv", 310, 270), ("process_vm_writev", 311, 271), ("kcmp", 312, 272),
    ("mount", 165, 40), ("umount2", 166, 39), ("pivot_root", 155, 41), ("chroot", 161, 51), ("unshare", 272, 97),
    ("setns", 308, 268), ("keyctl", 250, 219), ("add_key", 248, 217), ("request_key", 249, 218), ("bpf", 321, 280),
    ("perf_event_open", 298, 241), ("userfaultfd", 323, 282), ("open_by_handle_at", 304, 265),
    ("memfd_create", 319, 279), ("shmget", 29, 194), ("shmat", 30, 196), ("msgget", 68, 186), ("semget", 64, 190),
    ("mq_open", 240, 180), ("fanotify_init", 300, 262), ("syslog", 103, 116), ("acct", 163, 89),
    ("swapon", 167, 224), ("reboot", 169, 142), ("kexec_load", 246, 104), ("init_module", 175, 105),
    ("finit_module", 313, 273), ("delete_module", 176, 106), ("quotactl", 179, 60),
)  # fmt: skip
# By platform.machine(): audit number, column of REFUSED, clone, clone3, socket, socketpair, setsockopt
ARCHITECTURES = {
    "x86_64": (0xC000003E, 1, 56, 435, 41, 53, 54),
    "aarch64": (0xC00000B7, 2, 220, 435, 198, 199, 208),
}


def program() -> bytes | None:
    """Returns the filter for this machine as an array of `struct sock_filter`, or None if its numbers are unknown."""
    if platform.machine() not in ARCHITECTURES:
        return None
    architecture, column, clone, clone3, socket, socketpair, setsockopt = ARCHITECTURES[platform.machine()]
    refuse = (RETURN, 0, 0, ERROR | errno.EPERM)
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),  # a program of 32 bits counts its calls otherwise
        (LOAD, 0, 0, NUMBER),
        (JUMP_AT_LEAST, 0, 1, X32),
        refuse,
        (JUMP_EQUAL, 0, 1, clone3),
        (RETURN, 0, 0, ERROR | errno.ENOSYS),
    ]
    numbers: list[Any] = [row[column] for row in REFUSED]
    for number in (*COMMON.values(), *numbers):
        code += [(JUMP_EQUAL, 0, 1, number), refuse]
    code += [(JUMP_EQUAL, 0, 4, clone), (LOAD, 0, 0, ARGUMENTS[0]), (JUMP_BITS, 0, 1, NEW_NAMESPACES), refuse]
    code += [(RETURN, 0, 0, ALLOW)]
    enlarge = [(LOAD, 0, 0, ARGUMENTS[1]), (JUMP_EQUAL, 0, len(BUFFER_OPTIONS) + 1, SOCKET_LEVEL)]
    enlarge += [(LOAD, 0, 0, ARGUMENTS[2])]
    enlarge += [(JUMP_EQUAL, len(BUFFER_OPTIONS) - at, 0, option) for at, option in enumerate(BUFFER_OPTIONS)]
    enlarge += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERROR)]
    code += [(JUMP_EQUAL, 0, len(enlarge), setsockopt), *enlarge]
    code += [(JUMP_EQUAL, 1, 0, socket), (JUMP_EQUAL, 0, len(FAMILIES) + 2, socketpair)]
    code += [(LOAD, 0, 0, ARGUMENTS[0])]
    code += [(JUMP_EQUAL, len(FAMILIES) - at, 0, family) for at, family in enumerate(FAMILIES)]
    code += [(RETURN, 0, 0, ERROR | errno.EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
