"""Names of a ledger's segments, and which of them a shard has to read.

    0000-000007.jsonl            a whole command wrote it, or it is older than the names below
    0003of0016-000007.jsonl      shard 3 of 16 wrote it

A shard asks the requests whose hash of messages is i - 1 modulo n. So what shard i of n wrote can
hold a row of shard j of m only where i and j are the same modulo the greatest common divisor of n
and m; any segment may hold rows of a segment's writer that is not known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_NAME = re.compile(r"(?P<part>\d+)(?:of(?P<of>\d+))?-(?P<number>\d+)\.jsonl")


def segment_name(part: int, of: int, number: int) -> str:
    """`part`: from 1; 0 with `of` 0: no shard."""
    writer = f"{part:04d}of{of:04d}" if of else f"{part:04d}"
    return f"{writer}-{number:06d}.jsonl"


def next_number(names: Iterable[str]) -> int:
    """After every segment there is."""
    found = (_NAME.fullmatch(name) for name in names)
    return 1 + max((int(match["number"]) for match in found if match), default=-1)


def by_age(name: str) -> tuple[int, str]:
    """To sort by: a writer numbers its segments after all that were there when it began.

    Of two rows of one request the later one counts, whoever wrote it.
    """
    match = _NAME.fullmatch(name)
    return (int(match["number"]) if match else -1, name)


def may_share(name: str, part: int, of: int) -> bool:
    """May a segment hold rows of this shard's requests? Of a whole command's (`of` 0): any may."""
    match = _NAME.fullmatch(name)
    if not of or match is None or match["of"] is None:
        return True
    return (int(match["part"]) - part) % math.gcd(int(match["of"]), of) == 0
