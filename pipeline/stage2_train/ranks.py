"""Several processes that train together, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any

CONNECT_SECONDS = 10.0


def rank() -> int:
    """The number of this process; 0 is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def any_rank(value: bool, device: Any) -> bool:
    """Is it true in any of the processes? All of them have to ask."""
    if processes() == 1:
        return value
    import torch

    flag = torch.tensor([float(value)], device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def wait_for_all() -> None:
    """Until every process is here."""
    if processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def first_has_ended() -> bool:
    """With its launcher, which keeps the store where all of them meet; known under torchrun only.

    The launcher of another node does not notice while its own processes have not met there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    try:
        place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
    except OSError:
        return True
    return False


def first_process_first() -> AbstractContextManager[Any]:
    """Within it the others wait for the first, which leaves them its files."""
    if processes() == 1:
        return nullcontext()
    from accelerate import PartialState

    found: AbstractContextManager[Any] = PartialState().main_process_first()
    return found
