"""RecTools: `Dataset`, `SASRecModel` with softmax loss in Lightning, `recommend`; `fast_transformers`, its network and
how it prepares."""

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from rectools.models import SASRecModel
from torch.nn.functional import cross_entropy
from worker import StepClock, latencies, main, read_histories, throughput

warnings.filterwarnings("ignore")


class Watch(pytorch_lightning.Callback):
    """Feeds the clock. RecTools copies its trainer, callbacks included: the clock stays outside."""

    clock: StepClock

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        trainer.should_stop = Watch.clock.step(int((batch["y"] != 0).sum()), float(outputs["loss"]))


def new_trainer(**more: Any) -> pytorch_lightning.Trainer:
    """A quiet Lightning trainer on the CPU."""
    return pytorch_lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )


def new_model(settings: dict[str, Any], get_trainer: Any) -> SASRecModel:
    """SASRec of the benchmark's size; its feed-forward has the width d, not 4 d, and no switch for it."""
    pytorch_lightning.seed_everything(0)
    return SASRecModel(
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        n_factors=settings["width"],
        session_max_len=settings["window"],
        dropout_rate=0.2,
        loss="softmax",
        batch_size=settings["sequences"],
        get_trainer_func=get_trainer,
        recommend_batch_size=256 if settings["items"] < 100_000 else 64,
    )


def frame(histories: list[np.ndarray], users: np.ndarray | None = None) -> pd.DataFrame:
    """Interactions as RecTools wants them."""
    lengths = [len(history) for history in histories]
    times = np.concatenate([np.arange(length) for length in lengths])
    return pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(histories)) if users is None else users, lengths),
            Columns.Item: np.concatenate(histories),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(times, unit="s"),
        }
    )


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """`fit` on the training part; it keeps the last 51 items of every user."""
    log = frame([history[:-2] for history in read_histories(settings)[0] if len(history) >= 4])
    if settings.get("fast"):
        return training_fast(settings, log)
    precision = "bf16-mixed" if settings["precision"] == "bf16" else "32-true"
    Watch.clock = StepClock(settings)
    model = new_model(settings, lambda: new_trainer(max_epochs=1000, precision=precision, callbacks=[Watch()]))
    model.fit(Dataset.construct(log))
    return Watch.clock.result()


def training_fast(settings: dict[str, Any], log: pd.DataFrame) -> dict[str, Any]:
    """`FlatSASRecNet` of fast_transformers in a plain loop of torch: the package has none for ids."""
    torch.manual_seed(0)
    times = torch.from_numpy(log[Columns.Datetime].astype("int64").to_numpy())
    columns = [torch.from_numpy(log[name].to_numpy().astype(np.int64)) for name in (Columns.User, Columns.Item)]
    x, y, known, _ = build_sequences(*columns, times, max_len=settings["window"])
    sizes = {"n_factors": settings["width"], "n_blocks": settings["layers"], "n_heads": settings["heads"]}
    net = FlatSASRecNet(len(known), session_max_len=settings["window"], dropout=0.2, **sizes)
    if settings.get("compile"):
        net.compile()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = torch.utils.data.DataLoader(
        SequenceBatchDataset(x, y), batch_size=settings["sequences"], shuffle=True, drop_last=True
    )
    clock = StepClock(settings)
    while True:
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bf16"):
                logits = net(batch)
            loss = cross_entropy(logits.float().flatten(0, 1), batch["y"].flatten() - 1, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if clock.step(int((batch["y"] != 0).sum()), float(loss)):
                return clock.result()


def fitted(settings: dict[str, Any], histories: list[np.ndarray]) -> tuple[SASRecModel, Dataset]:
    """A model after one small step: `recommend` wants a fitted one, and weights do not change its speed."""
    dataset = Dataset.construct(frame(histories))
    settings = {**settings, "sequences": 4}
    return new_model(settings, lambda: new_trainer(max_steps=1)).fit(dataset), dataset


def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """`recommend` for all users, seen items removed, and the hits among the ten."""
    histories, _ = read_histories(settings)
    model, dataset = fitted(settings, [history[:-1] for history in histories])
    targets = pd.DataFrame({Columns.User: np.arange(len(histories)), Columns.Item: [h[-1] for h in histories]})
    start = time.perf_counter()
    found = model.recommend(targets[Columns.User].to_numpy(), dataset, k=10, filter_viewed=True)
    hits = found.merge(targets, on=[Columns.User, Columns.Item])
    gain = float((1 / np.log2(hits[Columns.Rank] + 1)).sum())
    seconds = time.perf_counter() - start
    return {
        "users_per_second": len(histories) / seconds,
        "hr@10": len(hits) / len(histories),
        "ndcg@10": gain / len(histories),
    }


def serving(settings: dict[str, Any]) -> dict[str, Any]:
    """`recommend` for one user, and for batches."""
    rng = np.random.default_rng(0)
    everything = [np.arange(first, min(first + 50, settings["items"])) for first in range(0, settings["items"], 50)]
    histories = [rng.integers(0, settings["items"], settings["window"]) for _ in range(512)]
    model, dataset = fitted(settings, histories + everything)
    size = settings["batch"]

    def top(users: np.ndarray) -> int:
        return len(model.recommend(users, dataset, k=10, filter_viewed=True)) // 10

    def batch(index: int) -> int:
        start = index * size % (len(histories) - size + 1)
        return top(np.arange(start, start + size))

    return {
        **latencies(lambda index: top(np.array([index % len(histories)])), settings),
        "batched_users_per_second": throughput(batch, settings["seconds"]),
    }


def preparation(settings: dict[str, Any]) -> dict[str, Any]:
    """`fast_transformers.build_sequences`; it keeps the last 51 items of every user and splits nothing."""
    start = time.perf_counter()
    log = pd.read_parquet(settings["log"])
    columns = [torch.from_numpy(log[name].to_numpy()) for name in ("user_id", "item_id", "timestamp")]
    build_sequences(*columns, max_len=settings["window"])
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    tasks = {f.__name__: f for f in (training, evaluation, serving, preparation)}
    main(tasks, ("rectools", "torch", "pytorch-lightning", "numpy"))
