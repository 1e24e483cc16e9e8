"""RecBole: its data set, loaders and trainer with SASRec and cross-entropy; one target per prefix of a history."""

import contextlib
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from worker import EnoughError, StepClock, main

warnings.filterwarnings("ignore")

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


def build(settings: dict[str, Any], folder: str) -> tuple[Any, Any, Any, Any]:
    """Writes the log in RecBole's format and builds loaders, model and trainer as its quick start does."""
    name = "log"
    path = Path(folder) / name
    path.mkdir()
    frame = pd.read_parquet(settings["log"])
    frame.columns = ["user_id:token", "item_id:token", "timestamp:float"]
    frame.to_csv(path / f"{name}.inter", sep="\t", index=False)
    config = Config(
        model="SASRec",
        dataset=name,
        config_dict={
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": settings["window"],
            "n_layers": settings["layers"],
            "n_heads": settings["heads"],
            "hidden_size": settings["width"],
            "inner_size": 4 * settings["width"],
            "hidden_dropout_prob": 0.2,
            "attn_dropout_prob": 0.0,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "train_batch_size": settings["sequences"],
            "eval_batch_size": 256,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "metrics": ["Hit", "NDCG"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "worker": 0,
        },
    )
    init_seed(0, True)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = get_model("SASRec")(config, train.dataset)
    return get_trainer(config["MODEL_TYPE"], "SASRec")(config, model), model, train, test


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """`fit`; the clock hangs on the model's loss, and an exception leaves the loop when there is enough."""
    if settings["precision"] != "fp32":
        return {"skipped": "float32 only"}
    with tempfile.TemporaryDirectory() as folder:
        trainer, model, train, _ = build(settings, folder)
        clock, loss_of, previous = StepClock(settings), model.calculate_loss, []

        def timed(interaction: Any) -> torch.Tensor:
            # Called at the start of a step, so it closes the step before.
            if previous and clock.step(*previous.pop()):
                raise EnoughError
            loss = loss_of(interaction)
            previous.append((len(interaction), float(loss)))
            return loss

        model.calculate_loss = timed
        with contextlib.suppress(EnoughError):
            trainer.fit(train, None, saved=False, show_progress=False)
        return clock.result()


def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """`evaluate` on the test part, full ranking."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _, _, test = build(settings, folder)
        start = time.perf_counter()
        found = trainer.evaluate(test, load_best_model=False, show_progress=False)
        seconds = time.perf_counter() - start
        return {"users_per_second": len(test.dataset) / seconds, **{name: float(v) for name, v in found.items()}}


if __name__ == "__main__":
    main({f.__name__: f for f in (training, evaluation)}, ("recbole", "torch", "numpy"))
