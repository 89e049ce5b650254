"""`distill cancel CONFIG`: end the batches that providers still work on for this config's teachers.

What they have finished is paid for; the next run collects it, and asks the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import load_config
from pipeline.errors import DONE
from pipeline.models import RUNS, http_serving, model_identity


def cancel(path: Path, overrides: Sequence[str]) -> int:
    config = load_config(path, overrides)
    found = 0
    for name, teacher in config.all_teachers.items():
        if teacher.backend != "openai":
            continue
        from pipeline.models.batch_parts import cancel_open

        place = "teacher" if config.teacher is not None else f"teachers.{name}"
        serving = http_serving(teacher, place)
        for part, state in cancel_open(serving, RUNS, model_identity(teacher)):
            found += 1
            was = f" (it was {part.status})" if part.status not in (None, state.status) else ""
            print(f"{name}: batch {state.id} of {part.rows:,} rows: {state.words}{was}")
    if found:
        print("What is finished is paid for: run again to collect it and to ask the rest")
    else:
        print("no open batches")
    return DONE
