"""The space is data: every draw makes a recipe that can be trained, and every setting to begin with lies in it."""

import warnings

import optuna
import pytest
from made_searches import DENSE, LOGS, MANY, REPEATS, SMALL, SPARSE, TIMELESS, counts

from sr_transformers import Recipe
from sr_transformers.lsrm.configuration_lsrm import NEEDS_TIMES
from sr_transformers.training.portfolio import choose
from sr_transformers.training.recipe import recipe_keys
from sr_transformers.tuning import space
from sr_transformers.tuning.space import (
    GROUPS,
    SPACE,
    Choices,
    Knob,
    Range,
    parameters_of,
    portfolio,
    recipe_of,
    suggest,
)


def draws(number, of, fixed=None):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [suggest(study.ask(), of, fixed or {}) for _ in range(number)]


@pytest.mark.parametrize("log", LOGS)
def test_every_draw_is_a_recipe(log, tmp_path):
    of = LOGS[log]
    kind = choose(of).kind
    for values in draws(40, of):
        recipe = recipe_of(values, kind, seed=3)
        config, arguments = recipe.config(50), recipe.arguments(tmp_path)
        assert config.intermediate_size == 4 * config.hidden_size
        assert arguments.row_width == config.max_position_embeddings
        assert (arguments.seed, arguments.metric_for_best_model) == (3, "ndcg@10")
        assert not (config.history and arguments.num_negatives)  # refused by the model


@pytest.mark.parametrize("log", LOGS)
def test_a_search_begins_with_the_recipe_of_the_logs_kind(log):
    of = LOGS[log]
    choice = choose(of)
    first, *_ = found = list(portfolio(of, {}).values())
    study = optuna.create_study()
    for parameters in found:
        study.enqueue_trial(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an enqueued value outside the space would be ignored with a warning
        trials = [study.ask() for _ in found]
        values = [suggest(trial, of, {}) for trial in trials]
    for trial, parameters in zip(trials, found, strict=True):
        assert parameters.items() <= trial.params.items()
    wanted = Recipe.load(choice.name, choice.overrides)
    recipe = recipe_of(values[0], choice.kind, wanted.training["seed"])
    assert wanted.training.items() <= recipe.training.items()
    one_layer = wanted.model["num_hidden_layers"] == 1  # then the top rate is nobody's
    for key, value in wanted.model.items():
        if not (key == "residual_dropout" and one_layer):
            assert recipe.model[key] == value, key
    assert recipe.config(50).layer_dropout("residual_dropout") == wanted.config(50).layer_dropout("residual_dropout")
    assert set(first) == {knob.key for knob in SPACE if knob.key in values[0]}  # nothing of it is left to chance


def test_around_the_first_setting_one_group_at_a_time_is_drawn():
    found = portfolio(SPARSE, {})
    assert list(found) == ["sparse", "dense", "repeats", *(f"sparse, {group} drawn" for group in GROUPS)]
    for group, keys in GROUPS.items():
        drawn = found[f"sparse, {group} drawn"]
        assert {key: value for key, value in found["sparse"].items() if key not in keys} == drawn


def test_what_is_fixed_is_not_varied():
    values = draws(3, REPEATS, SMALL)
    assert all(one.items() >= SMALL.items() for one in values)
    of_some_logs = {"num_successors", "num_negatives"}
    varied = {knob.key for knob in SPACE if knob.key in recipe_keys()} - of_some_logs - set(SMALL)
    assert set(values[0]) - set(SMALL) == varied > {"embedding_dropout", "learning_rate"}
    recipe = recipe_of({**values[0], "intermediate_size": 48, "row_width": 40}, "repeats", 0)
    assert (recipe.model["intermediate_size"], recipe.training["row_width"]) == (48, 40)
    assert all(not set(one) & set(SMALL) for one in portfolio(REPEATS, SMALL).values())


def test_history_is_varied_where_users_come_back_and_moments_where_there_are_some():
    assert not any("history" in one for one in draws(20, SPARSE))
    assert any(set(one["history"]) & set(NEEDS_TIMES) for one in draws(20, REPEATS))
    assert {len(one["history"]) for one in draws(20, TIMELESS)} == {0, 4}
    assert not any(set(one["history"]) & set(NEEDS_TIMES) for one in draws(20, TIMELESS))
    assert all(("num_successors" in one) == ("mix" in one["history"]) for one in draws(20, REPEATS))


def test_a_sampled_softmax_is_tried_where_items_are_many():
    assert not any("num_negatives" in one for one in draws(20, SPARSE))
    assert {one["num_negatives"] for one in draws(20, MANY)} == {0, 1024}
    assert {one["num_negatives"] for one in draws(40, counts(items_in_vocabulary=10**6))} == {0, 1024, 8192}


def test_windows_are_not_far_longer_than_histories():
    assert {one["max_position_embeddings"] for one in draws(30, SPARSE)} == {20, 50, 100}
    assert {one["max_position_embeddings"] for one in draws(60, DENSE)} == {20, 50, 100, 200}


def test_another_key_is_another_entry(monkeypatch):
    more = (Knob("max_grad_norm", Range(1e-6, 1e-2, log=True)), Knob("hidden_act", Choices.of("gelu", "relu")))
    monkeypatch.setattr(space, "SPACE", (*SPACE, *more))
    values = draws(2, SPARSE)[0]
    recipe = recipe_of(values, "sparse", 0)
    assert (recipe.training["max_grad_norm"], recipe.model["hidden_act"]) == (
        values["max_grad_norm"],
        values["hidden_act"],
    )
    assert parameters_of(Recipe.load("sparse"), SPARSE, {})["hidden_act"] == "gelu"
    assert "max_grad_norm" not in parameters_of(Recipe.load("sparse"), SPARSE, {})  # 1 lies outside


def test_weights_do_not_decay_where_only_the_rows_that_were_read_are_updated():
    assert all("decay_epochs" in one for one in draws(2, SPARSE))
    fixed = {"table_updates": "lazy_adam", "num_negatives": 64}
    assert not any("decay_epochs" in one for one in draws(2, SPARSE, fixed))


def test_a_key_that_a_recipe_leaves_out_has_its_default(monkeypatch):
    monkeypatch.setattr(space, "SPACE", (*SPACE, Knob("adam_epsilon", Range(1e-9, 1e-6, log=True))))
    assert "adam_epsilon" not in Recipe.load("sparse").training
    assert portfolio(SPARSE, {})["sparse"]["adam_epsilon"] == 1e-8


def test_a_key_that_no_recipe_has_is_passed_over(monkeypatch):
    monkeypatch.setattr(space, "SPACE", (Knob("warp_factor", Range(1, 9)), *SPACE))
    assert "warp_factor" not in recipe_keys()
    assert "warp_factor" not in draws(1, SPARSE)[0]
    assert "warp_factor" not in portfolio(SPARSE, {})["sparse"]
