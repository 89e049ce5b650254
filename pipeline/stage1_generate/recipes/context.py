"""Context distillation: the teacher sees a prompt or worked examples that the student does not.

Source: Askell et al. (2112.00861), Snell et al. (2209.15189). Grade B0.
Asked: the question after the context. Kept: what passes the filters. Student sees: the bare
question -> the answer. It internalises the context; it does not teach the use of contexts
(that is `in_context`).
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed
from pipeline.stage1_generate.recipes import response

GRADE = Grade.TEXT


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    if not (asking.text.shots or asking.text.shots_from or asking.text.system):
        raise UserError(
            f"{asking.ref.name}: the recipe context needs a teacher prompt with a `system` text, "
            "`shots` or `shots_from`; without one the teacher sees no more than the student"
        )
    return render(asking, seed.fields)


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    return response.example(seed, generation, showing)
