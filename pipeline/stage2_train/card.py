"""The model card of a student: 4_student/README.md."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import Config
from pipeline.config_dataset import Control


def model_card(config: Config, log: list[dict[str, Any]], control: Control | None = None) -> str:
    """Markdown with what it was made from and how; scores stand in the run's report."""
    losses = [entry["loss"] for entry in log if "loss" in entry]
    teachers = ", ".join(t.model for t in config.all_teachers.values())
    tasks = "\n".join(f"- {t.name}: recipe `{t.recipe}`" for t in config.tasks)
    course = f"{losses[0]:.3f} to {losses[-1]:.3f}" if losses else "not logged"
    made = f"answers of\n`{teachers}` that passed every filter"
    if control is not None:
        made = f"the control `{control}` of its dataset (3_controls/), to compare it with"
    # A package or a local folder is no hub id, and the hub's card checker would refuse it.
    base = "" if ":" in config.student.model else f"base_model: {config.student.model}\n"
    return f"""---
{base}library_name: transformers
tags:
- trl
- sft
- distillation
---

# {config.name}

A student made from `{config.student.model}` by supervised fine-tuning (TRL) on {made}. Made by
blackbox-distill.

{tasks}

Training loss went from {course}. Settings over the defaults:

```json
{json.dumps({"sft": config.train.sft, "lora": config.train.lora}, indent=2)}
```

The dataset and its card are in the run's 3_dataset/, the evaluation in its report. The training
text was written by the teacher: its licence and terms of use apply to it.
"""
