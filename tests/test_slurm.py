"""`--on slurm --dry-run` and `--on print`: what is written is what a person would submit."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch

from pipeline.config import load_config
from pipeline.launch.plan import jobs_of
from tests.project import Project


def scripts(project: Project) -> dict[str, str]:
    found = sorted((project.run / "launch" / "slurm").glob("*.sbatch"))
    return {path.stem[3:]: path.read_text() for path in found}


def frozen(project: Project) -> Path:
    (found,) = (project.run / "launch").glob("config-*.yaml")
    return found.relative_to(project.folder)


def use_slurm(project: Project, **settings: object) -> None:
    project.edit(execution={"on": "slurm", "shards": 4, "slurm": settings})


def test_a_dry_run_writes_a_script_for_each_job_and_says_what_waits_for_what(
    project: Project,
) -> None:
    use_slurm(
        project,
        options={"partition": "gpu", "account": "nlp", "qos": "long"},
        generate={"gres": "gpu:1", "time": "4:00:00"},
        setup=["module load cuda/12.4"],
        environment=["HF_HOME"],
        at_once=2,
    )
    done = project.call("run", "config.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    found = scripts(project)
    assert list(found) == ["generate", "curate", "train", "evaluate", "report"]
    for line in (
        "#SBATCH --array=1-4%2",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=nlp",
        "#SBATCH --qos=long",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --time=4:00:00",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --export=PATH,HOME,USER,LANG,HF_HOME",
        "module load cuda/12.4",
    ):
        assert f"\n{line}\n" in found["generate"], line
    assert "gpu:1" not in found["train"] and "partition=gpu" in found["train"]
    assert f'generate {frozen(project)} --shard "$part/4"' in found["generate"]
    assert "--dependency=afterok:<generate>" in done.stdout.replace("'", "")
    assert done.stdout.count("--kill-on-invalid-dep=yes") == 4
    assert "nothing was submitted" in done.stdout
    # The place of each, and below it what is in it, so that nobody has to look for the files.
    assert f"the scripts are in {(project.run / 'launch' / 'slurm').relative_to(Path.cwd())}" in (
        done.stdout
    )
    for path in (project.run / "launch" / "slurm").glob("*.sbatch"):
        assert subprocess.run(["bash", "-n", path]).returncode == 0
        shown = done.stdout.partition(f"{path.name}\n")[2]
        assert shown.startswith(textwrap.indent(path.read_text(), "    ")), path


def test_what_a_script_runs_are_commands_that_anyone_can_type(project: Project) -> None:
    use_slurm(project)
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert re.findall(r"-m pipeline (.*)", scripts(project)["curate"]) == [
        f"generate {frozen(project)} --gather",
        f"curate {frozen(project)}",
    ]
    printed = project.call("run", "config.yaml", "--on", "print").stdout.splitlines()
    assert printed[:7] == [
        "# generate; in any order, at once:",
        *(f"distill generate config.yaml --shard {n}/4" for n in (1, 2, 3, 4)),
        "# curate, after generate",
        "distill generate config.yaml --gather",
    ]
    assert "distill evaluate config.yaml --arm before" in printed
    assert printed[-1] == "distill report config.yaml"


@pytest.mark.parametrize("more", [{}, {"cost_of_use": {"questions": 3}}])
def test_a_report_that_opens_models_gets_what_an_evaluation_gets(
    project: Project, more: dict[str, object]
) -> None:
    project.edit(**{f"evaluate__{key}": value for key, value in more.items()})
    (report,) = (job for job in jobs_of(load_config(project.config)) if job.name == "report")
    assert report.resources == ("evaluate" if more else "report")


def test_shards_are_not_ignored_in_silence_here(project: Project) -> None:
    project.edit(execution={"shards": 4}, budget={"max_tokens": 1})
    done = project.call("run", "config.yaml", "--until", "generate")
    assert "execution.shards: 4 is for --on slurm, ray and print" in done.stdout


def test_done_parts_are_not_submitted_again(project: Project) -> None:
    use_slurm(project)
    for part in ("1/4", "3/4"):
        assert project.call("generate", "config.yaml", "--shard", part).returncode == 0
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert "#SBATCH --array=2,4\n" in scripts(project)["generate"]
    # Another seed is another identity: what was done counts no more.
    with (project.folder / "seeds.jsonl").open("a") as file:
        file.write(
            '{"id": "new", "question": "Basket Z holds 1 figs and 2 pears.", "answer": "3"}\n'
        )
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert "#SBATCH --array=1-4\n" in scripts(project)["generate"]


def test_training_on_several_nodes_is_started_by_one_launcher_on_each(project: Project) -> None:
    use_slurm(project, train={"nodes": 2, "gres": "gpu:8"}, processes=8)
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    text = scripts(project)["train"]
    assert "srun --export=ALL --nodes=2 --ntasks=2 --ntasks-per-node=1 bash -c" in text
    assert "torch.distributed.run --nnodes 2 --nproc-per-node 8" in text
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600\n" in text  # to write a checkpoint in
    assert "trap" in text and "USR1" in text and "#SBATCH --nodes=2" in text
    (project.folder / "fsdp.yaml").write_text("distributed_type: FSDP\n")
    use_slurm(project, train={"nodes": 2}, processes=8, accelerate="fsdp.yaml")
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    text = scripts(project)["train"]
    assert "accelerate.commands.launch --config_file fsdp.yaml" in text
    assert "--num_machines 2 --num_processes 16" in text


def test_more_parts_than_an_array_may_have_are_several_arrays(project: Project) -> None:
    use_slurm(project, array_size=3)
    done = project.call("run", "config.yaml", "--dry-run")
    found = scripts(project)
    assert "#SBATCH --array=1-3\n" in found["generate-1"]
    assert "#SBATCH --array=1\n" in found["generate-2"]
    assert "part=$((SLURM_ARRAY_TASK_ID + 3))" in found["generate-2"]
    assert "afterok:<generate-1>:<generate-2>" in done.stdout


KEY = "sk-very-secret-0123456789"


def test_keys_are_named_and_never_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    project.edit(
        teacher={
            "backend": "openai",
            "model": "m",
            "serving": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEACHER_KEY"},
        }
    )
    use_slurm(project, setup=[". ~/.distill-keys"])
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert "${TEACHER_KEY:?" in scripts(project)["generate"]
    assert "TEACHER_KEY" not in re.findall("--export=(.*)", scripts(project)["generate"])[0]
    for path in Path("runs").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    use_slurm(project, environment=["TEACHER_KEY"])
    refused = project.call("run", "config.yaml", "--dry-run")
    assert refused.returncode == 2 and "controller's disk" in refused.stderr


def test_no_variable_that_is_named_like_a_key_is_handed_on(project: Project) -> None:
    use_slurm(project, environment=["HF_HOME", "HF_TOKEN"])
    refused = project.call("run", "config.yaml", "--dry-run")
    assert refused.returncode == 2 and "HF_TOKEN holds a key" in refused.stderr
    assert "execution.slurm.setup" in refused.stderr
    assert not (project.run / "launch").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"train": {"nodes": "2-4"}}, "train.nodes: 2-4"),
        ({"train": {"nodes": "two"}}, "train.nodes: two"),
        ({"train": {"nodes": 0}}, "train.nodes: 0"),
        ({"options": {"nodes": "2-4"}}, "options.nodes: 2-4"),
    ],
)
def test_a_training_takes_one_number_of_nodes(
    project: Project, settings: dict[str, object], named: str
) -> None:
    use_slurm(project, **settings)
    refused = project.call("run", "config.yaml", "--dry-run")
    assert refused.returncode == 2, refused.stderr
    assert f"execution.slurm.{named}: a training takes one whole number" in refused.stderr
    assert not (project.run / "launch").exists()


def test_other_jobs_may_have_any_nodes_that_sbatch_takes(project: Project) -> None:
    use_slurm(project, options={"nodes": "2-4"}, train={"nodes": "2"}, curate={"nodes": False})
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    found = scripts(project)
    assert "#SBATCH --nodes=2-4\n" in found["generate"]
    assert "--nodes" not in found["curate"].partition("\n\n")[0]
    assert "#SBATCH --nodes=2\n" in found["train"] and "--nnodes 2 " in found["train"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"options": {"array": "1-9"}}, "array is set by the launcher itself"),
        ({"options": {"-p": "gpu"}}, "is no long option of sbatch"),
        ({"train": {"comment": "a\nb"}}, "a value is one line"),
        ({"environment": ["KEY=abc"]}, "the name of an environment variable"),
        ({"accelerate": "nowhere.yaml"}, "no such file"),
        ({"partition": "gpu"}, "partition"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    project: Project, settings: dict[str, object], said: str
) -> None:
    use_slurm(project, **settings)
    refused = project.call("run", "config.yaml", "--dry-run")
    assert refused.returncode == 2 and said in refused.stderr


FAKE_SLURM = r'''#!/usr/bin/env python3
"""sbatch, squeue and scancel over one file: lines of "name|id|index|state|reason|comment"."""
import os, re, sys
from pathlib import Path

queue = Path(os.environ["FAKE_QUEUE"])
lines = queue.read_text().splitlines() if queue.exists() else []
program = Path(sys.argv[0]).name
if program == "squeue":
    print("\n".join(lines))
elif program == "scancel":
    queue.write_text("\n".join(l for l in lines if l.split("|")[1] not in sys.argv[1:]))
else:
    log = Path(os.environ["FAKE_QUEUE"] + ".log")
    text = Path(sys.argv[-1]).read_text()
    name = re.search(r"--job-name=(\S+)", text).group(1)
    comment = re.search(r"--comment=(\S+)", text).group(1)
    array = re.search(r"--array=([\d,-]+)", text)
    number = 100 + len(log.read_text().splitlines()) if log.exists() else 100
    with log.open("a") as file:
        file.write(" ".join(sys.argv[1:]) + "\n")
    tasks = []
    for part in array.group(1).split(",") if array else []:
        first, _, last = part.partition("-")
        tasks += range(int(first), int(last or first) + 1)
    new = [f"{name}|{number}_{t}|{t}|PENDING|Priority|{comment}" for t in tasks]
    new = new or [f"{name}|{number}|N/A|PENDING|Dependency|{comment}"]
    queue.write_text("\n".join(lines + new))
    if os.environ.get("FAKE_FAILS"):
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out")
    print(number)
'''


class FakeQueue:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            (folder / name).write_text(FAKE_SLURM)
            (folder / name).chmod(0o755)
        self.file = folder / "queue"
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_QUEUE", str(self.file))

    def submissions(self) -> list[str]:
        log = Path(f"{self.file}.log")
        return log.read_text().splitlines() if log.exists() else []

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()

    def keep(self, *, names: str, but: str = "-") -> None:
        """Forget every line but those that match, as a controller that was killed does."""
        kept = [line for line in self.lines() if re.search(names, line)]
        self.file.write_text("\n".join(line for line in kept if not re.search(but, line)))


@pytest.fixture
def queue(project: Project, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    use_slurm(project)
    return FakeQueue(project.folder / "fake", monkeypatch)


def test_jobs_are_found_again_by_name_and_submitted_once(
    project: Project, queue: FakeQueue
) -> None:
    first = project.call("run", "config.yaml")
    assert first.returncode == 0, first.stderr
    assert "`scancel 100 101 102 103 104` stops them" in first.stdout
    assert len(queue.submissions()) == 5
    assert "--dependency=afterok:100 --kill-on-invalid-dep=yes" in queue.submissions()[1]
    again = project.call("run", "config.yaml")
    assert "nothing to submit" in again.stdout and len(queue.submissions()) == 5


def test_what_is_queued_keeps_its_config_and_its_division(
    project: Project, queue: FakeQueue
) -> None:
    assert project.call("run", "config.yaml", "--until", "generate").returncode == 0
    first = frozen(project)
    before = first.read_bytes()
    project.edit(execution__shards=8)
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert first.read_bytes() == before
    assert str(first) not in scripts(project)["generate"]
    # Task 1 of the queued array is shard 1 of 4.
    refused = project.call("run", "config.yaml", "--until", "generate")
    assert refused.returncode == 2 and "generate-1-4-of-4" in refused.stderr
    assert "`scancel 100`" in refused.stderr, refused.stderr
    assert len(queue.submissions()) == 2
    queue.keep(names="nothing")
    assert project.call("run", "config.yaml", "--until", "generate").returncode == 0
    assert "#SBATCH --array=1-8\n" in scripts(project)["generate"]


def test_what_is_queued_with_other_settings_is_named(project: Project, queue: FakeQueue) -> None:
    assert project.call("run", "config.yaml", "--until", "generate").returncode == 0
    first = frozen(project)
    project.edit(execution__progress_seconds=7)
    said = project.call("run", "config.yaml", "--until", "generate").stdout
    assert "generate: 4 queued already; 4 of them go on with the settings of" in said
    assert str(first) in said and "`scancel 100`" in said, said
    use_slurm(project, options={"comment": "of the grant"})  # a site may read it
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert "#SBATCH --comment='of the grant'\n" in scripts(project)["generate"]


def test_status_knows_a_run_that_is_queued(project: Project, queue: FakeQueue) -> None:
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert project.call("status", "small").returncode == 2
    done = project.call("run", "config.yaml")
    assert "`distill status small` watches them" in done.stdout
    said = project.call("status", "small")
    assert said.returncode == 0, said.stderr
    assert "generate: to do" in said.stdout


def test_a_mistake_in_the_training_is_found_before_anything_is_submitted(
    project: Project, queue: FakeQueue
) -> None:
    project.edit(train={"sft": {"max_stepz": 2}})
    refused = project.call("run", "config.yaml")
    assert refused.returncode == 2 and "did you mean max_steps" in refused.stderr
    assert not queue.submissions()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which can tell")
def test_what_only_a_gpu_can_tell_is_named_and_does_not_stop_a_submission(
    project: Project, queue: FakeQueue
) -> None:
    init = {"attn_implementation": "flash_attention_2"}
    project.edit(train={"sft": {"max_steps": 2, "tf32": True, "model_init_kwargs": init}})
    done = project.call("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "train.sft.tf32, train.sft.model_init_kwargs.attn_implementation" in done.stdout
    assert len(queue.submissions()) == 5
    assert project.call("train", "config.yaml", "--check").returncode == 0
    here = project.call("train", "config.yaml", "--check", "--set", "execution.on=local")
    assert here.returncode == 2 and "tf32" in here.stderr


def test_an_sbatch_that_fails_after_it_queued_does_not_submit_twice(
    project: Project, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.launch import slurm

    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("FAKE_FAILS", "1")
    done = project.call("run", "config.yaml", "--until", "curate")
    assert done.returncode == 0, done.stderr
    assert len(queue.submissions()) == 2 and "afterok:100 " in queue.submissions()[1]
    assert "but the job is queued" in done.stdout


def test_what_a_controller_forgot_is_submitted_anew_and_so_is_what_waited_for_it(
    project: Project, queue: FakeQueue
) -> None:
    assert project.call("run", "config.yaml", "--until", "train").returncode == 0
    queue.keep(names=".", but=r"generate-1-4-of-4\|100_[24]")  # two of four tasks are gone
    done = project.call("run", "config.yaml", "--until", "train")
    assert done.returncode == 0, done.stderr
    new = queue.submissions()[3:]
    assert len(new) == 3
    # What waits for the old array as a whole would wait for what never ends well.
    assert "--dependency=afterok:100_1:100_3:103 " in new[1]
    assert "#SBATCH --array=2,4\n" in scripts(project)["generate"]
    assert len([line for line in queue.lines() if "curate" in line]) == 1


def test_a_job_whose_dependency_never_comes_is_cancelled_and_submitted_anew(
    project: Project, queue: FakeQueue
) -> None:
    for part in ("1/4", "2/4", "3/4", "4/4"):
        assert project.call("generate", "config.yaml", "--shard", part).returncode == 0
    assert project.call("run", "config.yaml", "--until", "curate").returncode == 0
    (line,) = queue.lines()
    queue.file.write_text(line.replace("|Dependency", "|DependencyNeverSatisfied"))
    done = project.call("run", "config.yaml", "--until", "curate")
    assert "1 cancelled" in done.stdout and len(queue.submissions()) == 2
    assert "--dependency" not in queue.submissions()[1]


def test_without_slurm_the_message_says_what_to_type(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_slurm(project)
    monkeypatch.setenv("PATH", "/nowhere")
    refused = project.call("run", "config.yaml")
    assert refused.returncode == 2 and "--dry-run" in refused.stderr


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ({"on": "slurm"}, "squeue is not on this machine"),
        ({"on": "slurm", "slurm": {"environment": ["TEACHER_KEY"]}}, "controller's disk"),
        ({"on": "ray", "ray": {"address": "127.0.0.1:1"}}, "nothing answers there"),
    ],
)
def test_a_place_that_refuses_does_so_before_redo_takes_anything_away(
    project: Project, monkeypatch: pytest.MonkeyPatch, execution: dict[str, object], said: str
) -> None:
    if execution["on"] == "ray":
        pytest.importorskip("ray")
    assert project.make("config.yaml").returncode == 0
    serving = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEACHER_KEY"}
    monkeypatch.setenv("TEACHER_KEY", KEY)
    if "slurm" in execution:
        project.edit(teacher={"backend": "openai", "model": "m", "serving": serving})
    project.edit(execution=execution)
    monkeypatch.setenv("PATH", "/nowhere")
    before = {path.name for path in project.run.iterdir()}
    refused = project.call("run", "config.yaml", "--redo", "curate")
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert {path.name for path in project.run.iterdir()} == before
    assert (project.run / "2_kept.jsonl").is_file()
