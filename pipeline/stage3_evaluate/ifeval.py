"""Prompts in IFEval's form (arXiv 2311.07911), checked by the code of lm-evaluation-harness.

A line of the file: {key, prompt, instruction_id_list, kwargs}. Results are kept by place in the
list: 17 of the 541 published prompts name one instruction twice. The published file has known
mistakes; `errata` takes them out (docs/evaluating.md lists them).
"""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Constraint, Followed, Seed
from pipeline.stage1_generate.seed_files import read_file

INSTALL = 'pip install -c constraints.txt -e ".[lm-eval]"'


LISTS = ("keywords", "forbidden_words", "key_sentences")  # a text would be read letter by letter
PROBE = "A line of words.\n\nAnother one."  # any answer, to see that a check runs


class Line(msgspec.Struct, frozen=True):
    key: int | str
    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, Any]]


class Erratum(msgspec.Struct, frozen=True):
    """One constraint of the published file that its prompt does not ask for."""

    place: int
    wrong: Constraint
    right: Constraint | None  # None: no answer can be right, so the prompt is left out


_LETTER_O = {"letter": "o", "let_frequency": 6}
_WORDS = {"relation": "at least", "num_words": 336}

# google-research/google-research, pull request 3361, and the prompts themselves.
ERRATA: dict[str, Erratum] = {
    # "The letter o should appear at least 6 times"
    "1174": Erratum(
        0,
        Constraint("keywords:letter_frequency", _LETTER_O | {"let_relation": "less than"}),
        Constraint("keywords:letter_frequency", _LETTER_O | {"let_relation": "at least"}),
    ),
    # "at least 400 words"
    "337": Erratum(
        0,
        Constraint("length_constraints:number_words", _WORDS),
        Constraint("length_constraints:number_words", _WORDS | {"num_words": 400}),
    ),
    # "answer in lower case letters"; the quotation marks are asked for once and checked twice
    "30": Erratum(
        2,
        Constraint("startend:quotation"),
        Constraint("change_case:english_lowercase"),
    ),
    # "exactly one bullet point", and then "a few bullet points"
    "2078": Erratum(
        0, Constraint("detectable_format:number_bullet_lists", {"num_bullets": 1}), None
    ),
}


def load_ifeval(path: Path, n: int | None, *, errata: bool) -> list[Seed]:
    """The prompts as items whose constraints are IFEval's, in the file's order.

    A value of `kwargs` that is null counts as not given. Raises `UserError` for a file of another
    form; what the instructions take is `check_instructions`'s to see.
    """
    found: dict[str, Seed] = {}
    for place, row in read_file(path):
        try:
            line = msgspec.convert(row, Line)
        except msgspec.ValidationError as error:
            raise UserError(
                f"{place}: {error}; a file in IFEval's form has key, prompt, instruction_id_list "
                "and kwargs on each line"
            ) from None
        if len(line.kwargs) != len(line.instruction_id_list) or not line.kwargs:
            raise UserError(
                f"{place}: {len(line.instruction_id_list)} instructions and {len(line.kwargs)} "
                "kwargs; give each instruction its own, {} where it takes none"
            )
        key = str(line.key)
        if key in found:
            raise UserError(
                f"{place}: the key {key} is there already ({found[key].origin}); keys must differ"
            )
        asked: list[Constraint] | None = [
            Constraint(name, {k: v for k, v in values.items() if v is not None})
            for name, values in zip(line.instruction_id_list, line.kwargs, strict=True)
        ]
        if errata and asked is not None:
            asked = corrected(key, asked)
        if asked is not None:
            fields = {"question": line.prompt}
            found[key] = Seed(key, "ifeval", fields, constraints=tuple(asked), origin=place)
        if n is not None and len(found) >= n:
            break
    if not found:
        raise UserError(f"{path} holds no prompts")
    return list(found.values())


def corrected(key: str, asked: list[Constraint]) -> list[Constraint] | None:
    """The constraints without the known mistake; None where the prompt has to be left out.

    A file that was corrected already, or that has other prompts under these keys, stays as it is.
    """
    known = ERRATA.get(key)
    if known is None or len(asked) <= known.place or asked[known.place] != known.wrong:
        return asked
    if known.right is None:
        return None
    return [known.right if i == known.place else one for i, one in enumerate(asked)]


def check_instructions(item: Seed) -> None:
    """Raise `UserError` for an instruction that is unknown, lacks what it is about or cannot be.

    What lacks would be drawn at random by the checker, anew at every call.
    """
    registry = checkers().instructions_registry.INSTRUCTION_DICT
    for one in item.constraints:
        if one.type not in registry:
            raise UserError(
                f"{item.origin}: the instruction {one.type!r} is unknown; known: "
                f"{', '.join(sorted(registry))}"
            )
        takes = set(registry[one.type](one.type).get_instruction_args_keys())
        if odd := sorted(takes ^ {name for name, value in one.params.items() if value}):
            raise UserError(
                f"{item.origin}: {one.type} takes {', '.join(sorted(takes)) or 'no kwargs'}; "
                f"missing, empty or too many: {', '.join(odd)}"
            )
        params = {name: value for name, value in one.params.items() if value}
        if flat := [name for name in LISTS if not isinstance(params.get(name, []), list)]:
            raise UserError(f"{item.origin}: {one.type}: {', '.join(flat)} has to be a list")
        instruction = registry[one.type](one.type)
        try:
            instruction.build_description(**params)
            instruction.check_following(PROBE)
        except Exception as error:  # foreign code: a value of a wrong type may raise anything
            raise UserError(
                f"{item.origin}: {one.type} cannot be checked with {one.params}: "
                f"{type(error).__name__}: {error}"
            ) from None


def followed(item: Seed, text: str) -> tuple[Followed, ...]:
    """Which constraints an answer keeps, by place in the item's list."""
    module = checkers()
    given = module.InputExample(
        key=item.id,
        instruction_id_list=[one.type for one in item.constraints],
        prompt=str(item.fields["question"]),
        kwargs=[one.params for one in item.constraints],
    )
    strict = module.test_instruction_following_strict(given, text).follow_instruction_list
    loose = module.test_instruction_following_loose(given, text).follow_instruction_list
    return tuple(
        Followed.STRICT if a else Followed.LOOSE if b else Followed.BROKEN
        for a, b in zip(strict, loose, strict=True)
    )


def lm_eval_version() -> str:
    """Raises `UserError` where it is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"this config needs lm-evaluation-harness, which is not installed; type `{INSTALL}`"
        ) from None


@functools.cache
def checkers() -> Any:
    """lm-eval's module of IFEval checks, made repeatable and without network."""
    try:
        import langdetect
        import nltk
        from punkt import data as punkt
    except ImportError as error:
        raise UserError(
            f"IFEval's checks need lm-evaluation-harness ({error}); type `{INSTALL}`"
        ) from None
    langdetect.DetectorFactory.seed = 0  # it draws at random otherwise
    nltk.data.path.insert(0, str(_sentence_tables(nltk, punkt)))
    try:
        from lm_eval.tasks.ifeval import utils
    except ImportError as error:
        raise UserError(
            f"IFEval's checks need lm-evaluation-harness ({error}); type `{INSTALL}`"
        ) from None
    return utils


def _sentence_tables(nltk: Any, punkt: Any) -> Path:
    """A data folder of NLTK with its English `punkt_tab`, which it would else download."""
    from nltk.tabdata import TabEncoder

    from pipeline.models.locate import UNPACKED, making

    folder = UNPACKED / "nltk_data"
    tables = folder / "tokenizers" / "punkt_tab" / "english"
    if tables.is_dir():
        return folder.resolve()
    found, encoder = punkt.load_bundled("english"), TabEncoder()
    with making(tables) as partial:
        partial.mkdir(parents=True)
        for name, text in {
            "collocations.tab": encoder.tups2tab(found.collocations),
            "sent_starters.txt": encoder.set2txt(found.sent_starters),
            "abbrev_types.txt": encoder.set2txt(found.abbrev_types),
            "ortho_context.tab": encoder.ivdict2tab(found.ortho_context),
        }.items():
            (partial / name).write_text(text, encoding="utf-8")
    return folder.resolve()
