"""The ways a command ends other than well, and their exit codes."""

from __future__ import annotations

import errno

DONE = 0
FAILED = 1
USER_MISTAKE = 2
RUN_AGAIN = 75  # EX_TEMPFAIL: stopped by a signal, a budget or a full disk

NAMED = 20  # failed rows that a message names


class UserError(Exception):
    """A mistake in a config, a file or a command: one message, exit code 2, no traceback.

    The message says what was seen, what is allowed, and what to type next.
    """


class DriftError(UserError):
    """A finished step's settings have changed since it ran."""


class RunFatal(Exception):
    """The run cannot go on (wrong key, unknown model, dead engine): exit code 1, one message.

    Everything stored before it stays; the same command goes on from there.
    """


class Stopped(Exception):
    """Ended early and resumable (signal, budget, full disk): exit code 75."""


class Paused(Stopped):
    """Ended early until a person has looked (budget, filters, full disk): exit code 75 as well.

    A scheduler must not start it again by itself.
    """


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# A folder of somebody else's, or a file where a folder should be.
NOT_YOURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
DISK_ERRORS = (*FULL_DISK, errno.EIO, errno.EROFS)


def disk_failure(error: OSError, place: object) -> Paused | RunFatal:
    """How a failed read or write of the run's own files ends the command."""
    if error.errno in FULL_DISK:
        return Paused(
            f"the disk of {place} is full; what fitted is stored. Make room and run the same "
            "command again"
        )
    return RunFatal(f"{place}: {error}; run the same command again once the disk is well")
