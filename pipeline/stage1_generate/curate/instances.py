"""Can the instances be read that the recipe `instances` asked for?"""

from __future__ import annotations

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep


def instances() -> Filter:
    """Drop answers without an input and output in the form that was asked. Score: how many."""
    from pipeline.stage1_generate.recipes.instances import read

    def check(row: Candidate) -> Verdict:
        found = len(read(row.seed, row.generation.text))
        return keep("instances", found) if found else drop("instances", "no input and output", 0)

    return check
