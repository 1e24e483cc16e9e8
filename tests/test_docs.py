"""Every Python block of the pages in docs/ runs, block after block, in a folder that has what the page expects."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import transformers
from scripts import script
from transformers.cli.serving import model_manager

import sr_transformers
from sr_transformers import Recipe, train
from sr_transformers.cli import main
from sr_transformers.columns import ITEM
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.marks import between

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
REFERENCE = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the pages begin with: a prepared log and a small model of it."""
    path = tmp_path_factory.mktemp("docs")
    log = synthetic.generate(num_users=120, num_items=30, num_successors=3, mean_length=12)
    data = prepare(log.with_columns(pl.format("i{}", ITEM).alias(ITEM)), path / "prepared" / "events")
    model = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    train(Recipe("tiny", model, {"num_train_epochs": 2, "disable_tqdm": True}), data, path / "runs" / "events")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, folder, tmp_path, warm):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks or "```python" not in page.read_text(encoding="utf-8")
    (tmp_path / "page.py").write_text("\n".join(blocks))
    code, out, err = warm.run([], tmp_path, 600, program="page.py", environment={"ACCELERATE_USE_CPU": "true"})
    assert code == 0, out[-2000:] + err[-4000:]


@pytest.mark.slow
def test_the_messages_of_the_troubleshooting_page_are_real(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(folder / "prepared" / "events", "data")
    shutil.copytree(folder / "runs" / "events", "run")
    log = synthetic.generate(num_users=20, num_items=30, num_successors=3, mean_length=12)
    log.write_csv("events.csv")
    log.rename({"user_id": "customer"}).write_csv("renamed.csv")
    rows = Path("events.csv").read_text().splitlines()
    rows[4] = rows[4].rsplit(",", 1)[0] + ",yesterday"
    Path("broken.csv").write_text("\n".join(rows))
    prepare(log.with_columns(pl.format("other {}", ITEM).alias(ITEM)), "other")
    shutil.copytree("run", "stopped")
    Path("stopped/run.json").unlink()
    blocks = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs" / "troubleshooting.md").read_text(), re.DOTALL | re.M)
    steps = [step for block in blocks for step in re.findall(r"\$ sr-transformers (.*)\n((?:[^$\n].*\n)*)", block)]
    assert len(steps) > 10
    for command, message in steps:
        shutil.rmtree("new", ignore_errors=True)
        capsys.readouterr()
        code = main(shlex.split(command))
        said = " ".join(capsys.readouterr().err.replace(f"{tmp_path}/", "").split())
        assert code == (2 if message else 0), (command, said)
        assert " ".join(message.split()) in said, command


def test_every_public_name_is_in_the_reference():
    shown = re.findall(r"^::: ([\w.]+)$", REFERENCE, re.M)
    assert sorted(shown) == sorted(f"{module}.{name}" for name, module in sr_transformers._PUBLIC.items())


def test_every_public_name_is_documented():
    for name in set(sr_transformers.__all__) - {"__version__"}:
        found = getattr(sr_transformers, name)
        assert inspect.getdoc(found), name
        for member, value in vars(found).items() if inspect.isclass(found) else ():
            if inspect.isfunction(value) and not member.startswith("_"):
                assert inspect.getdoc(getattr(found, member)), f"{name}.{member}"  # or that of what it overrides


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads((ROOT / "docs" / "ten_minutes.ipynb").read_text())
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    """Strictly: a dead link, a page outside the navigation or a faulty docstring is an error. Runs the notebook."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    notebook = (tmp_path / "site" / "ten_minutes" / "index.html").read_text(encoding="utf-8")
    for what in ("prepared log", "RunRecord(sparse", "ann", "library_name"):  # what its cells print
        assert what in notebook, what
    assert " at 0x" not in notebook  # the repr of nothing
    assert "num_hidden_layers" in (tmp_path / "site" / "reference" / "model" / "index.html").read_text(encoding="utf-8")


def test_the_preferences_table_says_what_the_records_say():
    recipe = script("recipes/experiments/preferences.py")
    records = [json.loads(path.read_text()) for path in sorted(recipe.RESULTS.glob("*.json"))]
    assert records
    assert between(recipe.PAGE, "preferences") == recipe.table(records)


def test_why_transformers_serve_fails_is_still_so():
    """Should one of these change, the page on clients is to be mended."""
    assert not hasattr(transformers, "LSRMForCausalLM")
    source = inspect.getsource(model_manager.ModelManager._load_model)
    assert "getattr(transformers, config.architectures[0])" in source
    assert build_tokenizer(["a", "b"]).chat_template is None


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
