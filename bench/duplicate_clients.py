"""One job of duplicates.py, in the tool's own environment: read rows, drop duplicates, say which.

Every function gets the same texts, ready in memory, and answers with the CPU seconds it took and
the numbers of the rows that it drops. Rivals run as their own documents show for this job, with
shingles made in the fastest way of plain Python that was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

CHUNK = 1000  # rows made at a time, outside the measured seconds
QUESTION = "Question {}: what is written here?"


def shingles(text: str, ngram: int) -> list[str]:
    words = text.split()
    return words if ngram == 1 else list(map(" ".join, zip(*(words[k:] for k in range(ngram)))))  # noqa: B905


def rensa(texts: list[str], options: argparse.Namespace) -> tuple[float, list[int]]:
    """16 bands: with those that it takes by itself it found 0.82 of the pairs of Jaccard 0.9."""
    from rensa import RMinHashDeduplicator

    started = time.process_time()
    found = RMinHashDeduplicator(
        threshold=options.threshold, num_perm=128, use_lsh=True, num_bands=16
    )
    pairs = ((str(i), shingles(text, options.ngram)) for i, text in enumerate(texts))
    kept = found.add_pairs(pairs)
    seconds = time.process_time() - started
    return seconds, [i for i, keep in enumerate(kept) if not keep]


def datasketch(texts: list[str], options: argparse.Namespace) -> tuple[float, list[int]]:
    from datasketch import MinHash, MinHashLSH
    from xxhash import xxh32_intdigest

    started = time.process_time()
    index = MinHashLSH(threshold=options.threshold, num_perm=128)
    sets = ([s.encode() for s in shingles(text, options.ngram)] for text in texts)
    sketches: dict[int, Any] = {}
    dropped = []
    for i, sketch in enumerate(MinHash.generator(sets, num_perm=128, hashfunc=xxh32_intdigest)):
        if any(sketch.jaccard(sketches[k]) >= options.threshold for k in index.query(sketch)):
            dropped.append(i)
        else:
            index.insert(i, sketch)
            sketches[i] = sketch
    return time.process_time() - started, dropped


def ours(texts: list[str], options: argparse.Namespace) -> tuple[float, list[int]]:
    """The filter of curation, shown every row and then asked about each."""
    from pipeline.stage1_generate.curate import make_filter

    settings = {"threshold": options.threshold, "ngram": options.ngram, "over": "completion"}
    check: Any = make_filter("near_duplicates", settings, "bench")
    seconds, _ = timed(texts, check.gather)
    more, verdicts = timed(texts, check)
    return seconds + more, [i for i, v in enumerate(verdicts) if v.decision == "drop"]


def exact(texts: list[str], options: argparse.Namespace) -> tuple[float, list[int]]:
    from pipeline.stage1_generate.curate import make_filter

    seconds, verdicts = timed(texts, make_filter("exact_duplicates", {}, "bench"))
    return seconds, [i for i, v in enumerate(verdicts) if v.decision == "drop"]


def python_set(texts: list[str], options: argparse.Namespace) -> tuple[float, list[int]]:
    """What a script would do: the texts themselves in a set, nothing normalised."""
    seen = set()

    def check(row: Any) -> bool:
        key = (row.example.prompt, row.example.completion)
        if key in seen:
            return True
        seen.add(key)
        return False

    seconds, verdicts = timed(texts, check)
    return seconds, [i for i, duplicate in enumerate(verdicts) if duplicate]


def timed(texts: list[str], job: Callable[[Any], Any]) -> tuple[float, list[Any]]:
    """Seconds of `job` alone over the rows, and what it said of each."""
    made, seconds, said = candidates(iter(texts)), 0.0, list[Any]()
    while rows := list(islice(made, CHUNK)):
        started = time.process_time()
        said += map(job, rows)
        seconds += time.process_time() - started
    return seconds, said


def candidates(texts: Iterator[str]) -> Iterator[Any]:
    """Rows of a question and an answer; equal answers are to equal questions."""
    from pipeline.records import (
        Example,
        Finish,
        Generation,
        Message,
        PromptRef,
        Request,
        Sampling,
        Seed,
    )
    from pipeline.stage1_generate.curate import Candidate

    seed, sampling, prompt = Seed("s", "t", {}), Sampling(), PromptRef("bench", "0")
    for number, text in enumerate(texts):
        turns = (Message("user", QUESTION.format(text[:12])),)
        key = f"{number:032x}"
        request = Request(key, "s", "response", prompt, turns, sampling, 0, "bench")
        example = Example(turns, (Message("assistant", text),), 1.0, (key,))
        yield Candidate(seed, request, Generation(key, text, Finish.STOP), example)


def memory(name: str, rows: int) -> dict[str, float]:
    """Bytes a row that the filter `name` holds, at its peak, and on disk; and its rows/s."""
    from pipeline.stage1_generate.curate import make_filter

    body = "all of this is the same in every row " * 3
    texts = (f"{i} {i * 7919 % 1000003} {body}{i % 997} {i % 31}" for i in range(rows))
    settings = {"over": "completion"} if name == "near_duplicates" else {}
    check: Any = make_filter(name, settings, "bench")
    for row in candidates(iter(["warm up"])):
        warm: Any = make_filter(name, settings, "bench")
        if name == "near_duplicates":
            warm.gather(row)
        warm(row)
    before, whole, started, disk = resident("RssAnon"), resident("VmRSS"), time.process_time(), 0
    if name == "exact_duplicates":
        for row in candidates(texts):
            check(row)
        held = resident("RssAnon")
    else:
        for row in candidates(texts):
            check.gather(row)
        held, disk = resident("RssAnon"), unnamed_files()
        check(next(candidates(iter([f"0 0 {body}0 0"]))))
    seconds = time.process_time() - started
    return {
        "held": (held - before) / rows,
        "peak": (resident("VmHWM") - whole) / rows,
        "disk": disk / rows,
        "rate": rows / seconds,
    }


def resident(field: str) -> int:
    """Bytes: RssAnon (no file stands behind), VmRSS (mapped files too), VmHWM (its highest)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def unnamed_files() -> int:
    """Bytes of the open files that have been unlinked."""
    found = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(
        path.stat().st_size for path in found if path.exists() or "(deleted)" in _target(path)
    )


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


JOBS: dict[str, Callable[[list[str], argparse.Namespace], tuple[float, list[int]]]] = {
    "ours": ours,
    "rensa": rensa,
    "datasketch": datasketch,
    "exact": exact,
    "python_set": python_set,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=[*JOBS, "memory"])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--filter", default="exact_duplicates")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.8)
    options = parser.parse_args()
    if options.job == "memory":
        print("MEASURED " + json.dumps(memory(options.filter, options.rows)))
        return
    with options.file.open(encoding="utf-8") as file:
        texts = [json.loads(line) for line in islice(file, options.rows)]
    seconds, dropped = JOBS[options.job](texts, options)
    print("MEASURED " + json.dumps([len(texts), seconds, dropped]))


if __name__ == "__main__":
    sys.exit(main())
