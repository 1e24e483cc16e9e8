"""pmixer's SASRec.pytorch from a checkout (`settings["checkout"]`): its model, sampler and loss (BCE, one negative).

Not a full softmax, so it is shown beside the others and never counts as the best full-softmax peer.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import StepClock, latencies, main, read_histories, throughput


def new_model(settings: dict[str, Any], num_users: int, num_items: int) -> Any:
    """The checkout's SASRec, its own defaults where the benchmark says nothing."""
    sys.path.insert(0, str(Path(settings["checkout"]) / "python"))
    from model import SASRec

    torch.manual_seed(0)
    options = Namespace(
        device="cpu",
        norm_first=False,
        hidden_units=settings["width"],
        maxlen=settings["window"],
        dropout_rate=0.2,
        num_blocks=settings["layers"],
        num_heads=settings["heads"],
    )
    model = SASRec(num_users, num_items, options)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter.data)
    return model


def training(settings: dict[str, Any]) -> dict[str, Any]:
    """Its sampler (three processes) feeds batches; binary cross-entropy on the target and one negative."""
    if settings["precision"] != "fp32":
        return {"skipped": "float32 only"}
    histories, num_items = read_histories(settings)
    model = new_model(settings, len(histories), num_items).train()
    from utils import WarpSampler

    users = {index + 1: (history[:-2] + 1).tolist() for index, history in enumerate(histories)}
    sampler = WarpSampler(users, len(users), num_items, settings["sequences"], settings["window"], n_workers=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    criterion = torch.nn.BCEWithLogitsLoss()
    clock = StepClock(settings)
    done = False
    while not done:
        rows = [np.array(part) for part in sampler.next_batch()]
        real = rows[2] != 0
        positive, negative = (logits[torch.from_numpy(real)] for logits in model(*rows))
        loss = criterion(positive, torch.ones_like(positive)) + criterion(negative, torch.zeros_like(negative))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # another loss: not comparable with the others'
        done = clock.step(int(real.sum()))
    sampler.close()
    return clock.result()


def top(model: Any, rows: list[np.ndarray], every_item: np.ndarray, window: int) -> torch.Tensor:
    """The ten best items of each row by its `predict`, seen ones removed; by hand, it has no full ranking."""
    ids = np.zeros((len(rows), window), np.int64)
    for row, history in enumerate(rows):
        ids[row, -len(history[-window:]) :] = history[-window:] + 1
    scores = model.predict(None, ids, every_item)
    places = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    scores[places, np.concatenate(rows)] = -torch.inf
    return scores.topk(10, dim=1).indices


@torch.inference_mode()
def evaluation(settings: dict[str, Any]) -> dict[str, Any]:
    """A hand-written full ranking; its own evaluation ranks among 100 sampled negatives."""
    histories, num_items = read_histories(settings)
    model = new_model(settings, len(histories), num_items).eval()
    every_item = np.arange(1, num_items + 1)
    batch_size = 256 if num_items < 100_000 else 64
    hits = 0
    start = time.perf_counter()
    for first in range(0, len(histories), batch_size):
        rows = histories[first : first + batch_size]
        best = top(model, [row[:-1] for row in rows], every_item, settings["window"])
        hits += int((best == torch.tensor([int(row[-1]) for row in rows])[:, None]).sum())
    return {"users_per_second": len(histories) / (time.perf_counter() - start), "hr@10": hits / len(histories)}


@torch.inference_mode()
def serving(settings: dict[str, Any]) -> dict[str, Any]:
    """`predict` over all items, seen items removed, topk."""
    num_items = settings["items"]
    model = new_model(settings, 1, num_items).eval()
    every_item = np.arange(1, num_items + 1)
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, num_items, settings["window"]) for _ in range(512)]
    size = settings["batch"]

    def batch(index: int) -> int:
        start = index * size % (len(histories) - size + 1)
        return len(top(model, histories[start : start + size], every_item, settings["window"]).tolist())

    def single(index: int) -> list:
        return top(model, [histories[index % len(histories)]], every_item, settings["window"]).tolist()

    return {**latencies(single, settings), "batched_users_per_second": throughput(batch, settings["seconds"])}


if __name__ == "__main__":
    main({f.__name__: f for f in (training, evaluation, serving)}, ("torch", "numpy"))
