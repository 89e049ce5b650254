"""GSM8K's own solutions as answers: what our extractor reads and what lm-eval's two filters do.

    python bench/extractors.py --data gsm8k/test.jsonl --list 10

The calculator's marks (<<3*4=12>>) are taken out first. Each solution is read as it is written,
with "The answer is 18." for its last line "#### 18", and without that line. Needs the extra
lm-eval.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import harness


def without_marks(text: str) -> str:
    return re.sub(r"<<.*?>>", "", text)


def stated(text: str) -> str:
    return without_marks(text).replace("#### ", "The answer is ") + "."


FORMS: dict[str, Callable[[str], str]] = {
    "as written": without_marks,
    '"The answer is 18."': lambda text: (
        without_marks(text).replace("#### ", "The answer is ") + "."
    ),
    "without the last line": lambda text: without_marks(text).split("\n####")[0],
}


def theirs() -> dict[str, Callable[[str, str], tuple[str, float]]]:
    """Filter -> (what it takes of a text, whether that is right), as lm-eval's task has them."""
    import lm_eval
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    from pipeline.config_file import load_yaml

    file = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    task, _ = load_yaml(file)
    (metric,) = task["metric_list"]
    ignored = {"regexes_to_ignore": metric["regexes_to_ignore"], "ignore_case": True}

    def reader(settings: dict[str, object]) -> Callable[[str, str], tuple[str, float]]:
        regex = RegexFilter(**{k: v for k, v in settings.items() if k != "function"})

        def read(text: str, solution: str) -> tuple[str, float]:
            taken = regex.apply([[text]], [{}])[0][0]
            found = exact_match_fn(predictions=[taken], references=[solution], **ignored)
            return taken, float(found["exact_match"])

        return read

    return {one["name"]: reader(dict(one["filter"][0])) for one in task["filter_list"]}


def main() -> None:
    from pipeline.records import Finish
    from pipeline.stage3_evaluate.answers import extract_number, numbers_equal

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="GSM8K's test.jsonl")
    parser.add_argument("--list", type=int, default=10, help="differences to print of each form")
    options = parser.parse_args()
    solutions = [json.loads(line)["answer"] for line in options.data.read_text().splitlines()]
    filters = theirs()
    harness.table(["answers", "ours", *filters, "differ from flexible", "of these ours right"])
    listed: list[list[object]] = []
    for form, write in FORMS.items():
        right = dict.fromkeys(["ours", *filters], 0.0)
        differ: list[tuple[float, list[object]]] = []
        for number, solution in enumerate(solutions):
            text = write(solution)
            gold = solution.split("####")[-1].strip().replace(",", "")
            _, value = extract_number(text, Finish.STOP)
            mine = float(value is not None and numbers_equal(value, gold))
            right["ours"] += mine
            taken = {name: read(text, solution) for name, read in filters.items()}
            for name, (_, fine) in taken.items():
                right[name] += fine
            other, fine = taken["flexible-extract"]
            if fine != mine:
                differ.append((mine, [number, gold, value, other, " ".join(text.split())[-70:]]))
        shares = [f"{n / len(solutions):.3f}" for n in right.values()]
        harness.line([form, *shares, len(differ), round(sum(mine for mine, _ in differ))])
        listed += [row for _, row in differ[: options.list]]
    if listed:
        print()
        harness.table(["item", "gold", "ours", "flexible-extract", "end of the answer"])
    for row in listed:
        harness.line(row)


if __name__ == "__main__":
    main()
