"""What `history` costs in a step of training.

    python benchmarks/history_step.py --log demo=runs/demo/data "online-retail, V 26k"=online-retail.parquet
    python benchmarks/history_step.py --case demo --log demo=runs/demo/data     # the prepared log of `make demo`

One process trains a model with history and the same without, a step of one and a step of the other in turn, on the same
rows and one thread. The ratio is the median over pairs of steps, so what else the machine does mostly cancels out.
`V 26k` adds items to the log that users with nothing else have once, so that the head is that of a large catalogue.
Written to benchmarks/results/history_step.json.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import polars as pl
import torch

from sr_transformers import LSRMForCausalLM, LSRMTrainer, PreparedData, Recipe, prepare
from sr_transformers.training.binding import bind

sys.path.insert(0, str(harness.HERE.parent / "recipes"))
import demo

# recipe, its settings, items of the catalogue (None: those of the log)
CASES: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "demo": (demo.RECIPE, demo.SETTINGS, None),
    "online-retail, V 26k": ("repeats", {}, 26_000),
}
WARM_UP = 4


class Training:
    """Steps of one model.

    Args:
        recipe, settings: of the model and its training.
        data: a prepared log.
        folder: for the trainer, which writes nothing here.
    """

    def __init__(self, recipe: str, settings: dict[str, Any], data: PreparedData, folder: str):
        made = Recipe.load(recipe, settings)
        torch.manual_seed(0)
        self.model = LSRMForCausalLM(made.config(data.vocab_size))
        bind(self.model, data, None)
        arguments, sets = made.arguments(folder), (data.train_dataset(), data.eval_dataset("validation"))
        self.trainer: Any = LSRMTrainer(self.model, arguments, train_dataset=sets[0], eval_dataset=sets[1])
        self.trainer.create_optimizer()
        self.batches = iter(self.trainer.get_train_dataloader())
        self.model.train()

    def step(self) -> float:
        """Its seconds: the batch, the loss, gradients, the optimizer."""
        start = time.perf_counter()
        batch = next(self.batches)
        targets = (batch["shift_labels"] != -100).sum()
        with self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(self.model, batch, num_items_in_batch=targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        return time.perf_counter() - start


def log_of(path: str, items: int | None, folder: Path) -> PreparedData:
    """A prepared log, or the log of a file with so many items."""
    if items is None:
        return PreparedData(path).verified()
    log = pl.read_parquet(path).select(pl.col("user_id", "item_id").cast(pl.String), "timestamp")
    more = pl.Series(np.arange(items - log["item_id"].n_unique()))
    rest = pl.select(
        pl.format("more-{}", more // 100).alias("user_id"),
        pl.format("more-{}", more).alias("item_id"),
        (more % 100 * 86_400 + log["timestamp"].min()).alias("timestamp"),
    )
    return prepare(pl.concat([log, rest]), folder / "prepared", min_interactions=1)


def main() -> None:
    """Measures case by case; each goes into results/history_step.json when it is done."""
    parser = harness.parser(__doc__, list(CASES), [])
    parser.add_argument("--log", nargs="+", required=True, metavar="CASE=PATH", help="a case's log")
    parser.add_argument("--steps", type=int, default=60, help="pairs of steps that are measured")
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    logs = dict(one.split("=", 1) for one in options.log)
    if other := set(logs) ^ set(options.case):
        sys.exit(f"--log names a log for each case of --case and no other; look at {', '.join(sorted(other))}.")
    for name in options.case:
        recipe, settings, items = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            data = log_of(logs[name], items, Path(folder))
            plain = Training(recipe, settings | {"history": []}, data, f"{folder}/plain")
            history = Training(recipe, settings, data, f"{folder}/history")
            for _ in range(WARM_UP):
                plain.step()
                history.step()
            pairs = [(plain.step(), history.step()) for _ in range(options.steps)]
        facts = {"vocab_size": data.vocab_size, "history": list(history.model.config.history)}
        milliseconds = [{**facts, "plain_ms": 1e3 * a, "history_ms": 1e3 * b, "ratio": b / a} for a, b in pairs]
        plain_ms, history_ms = (harness.median(milliseconds, key) for key in ("plain_ms", "history_ms"))
        row = harness.row(name, "a step with history", "ms", history_ms, {"without": plain_ms}, False)
        row["ratio"] = harness.significant(harness.median(milliseconds, "ratio"), 3)
        found = {"ours": [{**facts, "steps": options.steps, "plain_ms": plain_ms, "history_ms": history_ms}]}
        harness.save("history_step", name, [row], found, options)


if __name__ == "__main__":
    main()
