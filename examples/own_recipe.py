"""An own recipe: the seed is the answer, and the teacher writes the instruction for it.

Source: instruction back-translation (2308.06259). Asked: for an instruction that a text of the seed
file would answer well. Kept: what passes the filters, and (`most_words`) is no longer than a
person would type. Student sees: the teacher's instruction -> the text, which a person wrote.
"""

from pipeline.prompts import render
from pipeline.records import Message
from pipeline.stage1_generate.recipes import Lost

GRADE = "B0"  # text is all it needs from a teacher


def requests(seed, asking):
    """What the teacher is asked: `asking` is the task's teacher_prompt."""
    return render(asking, seed.fields)


def example(seed, generation, showing):
    """What the student learns: prompt and completion, both as chat messages."""
    instruction = generation.text.strip().strip('"')
    prompt = render(showing, {"question": instruction})
    return prompt, (Message("assistant", seed.fields["text"]),)


def harvest(answers, most_words=40):
    """What another task gets with `seeds: {from: ...}`: here, the instructions as new seeds."""
    for _seed, request, generation in answers:
        instruction = generation.text.strip().strip('"')
        if len(instruction.split()) > most_words:
            yield Lost(f"over {most_words} words", instruction)
        else:
            yield {"instruction": instruction, "source_request": request.id}
