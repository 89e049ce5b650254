"""What belongs to the machinery and not to an answer: thinking tags, template tokens, the prompt.

`unclosed_reasoning` looks for the tags that pipeline/models/reasoning.py does not know or could not
pair; `leaked_prompt` for tokens of chat templates, for the teacher's own instructions and worked
examples, and for the question said back. Code, and what the question itself contains, may be
written about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from pipeline.records import Message, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import taught, words

RUN = 10  # words of an instruction in a row; fewer are chance ("the answer is a number")

Gram = tuple[str, ...]

_TAG = re.compile(
    r"<(?P<close>/?)(?P<name>think(?:ing)?|seed:think|reason(?:ing)?|thoughts?|reflection|scratchpad"
    r"|analysis|inner_monologue|chain_of_thought|cot)>"
    r"|\[(?P<close2>/?)(?P<name2>THINK|REASONING|THOUGHTS?)\]"
    r"|(?P<name3>◁/?think▷|<\|/?(?:begin|end)_of_thought\|>|<\|channel\|>)",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_TEMPLATE = re.compile(
    r"<\|(?:im_start|im_end|im_sep|endoftext|eot_id|eom_id|start_header_id|end_header_id|begin_of_text"
    r"|end_of_text|user|assistant|system|end|start|return|message|fim_\w+|python_tag|observation"
    r"|[A-Z]+_OF_TURN_TOKEN|START_OF_TURN|end_of_turn)\|>"
    r"|<[｜|](?:begin|end)▁of▁sentence[｜|]>|<｜(?:User|Assistant)｜>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|\[gMASK\]"
    r"|^\#{2,3}\s?(?:Instruction|Response|Input|Human|Assistant|System)\s?:"
    r"|\A\s*<(?:s|bos)>|<(?:/s|eos|pad|unk)>\s*\Z",
    re.MULTILINE,
)
# The model writes the next turn as well.
_NEXT_TURN = re.compile(
    r"\n\s*(?:Human|User|用户)\s?[:：][^\n]*\n+\s*(?:Assistant|AI|助手)\s?[:：]"
)
_DIALOGUE = re.compile(
    r"\b(?:dialog(?:ue)?|conversation|interview|chat|script|transcript|play|role-?play)\b|对话|剧本|采访|聊天",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”]*”|「[^」]*」|'[^'\n]{3,}'(?!\w)|`[^`\n]*`")


def unclosed_reasoning() -> Filter:
    """Drop answers with tags of hidden thinking in what the student would learn.

    A pair of tags that the teacher's prompt asks for by name may stay, as long as it is closed.
    """

    def check(row: Candidate) -> Verdict:
        text = taught(row)
        if not ("<" in text or "[" in text or "◁" in text):
            return keep("unclosed_reasoning")
        asked = " ".join(m.content for m in row.request.messages)
        opened: list[str] = []
        for tag in _TAG.finditer(_CODE.sub(" ", text)):
            name = (tag["name"] or tag["name2"] or tag["name3"]).lower()
            if not (tag["close"] or tag["close2"]):
                opened.append(name)
                wanted = name in asked.lower()
            elif opened and opened[-1] == name:
                opened.pop()
                wanted = name in asked.lower()
            else:
                return drop("unclosed_reasoning", f"closed but never opened: {tag[0]}")
            if not wanted:
                if not (tag["close"] or tag["close2"]) and f"/{name}" not in text.lower():
                    return drop("unclosed_reasoning", f"opened but never closed: {tag[0]}")
                return drop("unclosed_reasoning", f"thinking left in the answer: {tag[0]}")
        if opened:
            return drop("unclosed_reasoning", f"opened but never closed: {opened[-1]}")
        return keep("unclosed_reasoning")

    return check


def leaked_prompt(run: int = RUN) -> Filter:
    """Drop answers that say back what only the prompt should say.

    Tokens of a chat template; a run of `run` words of the teacher's system text, worked examples or
    instructions that is no part of the seed; the question as the whole answer or as its start.
    """

    if run < 4:
        raise ValueError(f"run is at least 4 words; seen {run}")

    def check(row: Candidate) -> Verdict:
        text = taught(row)
        fields = " ".join(_strings(row.seed.fields))
        bare = _CODE.sub(" ", text)
        found = _TEMPLATE.search(bare)
        if found and found[0].strip() not in fields:
            return drop("leaked_prompt", f"template token: {found[0].strip()}")
        if _NEXT_TURN.search(bare) and not _DIALOGUE.search(fields):
            return drop("leaked_prompt", "the next turn of the user")
        spoken = words(text)
        if said := _said_back(spoken, words(str(row.seed.fields.get("question", "")))):
            return drop("leaked_prompt", said)
        if echo := _echo(spoken, row.request.messages, words(fields), run):
            return drop("leaked_prompt", f"words of the prompt: “{echo}”")
        return keep("leaked_prompt")

    return check


def _said_back(spoken: list[str], question: list[str]) -> str:
    """Whether the answer is the question, or begins with all of it."""
    if len(question) < 5 or spoken[: len(question)] != question:
        return ""
    if len(spoken) <= len(question) + 1:
        return "the question is the whole answer"
    return "begins with the whole question" if len(question) >= 12 else ""


def _echo(spoken: list[str], messages: tuple[Message, ...], known: list[str], run: int) -> str:
    """The first `run` words in a row that the answer shares with the prompt but not the seed."""
    shared: set[Gram] = set()
    said = _runs(spoken, run)
    for message in messages if said else ():
        shared |= said & _asked(message.content, run)
    if not shared or not (shared := shared - _runs(known, run)):
        return ""
    return " ".join(min(shared, key=lambda gram: " ".join(spoken).find(" ".join(gram))))


@lru_cache(maxsize=256)  # system texts and worked examples are the same for thousands of rows
def _asked(content: str, run: int) -> frozenset[Gram]:
    # What the prompt quotes, it may want to read in the answer.
    return frozenset(_runs(words(_QUOTED.sub(" ", content)), run))


def _runs(tokens: list[str], size: int) -> set[Gram]:
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


def _strings(value: object) -> Iterator[str]:
    """Every text of a seed's fields, except worked examples, which are the prompt's."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "shots":
                yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
