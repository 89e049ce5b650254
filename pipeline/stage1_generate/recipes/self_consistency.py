"""Rationales without a known answer: what most samples agree on is taken to be right.

Source: self-consistency (2203.11171), as a filter of training data LMSI (2210.11610). Grade B0.
Asked: the question, `samples` times, as for chain_of_thought. Kept: by the filter `vote`, which
this recipe always has ({min_agreement: 0.6} unless the task says otherwise), the samples that give
the majority's answer, where enough do. Student sees: question -> rationale and answer. The
agreement stays in the row's `agreement`: a free measure of confidence, and of difficulty.
Where seeds do have a reference, it is used to measure the kept rows only (2_label_quality.json).
"""

from __future__ import annotations

from pipeline.records import Grade
from pipeline.stage1_generate.recipes import chain_of_thought

GRADE = Grade.TEXT
FILTERS: dict[str, dict[str, object]] = {"vote": {}}

requests = chain_of_thought.requests
example = chain_of_thought.example
rows = chain_of_thought.rows
