"""Steps of the evaluation that a run may have done though its config does not ask for them now."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.stage3_evaluate import cost_of_use, held_out_text
from pipeline.steps import Step, StepResult


def no_longer_asked(config: Config, redone: str) -> list[Step]:
    """Those that come after the step `redone`, with what they write, to be forgotten.

    What they measured is of the models that were there before; they can do nothing.
    """
    evaluate = config.evaluate
    optional = {
        "text": (held_out_text.FOLDER, evaluate.held_out_text),
        "suite": ("5_suite", evaluate.suite),
        "cost": (cost_of_use.FILE, evaluate.cost_of_use),
    }
    order = [*optional, "score", "report"]
    later = order[order.index(redone) + 1 :] if redone in order else order
    return [
        Step(name, config.run_dir, {}, [], [config.run_dir / output], StepResult)
        for name, (output, asked) in optional.items()
        if name in later and not asked
    ]
