"""What makes torch faster on a CPU without changing a result. Measured: docs/results.md."""

from __future__ import annotations

import contextlib
import ctypes

# glibc's mallopt parameters, malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def tune_cpu() -> bool:
    """Both of the below; whether oneDNN is in use."""
    keep_freed_memory()
    return prefer_onednn()


def keep_freed_memory() -> None:
    """Let malloc keep large freed blocks instead of handing each back to the kernel.

    Every tensor of some megabytes is otherwise mapped, zeroed page by page and unmapped again at
    each operation: half of the time of a decoding step was spent in the kernel.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc: leave it as it is
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_TOP_PAD, 2**28)


def prefer_onednn() -> bool:
    """Let float32 matrix products go to oneDNN where it computes them as exactly as MKL.

    On AMD processors MKL takes a slow path: measured 1.3 times the training speed with this
    setting, same results to 1e-6. Where oneDNN would really use bfloat16 (Intel AMX), the check
    sees it, takes the setting back and returns False.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    if ((a @ b).double() - exact).abs().max() < 1e-3:
        return True
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    return False
