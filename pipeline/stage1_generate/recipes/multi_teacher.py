"""A pool of teachers: each is asked every seed, and filters choose among their answers.

Source: TinyLLM (2402.04616); majority votes (2203.11171). Grade B0.
Asked: the question, of every teacher in the task's `teachers`. Kept, by the task's filters:

    none of these            all answers that are right (a pool of rationales)
    vote                     the answers that agree with most teachers
    best_of {n: 1, by: ...}  the best that pass the filters before (by verifier)
    judge {by: TASK, best: 1}    the best for a judge

Student sees: question -> (hidden thoughts, if any, and) answer. Each row keeps its teacher's name;
the report has yield, cost and the seeds that only one teacher could answer. To route tasks to
teachers instead, give each task its `teacher`.
"""

from __future__ import annotations

from pipeline.records import Grade
from pipeline.stage1_generate.recipes import chain_of_thought

GRADE = Grade.TEXT
POOL = True  # needs `teachers`


requests = chain_of_thought.requests
example = chain_of_thought.example
