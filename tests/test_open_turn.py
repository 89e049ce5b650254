"""The model writes the user's turn: the template is cut where the user begins to speak."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ModelConfig, Serving
from pipeline.models import open_model
from pipeline.models.chat_wire import BadRequest, ChatEncoder
from pipeline.models.open_turn import NoOpenTurn, render_chat
from pipeline.records import (
    OPEN_USER,
    Finish,
    Message,
    PromptRef,
    Request,
    Sampling,
    request_id,
)
from tests.tiny import make_tiny_model

PLAIN = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
WITH_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|endoftext|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def tokenizer(folder: Path, template: str | None = None):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        found.chat_template = template
    return found


def opened(start: str = "", system: str | None = None) -> tuple[Message, ...]:
    before = (Message("system", system),) if system else ()
    return (*before, Message(OPEN_USER, start))


def test_the_prompt_ends_where_the_user_begins(tiny_model: Path) -> None:
    found = render_chat(tokenizer(tiny_model), opened("Why ", "You teach."))
    assert found.text == "<|im_start|>system\nYou teach.<|im_end|>\n<|im_start|>user\nWhy "
    assert found.stop_token == tokenizer(tiny_model).convert_tokens_to_ids("<|im_end|>")
    assert found.stop_text is None


def test_a_templates_own_system_text_stays(tiny_model: Path) -> None:
    tokens = tokenizer(tiny_model, WITH_DEFAULT_SYSTEM)
    found = render_chat(tokens, opened())
    assert found.text == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"
    assert found.stop_token == tokens.convert_tokens_to_ids("<|endoftext|>")


def test_a_turn_that_ends_in_plain_text_stops_there(tiny_model: Path) -> None:
    found = render_chat(tokenizer(tiny_model, PLAIN), opened())
    assert (found.text, found.stop_token, found.stop_text) == ("[INST] ", None, "[/INST]")


def test_a_template_that_shows_no_end_is_refused(tiny_model: Path) -> None:
    with pytest.raises(NoOpenTurn, match="does not show where the user's turn ends"):
        render_chat(tokenizer(tiny_model, NO_END), opened())


def test_an_ordinary_prompt_is_rendered_as_before(tiny_model: Path) -> None:
    found = render_chat(tokenizer(tiny_model), (Message("user", "Hello"),))
    assert found.text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert (found.stop_token, found.stop_text) == (None, None)


def request(messages: tuple[Message, ...], sampling: Sampling) -> Request:
    key = request_id("tiny", messages, sampling, 0)
    return Request(key, "s", "magpie", PromptRef("p", "h"), messages, sampling, 0, "tiny")


def test_the_transformers_backend_goes_on_with_the_users_turn(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "model", seed=5)
    model = open_model(
        ModelConfig(backend="transformers", model=str(folder), serving=Serving(batch_size=4))
    )
    asked = request(opened("Tell"), Sampling(temperature=0.0, max_tokens=10))
    (got,) = model.generate([asked])
    tokens = tokenizer(folder)
    ids = tokens("<|im_start|>user\nTell", return_tensors="pt", add_special_tokens=False)
    out = AutoModelForCausalLM.from_pretrained(folder).generate(
        **ids, max_new_tokens=10, do_sample=False
    )
    assert got.text == tokens.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_ends_at_the_templates_end_of_turn_which_is_no_end_token_elsewhere(
    tmp_path: Path,
) -> None:
    """A model that always says <|endoftext|>, which ends its turns but is not its end token."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "model")
    tokens = tokenizer(folder, WITH_DEFAULT_SYSTEM)
    tokens.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight.zero_()  # equal logits: the first wins, <|endoftext|>
    model.save_pretrained(folder)
    door = open_model(ModelConfig(backend="transformers", model=str(folder)))
    greedy = Sampling(temperature=0.0, max_tokens=5)
    (turn,) = door.generate([request(opened(), greedy)])
    (answer,) = door.generate([request((Message("user", "Hello"),), greedy)])
    assert (turn.text, turn.finish) == ("", Finish.STOP)
    assert answer.finish is Finish.LENGTH


def test_a_chat_endpoint_is_never_sent_an_open_turn() -> None:
    with pytest.raises(BadRequest, match="a chat endpoint writes no user's turn"):
        ChatEncoder("m").encode(request(opened(), Sampling()))
