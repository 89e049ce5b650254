"""`distill show RUN --tokens`: rows of 3_dataset token by token, with a mark where the loss is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.commands import run_config
from pipeline.commands.whereabouts import PLACE, count_rows, row_at, whole_row
from pipeline.config import Config
from pipeline.errors import DONE, UserError
from pipeline.stage2_train.tokenised import TokenRow, TokenRows, token_rows

_LEGEND = (
    "[token] the loss is taken here   [token*] with the teacher's probabilities   "
    "token| read only   ~token~ cut off by max_length"
)
_COLOURS = {"taught": "\033[32m", "read": "\033[2m", "cut": "\033[31m"}
_PLAIN = "\033[0m"


def show_tokens(run: Path, wanted: str | None, n: int) -> int:
    """Print `n` rows spread over the train split, or the one that `wanted` names (train:12)."""
    config = run_config(run)
    places = [(name, _row(run, name)) for name in _names(run, wanted, n)]
    trained = [row for _, row in places if row["weight"]]
    found = token_rows(config, trained) if trained else None
    print(_LEGEND)
    if config.train.stages:
        print("with the settings of the first stage of train.stages")
    shown = iter(found.rows if found else [])
    for name, row in places:
        print(f"\n--- {name} (request {row['source'][0]}, weight {row['weight']:g})", end=": ")
        if not row["weight"]:
            print("left out, for its weight is 0")
            continue
        assert found is not None
        _print_row(next(shown), found)
    if found and found.coverage and config.train.soft_targets:
        _print_coverage(config, found)
    return DONE


def _names(run: Path, wanted: str | None, n: int) -> list[str]:
    if wanted is not None:
        if not PLACE.fullmatch(wanted):
            raise UserError(f"--tokens shows a row of the dataset, as train:12; seen: {wanted!r}")
        return [wanted]
    rows = count_rows(run, "train")
    if not rows:
        raise UserError(
            f"{run} has no 3_dataset yet; `distill curate {run / 'config.yaml'}` makes it"
        )
    n = max(1, min(n, rows))
    return [f"train:{i * rows // n}" for i in range(n)]


def _row(run: Path, name: str) -> dict[str, Any]:
    found = PLACE.fullmatch(name)
    assert found is not None
    return whole_row(run, row_at(run, found[1], int(found[2])))


def _print_row(row: TokenRow, all_rows: TokenRows) -> None:
    begin, end = row.kept
    taught = sum(row.taught[begin:end])
    cut = len(row.tokens) - (end - begin)
    parts = [f"{len(row.tokens):,} tokens", f"loss on {taught:,}"]
    if all_rows.coverage:
        parts.append(f"{sum(row.soft[begin:end]):,} of them with the teacher's probabilities")
    if cut:
        parts.append(f"{cut:,} cut off by max_length {all_rows.max_length:,}")
    print(", ".join(parts))
    print(_line(row))
    for warning in _warnings(row, taught, cut, all_rows):
        print(f"warning: {warning}")


def _line(row: TokenRow) -> str:
    begin, end = row.kept
    colours = sys.stdout.isatty()
    cells = []
    for i, token in enumerate(row.tokens):
        text = _visible(token)
        if not begin <= i < end:
            kind, cell = "cut", f"~{text}~"
        elif row.taught[i]:
            kind, cell = "taught", f"[{text}{'*' * row.soft[i]}]"
        else:
            kind, cell = "read", f"{text}|"
        cell = f"{_COLOURS[kind]}{cell}{_PLAIN}" if colours else cell
        cells.append(cell + "\n" * token.count("\n"))
    return "".join(cells).rstrip("\n")


def _visible(token: str) -> str:
    """Foreign text for a terminal: nothing that it would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in token)


def _warnings(row: TokenRow, taught: int, cut: int, all_rows: TokenRows) -> list[str]:
    found = []
    if not taught:
        why = "max_length leaves none of its answer" if any(row.taught) else "nothing is taught"
        found.append(f"no loss at all: {why}, and the trainer leaves the row out")
    elif not row.ends:
        stops = " or ".join(_visible(stop) for stop in all_rows.stops)
        why = "it is cut off" if cut else "the chat template does not end the turn with it"
        found.append(
            f"the end of the turn is not taught ({stops}: {why}); a student that learns from such "
            "rows does not stop"
        )
    if row.left_out:
        found.append(
            f"the prompt's end {_visible(row.left_out)!r} is in no training row: the chat template "
            "renders the prompt alone otherwise than in front of an answer, and the loss begins "
            "where the two differ"
        )
    return found


def _print_coverage(config: Config, found: TokenRows) -> None:
    coverage: Any = found.coverage
    soft = config.train.soft_targets
    assert soft is not None
    print(
        f"\nsoft targets: {coverage.found:,} of these {coverage.rows:,} rows have the teacher's "
        f"log-probabilities; they cover {coverage.share:.1%} of their taught tokens (min_coverage "
        f"{soft.min_coverage:.0%}, of all rows)"
    )
