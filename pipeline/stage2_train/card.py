"""The model card of a student: 4_student/README.md."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import Config
from pipeline.config_train import MAIN, Variant
from pipeline.models import student_checkpoint
from pipeline.models.changes import notes_of


def model_card(config: Config, log: list[dict[str, Any]], variant: Variant = MAIN) -> str:
    """Markdown with what it was made from and how; scores stand in the run's report."""
    teachers = ", ".join(t.model for t in config.all_teachers.values())
    tasks = "\n".join(f"- {t.name}: recipe `{t.recipe}`" for t in config.tasks)
    preference = config.train.preference
    methods = {"sft": "supervised fine-tuning"}
    if preference is not None:
        methods["dpo"] = "direct preference optimization over its own answers before"
        if preference.after == "nothing":
            del methods["sft"]
    how, tags = " and ".join(methods.values()), "\n- ".join(methods)
    course = "\n".join(
        line
        for method, name in (("sft", "Training loss"), ("dpo", "Preference loss (DPO)"))
        for line in _course(name, [entry for entry in log if entry.get("method", "sft") == method])
    )
    settings: dict[str, Any] = {"sft": config.train.sft, "lora": config.train.lora}
    if preference is not None:
        settings["preference"] = preference.model_dump(mode="json")
    made = f"answers of\n`{teachers}` that passed every filter"
    if variant.control is not None:
        made = f"the control `{variant.control}` of its dataset (3_controls/), to compare it with"
    if variant.only is not None:
        made += f", of the task `{variant.only}` alone, to compare it with"
    changes = "".join(f"\n- {note}" for note in notes_of(student_checkpoint(config)))
    made_of = f"Before training, the model was changed:\n{changes}\n\n" if changes else ""
    # A package or a local folder is no hub id, and the hub's card checker would refuse it.
    base = "" if ":" in config.student.model else f"base_model: {config.student.model}\n"
    return f"""---
{base}library_name: transformers
tags:
- trl
- {tags}
- distillation
---

# {config.name}

A student made from `{config.student.model}` by {how} (TRL) on {made}. Made by
blackbox-distill.

{tasks}

{made_of}{course or "No loss was logged."} Settings over the defaults:

```json
{json.dumps(settings, indent=2)}
```

The dataset and its card are in the run's 3_dataset/, the evaluation in its report. The training
text was written by the teacher: its licence and terms of use apply to it.
"""


def _course(name: str, log: list[dict[str, Any]]) -> list[str]:
    losses = [entry["loss"] for entry in log if "loss" in entry]
    return [f"{name} went from {losses[0]:.3f} to {losses[-1]:.3f}."] if losses else []
