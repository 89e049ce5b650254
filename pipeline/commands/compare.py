"""`distill compare RUN RUN`: two students on the same items, as a page and as Markdown."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands import printable, run_folder
from pipeline.errors import DONE, UserError
from pipeline.stage3_evaluate.compare import compare


def compare_runs(first: str, second: str, to: Path | None) -> int:
    one, two = run_folder(first), run_folder(second)
    if one.resolve() == two.resolve():
        raise UserError(f"{first} and {second} are the same run; name two")
    target = to or one.parent / f"{one.name}-against-{two.name}.html"
    if target.suffix != ".html":
        raise UserError(f"--to {target}: name a file that ends in .html; beside it goes a .md")
    page = compare(one, two, target)
    for card in page.cards:
        print(
            f"{card.title}, {card.metric}: {card.before} and {card.after}, {card.change} "
            f"({card.interval}); {card.badge}: {printable(card.reason)}"
        )
    for note in page.notes:
        print(f"note: {note}")
    print(f"written: {target} and {target.with_suffix('.md')}")
    return DONE
