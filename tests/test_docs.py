"""Every command, option, file and config that the docs name is there and works."""

from __future__ import annotations

import re
import shlex
from functools import cache, partial
from pathlib import Path

import pytest

from pipeline.__main__ import STEP_NAMES, main
from pipeline.config_file import dump_yaml, load_yaml
from pipeline.flow import checked_config
from pipeline.stage1_generate.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = r"```[a-z]*\n(.*?)```"
# A config that begins from another run can be checked only where that run is: its own test does.
CONFIGS = sorted(
    path for path in (ROOT / "configs").glob("*.yaml") if "{run: " not in path.read_text()
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.name)
def test_a_shipped_config_is_valid(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    checked_config(config, [])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.name)
def test_the_items_of_a_shipped_config_can_be_made(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipeline.ledger import Ledger
    from pipeline.models import model_identity
    from pipeline.stage1_generate.generate import requests_of
    from pipeline.stage1_generate.task_seeds import seeds_of
    from pipeline.stage3_evaluate.evaluate import questions_of

    monkeypatch.chdir(ROOT)
    loaded = checked_config(config, [])
    for task in loaded.tasks:
        if task.seeds.from_task is not None:  # its seeds are in answers that are not there yet
            continue
        ledger = Ledger(tmp_path, model_identity(loaded.teacher_of(task.teacher)))
        name = loaded.teachers_of(task)[0]
        assert next(requests_of(loaded, task, name, ledger, partial(seeds_of, loaded))).messages
    for arm in ("teacher", "before"):
        ids = [q.request("m").id for q in questions_of(loaded, arm)]
        assert ids


def task_blocks() -> list[str]:
    text = (ROOT / "docs" / "recipes.md").read_text()
    blocks: list[str] = re.findall(r"```yaml\n(.*?)```", text, re.S)
    return [block for block in blocks if block.startswith("tasks:")]


@pytest.mark.parametrize("block", task_blocks(), ids=lambda b: b.split("name: ")[1].split("\n")[0])
def test_the_tasks_of_the_recipes_page_are_valid(
    block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    config = tmp_path / "config.yaml"
    models = "name: x\nteacher: {backend: fake, model: t}\nstudent: {model: s}\n"
    config.write_text(models + block)
    checked_config(config, [])


def test_every_recipe_has_its_place_in_the_docs() -> None:
    text = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    assert not [name for name in RECIPES if f"`{name}`" not in text]


def settings_blocks() -> list[tuple[str, str]]:
    """(page, block) of every YAML block that says who is asked, or where a run is at work."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
            if re.search(r"^(execution|teacher):", block, re.M):
                found.append((page.name, block))
    return found


def test_pages_on_clusters_have_their_blocks() -> None:
    pages = {page for page, _ in settings_blocks()}
    assert {"slurm.md", "ray.md", "serving.md", "eight_gpus.md"} <= pages


@pytest.mark.parametrize(("page", "block"), settings_blocks(), ids=lambda word: word[:12])
def test_the_settings_of_a_page_are_valid(
    page: str, block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    raw, _ = load_yaml(ROOT / "configs" / "quickstart.yaml")
    written = tmp_path / "block.yaml"
    written.write_text(block)
    config = tmp_path / "config.yaml"
    dump_yaml(raw | load_yaml(written)[0], config)
    checked_config(config, [])


def commands_in(page: Path) -> list[list[str]]:
    """Every `distill ...` (or `-m pipeline ...`) in code spans, fenced and indented lines."""
    text = page.read_text()
    lines = [line for block in re.findall(FENCED, text, re.S) for line in block.splitlines()]
    lines += re.findall(r"^ {4,}(\S.*)", re.sub(FENCED, "", text, flags=re.S), re.M)
    lines += re.findall(r"`(distill [^`]+)`", text)
    typed = [part.strip() for line in lines for part in re.split(r"[;&|]+", line.split("#")[0])]
    found = [re.match(r"(?:\w+=.*? |.* -m )?(?:distill|pipeline) (.*)", part) for part in typed]
    return [shlex.split(match[1]) for match in found if match]


def test_indented_commands_are_read_too() -> None:
    found = commands_in(ROOT / "docs" / "eight_gpus.md")
    assert ["run", "CONFIG", "--on", "ray"] in found
    assert ["train", "CONFIG"] in found and ["evaluate", "CONFIG", "--gather"] in found
    assert ["generate", "CONFIG", "--shard", "$i/8"] in found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_in_the_docs_is_one(page: Path) -> None:
    for words in commands_in(page):
        plain = [w for w in words if re.fullmatch(r"[\w.=/+:-]+", w)]
        try:
            main([*plain[:1], "--help"])
        except SystemExit as ended:
            assert ended.code == 0, words
        for flag in (w for w in plain if w.startswith("--")):
            assert flag in help_of(plain[0]), (page.name, words)


@cache
def help_of(command: str) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_in_the_docs_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:configs|prompts|data|docs|tests|bench|pipeline)/[\w./-]+)`", text)
    named += re.findall(r"\]\(((?!http)[\w./-]+)\)", text)
    for name in named:
        assert (ROOT / name).exists() or (page.parent / name).exists(), (page.name, name)


def test_the_help_names_every_step_and_command_of_the_contract() -> None:
    for command in (
        *("run", "plan", "generate", "curate", "train", "evaluate", "report"),
        *("status", "show", "doctor", "verify"),
    ):
        assert help_of(command), command
    assert all(name in help_of("run") for name in STEP_NAMES)
