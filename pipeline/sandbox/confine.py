"""Take from this very process whatever a program that only computes has no need of (Linux).

Three walls, none of which asks for rights: resource limits (setrlimit), files (Landlock, Linux
5.13) and system calls (seccomp). They cannot be taken down again. Whether they hold on a machine is
for `probes.py` to see. This file is run by a bare Python, without the package around it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION = 0x20080522

# Landlock (linux/landlock.h); its system calls have one number on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_READ = _READ_FILE | _READ_FOLDER
# No folders, links, sockets or devices: the folder can then be measured and removed at a glance.
_WORK = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
# By version: what a rule set governs of files, of TCP, and of signals and abstract sockets.
_FILES_OF_VERSION = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_FILES_LATEST, _TCP, _SCOPES = 0xFFFF, 0b11, 0b11

_libc = ctypes.CDLL(None, use_errno=True)


def limit(cpu_seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Set hard limits: CPU time, address space, size of any one file, open files, no core."""
    # The first of the two ends the process with a signal of its own, so that it can be told.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def die_with_parent() -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def wall_in(calls: bytes, readable: Iterable[str], work: str | None) -> None:
    """Files: `readable` to read, `work` also to write, nothing else. System calls: as `calls` says.

    Raises OSError where the kernel cannot do that.
    """
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    _landlock(readable, work)
    # Root could raise its limits again.
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    code = ctypes.create_string_buffer(calls, len(calls))
    description = struct.pack("<HxxxxxxQ", len(calls) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, description, 0, 0), "seccomp")


def library_folders() -> list[str]:
    """Where Python's standard library and the libraries it loads lie; not what was installed."""
    paths = sysconfig.get_paths()
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
    devices = ("/dev/null", "/dev/zero", "/dev/urandom")
    return [paths["stdlib"], paths["platstdlib"], f"{sys.base_prefix}/lib", *system, *devices]


def _landlock(readable: Iterable[str], work: str | None) -> None:
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    _check(version, "Landlock")
    governed = _FILES_OF_VERSION.get(version, _FILES_LATEST)
    fields = [governed] + [_TCP] * (version >= 4) + [_SCOPES] * (version >= 6)
    rules = struct.pack(f"<{len(fields)}Q", *fields)
    handle = _libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    _check(handle, "Landlock")
    for path in {os.path.realpath(path) for path in readable}:
        _allow(handle, path, _READ)
    if work is not None:
        _allow(handle, work, _WORK & governed)
    _check(_libc.syscall(_RESTRICT_SELF, handle, 0), "Landlock")
    os.close(handle)


def _allow(handle: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        access &= ~_READ_FOLDER
    rule = struct.pack("<Qi", access, place)
    _check(_libc.syscall(_ADD_RULE, handle, 1, rule, 0), f"Landlock for {path}")
    os.close(place)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
