"""The library's main promise on data whose truth is known: a model reaches the entropy of its source."""

import pytest

from sr_transformers import Recipe, train
from sr_transformers.data.logs import synthetic
from sr_transformers.data.prepare import prepare


@pytest.mark.slow
def test_a_model_reaches_the_known_entropy(tmp_path):
    successors = 4
    log = synthetic.generate(num_users=4000, num_items=60, num_successors=successors, mean_length=30)
    data = prepare(log, tmp_path / "data")
    recipe = Recipe(
        "synthetic",
        {"max_position_embeddings": 25, "embedding_dropout": 0.0, "residual_dropout": 0.0},
        {
            "num_train_epochs": 8,
            "learning_rate": 4e-3,
            "lr_scheduler_type": "linear",
            "switch_optimizer": False,
            "disable_tqdm": True,
            "precision": "fp32",
        },
    )
    report = train(recipe, data, tmp_path / "run").reports[0]
    entropy = synthetic.conditional_entropy(successors)
    error = report["standard_errors"]["loss"]
    assert report["metrics"]["loss"] == pytest.approx(entropy, abs=0.02 + 2 * error)
    # four successors per item: the best ten hold the target (almost) always
    assert report["metrics"]["hr@5"] > 0.99
