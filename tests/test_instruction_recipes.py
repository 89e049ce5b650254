"""Instructions that the teacher makes up: self_instruct, instances, evolve, magpie."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.prompts import load_prompt
from pipeline.records import (
    OPEN_USER,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
)
from pipeline.stage1_generate.new_instructions import (
    HashedPool,
    Pool,
    alike,
    listed,
    single,
)
from pipeline.stage1_generate.recipes import (
    Lost,
    evolve,
    instances,
    magpie,
    self_instruct,
)
from tests.project import Project

ROOT = Path(__file__).parent.parent
WORDS = ["river", "poem", "cake", "planet", "song", "bridge", "tree", "king", "wheel", "coin"] * 2


def answer(
    text: str, seed: Seed | None = None, messages: tuple[Message, ...] = (), number: int = 0
) -> tuple[Seed, Request, Generation]:
    seed = seed or Seed("s", "t", {"question": "Name three rivers of Asia.", "pool": []})
    name = f"{number:032x}"
    request = Request(name, seed.id, "r", PromptRef("p", "h"), messages, Sampling(), 0, "m")
    return seed, request, Generation(name, text, Finish.STOP)


def sorted_out(found: Iterator[Any]) -> tuple[list[str], dict[str, str]]:
    """(instructions taken, text -> reason of what was not)."""
    taken, lost = [], {}
    for row in found:
        if isinstance(row, Lost):
            lost[row.text.split(" [")[0]] = row.reason
        else:
            taken.append(row.get("instruction") or row["question"])
    return taken, lost


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. Write a poem.\n2. Name a river.", ["Write a poem.", "Name a river."]),
        (
            "Sure! Here they are:\n\n1) Write a poem.\n\n2) Name a river.\n\nI hope this helps!",
            ["Write a poem.", "Name a river."],
        ),
        ("**1.** Write a poem.\n**2.** Name a river.", ["Write a poem.", "Name a river."]),
        ("Task 9: Write a poem.\nTask 10: Name a river.", ["Write a poem.", "Name a river."]),
        ('1. "Write a poem."\n2. **Name a river.**', ["Write a poem.", "Name a river."]),
        ("- Write a poem.\n- Name a river.", ["Write a poem.", "Name a river."]),
        # Without a list it is talk, which SmolLM2-135M is fond of.
        ("Here's a revised version:\n\nYou're a helpful assistant.", []),
        # Answered at once, on the next line or below.
        (
            "1. How do I boil an egg?\n\nPut it in water.\n\n2. What is heat?\nHeat is energy.",
            ["How do I boil an egg?", "What is heat?"],
        ),
        ("1. Sort these words:\n\nfig, ash", ["Sort these words:\n\nfig, ash"]),
        ('1. Is this good or bad?\n"I like it."', ['Is this good or bad?\n"I like it."']),
        (
            "1. Sort these words:\n   - fig\n   - ash\n2. Name a river.",
            ["Sort these words:\n   - fig\n   - ash", "Name a river."],
        ),
        ("1. 写一首诗。\n2、说出一条河。", ["写一首诗。", "说出一条河。"]),
        ("1. Add 2.5 and 3.\n2. Name a river.", ["Add 2.5 and 3.", "Name a river."]),
        ("", []),
    ],
)
def test_a_list_is_read_in_the_forms_that_teachers_use(text: str, items: list[str]) -> None:
    assert listed(text) == items


@pytest.mark.parametrize(
    "text",
    [
        "Name a river.",
        '"Name a river."',
        "**New instruction:** Name a river.",
        "#Rewritten Instruction#:\nName a river.",
        "Sure! Here is the new instruction:\n\nName a river.",
        "Certainly! Here's a harder version of the problem: Name a river.",
        "New Problem:\n\nName a river.",
        "Name a river.\n\nExplanation: it asks for one name alone.",
    ],
)
def test_the_one_instruction_is_freed_of_what_introduces_it(text: str) -> None:
    assert single(text) == "Name a river."


def test_single_leaves_an_instruction_that_brings_its_data() -> None:
    text = "Here are three numbers: 4, 9, 16. Which is odd?"
    assert single(text) == text


def rouge_l(left: list[str], right: list[str]) -> float:
    """The definition, by dynamic programming."""
    row = [0] * (len(right) + 1)
    for a in left:
        before = row[:]
        for j, b in enumerate(right, 1):
            row[j] = before[j - 1] + 1 if a == b else max(before[j], row[j - 1])
    return 2 * row[-1] / (len(left) + len(right))


def test_closeness_is_rouge_l() -> None:
    left, right = "write a short poem about the sea", "write a poem on the wide sea"
    assert alike(left, right) == pytest.approx(rouge_l(left.split(), right.split()))
    pool = Pool(["Name three rivers.", "Write a short poem about the sea."], most_alike=0.7)
    assert pool.closest("Write one poem on ships") is None
    assert pool.closest("WRITE a short poem about a sea!") == (0.857, pool._known[1])


def test_a_large_pool_is_compared_by_minhash() -> None:
    texts = [f"Tell me of lake {i} and of the {word}" for i, word in enumerate(WORDS * 9)]
    pool = HashedPool(texts, most_alike=0.7)
    found = pool.closest("Tell me of lake 17 and of the " + WORDS[17] + ".")
    assert found is not None and found[1] == texts[17] and found[0] > 0.7
    assert pool.closest("Write a sonnet on the first snow of the year") is None
    assert pool.closest("") is None and len(pool) == len(texts)


def human(n: int) -> list[Seed]:
    return [
        Seed(f"h{i}", "t", {"question": f"Tell me of the {WORDS[i % 10]} number {i}."})
        for i in range(n)
    ]


def test_requests_show_six_of_people_and_two_machine_made() -> None:
    made = [
        Seed(f"m{i}", "t", {"question": f"Made up {i}", "source_request": "x"}) for i in range(5)
    ]
    found = list(self_instruct.arrange(iter(human(20) + made), requests=10))
    assert len(found) == 10
    for seed in found:
        shown = seed.fields["instructions"]
        assert len(set(shown)) == 8 and sum(t.startswith("Made up") for t in shown) == 2
    assert len({tuple(seed.fields["instructions"]) for seed in found}) == 10
    pool = [text for seed in found for text in seed.fields["pool"]]
    assert len(pool) == 25 and len(set(pool)) == 25
    first = next(self_instruct.arrange(iter(human(20)), requests=10))
    assert len(first.fields["instructions"]) == 8  # of people alone, where there are no others


def test_a_pool_that_grows_changes_few_requests() -> None:
    before = list(self_instruct.arrange(iter(human(100)), requests=50))
    after = list(self_instruct.arrange(iter(human(101)), requests=50))
    same = sum(
        set(a.fields["instructions"]) == set(b.fields["instructions"])
        for a, b in zip(before, after, strict=True)
    )
    assert same >= 40


def test_self_instruct_keeps_what_is_new_and_well_formed() -> None:
    seeds = list(self_instruct.arrange(iter(human(12)), requests=4))
    text = (
        "1. Explain how a lock on a canal works.\n"
        "2. Explain how the lock on a canal works.\n"  # like the one before
        "3. Tell me of the river number 0.\n"  # in the pool, though in no accepted request
        "4. Sing.\n"
        "5. Describe the picture of a cat in one line.\n"
        "6. (Optional) list some fruits of the north.\n"
        "7. 12 + 34 + 56 + 78 + 90 = 270 !!!\n"
        "8. Classify the sentiment of this sentence as good or bad.\n"
    )
    taken, lost = sorted_out(self_instruct.harvest(iter([answer(text, seeds[0])]), iter(seeds)))
    assert taken == [
        "Explain how a lock on a canal works.",
        "Classify the sentiment of this sentence as good or bad.",
    ]
    assert list(lost.values()) == [
        "too close to another",
        "too close to another",
        "under 4 words",
        "names 'picture'",
        "begins with punctuation",
        "hardly any letters",
    ]
    rows = list(self_instruct.harvest(iter([answer(text, seeds[0])]), iter(seeds)))
    marks = [row["classification"] for row in rows if not isinstance(row, Lost)]
    assert marks == [False, True]


def test_instances_of_a_classification_task_are_asked_labels_first() -> None:
    asking = load_prompt(str(ROOT / "prompts/teacher/instances.yaml"))
    seed = Seed("s", "t", {"question": "Is it a fruit?", "classification": True})
    first = instances.requests(instances.prepare(seed, 0), asking)[-1].content
    assert first.index("Label: (") < first.index("Input: (")
    # What a task of the recipe `label` decided is worth more than the guess.
    decided = Seed("s", "t", {"question": "Is it a fruit?", "classification": True}, reference="no")
    assert "Output: (" in instances.requests(instances.prepare(decided, 0), asking)[-1].content


@pytest.mark.parametrize(
    ("classification", "text", "found"),
    [
        (
            True,
            "Label: fruit\nInput: a pear\n\nLabel: other\nInput: a stone",
            [("a pear", "fruit"), ("a stone", "other")],
        ),
        (True, "**Label:** fruit\n**Input:** a pear", [("a pear", "fruit")]),
        (True, "1. Label: fruit\n   Input: a pear", [("a pear", "fruit")]),
        # One input with two labels is worth nothing, and one that is there twice is one.
        (True, "Label: fruit\nInput: a pear\nLabel: other\nInput: a pear", []),
        (True, "Label: fruit\nInput: a pear\nLabel: fruit\nInput: a pear", [("a pear", "fruit")]),
        (True, "A pear is a fruit.", []),
        (False, "Input: a pear\nOutput: Sweet.\nGreen.", [("a pear", "Sweet.\nGreen.")]),
        (False, "Input: none\nOutput: It is sweet.", [("", "It is sweet.")]),
        (False, "Output: It is sweet.", [("", "It is sweet.")]),
        (False, "It is sweet.", [("", "It is sweet.")]),
        (False, "Input: a pear", []),
    ],
)  # fmt: skip
def test_instances_are_read(classification: bool, text: str, found: list[tuple[str, str]]) -> None:
    seed = Seed("s", "t", {"question": "?", "classification": classification})
    assert [tuple(one) for one in instances.read(seed, text)] == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Name three rivers of Asia and say which of them is the longest.", None),
        ("Name three rivers of Asia!", "no information gained"),
        ("Name three great rivers of Asia.", None),
        (
            "Name three rivers as the given prompt has them, but long ones.",
            "speaks of the rewriting",
        ),
        ("I'm sorry, but I cannot make this any harder.", "a refusal"),
        ("Rivers?", "under 4 words"),
        ("I'm ready to assist you, and my purpose is to help.", "speaks as an assistant"),
        ("Here is what you should do with the rivers:", "announces something"),
    ],
)
def test_evolve_eliminates_by_the_papers_rules(text: str, reason: str | None) -> None:
    seed = evolve.prepare(Seed("s", "t", {"question": "Name three rivers of Asia."}), 0)
    taken, lost = sorted_out(evolve.harvest(iter([answer(text, seed)]), same=0.95))
    assert list(lost.values()) == ([reason] if reason else [])
    assert taken == ([] if reason else [text])


def test_each_way_is_asked_and_a_seed_keeps_its_way() -> None:
    asking = load_prompt(str(ROOT / "prompts/teacher/evolve.yaml"))
    seeds = [evolve.prepare(seed, i) for i, seed in enumerate(human(60))]
    assert {seed.fields["way"] for seed in seeds} == set(evolve.WAYS)
    assert evolve.prepare(human(1)[0], 99).fields == seeds[0].fields
    texts = {
        way: evolve.requests(Seed("s", "t", {"question": "Q", "way": way}), asking)[-1].content
        for way in evolve.WAYS
    }
    assert len(set(texts.values())) == len(evolve.WAYS)
    assert all("\n\nInstruction:\nQ\n\n" in text for text in texts.values())
    assert "rarer" in texts["breadth"] and "harder" not in texts["breadth"]


def test_magpie_takes_users_turns_and_no_assistants() -> None:
    messages = (Message(OPEN_USER, "What "),)
    texts = ["is a delta of a river?", "is the delta of a river?", "now", "as an AI can I do?"]
    rows = [answer(text, None, messages, i) for i, text in enumerate(texts)]
    taken, lost = sorted_out(magpie.harvest(iter(rows)))
    assert taken == ["What is a delta of a river?"]
    assert list(lost.values()) == [
        "too close to another",
        "under 3 words",
        "speaks as an assistant",
    ]


def task(name: str, recipe: str, seeds: Any, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe,
        "seeds": seeds,
        "teacher_prompt": str(ROOT / f"prompts/teacher/{recipe}.yaml"),
        "student_prompt": str(ROOT / "prompts/student/instruction.yaml"),
    } | more


def seeds_by_task(project: Project) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in project.rows("0_seeds.jsonl"):
        found.setdefault(seed["task"], []).append(seed)
    return found


ROUNDS = """
import random
WORDS = (
    "lock canal bridge river tower market harbour meadow forest desert glacier island explain "
    "describe compare summarise rank translate invent outline defend question winter letter"
).split()

def answer(request):
    text = request.messages[-1].content
    number = int(request.id[:6], 16)
    if "Write 3 new instructions" in text:
        draw = random.Random(number)
        return "\\n".join(f"{i + 1}. " + " ".join(draw.sample(WORDS, 6)) for i in range(3))
    if "This is a task:" in text:
        return f"Input: case {number}\\nOutput: result {number}"
    return "Answered: " + text[-60:] + str(number)
"""


def test_rounds_of_self_instruct_draw_from_the_rounds_before(project: Project) -> None:
    (project.folder / "teacher.py").write_text(ROUNDS)
    people = str(ROOT / "data/seeds/instructions_en.jsonl")
    options = {"requests": 6, "per_request": 3}
    project.edit(
        tasks=[
            task("round-1", "self_instruct", people, options=options),
            task("round-2", "self_instruct", {"from": "round-1", "path": people}, options=options),
            task("answers", "instances", {"from": "round-2"}),
        ],
        curate__filters=[{"finish": {}}, {"exact_duplicates": {}}],
    )
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    seeds = seeds_by_task(project)
    lines = Path(people).read_text().splitlines()
    written = {json.loads(line)["instruction"] for line in lines}
    machine = [
        [text for text in seed["fields"]["instructions"] if text not in written]
        for seed in seeds["round-2"]
    ]
    assert [len(texts) for texts in machine] == [2] * 6
    assert all(not set(s["fields"]["instructions"]) - written for s in seeds["round-1"])
    new = [seed["fields"]["instruction"] for seed in seeds["answers"]]
    assert len(new) >= 10 and not written & set(new)
    first_round = {text for texts in machine for text in texts}
    assert not first_round & set(new)
    assert all(alike(a, b) < 0.7 for a in new for b in first_round)
    assert project.call("curate", "config.yaml").returncode == 0
    kept = project.rows("2_kept.jsonl")
    assert {row["meta"]["task"] for row in kept} == {"answers"}
    assert all("\n\ncase " in row["prompt"][0]["content"] for row in kept)
    assert all(row["completion"][0]["content"].startswith("result ") for row in kept)


EVOLVE = """
def answer(request):
    text = request.messages[-1].content
    if "Instruction:\\n" not in text:
        number = int(request.id[:6], 16)
        return "I am sorry, no." if number % 4 == 0 else f"A full answer with number {number}."
    before = text.split("Instruction:\\n")[1].split("\\n\\nWrite the new")[0]
    return f"**New instruction:** {before} Give {int(request.id[:6], 16)} good reasons for it too."
"""


def test_what_cannot_be_answered_evolves_no_further(project: Project) -> None:
    (project.folder / "teacher.py").write_text(EVOLVE)
    people = {"path": str(ROOT / "data/seeds/instructions_en.jsonl"), "n": 24}
    filters = [{"substance": {}}]
    options = {"ways": ["constraints", "deepen"], "same": 0.95}
    project.edit(
        tasks=[
            task("evolve-1", "evolve", people, options=options),
            task("answers-1", "response", {"from": "evolve-1"}, filters=filters),
            task("evolve-2", "evolve", {"from": "answers-1"}, options=options),
            task("answers-2", "response", {"from": "evolve-2"}, filters=filters),
        ],
        curate__filters=[{"finish": {}}, {"exact_duplicates": {}}],
    )
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert project.call("curate", "config.yaml").returncode == 0
    seeds = seeds_by_task(project)
    dropped = {
        row["seed_id"]
        for row in project.rows("2_dropped.jsonl")
        if row["task"] == "answers-1" and row["filter"] == "substance"
    }
    assert dropped and len(seeds["answers-1"]) == 24
    assert {s["fields"]["source_seed"] for s in seeds["evolve-2"]} == {
        s["id"] for s in seeds["answers-1"]
    } - dropped
    assert {s["fields"]["evolved"] for s in seeds["answers-2"]} == {2}
    kept = project.rows("2_kept.jsonl")
    assert {row["meta"]["task"] for row in kept} == {"answers-1", "answers-2"}


def magpie_tasks() -> list[dict[str, Any]]:
    return [
        task("questions", "magpie", {"generator": "blank", "n": 1}, samples=20),
        task("answers", "response", {"from": "questions"}),
    ]


def test_magpie_is_refused_on_a_chat_endpoint(project: Project) -> None:
    teacher = {"backend": "openai", "model": "m", "serving": {"base_url": "http://127.0.0.1:9/v1"}}
    project.edit(teacher=teacher, tasks=magpie_tasks())
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and "a chat endpoint adds it on its own side" in done.stderr


def test_magpie_asks_a_real_model_and_another_task_answers(project: Project) -> None:
    project.edit(
        teacher={
            "backend": "transformers",
            "model": str(project.model),
            "sampling": {"temperature": 1.0, "max_tokens": 24},
        },
        tasks=magpie_tasks(),
        curate__filters=[{"finish": {"allow": ["stop", "length"]}}],
        tasks__0__options={"fewest_words": 1},
    )
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    asked = seeds_by_task(project)["answers"]
    assert len(asked) > 5 and len({seed["id"] for seed in asked}) == len(asked)


def test_a_blank_seed_is_one(project: Project) -> None:
    project.edit(tasks=[task("q", "magpie", {"generator": "blank", "n": 3})])
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and "write `n: 1` and ask it often" in done.stderr
