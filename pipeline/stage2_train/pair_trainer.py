"""TRL's DPOTrainer on pairs whose rejected answer may have been cut off by max_tokens."""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer

from pipeline.errors import UserError
from pipeline.stage2_train.ranks import first_process_first

_MARK = "0answer0"


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """Rows have `ended`; false: the template's end of the turn is no part of the rejected answer.

    The student did not end there, so it must not learn that it did. Rows also get `length` (tokens
    of the longer side), by which `group_by_length` sorts.
    """

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        found = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if not len(found):
            raise UserError(
                f"train.preference.dpo.max_length {args.max_length}: the prompt alone is that long "
                f"in every pair ({dataset_name}); raise it"
            )
        given = {"tokenizer": processing_class, "end": turn_end(processing_class)}
        with first_process_first():
            return found.map(_as_the_student_left_it, fn_kwargs=given)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "length" not in self._signature_columns:  # the sampler sees these columns only
            self._signature_columns.append("length")


def turn_end(tokenizer: Any) -> str:
    """What the chat template puts after an answer."""
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False).rpartition(_MARK)[2])


def _as_the_student_left_it(row: dict[str, Any], tokenizer: Any, end: str) -> dict[str, Any]:
    start, ids = len(row["prompt_ids"]), row["rejected_ids"]
    if not row["ended"]:
        chat = [*row["prompt"], *row["rejected"]]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = tokenizer(text.removesuffix(end), add_special_tokens=False)["input_ids"][start:]
    return {"rejected_ids": ids, "length": start + max(len(row["chosen_ids"]), len(ids))}
