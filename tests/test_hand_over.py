"""Exports to places that fsspec writes to: whole, or plainly not; nobody's files are taken."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.commands.hand_over import BEGUN, SUMS, copy_folder, refuse_taken
from pipeline.errors import RunFatal, UserError

HAS_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto"))


@pytest.fixture
def place() -> Iterator[str]:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://bucket/out"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "3_dataset"
    for name, size in {"README.md": 30, "train-0.parquet": 70_000, "more/deep.json": 5}.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(i * 7 % 251 for i in range(size)))
    return made


def there(place: str) -> dict[str, bytes]:
    inside = place.removeprefix("memory:/") + "/"
    return {
        name.removeprefix(inside): file.getvalue() for name, file in MemoryFileSystem.store.items()
    }


def whole(found: dict[str, bytes], folder: Path) -> bool:
    lines = [line.split("  ") for line in found.pop(SUMS).decode().splitlines()]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == {
        name: digest for digest, name in lines
    }
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return found == {name: path.read_bytes() for name, path in files.items()}


def failing(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """The store takes no file of this name."""
    real = MemoryFileSystem.put_file

    def put_file(self: Any, here: str, path: str, **options: Any) -> None:
        if path.endswith(at):
            raise ConnectionResetError("the line is cut")
        real(self, here, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)


def test_every_file_arrives_with_its_checksum(place: str, folder: Path) -> None:
    copy_folder(folder, place)
    assert whole(there(place), folder)


def test_a_copy_that_broke_off_is_plainly_not_whole_and_is_done_again(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "aaa.parquet").write_bytes(b"of a longer version")
    with monkeypatch.context() as broken:
        failing(broken, "train-0.parquet")
        with pytest.raises(RunFatal, match=r"line is cut.*the same command does it again"):
            copy_folder(folder, place)
    assert SUMS not in there(place) and BEGUN in there(place)
    assert "aaa.parquet" in there(place)
    (folder / "aaa.parquet").unlink()
    copy_folder(folder, place)
    assert whole(there(place), folder)


def test_an_export_is_replaced_only_when_that_is_asked_for(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train-1.parquet").write_bytes(b"a second shard")
    copy_folder(folder, place)
    (folder / "train-1.parquet").unlink()
    (folder / "README.md").write_bytes(b"another")
    with pytest.raises(UserError, match="--replace"):
        copy_folder(folder, place)
    with monkeypatch.context() as broken:
        failing(broken, "README.md")
        with pytest.raises(RunFatal):
            copy_folder(folder, place, replace=True)
    assert SUMS not in there(place)
    copy_folder(folder, place)  # it goes on where it was asked to
    assert whole(there(place), folder)


@pytest.mark.parametrize("replace", [False, True])
def test_a_place_with_other_files_is_never_written_to(
    place: str, folder: Path, replace: bool
) -> None:
    MemoryFileSystem().pipe_file(f"{place}/thesis.txt", b"years of work")
    with pytest.raises(UserError, match="no export of ours"):
        copy_folder(folder, place, replace=replace)
    assert there(place) == {"thesis.txt": b"years of work"}


def test_a_file_that_arrived_short_is_found(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(self: Any, here: str, path: str, **_: Any) -> None:
        self.pipe_file(path, Path(here).read_bytes()[:-1])

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    with pytest.raises(RunFatal, match="arrived of"):
        copy_folder(folder, place)
    assert SUMS not in there(place)


def test_a_path_is_checked_by_sha256sum(folder: Path, tmp_path: Path) -> None:
    copy_folder(folder, f"file://{tmp_path}/out")
    done = subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=tmp_path / "out")
    assert done.returncode == 0


@pytest.mark.skipif(HAS_S3, reason="s3fs is there")
def test_a_missing_library_is_named() -> None:
    with pytest.raises(UserError, match=r"s3fs.*pip install"):
        refuse_taken("s3://bucket/out")


def test_a_protocol_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="nonsense"):
        refuse_taken("nonsense://bucket/out")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3:/bucket/out", r"as s3://bucket/out, and a folder of that name.*\./s3:/bucket/out"),
        ("github://owner/out", r"not all such a place needs.*'org'"),
    ],
)
def test_a_place_that_is_named_by_half_is_refused(place: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_taken(place)


def test_a_folder_may_be_named_as_a_store_or_with_the_protocol_of_paths(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("./s3:/out", f"file:{tmp_path}/plain"):
        copy_folder(folder, place)
    assert (tmp_path / "s3:" / "out" / SUMS).is_file() and (tmp_path / "plain" / SUMS).is_file()


def test_a_store_that_refuses_the_connection_is_one_message() -> None:
    with pytest.raises(RunFatal, match=r"ConnectionRefusedError.*Nothing was copied"):
        refuse_taken("ftp://127.0.0.1:1/out")


def test_a_place_that_only_reads_is_refused(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe_file(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    with pytest.raises(UserError, match="nothing can be written there"):
        copy_folder(folder, place)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_S3, reason="s3fs and moto are not there")
def test_an_s3_server_takes_it_whole_or_plainly_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs
    from fsspec.config import conf

    (folder / "student.gguf").write_bytes(bytes(range(256)) * 2**19)  # 128 MiB: several parts
    port = "5991"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        monkeypatch.setitem(conf, "s3", {"endpoint_url": url, "key": "k", "secret": "s"})
        store = s3fs.S3FileSystem()
        with pytest.raises(RunFatal, match="bucket"):
            copy_folder(folder, "s3://bucket/out")  # a mistyped name makes no bucket
        store.mkdir("bucket")
        real = store.put_file  # of the one instance that there is for these options

        def put_file(here: str, path: str, **options: Any) -> None:
            if path.endswith("train-0.parquet"):
                raise ConnectionResetError("the line is cut")
            real(here, path, **options)

        with monkeypatch.context() as broken:
            broken.setattr(store, "put_file", put_file)
            with pytest.raises(RunFatal):
                copy_folder(folder, "s3://bucket/out")
        store.invalidate_cache()
        assert not store.exists(f"s3://bucket/out/{SUMS}")
        copy_folder(folder, "s3://bucket/out")
        with pytest.raises(UserError, match="--replace"):
            copy_folder(folder, "s3://bucket/out")
        copy_folder(folder, "s3://bucket/out", replace=True)
        names = store.find("s3://bucket/out")
        found = {name.removeprefix("bucket/out/"): store.cat_file(name) for name in names}
        assert whole(found, folder)
    finally:
        server.kill()
        server.wait()


def wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{url} does not answer")
