"""The rule that takes a recipe for a log, on the counts of public logs; and what `train auto` records of it."""

import pytest

from sr_transformers import Recipe
from sr_transformers.training.portfolio import FEW_MOMENTS, FEW_REPEATS, KINDS, LONG_HISTORY, auto_recipe, choose

# Of manifest.json after `sr-transformers prepare` with its defaults; movietweetings also as its 5-core.
LOGS = {
    "ml-1m": ("dense", 6040, 3416, 999611, 165.49850993377484, 0.0, 0.5288597264335827),
    "ml-100k": ("dense", 943, 1682, 100000, 106.04453870625663, 0.0, 0.50561),
    "movietweetings-100k": ("sparse", 16554, 10506, 100000, 6.040836051709556, 0.0, 2e-05),
    "movietweetings-100k-5-core": ("sparse", 4333, 2414, 68055, 15.70620816985922, 0.0, 2.938799500404085e-05),
    "abxi-afk": ("sparse", 7144, 28095, 173548, 24.292833146696527, 0.0, 0.2989547560329131),
    "online-retail": ("repeats", 4334, 3659, 386326, 89.13844023996309, 0.3108902843712305, 0.9526047949141399),
    "completejourney": ("repeats", 2469, 68509, 1469307, 595.1020656136087, 0.40945765588811595, 0.8939881182081076),
}
NAMES = ("users", "items", "interactions", "mean_length", "repeat_share", "tied_share")


def counts(**changed):
    return {"mean_length": 20.0, "repeat_share": 0.0, "tied_share": 0.0, **changed}


@pytest.mark.parametrize("name", LOGS)
def test_every_public_log_gets_the_recipe_of_its_kind(name):
    kind, *values = LOGS[name]
    choice = choose(dict(zip(NAMES, values, strict=True)))
    assert (choice.kind, choice.overrides) == (kind, {})
    assert choice.because.startswith(f"auto takes regimes/{kind}, because ")
    assert choice.because.count(". ") == 0  # one sentence


def test_thresholds_belong_to_the_upper_side():
    assert choose(counts(mean_length=LONG_HISTORY)).kind == "dense"
    assert choose(counts(mean_length=LONG_HISTORY - 0.1)).kind == "sparse"
    assert choose(counts(repeat_share=FEW_REPEATS)).kind == "repeats"
    assert choose(counts(mean_length=LONG_HISTORY, repeat_share=FEW_REPEATS - 0.001)).kind == "dense"


def test_a_log_without_moments_gets_no_parts_that_read_them():
    tied = 1 - FEW_MOMENTS / 20.0
    assert choose(counts(repeat_share=0.5, tied_share=tied - 1e-9)).overrides == {}
    choice = choose(counts(repeat_share=0.5, tied_share=tied + 1e-9))
    assert choice.overrides == {"history": ["recency", "bigrams", "items", "mix"]}
    assert "without moments" in choice.because


def test_every_kind_has_a_recipe_and_only_repeats_has_history():
    for kind in KINDS:
        recipe = Recipe.load(f"regimes/{kind}")
        assert bool(recipe.model["history"]) == (kind == "repeats")
        assert recipe.training["metric_for_best_model"] == "ndcg@10"
        assert not recipe.training["switch_optimizer"]


def test_the_recipe_of_a_log_says_why_and_takes_overrides(markov_prepared):
    # A walk over 30 items comes back to them, at the times 0, 1, 2, ...
    recipe = auto_recipe(markov_prepared, {"seed": 7, "history": ["items"]})
    assert recipe.name == "repeats"
    assert recipe.chosen == choose(markov_prepared.manifest["counts"]).because
    assert (recipe.training["seed"], recipe.model["history"]) == (7, ["items"])
    with pytest.raises(ValueError, match="unknown key 'colour'"):
        auto_recipe(markov_prepared, {"colour": 1})
