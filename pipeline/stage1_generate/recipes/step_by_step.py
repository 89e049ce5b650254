"""Label and rationale as two tasks: the student learns both, and answers without reasoning.

Source: Distilling step-by-step (2305.02301): L = alpha * L_label + (1 - alpha) * L_rationale,
alpha 0.5. Grade B0.
Asked: the question, with a request to reason or with worked examples. Kept: what passes the
filters (`answer` where there is a reference, `vote` where there is none). Student sees two rows for
an answer: view "label" -> the answer alone, of weight 2 alpha; view "rationale" -> the reasoning,
of weight 2 (1 - alpha): twice the paper's, so that at 0.5 every row counts as one. The student
prompt tells them apart by `{{ view }}` (student/step_by_step.yaml: "[label] ..." and
"[rationale] ..."). Tested with "[label] ...", the student spends no token on reasoning; with
"[rationale] ...", it reasons.

The paper's rationale ends before the answer; here it keeps its closing statement, so that the
reasoning view can be scored too. `closing: false` takes it off.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed
from pipeline.stage1_generate.rationales import parts, stated_answer
from pipeline.stage1_generate.recipes import Row, chain_of_thought

GRADE = Grade.TEXT

requests = chain_of_thought.requests


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The rationale's row, which is the one that filters look at."""
    rationale = rows(seed, generation, showing)[0]
    return rationale.prompt, rationale.completion


def rows(
    seed: Seed,
    generation: Generation,
    showing: Prompt,
    *,
    alpha: float = 0.5,
    closing: bool = True,
) -> list[Row]:
    """The rationale's row and the label's; only the former where no answer can be read."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise UserError(
            f"tasks.{seed.task}.options.alpha: the label's share of the loss, above 0 and below 1, "
            f"as 0.5; seen: {alpha!r}"
        )
    _require_view(showing)
    thoughts = (generation.reasoning, generation.text)
    text = "\n\n".join(p.strip() for p in thoughts if p and p.strip())
    shown = text if closing else parts(text).steps
    rationale = Row(
        render(showing, seed.fields | {"view": "rationale"}),
        (Message("assistant", shown),),
        2 * (1 - alpha),
        "rationale",
    )
    value = stated_answer(seed, generation)
    if value is None:
        return [rationale]
    label = Row(
        render(showing, seed.fields | {"view": "label"}),
        (Message("assistant", value),),
        2 * alpha,
        "label",
    )
    return [rationale, label]


def _require_view(showing: Prompt) -> None:
    if "view" not in showing.variables:
        raise UserError(
            f"{showing.ref.name}: the recipe step_by_step needs a student prompt that uses "
            "{{ view }}, which is label or rationale, as prompts/student/step_by_step.yaml does"
        )
