"""RePlay: its parquet module, its SasRec with full cross-entropy in Lightning, its metrics callback."""

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, SequenceTokenizer, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import ComputeMetricsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms
from replay.splitters import LastNSplitter
from worker import StepClock, latencies, main, read_histories, throughput

warnings.filterwarnings("ignore")


def new_model(settings: dict[str, Any], num_items: int) -> tuple[TensorSchema, SasRec]:
    """SasRec with the feed-forward of the others (4 d; RePlay's default is d)."""
    torch.manual_seed(settings.get("seed", 0))
    item = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=settings["width"],
        padding_value=num_items,
        cardinality=num_items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
    schema = TensorSchema([item])
    model = SasRec.from_params(
        schema,
        embedding_dim=settings["width"],
        num_heads=settings["heads"],
        num_blocks=settings["layers"],
        max_sequence_length=settings["window"],
        dropout=settings.get("dropout", 0.2),
        hidden_dim=settings.get("inner", 4 * settings["width"]),
    )
    return schema, model


def trainer(settings: dict[str, Any], **more: Any) -> lightning.Trainer:
    """A quiet Lightning trainer on the CPU."""
    return lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed" if settings.get("precision") == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )


class Watch(lightning.Callback):
    """Feeds the clock: targets with at least one real item before them."""

    def __init__(self, clock: StepClock):
        self.clock = clock

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        real = batch["target_padding_mask"][..., 0] & batch["padding_mask"]
        trainer.should_stop = self.clock.step(int(real.sum()), float(outputs["loss"]))


def train_model(settings: dict[str, Any]) -> tuple[SasRec, StepClock, list[np.ndarray]]:
    """Lightning over the last 51 training items of every user, every row padded to the window."""
    histories, num_items = read_histories(settings)
    window = settings["window"] + 1
    sequences = [history[:-2][-window:] for history in histories if len(history) >= 4]
    schema, model = new_model(settings, num_items)
    clock = StepClock(settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        pl.DataFrame({"item_id": [sequence.tolist() for sequence in sequences]}).write_parquet(path)
        data = ParquetModule(
            batch_size=settings["sequences"],
            metadata={"train": {"item_id": {"shape": window, "padding": num_items}}},
            transforms=make_default_sasrec_transforms(schema),
            train_path=str(path),
        )
        module = LightningModule(model, OptimizerFactory(learning_rate=1e-3))
        if settings.get("compile"):
            module.compile()
        trainer(settings, max_epochs=1000, limit_val_batches=0, callbacks=[Watch(clock)]).fit(module, datamodule=data)
    return model, clock, histories


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """Throughput."""
    return train_model(settings)[1].result()


def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """Lightning's test loop with the metrics callback (recall and NDCG at 10) and seen items removed."""
    histories, num_items = read_histories(settings)
    schema, model = new_model(settings, num_items)
    longest = max(map(len, histories)) - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.parquet"
        frame = {
            "item_id": [history[:-1][-settings["window"] :].tolist() for history in histories],
            "seen_ids": [history[:-1].tolist() for history in histories],
            "ground_truth": [history[-1:].tolist() for history in histories],
        }
        pl.DataFrame(frame).write_parquet(path)
        metadata = {
            "item_id": {"shape": settings["window"], "padding": num_items},
            "seen_ids": {"shape": longest, "padding": -1},
            "ground_truth": {"shape": 1, "padding": -1},
        }
        data = ParquetModule(
            batch_size=256 if num_items < 100_000 else 64,
            metadata={"test": metadata},
            transforms=make_default_sasrec_transforms(schema),
            test_path=str(path),
        )
        callback = ComputeMetricsCallback(
            metrics=["recall", "ndcg"], ks=[10], postprocessors=[SeenItemsFilter(num_items)], verbose=False
        )
        module = LightningModule(model)
        start = time.perf_counter()
        found = trainer(settings, callbacks=[callback]).test(module, datamodule=data, verbose=False)
        seconds = time.perf_counter() - start
    return {"users_per_second": len(histories) / seconds, **{name: float(value) for name, value in found[0].items()}}


def serving(settings: dict[str, Any]) -> dict[str, Any]:
    """The raw module: tensors of the window, forward, seen items removed, topk."""
    num_items, window = settings["items"], settings["window"]
    model = new_model(settings, num_items)[1].eval()
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, num_items, window) for _ in range(512)]
    size = settings["batch"]

    @torch.inference_mode()
    def top(rows: list[np.ndarray]) -> list[list[int]]:
        ids = torch.from_numpy(np.stack(rows))
        scores = model({"item_id": ids}, torch.ones_like(ids, dtype=torch.bool))["logits"]
        scores.scatter_(1, ids, -torch.inf)
        return scores.topk(10, dim=1).indices.tolist()

    def batch(index: int) -> int:
        start = index * size % (len(histories) - size + 1)
        return len(top(histories[start : start + size]))

    return {
        **latencies(lambda index: top([histories[index % len(histories)]]), settings),
        "batched_users_per_second": throughput(batch, settings["seconds"]),
    }


def preparation(settings: dict[str, Any]) -> dict[str, Any]:
    """Its own tools on Polars frames: LastNSplitter twice, Dataset, SequenceTokenizer; nothing is written."""
    start = time.perf_counter()
    log = pl.read_parquet(settings["log"])
    splitter = LastNSplitter(N=1, divide_column="user_id", query_column="user_id", strategy="interactions")
    rest, _ = splitter.split(log)
    train, _ = splitter.split(rest)
    item = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )
    features = FeatureSchema([
        FeatureInfo("user_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
        FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
        FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
    ])  # fmt: skip
    tokenizer = SequenceTokenizer(TensorSchema([item]), handle_unknown_rule="drop")
    tokenizer.fit_transform(Dataset(feature_schema=features, interactions=train))
    tokenizer.transform(Dataset(feature_schema=features, interactions=log))  # what the targets are taken from
    return {"seconds": time.perf_counter() - start}


def by_hand(settings: dict[str, Any]) -> dict[str, Any]:
    """The same with nothing but Polars: item numbers, order, split, the lists of every user, parquet."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        log = pl.read_parquet(settings["log"])
        numbers = log.select(pl.col("item_id").unique(maintain_order=True)).with_row_index("number")
        log = log.join(numbers, on="item_id", maintain_order="left").sort("user_id", "timestamp", maintain_order=True)
        lists = log.group_by("user_id", maintain_order=True).agg(pl.col("number"))
        split = lists.select(
            "user_id",
            pl.col("number").list.head(pl.col("number").list.len() - 2).alias("item_id"),
            pl.col("number").list.get(-2).alias("validation"),
            pl.col("number").list.get(-1).alias("test"),
        )
        split.write_parquet(Path(folder) / "sequences.parquet")
        return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    tasks = {f.__name__: f for f in (training, evaluation, serving, preparation, by_hand)}
    main(tasks, ("replay-rec", "torch", "lightning", "numpy"))
