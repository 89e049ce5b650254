"""Stage 2 on a real tiny model: the same every time, stopped and gone on with, in stages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.config import load_config
from pipeline.config_train import Stage
from pipeline.errors import UserError
from pipeline.stage2_train import one_stage, student
from pipeline.stage2_train.checkpoints import last_complete_checkpoint
from pipeline.stage2_train.flops import training_flops_per_token
from pipeline.stage2_train.stages import stage_rows
from tests.project import Project

DATA_PARALLEL = Path(__file__).parent.parent / "examples" / "accelerate" / "data_parallel.yaml"
SFT = {
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 4,
    "learning_rate": 1e-3,
    "train_sampling_strategy": "random",
}


@pytest.fixture
def curated(project: Project) -> Project:
    project.edit(train={"sft": SFT})
    done = project.make("config.yaml")
    assert done.returncode == 0, done.stderr
    return project


def train(project: Project, *words: str) -> str:
    done = project.call("train", "config.yaml", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def log(project: Project) -> list[dict[str, Any]]:
    lines = (project.run / "4_student" / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(project: Project) -> list[float]:
    return [entry["loss"] for entry in log(project) if "loss" in entry]


def tokens_of(project: Project) -> int:
    return max(int(entry.get("num_tokens", 0)) for entry in log(project))


def kept_rows(project: Project) -> list[Any]:
    """The train rows of the dataset."""
    files = str(project.run / "3_dataset" / "train*")
    found = datasets.load_dataset(
        "parquet", data_files=files, cache_dir=str(project.folder / "cache")
    )
    return list(found["train"])


def test_the_same_seed_gives_the_same_loss_curve(curated: Project) -> None:
    train(curated)
    first = losses(curated)
    assert len(first) == SFT["max_steps"]
    train(curated, "--redo", "train")
    assert losses(curated) == first
    curated.edit(seed=4)
    train(curated, "--redo", "train")
    assert losses(curated) != first


def test_progress_says_speed_utilisation_memory_and_the_time_left(curated: Project) -> None:
    said = train(curated)
    assert " tokens/s, MFU " in said and " GB, " in said and " left" in said
    entry = next(e for e in log(curated) if e.get("step") == 8 and "loss" in e)
    assert entry["tokens_per_second"] > 0 and 0 < entry["mfu"] < 1 and entry["memory_gb"] > 0
    record = curated.rows("steps.jsonl")[-1]
    assert record["notes"]["tokens_per_second"] > 0
    assert "measured here" in record["notes"]["mfu_of"]
    assert record["tokens"]["input"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "logging"),
    [(signal.SIGTERM, 1), (signal.SIGUSR1, 7), (signal.SIGKILL, 1), (signal.SIGKILL, 7)],
)
def test_a_stopped_training_goes_on_with_the_same_data_in_the_same_order(
    curated: Project, number: signal.Signals, logging: int
) -> None:
    settings = {"max_steps": 60, "save_steps": 10, "save_total_limit": 1, "logging_steps": logging}
    curated.edit(train__sft=SFT | settings)
    process = curated.start("train", "config.yaml")
    deadline = time.monotonic() + 120
    folder = curated.run / "4_student.partial" / "stage-1"
    while not list(folder.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == (-9 if number is signal.SIGKILL else 75)
    assert not (curated.run / "4_student").exists()
    # The count of tokens is in the file that makes a checkpoint whole: no kill gets between them.
    checkpoint = last_complete_checkpoint(folder)
    assert checkpoint
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert state["num_input_tokens_seen"] > 0
    done = curated.call("train", "config.yaml")
    assert "training goes on from checkpoint-" in done.stdout
    assert "callbacks not included" not in done.stderr  # what we keep is no stranger to the trainer
    stopped, seen = losses(curated), tokens_of(curated)
    train(curated, "--redo", "train")
    undisturbed = losses(curated)
    if logging == 1:
        assert len(undisturbed) == 60
        # Steps between the last checkpoint and a kill are done twice and logged once.
        assert stopped == pytest.approx(undisturbed, abs=1e-6)
    assert stopped[-1] == pytest.approx(undisturbed[-1], abs=1e-6)
    assert seen == tokens_of(curated)


def _poisoned(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Open the real student with something done to each of its forward passes."""
    real = student.open_student

    def opened(*words: Any, **named: Any) -> tuple[Any, Any]:
        model, tokenizer = real(*words, **named)
        calls = iter(range(1, 10**6))
        model.register_forward_pre_hook(
            lambda m, args, kwargs: spoil(m, next(calls), kwargs), with_kwargs=True
        )
        return model, tokenizer

    monkeypatch.setattr(one_stage, "open_student", opened)


def test_out_of_memory_halves_the_batch_once_and_keeps_the_steps(
    curated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    curated.edit(
        train__sft={**SFT, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    )
    train(curated)
    small = losses(curated)
    curated.edit(train__sft=SFT)

    def too_large(_model: Any, _call: int, inputs: dict[str, Any]) -> None:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    _poisoned(monkeypatch, too_large)
    said = train(curated, "--redo", "train")
    assert "out of memory at 4 rows a batch; going on with 2 and 2 batches a step" in said
    assert losses(curated) == pytest.approx(small, abs=1e-5)


def test_memory_that_does_not_do_for_half_the_batch_ends_with_ways_out(
    curated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    _poisoned(monkeypatch, always)
    done = curated.call("train", "config.yaml")
    assert done.returncode == 1
    assert "half the batch did not fit either" in done.stderr
    assert "train.sft.max_length" in done.stderr


@pytest.mark.parametrize("place", ["weights", "loss"])
def test_a_loss_that_is_no_number_stops_at_the_last_good_checkpoint(
    curated: Project, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    curated.edit(train__sft={**SFT, "logging_steps": 1 if place == "loss" else 12})

    def break_it(model: Any, call: int, _inputs: Any) -> None:
        if call == 6:
            with torch.no_grad():
                model.model.embed_tokens.weight[:] = float("nan")

    _poisoned(monkeypatch, break_it)
    done = curated.call("train", "config.yaml")
    assert done.returncode == 1
    assert "training diverged" in done.stderr and "learning_rate" in done.stderr
    partial = curated.run / "4_student.partial" / "stage-1"
    assert [p.name for p in partial.glob("checkpoint-*")] == ["checkpoint-4"]
    assert str(Path("stage-1") / "checkpoint-4") in done.stderr
    assert not (curated.run / "4_student").exists()


def test_a_student_that_was_whole_when_the_kill_came_is_not_trained_again(
    curated: Project,
) -> None:
    train(curated)
    record = curated.rows("steps.jsonl")[-1]
    before = (curated.run / "4_student" / "training_log.jsonl").stat().st_mtime_ns
    steps = (curated.run / "steps.jsonl").read_text().splitlines()
    (curated.run / "steps.jsonl").write_text("\n".join(steps[:-1]) + "\n")
    # What a kill in the middle of tidying up leaves.
    (curated.run / "4_student.partial" / "stage-1").mkdir(parents=True)
    (curated.run / "4_student.partial" / "stage-1" / "log.jsonl").write_text("{")
    assert "training: step" not in train(curated)
    assert (curated.run / "4_student" / "training_log.jsonl").stat().st_mtime_ns == before
    assert not (curated.run / "4_student.partial").exists()
    again = curated.rows("steps.jsonl")[-1]
    assert again["counts"] == record["counts"] and again["notes"] == record["notes"]
    # With other settings it is trained anew.
    curated.edit(seed=5)
    assert "training: step" in train(curated, "--redo", "train")


def test_a_process_among_many_gpus_keeps_the_batch_of_its_config(
    project: Project, tmp_path: Path
) -> None:
    from pipeline.stage2_train.settings import on_one_gpu, sft_arguments

    arguments = sft_arguments(load_config(project.config), tmp_path)
    arguments._n_gpu = 8  # as transformers counts them
    assert arguments.train_batch_size == 32
    assert on_one_gpu(arguments).train_batch_size == 4


def test_early_stopping_as_the_docs_have_it_passes_the_check(curated: Project) -> None:
    curated.edit(curate__validation_share=0.3, train={"sft": SFT, "early_stopping": {}})
    done = curated.call("train", "config.yaml", "--check")
    assert done.returncode == 0, done.stderr
    assert curated.call("curate", "config.yaml", "--redo", "curate").returncode == 0
    train(curated)
    assert any("eval_loss" in entry for entry in log(curated))
    # The dataset of before has no validation rows.
    curated.edit(curate__validation_share=0.0)
    assert curated.call("curate", "config.yaml", "--redo", "curate").returncode == 0
    done = curated.call("train", "config.yaml", "--redo", "train")
    assert done.returncode == 2 and "curate.validation_share is 0" in done.stderr


def test_early_stopping_keeps_the_best_checkpoint(curated: Project) -> None:
    curated.edit(
        curate__validation_share=0.3,
        train={
            "sft": {**SFT, "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1},
            "early_stopping": {"patience": 3},
        },
    )
    assert curated.call("curate", "config.yaml", "--redo", "curate").returncode == 0
    train(curated)
    # Four evaluations: the first is the best, three are no better.
    assert max(entry["step"] for entry in log(curated)) == 4


def test_stages_train_one_after_the_other_with_settings_of_their_own(curated: Project) -> None:
    stages = [
        {"by": "characters", "share": [0, 0.5], "sft": {"max_steps": 3, "learning_rate": 0.0}},
        {"sft": {"max_steps": 5}},
    ]
    curated.edit(train={"sft": SFT, "stages": stages})
    said = train(curated)
    assert "stage 1 of 2" in said and "stage 2 of 2" in said
    entries = [entry for entry in log(curated) if "loss" in entry]
    assert [entry["step"] for entry in entries] == list(range(1, 9))
    assert [entry["stage"] for entry in entries] == [1] * 3 + [2] * 5
    assert {entry["learning_rate"] for entry in entries[:3]} == {0.0}
    assert entries[3]["learning_rate"] > 0
    rows = len(kept_rows(curated))
    assert curated.rows("steps.jsonl")[-1]["counts"]["rows"] == round(rows / 2) + rows


@pytest.mark.slow
def test_a_kill_in_the_second_stage_does_not_repeat_the_first(curated: Project) -> None:
    stages = [{"sft": {"max_steps": 3}}, {"sft": {"max_steps": 60}}]
    curated.edit(train={"sft": SFT, "stages": stages})
    process = curated.start("train", "config.yaml")
    second = curated.run / "4_student.partial" / "stage-2"
    deadline = time.monotonic() + 120
    while not list(second.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    said = train(curated)
    assert "stage 1 of 2" not in said and "training goes on from checkpoint-" in said
    assert len(losses(curated)) == 63
    counts = curated.rows("steps.jsonl")[-1]["counts"]
    assert counts["steps"] == 63 and counts["rows"] == 2 * len(kept_rows(curated))


def test_a_stage_takes_rows_by_task_and_by_their_place_in_an_order() -> None:
    rows = datasets.Dataset.from_list(
        [
            {"task": "a" if i % 2 else "b", "characters": 10 - i, "agreement": i / 10, "text": "x"}
            for i in range(10)
        ]
    )
    short = stage_rows(Stage(by="characters", share=(0.0, 0.3)), "stage", rows)
    assert short["characters"] == [3, 2, 1]  # in the dataset's own order
    easy = stage_rows(Stage(by="difficulty", share=(0.0, 0.2)), "stage", rows)
    assert easy["agreement"] == [0.8, 0.9]
    assert set(stage_rows(Stage(tasks=["a"]), "stage", rows)["task"]) == {"a"}
    with pytest.raises(UserError, match="no column 'length'; allowed: difficulty, agreement, char"):
        stage_rows(Stage(by="length"), "stage", rows)
    with pytest.raises(UserError, match="holds no numbers"):
        stage_rows(Stage(by="text"), "stage", rows)
    with pytest.raises(UserError, match="no row of the dataset"):
        stage_rows(Stage(tasks=["c"]), "stage", rows)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"share": [0, 0.5]}, "share needs `by`"),
        ({"by": "characters", "share": [0.5, 0.2]}, "share is \\[from, to\\]"),
        ({"tasks": ["summs"]}, "did you mean 'sums'"),
        ({"sft": {"learning_ratee": 1}}, "did you mean learning_rate"),
        ({"dataset": "nowhere", "tasks": ["theirs"]}, "has no train-\\*.parquet"),
    ],
)
def test_a_wrong_stage_is_one_message(project: Project, stage: Any, message: str) -> None:
    project.edit(train={"sft": SFT, "stages": [stage]})
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_accumulation(curated: Project) -> None:
    # As many rows as fill every batch: accelerate would fill up an odd one with other rows.
    curated.edit(
        train__sft={**SFT, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        curate__validation_share=0.0,
    )
    assert curated.call("curate", "config.yaml", "--redo", "curate").returncode == 0
    train(curated)
    assert curated.rows("steps.jsonl")[-1]["counts"]["rows"] % 6 == 0
    one = losses(curated)
    curated.edit(train__sft={**SFT, "per_device_train_batch_size": 3})
    accelerate = ["accelerate.commands.launch", "--main_process_port", "0"]
    # Over the file's eight processes, and its bf16, which one process did not have.
    accelerate += ["--config_file", str(DATA_PARALLEL), "--num_processes", "2"]
    accelerate += ["--mixed_precision", "no"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # The second time a student of the very same settings is there, and is to be made anew.
    for launcher in (torchrun, accelerate):
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "pipeline", "train", "config.yaml",
             "--redo", "train"],
            cwd=curated.folder, capture_output=True, text=True, timeout=280,
            env=curated.environment() | {"OMP_NUM_THREADS": "1"} | {"MASTER_ADDR": "127.0.0.1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert losses(curated) == pytest.approx(one, abs=1e-3), launcher[0]
    assert [r["step"] for r in curated.rows("steps.jsonl")].count("train") == 1
    assert os.path.isfile(curated.run / "4_student" / "model.safetensors")


def test_operations_a_token_follow_from_the_weights_that_are_trained(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = model.config
    weights = sum(p.numel() for p in model.parameters())  # the table of tokens is the head as well
    attention = 12 * config.num_hidden_layers * config.hidden_size * 100
    whole = training_flops_per_token(model, 100.0)
    assert whole == pytest.approx(6 * weights + attention, rel=0.01)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert training_flops_per_token(model, 100.0) == pytest.approx(whole * 2 / 3)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_a_checkpoint(curated: Project) -> None:
    curated.edit(train__sft={**SFT, "max_steps": 400, "save_steps": 5})
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "pipeline", "train", "config.yaml"],
        cwd=curated.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=curated.environment() | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = curated.run / "4_student.partial" / "stage-1"
    deadline = time.monotonic() + 200
    while not list(folder.glob("checkpoint-*/trainer_state.json")):
        assert agent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    second = [pid for pid in workers if b"\0RANK=1\0" in _environment(pid)]
    os.kill(int(second[0]), signal.SIGUSR1)
    assert agent.wait(100) != 0
    assert list(folder.glob("checkpoint-*/trainer_state.json"))
    assert not (folder / "log.jsonl").exists() and not (curated.run / "4_student").exists()


def _environment(pid: str) -> bytes:
    return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("path", sorted(Path("examples/accelerate").glob("*.yaml")), ids=str)
def test_an_example_for_several_gpus_is_one_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes == 8  # it refuses keys it does not know
