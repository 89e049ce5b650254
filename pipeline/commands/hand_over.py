"""A folder to any place that fsspec writes to (s3://, gs://, a path): whole, or plainly not.

Beside the data lies SHA256SUMS, in the form of `sha256sum -c`. It is taken away before anything
changes and written last: where it is, everything is. _UPLOADING marks a place where a copy has
begun, and names all files that it may have left; the same command then does it again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.commands import printable
from pipeline.errors import RunFatal, UserError

SUMS = "SHA256SUMS"
BEGUN = "_UPLOADING"
# They have no folders: to make one would, for a mistyped name, make a bucket.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2"}


def refuse_taken(place: str, *, replace: bool = False) -> None:
    """A `UserError` where something lies there already, or nothing can ever be written there.

    `replace`: an earlier export may lie there. One that did not end always may.
    """
    system, path = _opened(place)
    with _named(place):
        names = _names(system, path)
    if not names:
        return
    if SUMS in names:
        if not replace:
            raise UserError(
                f"--to folder {place}: holds an export already; add --replace to put this one in "
                "its place, or name another"
            )
    elif BEGUN not in names:
        raise UserError(
            f"--to folder {place}: is there already and not empty, and {SUMS} is not there, so it "
            "is no export of ours; name another"
        )


def copy_folder(folder: Path, place: str, *, replace: bool = False) -> None:
    """Copy every file. `RunFatal` where it did not work: SHA256SUMS is then not there."""
    refuse_taken(place, replace=replace)
    system, path = _opened(place)
    path = path.rstrip("/")
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    with _named(place):
        old = _listed(system, path)
        _make_folder(system, path)
        system.pipe_file(f"{path}/{BEGUN}", "\n".join(sorted(old | files.keys())).encode())
        _remove(system, f"{path}/{SUMS}")
        lines = []
        for name, file in sorted(files.items()):
            _make_folder(system, f"{path}/{name}".rpartition("/")[0])
            with file.open("rb") as data:
                digest = hashlib.file_digest(data, "sha256").hexdigest()
            system.put_file(str(file), f"{path}/{name}")
            _check_size(system, f"{path}/{name}", file.stat().st_size)
            lines.append(f"{digest}  {name}\n")
        for name in sorted(old - files.keys()):  # of an earlier, longer version
            _remove(system, f"{path}/{name}")
        if "file" in _protocols(system):
            os.sync()  # the sums must not outlive the data at a loss of power
        system.pipe_file(f"{path}/{SUMS}", "".join(lines).encode())
        _remove(system, f"{path}/{BEGUN}")


def _opened(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    # fsspec takes it for a local folder named `s3:`; `file:/tmp/x` is a path to it.
    if (slip := re.match(r"([A-Za-z0-9+]+):/(?!/)", place)) and slip[1] not in ("file", "local"):
        meant = f"{slip[1]}://{place[slip.end() :]}"
        raise UserError(
            f"--to folder {place}: one slash after {slip[1]}:; a store has two, as {meant}, and a "
            f"folder of that name on this machine is ./{place}"
        )
    try:
        system, path = url_to_fs(place)
    except ImportError as error:  # says which library is missing
        raise UserError(
            f"--to folder {place}: {error}. Type `pip install` and the name of that library, then "
            "the same command"
        ) from None
    except ValueError as error:  # no such protocol
        raise UserError(f"--to folder {place}: {error}") from None
    except TypeError as error:  # as of github://, which wants an owner and a repository as well
        raise UserError(
            f"--to folder {place}: that is not all such a place needs ({error}); name one that "
            "its name alone says, as s3://BUCKET/FOLDER or a path"
        ) from None
    except Exception as error:  # some connect as soon as they are named
        raise RunFatal(
            f"{place}: {type(error).__name__}: {printable(str(error), 300)}. Nothing was copied; "
            "the same command tries again"
        ) from error
    return system, str(path)


def _protocols(system: Any) -> set[str]:
    found = system.protocol
    return {found} if isinstance(found, str) else set(found)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """What goes wrong at a place, as one message."""
    try:
        yield
    except (UserError, RunFatal):
        raise
    except NotImplementedError:
        raise UserError(
            f"--to folder {place}: nothing can be written there; name a place that can be, as "
            "s3://BUCKET/FOLDER or a path"
        ) from None
    except Exception as error:  # each store's library has kinds of its own
        raise RunFatal(
            f"{place}: {type(error).__name__}: {printable(str(error), 300)}. What lies there is "
            f"whole only if {SUMS} is there; the same command does it again"
        ) from error


def _names(system: Any, path: str) -> set[str]:
    """Of what lies directly in a folder; nothing where it is not there."""
    system.invalidate_cache()  # others write there, too
    if not system.exists(path):
        return set()
    return {str(name).rstrip("/").rpartition("/")[2] for name in system.ls(path, detail=False)}


def _listed(system: Any, path: str) -> set[str]:
    """The files that earlier copies have, or may have, left."""
    found: set[str] = set()
    with suppress(FileNotFoundError):
        lines = system.cat_file(f"{path}/{SUMS}").decode().splitlines()
        found |= {line.partition("  ")[2] for line in lines}
    with suppress(FileNotFoundError):
        found |= set(system.cat_file(f"{path}/{BEGUN}").decode().splitlines())
    return {name for name in found if name and ".." not in name.split("/")}


def _make_folder(system: Any, path: str) -> None:
    if not _protocols(system) & OBJECT_STORES:
        system.makedirs(path, exist_ok=True)


def _remove(system: Any, path: str) -> None:
    with suppress(FileNotFoundError):
        system.rm_file(path)


def _check_size(system: Any, path: str, size: int) -> None:
    system.invalidate_cache()
    there = system.info(path)["size"]
    if there != size:
        raise RunFatal(f"{path}: {there:,} bytes arrived of {size:,}; type the same command again")
