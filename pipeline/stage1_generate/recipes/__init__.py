"""What a recipe is: a module with three things.

    GRADE                                   the access it needs to the teacher
    requests(seed, asking) -> messages      what the teacher is asked (one list of chat messages)
    example(seed, generation, showing)      what the student sees: (prompt, completion) messages

A recipe with options of its own has `prepare(seed, number, **options) -> seed`. `asking`
and `showing` are the task's two prompts. They are separate on purpose: with one prompt for both,
the result would measure the prompt.
"""

from __future__ import annotations

from types import ModuleType

from pipeline.errors import UserError

WHITE_BOX = {
    "feature": "hidden states",
    "attention": "attention maps",
    "relation": "hidden states of pairs of examples",
}


def recipe_named(name: str) -> ModuleType:
    """The recipe's module, or a `UserError` that lists what there is."""
    from pipeline.stage1_generate.recipes import (
        chain_of_thought,
        constraints,
        context,
        in_context,
        response,
    )

    known = {
        "response": response,
        "chain_of_thought": chain_of_thought,
        "constraints": constraints,
        "in_context": in_context,
        "context": context,
    }
    if name in known:
        return known[name]
    for kind, need in WHITE_BOX.items():
        if name.startswith(kind):
            raise UserError(
                f"recipe {name!r}: {kind}-based distillation needs the teacher's {need}; a "
                "black-box teacher returns text (and at most log-probabilities), so this pipeline "
                f"does not do it. Allowed: {', '.join(known)}"
            )
    raise UserError(f"recipe {name!r} is not known; allowed: {', '.join(known)}")
