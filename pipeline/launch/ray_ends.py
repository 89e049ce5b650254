"""How a command on Ray ended, and whether it is started again."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.errors import RUN_AGAIN
from pipeline.launch.units import Unit, UnitState, UnitStatus, read_status, status_folder


def code_of(ray: Any, reference: Any) -> tuple[int | None, str]:
    """(exit code, in words); None where the worker was lost."""
    try:
        code = int(ray.get(reference))
    except ray.exceptions.RayError as error:
        return None, f"its worker is gone ({type(error).__name__})"
    return code, f"ended with {code}"


def again(config: Config, unit: Unit, code: int | None, before: UnitStatus | None) -> bool:
    """A lost worker, a killed command and one that was told to stop, unless a person must look."""
    written = written_since(config, unit, before)
    if written is not None and written.state in (UnitState.PAUSED, UnitState.DONE):
        return False
    if code is None or code < 0 or code == RUN_AGAIN:
        return True
    # torchrun says 1 for a child that was killed or stopped. Where the file is an earlier one's,
    # that one may be alive, and have kept this one from its work.
    found = status_of(config, unit)
    going = (UnitState.RUNNING, UnitState.STOPPED)
    return code == 1 and found is not None and found.state in going


def status_of(config: Config, unit: Unit) -> UnitStatus | None:
    return read_status(status_folder(config.run_dir) / unit.file_name)


def written_since(config: Config, unit: Unit, before: UnitStatus | None) -> UnitStatus | None:
    """Not what an earlier process left, of which one that was killed as it began says nothing."""
    found = status_of(config, unit)
    return None if found and before and found.start == before.start else found
