"""Does a labelling answer stay within the label set that the config fixed?"""

from __future__ import annotations

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.labelling import read


def label_set() -> Filter:
    """Keep answers that are one label of the set, entities of the text, or JSON by the schema.

    A task of the recipe `label` has this filter always. Entities: a JSON list of {text, type} whose
    types are in the set and whose spans stand in the text as they are written.
    """

    def check(row: Candidate) -> Verdict:
        found = read(row.seed, row.generation.text, row.generation.finish)
        return drop("label_set", found.problem) if found.canonical is None else keep("label_set")

    return check
