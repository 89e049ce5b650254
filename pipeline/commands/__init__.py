"""Commands that look at a run or a config and change nothing (but `verify --repair`)."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config, load_config
from pipeline.errors import UserError


def run_folder(name: str) -> Path:
    """A run by its name, its folder, or the config that made it."""
    for candidate in (Path("runs") / name, Path(name)):
        if candidate.is_dir():
            return candidate
    if Path(name).is_file():
        folder = load_config(Path(name)).run_dir
        if folder.is_dir():
            return folder
        raise UserError(f"{folder}: this config has not been run yet; type `distill run {name}`")
    found = sorted(p.parent.name for p in Path("runs").glob("*/config.yaml"))
    raise UserError(f"no run {name!r}; runs here: {', '.join(found) or 'none yet'}")


def run_config(folder: Path) -> Config:
    """The resolved config that a run was made with."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run: it has no config.yaml")
    return load_config(path)


def printable(text: str, limit: int = 400) -> str:
    """Foreign text for a terminal: no control sequences, not endless."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."
