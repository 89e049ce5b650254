"""Every record that travels through the pipeline, and its JSON form.

    Seed -> Request -> Generation -> Verdict -> Example        (stage 1)
    Request -> Generation -> Answer -> Score                   (stage 3)

Records are frozen `msgspec` structs; a dictionary exists only at a file boundary. Outcomes are
enums: a bool cannot say *why*, and a third outcome always turns up later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline.errors import disk_failure


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model ended it
    LENGTH = "length"  # max_tokens cut it off
    REFUSED = "refused"  # the provider's content filter ended it
    ERROR = "error"  # no answer; `Generation.error` says why


class ErrorKind(StrEnum):
    """What to do about an ERROR row."""

    TRANSIENT = "transient"  # retries ran out: ask again on the next run
    FINAL = "final"  # the endpoint will never take this row (HTTP 400, ...)


class Decision(StrEnum):
    KEEP = "keep"
    DROP = "drop"


class Extraction(StrEnum):
    """What the frozen extractor found in an answer."""

    VALUE = "value"
    NO_ANSWER = "no_answer"
    TRUNCATED = "truncated"


class Followed(StrEnum):
    """Whether an answer keeps one constraint."""

    STRICT = "strict"  # as it stands
    LOOSE = "loose"  # only without a wrapper line or Markdown stars
    BROKEN = "broken"


class Grade(StrEnum):
    """What a teacher returns beside its text (docs/teachers.md); later grades include earlier."""

    TEXT = "B0"
    LOGPROBS = "B1"
    TOP_LOGPROBS = "B2"
    PROMPT_LOGPROBS = "B3"


# The role of a last message that the model is to go on with: it writes the user's turn.
OPEN_USER = "open_user"


class Message(msgspec.Struct, frozen=True):
    role: str  # system | user | assistant; in requests also OPEN_USER
    content: str


class Constraint(msgspec.Struct, frozen=True):
    """One verifiable instruction: a type of `pipeline/constraints.py` and its parameters."""

    type: str
    params: dict[str, Any] = {}


class Seed(msgspec.Struct, frozen=True):
    """One thing to ask about.

    `fields` holds every value that a prompt may use; `reference` the known right answer.
    """

    id: str
    task: str
    fields: dict[str, Any]
    reference: str | None = None
    constraints: tuple[Constraint, ...] = ()
    origin: str = ""  # file:line or generator, for `distill show`


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Decoding settings, by the names of the OpenAI API. Part of a request's identity."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None  # top-k log-probabilities a token; 0 = the sampled token only
    logprobs_temperature: float | None = None  # at which these are taken; None: 1
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    extra_body: dict[str, Any] = {}  # handed to the endpoint untouched


class PromptRef(msgspec.Struct, frozen=True):
    name: str
    hash: str


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call to a model. `id` is derived, see `request_id`."""

    id: str
    seed_id: str
    recipe: str
    prompt: PromptRef
    messages: tuple[Message, ...]
    sampling: Sampling
    sample_index: int
    model: str  # identity: id and revision, or a hash of the weights
    schema: dict[str, Any] | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the backend reports them."""

    input: int = 0
    output: int = 0


class TokenLogprob(msgspec.Struct, frozen=True):
    """One sampled position: natural-log probabilities at the sampling temperature 1."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model returned for one request; raw, before anything parses it."""

    request_id: str
    text: str
    finish: Finish
    usage: Usage = Usage()
    reasoning: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    error: str | None = None
    error_kind: ErrorKind | None = None
    attempts: int = 1
    seconds: float = 0.0


class Verdict(msgspec.Struct, frozen=True):
    decision: Decision
    filter: str
    reason: str = ""
    score: float | None = None


class Example(msgspec.Struct, frozen=True):
    """One row of the training set, as the student sees it."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    weight: float
    source: tuple[str, ...]  # request ids
    meta: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    """One model's answer to one evaluation item, and what the extractor read in it."""

    model: str  # arm: teacher | before | after | ...
    ability: str
    variant: str  # e.g. "k=4", "direct", "seen_types"
    item_id: str
    text: str
    finish: Finish
    extraction: Extraction
    extracted: str | None
    correct: float  # 0 or 1
    loose: float | None = None  # instruction following: after removing wrappers
    reference: str | None = None
    question: str = ""
    output_tokens: int = 0
    request_id: str = ""
    # Instruction following: by place in the item's constraints, of which two may be of one type.
    followed: tuple[Followed, ...] = ()
    draw: int = 0  # in-context learning: which of the item's sets of shots
    order: int = 0  # and which order of them
    chance: float | None = None  # how often a guess among the labels is right
    # Chain of thought: which of an item's samples; what was read, equal for answers that are equal;
    # whether an answer that should be direct reasoned before it.
    sample: int = 0
    spelled: str | None = None
    reasoned: bool | None = None


class Score(msgspec.Struct, frozen=True):
    """A metric with its 95 % interval; `n`: items (`*_instructions`: single constraints)."""

    model: str
    ability: str
    metric: str
    value: float
    n: int
    low: float
    high: float


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces: the same value always gives the same bytes."""
    return msgspec.json.encode(value, order="deterministic")


def digest(value: Any, length: int = 32) -> str:
    """`length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:length]


def request_id(
    model: str,
    messages: Iterable[Message],
    sampling: Sampling,
    sample_index: int,
    schema: dict[str, Any] | None = None,
) -> str:
    """128-bit identity of a call: everything that can change its answer, and nothing else."""
    return digest([model, list(messages), sampling, sample_index, schema])


T = TypeVar("T")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write records under a temporary name, sync, rename; return how many.

    A reader never sees half a file. A failing disk is a `Stopped` (full) or a `RunFatal`.
    """
    partial = path.with_name(path.name + ".partial")
    count = 0
    encoder = msgspec.json.Encoder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for row in rows:
                file.write(encoder.encode(row) + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # half a file would only keep a full disk full
            partial.unlink()
        raise disk_failure(error, path) from error
    return count


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a synced file can still lose its name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_jsonl(path: Path, kind: type[T]) -> Iterator[T]:
    """Decode one record a line; a broken line is an error that names it."""
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
