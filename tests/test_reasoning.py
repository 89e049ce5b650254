"""Thinking never stays in the text."""

from __future__ import annotations

import pytest

from pipeline.models.reasoning import opens_reasoning, split_reasoning


@pytest.mark.parametrize(
    ("raw", "text", "reasoning"),
    [
        ("plain answer", "plain answer", None),
        ("  kept as it is \n", "  kept as it is \n", None),
        ("if a < b then think > act", "if a < b then think > act", None),
        ("<think>\na\n</think>\n\nb", "b", "a"),
        ("<think></think>b", "b", ""),
        ("<think>cut off in the midd", "", "cut off in the midd"),
        ("a\n</think>\n\nb", "b", "a"),  # the template had opened it
        ("<think>a</think>b<think>c</think>d", "bd", "a\nc"),
        ("<think>a <think>b</think> c</think>d", "d", "a\nb\nc"),
        ("b<think>c", "b", "c"),
        ("[THINK]a[/THINK]b", "b", "a"),
        ("<think>只想</think>答案", "答案", "只想"),
    ],
)
def test_split(raw: str, text: str, reasoning: str | None) -> None:
    assert split_reasoning(raw) == (text, reasoning)


def test_a_prompt_that_opens_the_thinking_makes_an_untagged_answer_reasoning() -> None:
    assert opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning("<think>\n\n</think>\n\n")
    assert split_reasoning("cut off before the end", opened=True) == ("", "cut off before the end")
    assert split_reasoning("a</think>b", opened=True) == ("b", "a")
