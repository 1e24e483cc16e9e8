"""Recipes by name: one copy, found by folder and name or by the name alone; a file that is there wins."""

from pathlib import Path

import pytest

from sr_transformers import Recipe, Study
from sr_transformers.cli import main
from sr_transformers.recipe_files import FOLDERS, RECIPES, STUDIES, find_recipe, recipe_names, recipe_title

ROOT = Path(__file__).parent.parent


def test_every_file_has_a_name_and_is_read_by_it():
    files = [path for folder in FOLDERS for path in (ROOT / "recipes" / folder).glob("*.yaml")]
    assert sorted(recipe_names()) == sorted(f"{path.parent.name}/{path.stem}" for path in files)
    assert Recipe.load("lsrm/98k") == Recipe.load("98k") == Recipe.load(ROOT / "recipes/lsrm/98k.yaml")
    assert Recipe.load("1.5m").name == "1.5m"
    assert Study.load("ml-1m").name == Study.load("studies/ml-1m").name == "ml-1m"


def test_no_name_is_taken_twice():
    for folders in (RECIPES, STUDIES, FOLDERS):
        stems = [name.rpartition("/")[2] for name in recipe_names(folders)]
        assert len(stems) == len(set(stems))


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sparse").write_text("training:\n  seed: 5\n")
    assert Recipe.load("sparse").training == {"seed": 5}


@pytest.mark.parametrize(
    ("wanted", "folders", "says"),
    [
        ("lsrm/98m", RECIPES, "lsrm/98m: no such recipe.*Did you mean lsrm/9m"),
        ("recipes/regimes/dens.yaml", RECIPES, "Did you mean regimes/dense"),
        ("ml-1m", RECIPES, r"ml-1m: no such recipe, neither as a file nor by name\. `sr-transformers recipes`"),
        ("sparse", STUDIES, "sparse: no such study"),
        (".", FOLDERS, r"\.: no such recipe"),
    ],
)
def test_what_is_neither_is_refused(wanted, folders, says):
    with pytest.raises(FileNotFoundError, match=says):
        find_recipe(wanted, folders, "study" if folders == STUDIES else "recipe")


def test_a_study_takes_its_recipe_beside_it_or_by_name(tmp_path):
    text = "name: x\ndata: y\nrecipe: {}\nsizes: {{3k: [1, 16, 1]}}\n"
    text += "blocks: {{a: {{sizes: [3k], epochs: [1], seeds: [1]}}}}\n"
    (tmp_path / "mine.yaml").write_text("training: {seed: 9}\n")
    (tmp_path / "study.yaml").write_text(text.format("mine.yaml"))
    assert Study.load(tmp_path / "study.yaml").recipe.training == {"seed": 9}
    (tmp_path / "study.yaml").write_text(text.format("regimes/dense"))
    assert Study.load(tmp_path / "study.yaml").recipe.training == Recipe.load("dense").training


def test_titles_fit_on_a_line():
    for name in recipe_names():
        assert 5 < len(recipe_title(name)) < 120, name


def test_the_command_lists_and_shows(capsys):
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == recipe_names()
    assert main(["recipes", "show", "ddp"]) == 0
    assert capsys.readouterr().out == (ROOT / "recipes/accelerate/ddp.yaml").read_text()
    assert main(["recipes", "show", "dpd"]) == 2
    assert "Did you mean accelerate/ddp?" in capsys.readouterr().err
