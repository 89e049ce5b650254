"""The rows a run uses, read back from the ledger, and what they came to."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Price
from pipeline.errors import NAMED, Stopped
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.ask import cost_of
from pipeline.records import Decision, ErrorKind, Finish, Generation, Usage, Verdict
from pipeline.stage1_generate.asking import Job
from pipeline.stage1_generate.used import RUNS, UsedRow


class Missing(Exception):
    """Requests of the run have no answer yet: (how many, and how many more failed for now)."""


class Tally:
    """The rows a run uses, read back from the ledger, and what they came to."""

    def __init__(self) -> None:
        self.requests = self.errors = self.judged = self.accepted = 0
        self.usage = Usage()
        self.cost = 0.0
        self.failed: list[str] = []

    def rows(self, job: Job) -> Iterator[UsedRow]:
        """A teacher's rows, in the order of the requests.

        Raises `Stopped` where some failed for now, `Missing` where some were not asked.
        """
        transient: list[str] = []
        demand = job.demand(Ledger(RUNS, model_identity(job.teacher)))
        for settled in demand.replay():
            got, request = settled.generation, settled.request
            self._add(got, settled.verdict, job.teacher.price)
            if got.error_kind is ErrorKind.TRANSIENT:
                transient.append(f"{request.id} (seed {request.seed_id}): {got.error}")
            elif got.finish is Finish.ERROR:
                self.failed.append(f"{request.id} (seed {request.seed_id}): {got.error}")
            yield UsedRow(
                request.id,
                request.seed_id,
                settled.slot.task.name,
                request.sample_index,
                request.model,
                got.finish,
                job.name,
            )
        if demand.unanswered:
            raise Missing(demand.unanswered, len(transient))
        if transient:
            raise Stopped(
                f"{len(transient)} requests failed for now (retries ran out); all other answers "
                "are stored. Run the same command again to ask only these:\n"
                + "\n".join(f"  {line}" for line in transient[:NAMED])
            )

    def _add(self, got: Generation, verdict: Verdict | None, price: Price) -> None:
        self.requests += 1
        self.errors += got.finish is Finish.ERROR
        if verdict is not None:
            self.judged += 1
            self.accepted += verdict.decision is Decision.KEEP
        self.usage = Usage(self.usage.input + got.usage.input, self.usage.output + got.usage.output)
        self.cost += cost_of(got.usage, price)
