"""The command line: `distill COMMAND ...`. Exit codes: 0, 1, 2, 75 (see errors.py)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import (
    DISK_ERRORS,
    DONE,
    FAILED,
    NOT_YOURS,
    RUN_AGAIN,
    USER_MISTAKE,
    RunFatal,
    Stopped,
    UserError,
    disk_failure,
)
from pipeline.stage2_train.export_formats import FORMATS, Format

STEP_NAMES = (
    "generate", "curate", "controls", "pairs", "train", "evaluate", "text", "suite",
    "cost", "score", "report",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, do, and turn every expected ending into its exit code and one message."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.work(arguments) or DONE)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except RunFatal as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    except Stopped as error:
        print(f"stopped: {error}", file=sys.stderr)
        return RUN_AGAIN
    except BrokenPipeError:  # `distill show RUN | head`
        sys.stderr.close()
        return DONE
    except OSError as error:  # of files that nobody is paid for: a config, a lock, a report
        if error.errno in NOT_YOURS:
            print(
                f"error: {error.filename}: {error.strerror}; it has to be a place that you may "
                f"write to: see `ls -ld {error.filename}`",
                file=sys.stderr,
            )
            return USER_MISTAKE
        if error.errno not in DISK_ERRORS:
            raise
        ending = disk_failure(error, error.filename or Path.cwd())
        stopped = isinstance(ending, Stopped)
        print(f"{'stopped' if stopped else 'failed'}: {ending}", file=sys.stderr)
        return RUN_AGAIN if stopped else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distill",
        description="Ask a teacher model, keep what is right, train a student, test it.",
        epilog="Start with `distill run configs/quickstart.yaml`. Exit codes: 0 done, 1 failed, "
        "2 a mistake in the config or command, 75 stopped: run it again to go on.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _run_options(_with_config(commands, "run", "do every step that is missing", _run))
    plan = _with_config(commands, "plan", "what would be asked, what is paid, tokens, cost", _plan)
    plan.add_argument("--prompts", type=int, default=3, help="how many rendered prompts to print")
    plan.add_argument(
        "--pilot", type=int, default=0, metavar="N",
        help="really ask N of the new requests of each task (they are stored and count), for an "
        "estimate with an error bar",
    )  # fmt: skip
    for name, text in (
        ("generate", "step 1: ask the teacher what the ledger lacks"),
        ("curate", "step 2: filter the answers, write the dataset"),
        ("train", "step 3: train the student"),
        ("evaluate", "step 4: test teacher, student before and after; score"),
        ("report", "step 5: write the report"),
    ):
        _step_options(name, _with_config(commands, name, text, _steps))
    serve = _with_config(commands, "serve", "keep a server for a teacher that others ask", _serve)
    serve.add_argument("--teacher", metavar="NAME", help="which, where several are served")
    serve.add_argument(
        "--until", choices=["generate", "evaluate"],
        help="end when that command has all its answers (docs/serving.md); else when told to",
    )  # fmt: skip
    _with_config(commands, "doctor", "is the teacher reachable, does the student fit", _doctor)
    _with_config(commands, "cancel", "end the batches that a provider still works on", _cancel)

    status = _with_run(commands, "status", "where a run is, rates, what failed and why", _status)
    status.add_argument("--rows", action="store_true", help="look up every row of a large run, too")
    status.add_argument("--all", action="store_true", help="a line for every part of a large run")
    show = _with_run(commands, "show", "samples at any point; trace one row", _show)
    show.add_argument(
        "id", nargs="?",
        help="trace one: the id of a request, seed or item (or its beginning), or train:12, a row "
        "of the dataset",
    )  # fmt: skip
    show.add_argument("--id", dest="id_option", metavar="ID", help="the same")
    show.add_argument("--n", type=int, default=3, help="how many samples of each kind")
    show.add_argument(
        "--tokens", action="store_true",
        help="rows of the dataset as the trainer tokenises them, and where the loss is taken",
    )  # fmt: skip
    _export_options(
        _with_run(
            commands,
            "export",
            "hand the dataset, or the student, to others (a dry run first)",
            _export,
        )
    )
    compare = commands.add_parser(
        "compare", help="two runs: whose student is better on the same items", description=(
            "Two runs: whose student is better on the same items, what their trainings cost the "
            "rest, and what their configs do not have in common."
        ),
    )  # fmt: skip
    compare.add_argument("first", metavar="RUN", help="a run's name, folder or config")
    compare.add_argument("second", metavar="RUN")
    compare.add_argument("--to", type=Path, metavar="FILE.html", help="where the page goes")
    compare.set_defaults(work=_compare)
    verify = _with_run(commands, "verify", "every checksum, every id once", _verify)
    verify.add_argument("--repair", action="store_true", help="set damaged rows aside")
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--until", choices=STEP_NAMES, help="stop after this step")
    run.add_argument(
        "--on", choices=["local", "slurm", "ray", "print"],
        help="where; print: the commands and what each has to wait for",
    )  # fmt: skip
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="with --on slurm: write and print the scripts, submit nothing",
    )


def _step_options(name: str, step: argparse.ArgumentParser) -> None:
    if name == "train":
        step.add_argument("--check", action="store_true", help="only look for mistakes")
        step.add_argument(
            "--until", choices=["pairs", "train"], help="pairs: only ask the student for them"
        )
        beside = step.add_mutually_exclusive_group()
        beside.add_argument(
            "--control", metavar="NAME",
            help="train on 3_controls/NAME instead of the dataset, with the same settings",
        )  # fmt: skip
        beside.add_argument(
            "--seed", type=int, metavar="N",
            help="train the student once more with this seed, as 4_seeds/N",
        )  # fmt: skip
        beside.add_argument(
            "--only", metavar="TASK",
            help="train on the rows of one task, as 4_only/TASK: what does it cost the others?",
        )  # fmt: skip
    if name == "generate":
        step.add_argument(
            "--shard", metavar="I/N",
            help="ask only this part of the requests, as 3/16, and store the answers "
            "(docs/shards.md)",
        )  # fmt: skip
    if name in ("generate", "evaluate"):
        step.add_argument(
            "--gather", action="store_true",
            help="ask nothing: take what shards or arms have asked, refuse if it is not all",
        )  # fmt: skip
    if name == "evaluate":
        step.add_argument(
            "--suite", metavar="lm-eval:TASK,TASK",
            help="also ask all arms these tasks of lm-evaluation-harness (docs/evaluating.md)",
        )  # fmt: skip
        step.add_argument(
            "--arm", metavar="NAME", help="ask only this arm's questions, and store the answers"
        )
        step.add_argument(
            "--no-weights", action="store_true",
            help="with --arm teacher, beside its servers: leave out held-out texts and a suite "
            "that needs the weights here, while the servers hold the GPUs",
        )  # fmt: skip
        step.add_argument(
            "--rescore", action="store_true",
            help="score the saved answers again; asks no model (the same as --redo score)",
        )  # fmt: skip


def _export_options(export: argparse.ArgumentParser) -> None:
    export.add_argument(
        "--what", choices=["dataset", "student", "items"], default="dataset",
        help="the student is converted, opened again, compared and tested (docs/exporting.md); the "
        "evaluation's items become tasks of lm-evaluation-harness",
    )  # fmt: skip
    export.add_argument(
        "--format", nargs="+", choices=FORMATS, metavar="FORMAT", dest="formats",
        help=f"of the student: {', '.join(FORMATS)} (default: {FORMATS[0]})",
    )  # fmt: skip
    export.add_argument(
        "--no-scores", action="store_true", help="do not test the exported student (minutes each)"
    )
    export.add_argument(
        "--to", nargs="+", required=True, metavar="WHERE",
        help="hub (with --repo), or folder PATH (a path or a URL that fsspec writes to)",
    )  # fmt: skip
    export.add_argument("--repo", metavar="OWNER/NAME", help="the repository on the hub")
    export.add_argument(
        "--replace", action="store_true", help="put it in the place of an export that lies there"
    )
    export.add_argument("--public", action="store_true", help="a new repository is not private")
    export.add_argument("--yes", action="store_true", help="really do it")
    for what, why in (
        ("contamination", "rows that overlap with evaluation items"),
        ("secrets", "rows that look as if they held keys or passwords"),
    ):
        export.add_argument(f"--with-{what}", action="store_true", help=f"export {why}, too")


def _with_config(commands: Any, name: str, text: str, work: object) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, e.g. train.sft.learning_rate=1e-4 (repeatable)",
    )
    if work in (_run, _steps):
        parser.add_argument("--redo", choices=STEP_NAMES, help="redo this step and what follows")
    parser.set_defaults(work=work)
    return parser


def _with_run(commands: Any, name: str, text: str, work: object) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("run", metavar="RUN", help="a run's name, folder or config")
    parser.set_defaults(work=work)
    return parser


# Imports are inside, so that `distill --help` and a mistyped command answer at once.


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.launch import local

    return local.run(
        arguments.config,
        arguments.overrides,
        until=arguments.until,
        redo=arguments.redo,
        on=arguments.on,
        dry_run=arguments.dry_run,
    )


def _steps(arguments: argparse.Namespace) -> int:
    from pipeline import flow

    if getattr(arguments, "check", False):
        from pipeline.stage2_train.check import check_training

        return check_training(arguments.config, arguments.overrides)
    gather = getattr(arguments, "gather", False)
    shard, arm = getattr(arguments, "shard", None), getattr(arguments, "arm", None)
    if shard is not None or arm is not None:
        if arguments.redo or gather:
            raise UserError("--shard and --arm go with neither --redo nor --gather")
        from pipeline.launch import part

        if arm is not None:
            weights = not arguments.no_weights
            return part.run_arm(arguments.config, arguments.overrides, arm, weights=weights)
        return part.run_shard(arguments.config, arguments.overrides, arguments.shard)
    if getattr(arguments, "no_weights", False):
        raise UserError("--no-weights goes with --arm")
    overrides = list(arguments.overrides)
    if suite := getattr(arguments, "suite", None):
        from pipeline.stage3_evaluate.harness import tasks_of

        overrides.append(f"evaluate.suite.tasks={tasks_of(suite)}")
    return flow.run_command(
        arguments.command,
        arguments.config,
        overrides,
        redo="score" if getattr(arguments, "rescore", False) else arguments.redo,
        control=getattr(arguments, "control", None),
        seed=getattr(arguments, "seed", None),
        only=getattr(arguments, "only", None),
        until=getattr(arguments, "until", None),
        gather=gather,
    )


def _compare(arguments: argparse.Namespace) -> int:
    from pipeline.commands.compare import compare_runs

    return compare_runs(arguments.first, arguments.second, arguments.to)


def _plan(arguments: argparse.Namespace) -> int:
    from pipeline.commands.plan import plan

    return plan(arguments.config, arguments.overrides, arguments.prompts, arguments.pilot)


def _serve(arguments: argparse.Namespace) -> int:
    from pipeline.launch.serve import serve

    return serve(arguments.config, arguments.overrides, arguments.teacher, arguments.until)


def _doctor(arguments: argparse.Namespace) -> int:
    from pipeline.commands.doctor import doctor

    return doctor(arguments.config, arguments.overrides)


def _cancel(arguments: argparse.Namespace) -> int:
    from pipeline.commands.cancel import cancel

    return cancel(arguments.config, arguments.overrides)


def _status(arguments: argparse.Namespace) -> int:
    from pipeline.commands.status import status

    return status(arguments.run, arguments.rows, arguments.all)


def _show(arguments: argparse.Namespace) -> int:
    from pipeline.commands.show import show

    wanted = arguments.id or arguments.id_option
    return show(arguments.run, wanted, arguments.n, tokens=arguments.tokens)


def _export(arguments: argparse.Namespace) -> int:
    from pipeline.commands.export import export, target_of

    target = target_of(arguments.to, arguments.repo, arguments.public, arguments.replace)
    overruled = arguments.with_contamination or arguments.with_secrets
    if arguments.what == "student":
        if overruled:
            raise UserError("--with-contamination and --with-secrets are about rows of a dataset")
        from pipeline.commands.export_student import export_student

        return export_student(
            arguments.run,
            [Format(name) for name in arguments.formats or FORMATS[:1]],
            target,
            yes=arguments.yes,
            scores=not arguments.no_scores,
        )
    if arguments.what == "items":
        from pipeline.commands.export_items import export_items

        if overruled or arguments.formats or arguments.no_scores:
            raise UserError("--what items takes --to and --yes, and no other option")
        return export_items(arguments.run, target, yes=arguments.yes)
    if arguments.formats or arguments.no_scores:
        raise UserError("--format and --no-scores are about the student; add --what student")
    return export(
        arguments.run,
        target,
        yes=arguments.yes,
        with_contamination=arguments.with_contamination,
        with_secrets=arguments.with_secrets,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from pipeline.commands.verify import verify

    return verify(arguments.run, arguments.repair)


if __name__ == "__main__":
    sys.exit(main())
