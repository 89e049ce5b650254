"""The worked example of docs/recipes.md runs, and is what the page shows."""

from __future__ import annotations

from pathlib import Path

from tests.project import Project

ROOT = Path(__file__).parent.parent
FAKE = "teacher={backend: fake, model: fake, serving: {script: teacher.py}}"

TEACHER = """
def answer(request):
    number = int(request.id[:6], 16)
    if "A person asked for a text" in request.messages[-1].content:
        return '"Write headline number %d for our paper."' % number if number % 5 else "a " * 60
    return f"Here is an answer with the number {number}."
"""


def test_the_worked_example_runs(project: Project) -> None:
    for name in ("prompts", "data", "configs", "examples"):
        (project.folder / name).symlink_to(ROOT / name)
    (project.folder / "teacher.py").write_text(TEACHER)
    words = ("configs/own_recipe.yaml", "--set", FAKE, "--set", f"student.model={project.model}")
    done = project.make(*words)
    assert done.returncode == 0, done.stderr
    project.run = project.folder / "runs" / "own-recipe"
    kept = project.rows("2_kept.jsonl")
    texts = (ROOT / "data/seeds/headlines.jsonl").read_text()
    backwards = [row for row in kept if row["meta"]["task"] == "requests"]
    assert len(backwards) > 30
    assert all(row["completion"][0]["content"] in texts for row in backwards)
    assert all('"' not in row["prompt"][0]["content"] for row in backwards)
    forwards = [row for row in kept if row["meta"]["task"] == "answers"]
    assert forwards and all("an answer with" in row["completion"][0]["content"] for row in forwards)
    generated = project.rows("steps.jsonl")[0]
    assert generated["notes"]["derived_seeds"]["answers"]["lost"]["over 40 words"] > 0


def test_the_docs_show_the_file_as_it_is() -> None:
    code = (ROOT / "examples" / "own_recipe.py").read_text().split('"""', 2)[2].strip()
    assert code in (ROOT / "docs" / "recipes.md").read_text()
