"""Every recipe is loaded, every size has its N, and the small ones take a training step."""

import json
import re
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers.utils import logging

from sr_transformers import LSRMConfig, Recipe
from sr_transformers.cli import main
from sr_transformers.lsrm.configuration_lsrm import _CHOICES, HISTORY_PARTS, LSRM_SIZES, NEEDS_TIMES
from sr_transformers.scaling.studies.study import Study
from sr_transformers.training.train import train

RECIPES = Path(__file__).parent.parent / "recipes"
SCALES = [RECIPES / "lsrm" / f"{size}.yaml" for size in LSRM_SIZES]
REGIMES = sorted((RECIPES / "regimes").glob("*.yaml"))
STUDIES = sorted((RECIPES / "studies").glob("*.yaml"))


def keys(path: Path) -> list[str]:
    content = yaml.safe_load(path.read_text())
    return [f"{section}.{key}" for section, values in content.items() for key in values]


def test_there_is_one_recipe_per_scale():
    assert sorted(SCALES) == sorted((RECIPES / "lsrm").glob("*.yaml"))


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.stem)
def test_a_scale_is_the_papers_size(path):
    config = Recipe.load(path).config(vocab_size=100)
    size = LSRMConfig.from_size(path.stem, vocab_size=100)
    assert config.num_non_embedding_parameters == size.num_non_embedding_parameters
    assert config.num_attention_heads == size.num_attention_heads
    assert config.max_position_embeddings == 50
    rates = config.layer_dropout("residual_dropout")
    assert rates[0] > rates[-1]


@pytest.mark.parametrize("path", SCALES + REGIMES, ids=lambda path: path.stem)
def test_all_recipes_have_the_same_keys_in_the_same_order(path, tmp_path):
    assert keys(path) == keys(SCALES[0])
    Recipe.load(path).arguments(tmp_path)


@pytest.mark.parametrize("path", SCALES + REGIMES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_costs_and_what_was_verified(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Cost:" in line for line in head)
    assert any("Verified:" in line for line in head)


@pytest.mark.parametrize("path", SCALES[4:], ids=lambda path: path.stem)
def test_a_scale_that_nobody_trained_says_what_was_planned(path, tmp_path):
    head = " ".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))
    said = re.search(r"Planned: (\S+ GB), and (\S+ s) for 12 epochs .* \(sr-transformers (plan .*?)\)", head)
    assert main([*said[3].split(), "--json", str(tmp_path / "plan.json")]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    found = f"{plan['best']['bytes_per_device'] / 1e9:.1f} GB", f"{plan['time']['seconds']:.0f} s"
    assert said.groups()[:2] == found


@pytest.mark.slow
@pytest.mark.parametrize("path", SCALES[:4] + REGIMES, ids=lambda path: path.stem)
def test_a_recipe_trains(path, prepared, tmp_path):
    recipe = Recipe.load(path, {"max_steps": 1, "disable_tqdm": True, "per_device_train_batch_size": 2})
    assert train(recipe, prepared, tmp_path / "run").steps == 1


@pytest.mark.parametrize("name", ["history-complete-journey", "history-online-retail"])
def test_a_study_of_parts_has_none_all_one_more_and_one_less(name):
    study = Study.load(RECIPES / "studies" / f"{name}.yaml")
    found = {run.block: frozenset(dict(run.settings).get("history", ())) for run in study.runs}
    own = frozenset(Recipe.load(RECIPES / "regimes/repeats.yaml").model["history"])
    assert own == frozenset(HISTORY_PARTS) - {"recency"}
    expected = {"none": frozenset(), "all": own, "with-recency": own | {"recency"}, "shuffled": own}
    expected |= {f"without-{part}": own - {part} for part in own}
    expected |= {"ids": {"recency", *own} - set(NEEDS_TIMES), "ids-without-recency": own - set(NEEDS_TIMES)}
    assert found == expected
    assert {run.block for run in study.runs if dict(run.settings).get("shuffle_baskets")} == {"shuffled"}
    assert {run.seed for run in study.runs} == {1, 2, 3}
    assert len({run.epochs for run in study.runs}) == 1
    assert not any(run.in_law for run in study.runs)


@pytest.mark.parametrize("name", ["blocks-ml-100k", "blocks-movietweetings", "blocks-abxi-afk"])
def test_a_study_of_blocks_has_each_alone_at_equal_n(name):
    study = Study.load(RECIPES / "studies" / f"{name}.yaml")
    (size,) = study.sizes.values()
    found, fields = {}, LSRMConfig.__annotations__
    for run in study.runs:
        settings = dict(run.settings)
        model = {**study.recipe.model, **size.settings(), **{key: settings[key] for key in settings if key in fields}}
        n = LSRMConfig(vocab_size=100, **model).num_non_embedding_parameters
        assert n == pytest.approx(size.num_non_embedding_parameters, rel=0.011), run.name
        found[run.block] = {key: value for key, value in settings.items() if key != "intermediate_size"}
    assert found.pop("none") == {}
    assert study.recipe.training["optimizer"] == "muon"  # of all but the block without it
    assert study.recipe.training["decay_epochs"] is None  # of all but the block with it
    together = [found.pop("ligr"), found.pop("winners")]
    choices = {(key, value) for key, values in _CHOICES.items() for value in values[1:]}
    choices |= {("hidden_act", "swiglu"), ("attention_time", True), ("optimizer", None)}
    choices |= {("table_lr_multiplier", 3.0), ("table_lr_multiplier", 0.3), ("decay_epochs", 7)}
    assert all(len(settings) == 1 for settings in found.values())
    assert {pair for settings in found.values() for pair in settings.items()} == choices
    assert all(len(settings) > 1 and set(settings.items()) <= choices for settings in together)
    assert {run.seed for run in study.runs} == {1, 2, 3}
    assert len({run.epochs for run in study.runs}) == 1
    assert not any(run.in_law for run in study.runs)


LAWS = [path for path in STUDIES if not path.stem.startswith(("history-", "blocks-", "teacher"))]


@pytest.mark.parametrize("path", LAWS, ids=lambda path: path.stem)
def test_a_study_can_be_run_and_enough_of_it_is_the_law(path):
    seeds = defaultdict(set)
    for run in Study.load(path).runs:
        if run.in_law and run.block in ("main", "top"):
            seeds[run.size.num_non_embedding_parameters].add(run.seed)
    assert sum(len(of_size) >= 3 for of_size in seeds.values()) >= 7


def test_the_study_of_a_teacher_has_many_points_instead_of_many_seeds():
    runs = [run for run in Study.load("teacher").runs if run.in_law]
    assert len({(run.size.num_non_embedding_parameters, run.fraction) for run in runs}) >= 24


@pytest.mark.parametrize("name", ["ml-1m", "online-retail"])
def test_a_study_of_size_and_data_has_enough_of_both(name):
    study = Study.load(RECIPES / "studies" / f"{name}.yaml")
    assert max(run.size.num_non_embedding_parameters for run in study.runs) >= 9e6
    assert {run.fraction for run in study.runs if run.in_law} >= {0.1, 0.3, 1.0}


@pytest.mark.parametrize("path", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_machines == 1


def test_every_recipe_has_a_row_in_the_readme():
    text = (RECIPES / "README.md").read_text()
    for path in [*SCALES, *REGIMES, *RECIPES.glob("*.py"), *(RECIPES / "accelerate").glob("*.yaml"), *STUDIES]:
        assert str(path.relative_to(RECIPES)) in text, path


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(("name", "words"), [("demo", []), ("job", [["log.csv", "org/name"]])])
def test_bars_of_transformers_are_for_terminals(name, words, terminal, tmp_path, monkeypatch):
    recipe = runpy.run_path(str(RECIPES / f"{name}.py"))

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setitem(recipe["main"].__globals__, "prepare", stop)
    logging.enable_progress_bar()
    try:
        with pytest.raises(KeyboardInterrupt):
            recipe["main"](*words)
        assert logging.is_progress_bar_enabled() == terminal
    finally:
        logging.enable_progress_bar()
