"""RePlay trained to its plateau: its SasRec with full cross-entropy in Lightning, from its parquet module."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from plateau import Histories, Plateau, padded
from replay.data.nn import ParquetModule
from replay.nn.lightning import LightningModule
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.transform.template import make_default_sasrec_transforms
from worker import main
from worker_replay import new_model, trainer

warnings.filterwarnings("ignore")


class Watch(lightning.Callback):
    """Validates after every epoch."""

    def __init__(self, plateau: Plateau):
        self.plateau = plateau

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.should_stop = self.plateau.epoch()


def sasrec(settings: dict[str, Any]) -> dict[str, Any]:
    """SasRec of the given size, in batches of the given number of users."""
    lightning.seed_everything(settings["seed"], verbose=False)
    histories, window = Histories(settings["folder"]), settings["window"]
    count = histories.num_items
    schema, model = new_model(settings, count)

    def encode(rows: Sequence[np.ndarray]) -> np.ndarray:
        ids = padded(rows, window, count)
        return model.body({"item_id": ids}, ids != count)[:, -1].numpy()

    def items() -> np.ndarray:
        return model.body.embedder.get_item_weights(torch.arange(count)).detach().numpy()

    plateau = Plateau(settings, model, encode, items)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        rows = [history[-window - 1 :].tolist() for history in histories.train if len(history) >= 2]
        pl.DataFrame({"item_id": rows}).write_parquet(path)
        data = ParquetModule(
            batch_size=settings["rows"],
            metadata={"train": {"item_id": {"shape": window + 1, "padding": count}}},
            transforms=make_default_sasrec_transforms(schema),
            train_path=str(path),
        )
        module = LightningModule(model, OptimizerFactory(learning_rate=1e-3))
        more = {"max_epochs": 100_000, "limit_val_batches": 0, "callbacks": [Watch(plateau)]}
        trainer(settings, **more).fit(module, datamodule=data)
    return plateau.result()


if __name__ == "__main__":
    main({"sasrec": sasrec}, ("replay-rec", "torch", "lightning", "numpy"))
