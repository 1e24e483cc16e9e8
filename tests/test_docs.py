"""Every Python block of the pages in docs/ runs, block after block, in a folder that has what the page expects."""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import transformers
from transformers.cli.serving import model_manager

from sr_transformers import Recipe, train
from sr_transformers.columns import ITEM
from sr_transformers.data import synthetic
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import build_tokenizer

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


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
def test_the_blocks_of_a_page_run(page, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks or "```python" not in page.read_text(encoding="utf-8")
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]


def test_the_preferences_table_says_what_the_records_say():
    spec = importlib.util.spec_from_file_location("recipe", PAGES[0].parent.parent / "recipes" / "preferences.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    records = [json.loads(path.read_text()) for path in sorted(recipe.RESULTS.glob("*.json"))]
    assert records
    assert recipe.table(records) in recipe.PAGE.read_text()


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
