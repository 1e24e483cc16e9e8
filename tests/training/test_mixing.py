"""The mix of a trained model with counts: against the baseline of that name, which counts in its own way."""

import numpy as np
import pytest
import torch

from sr_transformers import Recipe, prepare, train
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.evaluator import evaluate, known_past
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.evaluation.mix import Mix
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.training import mixing
from sr_transformers.training.mixing import SHARES, fit_mix

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 6}
TRAINING = {"num_train_epochs": 4, "learning_rate": 1e-2, "switch_optimizer": False, "per_device_train_batch_size": 8}
TRAINING["precision"] = "fp32"  # as `evaluate` computes
SPLITS = {"leave_one_out": {}, "temporal": {"split": "temporal", "validation_share": 0.2, "test_share": 0.2}}


def lines():
    """120 users who buy baskets of a few of their own five items, now and then."""
    rng = np.random.default_rng(0)
    yield "user_id,item_id,timestamp"
    for user in range(120):
        own, now = rng.permutation(40)[:5], 0
        for _ in range(rng.integers(4, 9)):
            now += int(rng.integers(1, 9)) * 86_400
            yield from (f"u{user},i{item},{now}" for item in rng.permutation(own)[: rng.integers(1, 4)])


@pytest.fixture(scope="module", params=SPLITS)
def made(request, tmp_path_factory):
    """A run with a mix, and its log."""
    folder = tmp_path_factory.mktemp("mix")
    (folder / "log.csv").write_text("\n".join(lines()) + "\n")
    data = prepare(folder / "log.csv", folder / "data", **SPLITS[request.param])
    recipe = Recipe("small", {**SIZES, "history": ["recency", "baskets", "mix"]}, TRAINING)
    return train(recipe, data, folder / "run"), folder / "run", data


def test_it_is_fitted_to_validation(made):
    record, folder, data = made
    fitted = record.reports[0]["fitted"]
    assert fitted["validation_targets"] == data.num_targets("validation")
    assert sum(fitted["weights"].values()) == pytest.approx(1)
    model = Checkpoint(folder).model().eval()
    losses = {}
    for share in SHARES:
        model.config.mix_share = share
        losses[share] = evaluate(ModelScorer(model), data, "validation")["metrics"]["loss"]
    assert fitted["share"] == min(losses, key=losses.get) > 0
    assert min(losses.values()) < Mix(data).fitted["validation_loss"]


@pytest.mark.parametrize("metric", ["hr@1", "loss"])
def test_the_share_is_the_best_by_the_metric_that_chose_the_weights(made, metric):
    _, folder, data = made
    model, values = Checkpoint(folder).model().eval(), []
    share = fit_mix(model, data, metric)["share"]
    for one in SHARES:
        model.config.mix_share = one
        values.append(evaluate(ModelScorer(model), data, "validation", ks=(1,))["metrics"][metric])
    assert SHARES.index(share) == (np.argmin if metric == "loss" else np.argmax)(values)


def test_the_record_is_that_of_the_model_in_the_folder(made):
    record, folder, data = made
    model = ModelScorer(Checkpoint(folder).model())
    for split, metrics in (("validation", record.validation), ("test", record.reports[0]["metrics"])):
        again = evaluate(model, data, split)["metrics"]
        assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-6)
        assert again["hr@10"] == metrics["hr@10"]


def test_without_the_model_it_is_the_baseline(made):
    _, folder, data = made
    model, mix = Checkpoint(folder).model().eval(), Mix(data, filter_seen=False)
    mix.weights[mix.experts.index("own successors")] = 0.0
    weights = dict(zip(mix.experts, mix.weights.tolist(), strict=True))
    model.config.mix_share = 1.0
    model.config.mix_weights = {name: weights[name] for name in model.config.mix_weights}
    scorer = ModelScorer(model)
    for history, position in data.targets("test")[:20].tolist():
        past = known_past(scorer, data, history, position)
        found, wanted = (one.score([past.items], times=[past.times])[0] for one in (scorer, mix))
        torch.testing.assert_close(found.softmax(0), wanted.softmax(0), rtol=1e-4, atol=1e-7)


def test_without_validation_targets_the_model_speaks_alone(made, monkeypatch):
    _, folder, data = made
    model = Checkpoint(folder).model().eval()
    monkeypatch.setattr(mixing, "validation_targets", lambda data, query_time: [])
    assert fit_mix(model, data) is None
    assert model.config.mix_share == 0


def test_another_log_is_refused(made, tmp_path):
    _, folder, _ = made
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{n % 9},j{n % 7},{n}\n" for n in range(99))
    )
    other = PreparedData(prepare(tmp_path / "log.csv", tmp_path / "data").path)
    with pytest.raises(ValueError, match="other items"):
        fit_mix(Checkpoint(folder).model(), other)
