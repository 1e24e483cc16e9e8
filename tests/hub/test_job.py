"""The script for `uv run` and jobs of the Hub: its inline metadata parses, and it trains and pushes."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from scripts import script

from sr_transformers import Recommender
from sr_transformers.data.logs import synthetic

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "job.py"
# The expression that the specification of inline script metadata gives.
BLOCK = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"


def metadata():
    (block,) = [one for one in re.finditer(BLOCK, SCRIPT.read_text()) if one.group("type") == "script"]
    lines = block.group("content").splitlines(keepends=True)
    return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))


def test_its_metadata_names_this_package_and_a_python_that_it_runs_on():
    found, project = metadata(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = map(Requirement, found["dependencies"])
    assert requirement.name == project["name"]
    assert requirement.extras <= set(project["optional-dependencies"])
    assert found["requires-python"] == project["requires-python"]
    assert sys.version.split()[0] in SpecifierSet(found["requires-python"])


def test_it_imports_nothing_but_what_it_names():
    imported = re.findall(r"^(?:from|import) (\w+)", SCRIPT.read_text(), re.MULTILINE)
    assert set(imported) <= {"sr_transformers", *sys.stdlib_module_names}


def test_it_trains_and_publishes(hub, tmp_path, capsys):
    log = synthetic.generate(num_users=60, num_items=20, num_successors=3, mean_length=8)
    log.rename({"item_id": "sku"}).write_parquet(tmp_path / "log.parquet")
    words = [str(tmp_path / "log.parquet"), "org/job", "--columns", "item_id=sku", "--work", str(tmp_path / "job")]
    words += ["--num_train_epochs", "1", "--max_position_embeddings", "8", "--disable_tqdm", "true"]
    script(SCRIPT).main(words)
    assert "| lsrm 98k |" in capsys.readouterr().out
    assert {"model.safetensors", "README.md", "run.json"} <= set(hub.model("org/job").files())
    assert Recommender.from_pretrained("org/job").recommend([1, 2], k=3)


def test_a_key_that_is_none_is_refused_before_anything_is_sent(hub, tmp_path):
    log = synthetic.generate(num_users=60, num_items=20, num_successors=3, mean_length=8)
    log.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="did you mean 'num_train_epochs'"):
        script(SCRIPT).main(
            [str(tmp_path / "log.parquet"), "org/job", "--work", str(tmp_path / "job"), "--num_train_epoch", "1"]
        )
    assert not hub.repos
