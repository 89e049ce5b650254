"""`answer: {kind: math}` on GSM8K-style answers of which some are hostile: time, verdicts, reasons.

    python bench/hostile_answers.py                # 5,000 answers, 1 % hostile; some 3 minutes
    python bench/hostile_answers.py --rows 300

Answers are worked solutions in many forms (####, \\boxed, dollars, fractions, decimals, percent,
thousands), one in five of them wrong. Hostile ones hold huge powers, factorials, deep nesting,
endless sums, and texts on which the patterns of math-verify search for ever. Every answer goes
through the filter as in `curate`, one after the other. Beside it: math-verify in the same process,
on the good answers alone, for what the other process costs.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import time
from collections import Counter, defaultdict
from fractions import Fraction

import harness

from pipeline.records import (
    Decision,
    Example,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
)
from pipeline.stage1_generate.curate import Candidate, make_filter

HOSTILE = {
    "tower of powers": "The answer is $10^{10^{10}}$.",
    "power in plain text": "The answer is 9**9**9**9",
    "long tower in plain text": "The answer is 9^" + "9^" * 3000 + "9",
    "factorial of factorials": "So we have $\\boxed{((9!)!)!}$ ways.",
    "large factorial": "The answer is $99999999!$",
    "endless sum": "The answer is $\\sum_{n=1}^{10^{12}} \\sin(n)$",
    "endless product": "The answer is $\\prod_{n=1}^{10^{9}} n$",
    "hard integral": "The answer is $\\int_0^{1} e^{x^{x^{x}}} dx$",
    "derivative of order 500": "The answer is $\\frac{d^{500}}{dx^{500}} e^{\\sin x}$",
    "expansion": "The answer is $(x+1)^{100000} - (x-1)^{100000}$",
    "nested parentheses": "The answer is $" + "(" * 5000 + "1" + ")" * 5000 + "$.",
    "nested roots": "The answer is $" + "\\sqrt{" * 3000 + "2" + "}" * 3000 + "$.",
    "nested fractions": "\\boxed{" + "\\frac{1}{1+" * 2000 + "1" + "}" * 2000 + "}",
    "open boxes": "\\boxed{" * 20_000,
    "large matrix": "$\\begin{pmatrix}" + "1&" * 3000 + "1\\end{pmatrix}^{1000}$",
    "digits": "The answer is " + "1" * 200_000,
    "endless pattern: spaced digits": "1 " * 100_000,
    "endless pattern: sum": "answer: " + "1+" * 50_000 + "x",
    "endless pattern: parentheses": "The answer is (1 - (2 - (3 " * 5000,
    "endless pattern: markers": "final answer is " * 20_000,
    "endless pattern: dollars": "$" * 100_000,
    "endless pattern: dollars and digits": "$1 " * 40_000,
    "broken Unicode": "The answer is \ud800\x00$" + "\u0661" * 1000,
    "code for SymPy's parser": "The answer is (1).__class__.__mro__[1].__subclasses__()",
    "memory": "The answer is $\\binom{10^{9}}{5 \\cdot 10^{8}}$",
}


def shown(value: Fraction, rng: random.Random) -> str:
    """A number as a teacher may write it."""
    if value.denominator != 1:
        half = f"{float(value):g}"
        return rng.choice([half, f"$\\frac{{{value.numerator}}}{{{value.denominator}}}$"])
    whole = int(value)
    return rng.choice([f"{whole}", f"{whole:,}", f"${whole}$", f"{whole}.0", f"\\${whole:,}"])


def solution(value: Fraction, rng: random.Random) -> str:
    a, b = rng.randint(2, 90), rng.randint(2, 40)
    steps = (
        f"First, each box holds {a} figs, so {b} boxes hold {a} * {b} = {a * b} figs.\n"
        f"After {rng.randint(1, a)} were eaten, we divide what is left by {rng.randint(2, 9)}.\n"
    )
    plain = f"{float(value):g}" if value.denominator != 1 else f"{int(value)}"
    endings = [
        f"#### {plain}",
        f"The answer is {shown(value, rng)}.",
        f"So the total is \\boxed{{{plain}}}.",
        f"Therefore, she has **{plain}** figs.\n\nAnswer: {plain}",
        f"The final answer is ${plain}$. I hope it is correct.",
        f"Thus, they need {plain} minutes in all.",
    ]
    return steps + rng.choice(endings)


def row(number: int, text: str, reference: str) -> Candidate:
    messages = (Message("user", "How many figs?"),)
    request = Request(
        f"{number:032x}", "s", "response", PromptRef("p", "h"), messages, Sampling(), 0, "m"
    )
    generation = Generation(request.id, text, Finish.STOP)
    seed = Seed(str(number), "t", {"question": "How many figs?"}, reference)
    example = Example(messages, (Message("assistant", text),), 1.0, (request.id,))
    return Candidate(seed, request, generation, example)


def rows(count: int, share: float) -> list[tuple[str, Candidate]]:
    """(kind, answer): right, wrong, or the name of a hostile kind."""
    rng = random.Random(11)
    names = list(HOSTILE)
    found = []
    hostile = set(rng.sample(range(count), round(count * share)))
    for number in range(count):
        value = Fraction(rng.randint(1, 5000))
        if rng.random() < 0.15:
            value /= rng.choice([2, 4, 5, 8])
        reference = f"{float(value):g}" if value.denominator != 1 else f"{int(value):,}"
        if number in hostile:
            kind = names[number % len(names)] if len(hostile) < len(names) else names.pop(0)
            names = names or list(HOSTILE)
            found.append((kind, row(number, HOSTILE[kind], reference)))
        elif rng.random() < 0.2:
            other = value + rng.choice([-1, 1, 10, Fraction(1, 2)])
            found.append(("wrong", row(number, solution(other, rng), reference)))
        else:
            found.append(("right", row(number, solution(value, rng), reference)))
    return found


def bare(answers: list[tuple[str, Candidate]]) -> float:
    """Answers a second of math-verify in this process."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    parse("$1$", parsing_timeout=None)
    good = [found for kind, found in answers if kind in ("right", "wrong")][:1000]
    started = time.perf_counter()
    for each in good:
        gold = parse(f"${each.seed.reference}$", parsing_timeout=None)
        verify(gold, parse(each.generation.text, parsing_timeout=None), timeout_seconds=None)
    return len(good) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--share", type=float, default=0.01, help="of hostile answers")
    parser.add_argument("--seconds", type=float, default=2.0, help="of CPU time for one answer")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}",
        flush=True,
    )
    answers = rows(options.rows, options.share)
    check = make_filter("answer", {"kind": "math", "seconds": options.seconds}, "bench")
    started = time.perf_counter()
    check(row(-1 % 2**64, "The answer is 1.", "1"))
    start = time.perf_counter() - started
    verdicts: Counter[tuple[str, str]] = Counter()
    took: dict[str, float] = defaultdict(float)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    begun = time.perf_counter()
    for kind, candidate in answers:
        started = time.perf_counter()
        verdict = check(candidate)
        took[kind] += time.perf_counter() - started
        reasons[kind][verdict.reason or "kept"] += 1
        verdicts[kind if kind in ("right", "wrong") else "hostile", verdict.decision] += 1
    seconds = time.perf_counter() - begun
    good = sum(n for (kind, _), n in verdicts.items() if kind != "hostile")
    rate = good / (took["right"] + took["wrong"])
    del check  # ends the worker, so that its time can be read
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    alone = bare(answers)
    cpu = used.ru_utime + used.ru_stime
    print(
        f"{len(answers)} answers in {seconds:.1f} s after {start:.1f} s to start, {cpu:.1f} s "
        f"of the worker's CPU time; good ones {rate:.0f} a second, in one process {alone:.0f}"
    )
    harness.line(["answers", "kept", "dropped"])
    for kind in ("right", "wrong", "hostile"):
        harness.line([kind, *(str(verdicts[kind, d]) for d in (Decision.KEEP, Decision.DROP))])
    print()
    harness.line(["hostile", "answers", "reasons", "seconds each"])
    for kind in HOSTILE:
        if count := sum(reasons[kind].values()):
            why = ", ".join(f"{reason} {n}" for reason, n in reasons[kind].items())
            harness.line([kind, str(count), why, f"{took[kind] / count:.1f}"])
    for kind in ("right", "wrong"):
        print(f"{kind}: {dict(reasons[kind])}")


if __name__ == "__main__":
    main()
