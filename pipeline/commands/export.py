"""`distill export RUN --to hub|folder`: hand a run's dataset to others; the student is next door,
in export_student.py.

Without `--yes` nothing leaves: what would go is printed. Refused, unless overruled by name: rows
that overlap with evaluation items, and rows that look as if they held keys or passwords.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from pipeline.commands import printable, run_config, run_folder
from pipeline.commands.hand_over import copy_folder, refuse_taken
from pipeline.config import Config
from pipeline.config_serving import holds_key
from pipeline.errors import DONE, RunFatal, UserError
from pipeline.stage1_generate.curate.against import contaminated_rows
from pipeline.stage1_generate.curate.safety import secrets_in
from pipeline.stage1_generate.parquet import dataset_files

NAMED = 5  # rows that a refusal names
HEAD_LINES = 40  # of the card, in the dry run
TOKEN = "HF_TOKEN"
SHARDS = (
    ".parquet",
    ".safetensors",
)  # kinds of which one version may have more files than the next


class Target(msgspec.Struct, frozen=True):
    """Where to: a repository of the hub, or a folder (any URL that fsspec writes to)."""

    kind: str  # hub | folder
    place: str
    public: bool = False
    replace: bool = False  # an earlier export that lies there


def export(
    name: str, target: Target, *, yes: bool, with_contamination: bool, with_secrets: bool
) -> int:
    run = run_folder(name)
    config = run_config(run)
    folder = run / "3_dataset"
    if not (folder / "README.md").is_file():
        raise UserError(
            f"{folder} is not there yet; `distill curate {run / 'config.yaml'}` makes it"
        )
    if target.kind == "folder":
        refuse_taken(target.place, replace=target.replace)
    elif yes:
        token()  # before rows are read for minutes
    _print_contents(folder, target)
    print("\nlooking for rows of the evaluation and for secrets (1 to 2 ms a row)", flush=True)
    if not with_contamination:
        _refuse_contaminated(config)
    if not with_secrets:
        _refuse_secrets(folder)
    if not yes:
        print(f"\nnothing has left this machine: this was a dry run; add --yes to {verb(target)}")
        return DONE
    if target.kind == "folder":
        copy_folder(folder, target.place, replace=target.replace)
        print(f"copied to {target.place}")
    else:
        print(f"pushed: {push_folder(folder, target)}")
    return DONE


def verb(target: Target) -> str:
    return "copy it" if target.kind == "folder" else "push it"


def _print_contents(folder: Path, target: Target) -> None:
    import pyarrow.parquet

    who = "" if target.kind == "folder" else f" ({'public' if target.public else 'private'})"
    print(f"from {folder} to {target.kind} {target.place}{who}:")
    total = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        total += size
        rows = ""
        if path.suffix == ".parquet":
            rows = f"{pyarrow.parquet.read_metadata(path).num_rows:>12,} rows"
        print(f"  {path.relative_to(folder)!s:<36} {size:>14,} bytes{rows}")
    print(f"  {'in all':<36} {total:>14,} bytes\n")
    card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(f"  | {printable(line)}" for line in card[:HEAD_LINES]))
    if len(card) > HEAD_LINES:
        print(f"  | ... {len(card) - HEAD_LINES} more lines of README.md")


def _refuse_contaminated(config: Config) -> None:
    found = list(islice(contaminated_rows(config), NAMED + 1))
    if found:
        named = ", ".join(f"{hit.split}:{hit.row}" for hit in found[:NAMED])
        more = " and more" if len(found) > NAMED else ""
        raise UserError(
            f"rows overlap with evaluation items: {named}{more} (`distill show {config.name} "
            f"--id {found[0].split}:{found[0].row}`). Whoever trains on them cannot be tested with "
            "these items. `--redo curate` with contamination checks on drops them; "
            "--with-contamination exports them all the same"
        )


def _refuse_secrets(folder: Path) -> None:
    # What was found is never printed, only where and of which kind.
    found = list(islice(_secrets(folder), NAMED + 1))
    if found:
        named = ", ".join(found[:NAMED]) + (" and more" if len(found) > NAMED else "")
        raise UserError(
            f"rows look as if they held secrets: {named}. Add the filter `secrets` to "
            "curate.filters and `--redo curate`; --with-secrets exports them all the same"
        )


def _secrets(folder: Path) -> Iterator[str]:
    import pyarrow.parquet

    keys = {name: value for name, value in os.environ.items() if _is_key(name, value)}
    for split in dataset_files(folder):
        row = 0
        for path in sorted(folder.glob(f"{split}-*.parquet")):
            file = pyarrow.parquet.ParquetFile(path)
            for batch in file.iter_batches(1000, columns=["prompt", "completion"]):
                for found in batch.to_pylist():
                    chat = [*found["prompt"], *found["completion"]]
                    text = "\n".join(message["content"] for message in chat)
                    kinds = {span.kind for span in secrets_in(text)}
                    kinds |= {f"the value of {n}" for n, value in keys.items() if value in text}
                    if kinds:
                        yield f"{split}:{row} ({', '.join(sorted(kinds))})"
                    row += 1


def _is_key(name: str, value: str) -> bool:
    return holds_key(name) and len(value) >= 12  # a shorter one may stand in a row by chance


def token() -> str:
    token = os.environ.get(TOKEN)
    if not token:
        raise UserError(
            f"the environment variable {TOKEN} is not set; type `export {TOKEN}=...` with a token "
            "of yours that may write (https://huggingface.co/settings/tokens)"
        )
    return token


def push_folder(folder: Path, target: Target, kind: str = "dataset", inner: str = "") -> str:
    """Make the repository if need be, and one commit with all files; its address.

    `kind`: dataset or model. `inner`: the folder in the repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(token=token())
    try:
        api.create_repo(target.place, repo_type=kind, private=not target.public, exist_ok=True)
        done = api.upload_folder(
            repo_id=target.place,
            repo_type=kind,
            folder_path=folder,
            path_in_repo=inner or None,
            commit_message=f"{kind.capitalize()} made by blackbox-distill",
            # Shards of an earlier, longer version would be read as part of this one.
            delete_patterns=sorted(
                {f"*{p.suffix}" for p in folder.glob("*.*") if p.suffix in SHARDS}
            ),
        )
    except HFValidationError as error:
        raise UserError(f"--repo {target.place}: {error}") from None
    except OSError as error:  # what the hub answers, and that nobody answers
        raise RunFatal(
            f"the hub did not take {target.place}: {printable(str(error))}. Nothing here has "
            "changed; the same command tries again"
        ) from error
    return str(done)


def target_of(
    words: Sequence[str], repo: str | None, public: bool, replace: bool = False
) -> Target:
    """What `--to` and `--repo` say; a `UserError` where they do not go together."""
    kind, *rest = words
    if kind == "hub" and not rest and repo and not replace:
        return Target(kind, repo, public)
    if kind == "folder" and len(rest) == 1 and repo is None:
        return Target(kind, rest[0], replace=replace)
    raise UserError(
        f"--to {' '.join(words)}{f' --repo {repo}' if repo else ''}"
        f"{' --replace' if replace else ''}: write --to hub --repo OWNER/NAME (each export is a "
        "new commit there), or --to folder PATH, with --replace where an export lies there"
    )
