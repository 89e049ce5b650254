"""Locks on files, where the filesystem has them: they help on one machine, and nothing needs them.

NFS without its lock service and Lustre without `-o flock` refuse every lock. What keeps two
processes apart there are the status files of launch/units.py.
"""

from __future__ import annotations

import errno
import fcntl
from enum import StrEnum
from typing import IO, Any

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock(StrEnum):
    HELD = "held"  # by this process, until it closes the file or dies
    TAKEN = "taken"  # by another one
    NONE_HERE = "none here"  # the filesystem has no locks


def lock(file: IO[Any] | int) -> Lock:
    """Try to lock an open file, without waiting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.TAKEN
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return Lock.NONE_HERE
    return Lock.HELD
