import numpy as np
import pytest
import torch

from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.scaling.studies.cost import Speed, calibrate, estimate
from sr_transformers.scaling.studies.study import PlannedRun, Size
from sr_transformers.training.recipe import Recipe

SMALL, LARGE = Size("s", 1, 16, 1), Size("l", 4, 64, 2)
RECIPE = Recipe("r", {"max_position_embeddings": 10}, {"per_device_train_batch_size": 4})


def planned(**more):
    values = {"block": "main", "size": SMALL, "of": "users", "fraction": 0.5, "epochs": 3.0, "seed": 1}
    return PlannedRun(**{**values, **more})


def test_flops_are_those_of_a_record(markov_prepared: PreparedData):
    speed = Speed((0.0, 0.0, 0.0, 1e-6), {}, markov_prepared.vocab_size)
    cost = estimate(planned(fraction=1.0), markov_prepared, RECIPE, speed, None)
    targets = 3 * int(np.maximum(markov_prepared.train_lengths - 1, 0).sum())
    assert cost.targets == targets
    assert cost.training_flops == 6.0 * 3072 * targets
    assert cost.head_flops == 6.0 * markov_prepared.vocab_size * 16 * targets
    half = estimate(planned(), markov_prepared, RECIPE, speed, None)
    assert half.targets == pytest.approx(targets / 2, abs=1)
    context = estimate(planned(of="context"), markov_prepared, RECIPE, speed, None)
    assert context.targets == targets


def test_fewer_validation_targets_take_less_time(markov_prepared):
    speed = Speed((0.0, 0.0, 0.0, 1e-6), {}, markov_prepared.vocab_size)
    every, some = (estimate(planned(), markov_prepared, RECIPE, speed, count).seconds for count in (None, 10))
    assert some < every


def test_memory_holds_weights_gradients_and_moments(markov_prepared):
    speed = Speed((0.0, 0.0, 0.0, 1e-6), {}, markov_prepared.vocab_size)
    cost = estimate(planned(size=LARGE), markov_prepared, RECIPE, speed, None)
    assert cost.memory_bytes > 16 * (LARGE.num_non_embedding_parameters + markov_prepared.vocab_size * 64)


def test_measured_sizes_are_taken_as_measured_and_others_from_the_constants():
    speed = Speed((1e-12, 0.0, 0.0, 0.0), {"s": 7.0}, 100)
    assert speed.seconds_per_position(SMALL) == 7.0
    assert speed.seconds_per_position(LARGE) == pytest.approx(6e-12 * LARGE.num_non_embedding_parameters)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_calibration_computes_as_the_recipe_does(monkeypatch, precision):
    """In its precision, and with moments for a model that reads them."""
    seen = set()

    def forward(self, *arguments, **batch):
        seen.add((torch.is_autocast_enabled("cpu"), "times" in batch, "query_times" in batch))
        return whole(self, *arguments, **batch)

    whole = LSRMForCausalLM.forward
    monkeypatch.setattr(LSRMForCausalLM, "forward", forward)
    for model in ({}, {"history": ["baskets", "mix"]}, {"history": ["clock"], "query_time": True}):
        recipe = Recipe("r", {**RECIPE.model, **model}, {**RECIPE.training, "precision": precision})
        calibrate([SMALL], recipe, 300, seconds=0.0)
    bf16 = precision == "bf16"
    assert seen == {(bf16, False, False), (bf16, True, False), (bf16, True, True)}


@pytest.mark.parametrize("optimizer", [None, "muon"])
def test_calibration_updates_as_the_recipe_does(monkeypatch, optimizer):
    """An update by Muon takes a third of a step of a small batch."""
    steps = []
    step = torch.optim.Muon.step
    monkeypatch.setattr(torch.optim.Muon, "step", lambda *arguments: steps.append(1) or step(*arguments))
    recipe = Recipe("r", RECIPE.model, {**RECIPE.training, "optimizer": optimizer})
    calibrate([SMALL], recipe, 300, seconds=0.0)
    assert bool(steps) == (optimizer == "muon")


def test_calibration_trains_and_finds_the_larger_size_slower():
    speed = calibrate([SMALL, LARGE], RECIPE, 300, seconds=0.05)
    assert 0 < speed.measured["s"] < speed.measured["l"]
    assert all(constant >= 0 for constant in speed.constants)
    fitted = Speed(speed.constants, {}, 300)
    assert fitted.seconds_per_position(LARGE) == pytest.approx(speed.measured["l"], rel=0.05)
