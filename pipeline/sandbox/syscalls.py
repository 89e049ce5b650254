"""What a program that only computes asks of the kernel; everything else is refused (seccomp).

The numbers are those of Linux's headers (asm/unistd_64.h, asm-generic/unistd.h). No sockets but
pairs of its own, no new processes, no signals or limits of other processes, no change of owners,
modes or times of files (Landlock does not cover those), no shared memory, no administration.
"""

from __future__ import annotations

import platform
import struct

# name: (x86_64, aarch64); None: the machine has no such call.
ALLOWED: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "close": (3, 57),
    "close_range": (436, 436),
    "fstat": (5, 80),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "select": (23, None),
    "pselect6": (270, 72),
    "poll": (7, None),
    "ppoll": (271, 73),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "timerfd_gettime": (287, 87),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "umask": (95, 166),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "arch_prctl": (158, None),
    "membarrier": (324, 283),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "recvfrom": (45, 207),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "pause": (34, None),
    "wait4": (61, 260),
    "waitid": (247, 95),
}

# CLONE_THREAD
_THREAD = 0x10000
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: signals to any process of the user, and
# leases for which others wait.
_SIGNALLING = (8, 10, 15, 1024, 1026)
_ACCESS, _TRUNCATE = 0x3, 0x200  # O_ACCMODE, O_TRUNC
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand

_ALLOW: Instruction = (_RETURN, 0, 0, 0x7FFF0000)
_KILL: Instruction = (_RETURN, 0, 0, 0x80000000)
_REFUSE: Instruction = (_RETURN, 0, 0, 0x00050001)  # EPERM
_UNKNOWN: Instruction = (_RETURN, 0, 0, 0x00050026)  # ENOSYS


def program() -> bytes:
    """The filter for a process of this machine: classic BPF, 8 bytes an instruction.

    Raises OSError on a machine whose numbers are not known here.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(f"no list of system calls for the machine {platform.machine()}")
    column, audit = _MACHINES[platform.machine()]
    code: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, audit),
        _KILL,  # a 32-bit call: its numbers mean other things
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),  # x32: likewise
        _KILL,
    ]
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            code += [(_EQUAL, 0, 1, number), _ALLOW]
    for guarded, body in _by_arguments():
        number = guarded[column]
        if number is not None:
            code += [(_EQUAL, 0, len(body), number), *body]
    code.append(_REFUSE)
    return b"".join(struct.pack("<HBBI", *each) for each in code)


def _by_arguments() -> list[tuple[tuple[int, int | None], list[Instruction]]]:
    """Calls that are allowed with some arguments only: their numbers, and what decides."""
    own_limits = _all_zero(_argument(0), _argument(2), _argument(2) + 4)
    clone = [(_LOAD, 0, 0, _argument(0)), (_ANY_BIT, 0, 1, _THREAD), _ALLOW, _REFUSE]
    second = (_LOAD, 0, 0, _argument(1))
    return [
        ((2, None), _opening(_argument(1))),  # open
        ((257, 56), _opening(_argument(2))),  # openat
        ((56, 220), clone),
        ((435, 435), [_UNKNOWN]),  # clone3 has its flags in memory; glibc falls back to clone
        ((72, 25), [second, *_either(_SIGNALLING, _REFUSE), _ALLOW]),  # fcntl
        ((16, 29), [second, *_either(_HARMLESS_IOCTLS, _ALLOW), _REFUSE]),  # ioctl
        # asyncio's own pair of sockets: of a pair (AF_UNIX), and to no other address
        ((53, 199), [(_LOAD, 0, 0, _argument(0)), *_either((1,), _ALLOW), _REFUSE]),  # socketpair
        ((44, 206), [*_all_zero(_argument(4), _argument(4) + 4), _ALLOW]),  # sendto
        ((302, 261), [*own_limits, _ALLOW]),  # prlimit64, to read its own limits
    ]


def _opening(flags: int) -> list[Instruction]:
    """Not to read and yet to truncate: Landlock before Linux 6.2 takes that for reading."""
    wanted = (_LOAD, 0, 0, flags), (_AND, 0, 0, _ACCESS | _TRUNCATE)
    return [*wanted, *_either((_TRUNCATE,), _REFUSE), _ALLOW]


def _either(values: tuple[int, ...], verdict: Instruction) -> list[Instruction]:
    return [i for value in values for i in ((_EQUAL, 0, 1, value), verdict)]


def _all_zero(*places: int) -> list[Instruction]:
    """Refuse unless these halves of arguments are 0."""
    return [i for at in places for i in ((_LOAD, 0, 0, at), (_EQUAL, 1, 0, 0), _REFUSE)]


def _argument(index: int) -> int:
    """Where the low half of an argument lies in `struct seccomp_data` (little-endian)."""
    return 16 + 8 * index
