"""Item tables of which a step touches few rows: is a step's time independent of V, and what becomes of quality?

    python benchmarks/rare_rows.py time                                 # about three minutes, less than 6 GiB
    python benchmarks/rare_rows.py quality --data prepared/ml-1m        # about four minutes; so with abxi-afk

`time`: one process holds a model for every size of the catalogue and takes a step of each in turn, so that what else
the machine does falls on all alike: the draw of negatives, loss, gradients, clipping, optimizer. With `table_updates`
lazy_adam and row_adagrad. The median of a size's steps, in seconds of the process's own CPU time, and their ratio to
those of the smallest catalogue.

`quality`: one small model with sampled softmax, trained with each way of updating the table and the same seed; the
dense one a second time with another seed, which shows what is noise. Ranked over all items, validation targets.

Both write to benchmarks/results/rare_rows.json, each its own part; `quality` one for each log.
"""

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments, PreparedData, Recipe
from sr_transformers.data.batches import NegativeSampler
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.records import command_line, source_commit, write_whole
from sr_transformers.training.row_updates import (
    LAZY_ADAM,
    ROW_ADAGRAD,
    clip_with_rows,
    make_sparse,
    tables_of,
    with_row_updates,
)

RESULT = Path(__file__).parent / "results" / "rare_rows.json"
ROWS, WIDTH, NEGATIVES = 32, 32, 1024  # 1,024 inputs, 1,024 targets
MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "embedding_dropout": 0.1}
TRAINING = {
    "num_train_epochs": 3,
    "num_negatives": 128,
    "per_device_train_batch_size": 16,
    "learning_rate": 4e-3,
    "weight_decay": 0.0,
    "switch_optimizer": False,
    "precision": "fp32",
}
RUNS: dict[str, dict[str, Any]] = {
    "dense": {"seed": 1},
    "dense, another seed": {"seed": 2},
    "lazy_adam": {"seed": 1, "table_updates": LAZY_ADAM},
    "row_adagrad": {"seed": 1, "table_updates": ROW_ADAGRAD, "table_lr_multiplier": 10.0},
}


class Training:
    """Steps of a model over a catalogue of so many items, as `LSRMTrainer` takes them."""

    def __init__(self, items: int, updates: str):
        tokens = items + NUM_SPECIAL
        config = LSRMConfig(vocab_size=tokens, max_position_embeddings=WIDTH, **MODEL)
        self.model = LSRMForCausalLM(config).train()
        arguments = LSRMTrainingArguments(
            tempfile.gettempdir(), table_updates=updates, num_negatives=NEGATIVES, switch_optimizer=False
        )
        make_sparse(self.model, True)
        adam = torch.optim.AdamW(self.model.parameters(), fused=True, weight_decay=0.0)
        self.optimizer = with_row_updates(adam, tables_of(self.model), arguments)
        self.negatives = NegativeSampler(np.ones(tokens, np.int64), NEGATIVES, 0.75, 0)
        self.tokens = tokens
        self.drawn = 0

    def step(self) -> float:
        """Its seconds of CPU time."""
        ids, targets = torch.randint(NUM_SPECIAL, self.tokens, (2, ROWS, WIDTH)).unbind()
        self.drawn += 1
        start = time.process_time()
        negatives = self.negatives.draw([np.array([self.drawn])])
        self.model(input_ids=ids, shift_labels=targets, use_cache=False, **negatives).loss.backward()
        clip_with_rows(list(self.model.parameters()), 1.0)
        self.optimizer.step()
        self.model.zero_grad()
        return time.process_time() - start


def times(items: list[int], steps: int, warm_up: int = 5) -> list[dict[str, Any]]:
    """A row per way of updating and catalogue."""
    found = []
    for updates in (LAZY_ADAM, ROW_ADAGRAD):
        trainings = {
            one: Training(one, updates) for one in sorted(items, reverse=True)
        }  # the largest while all is free
        seconds: dict[int, list[float]] = {one: [] for one in items}
        for _ in range(steps + warm_up):
            for one, training in trainings.items():
                seconds[one].append(training.step())
        first = statistics.median(seconds[min(items)][warm_up:])
        for one in sorted(items):
            middle = statistics.median(seconds[one][warm_up:])
            row = {"table_updates": updates, "items": one, "milliseconds": 1e3 * middle, "ratio": middle / first}
            found.append(row)
            print(f"{updates:12} {one:>12,} items: {1e3 * middle:6.1f} ms a step, {middle / first:.2f}", flush=True)
        del trainings
        gc.collect()
    return found


def qualities(data: PreparedData) -> dict[str, Any]:
    """Validation loss and metrics after every epoch, by run."""
    found = {}
    for name, settings in RUNS.items():
        recipe = Recipe(name, dict(MODEL), {**TRAINING, **settings})
        with tempfile.TemporaryDirectory() as folder:
            arguments = recipe.arguments(folder)
            torch.manual_seed(arguments.seed)
            model = LSRMForCausalLM(recipe.config(data.vocab_size))
            sets = {"train_dataset": data.train_dataset(), "eval_dataset": data.eval_dataset("validation")}
            trainer = LSRMTrainer(model, arguments, **sets)
            trainer.train()
        epochs = [one for one in trainer.state.log_history if "eval_loss" in one]
        kept = {key: [round(one[f"eval_{key}"], 5) for one in epochs] for key in ("loss", "hr@10", "ndcg@10")}
        found[name] = {"settings": settings, "epochs": kept}
        print(f"{name:20} " + ", ".join(f"{key} {values[-1]:.4f}" for key, values in kept.items()), flush=True)
    return found


def main() -> None:
    """Measures and writes one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=("time", "quality"))
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=40, help="steps of each catalogue that are measured")
    parser.add_argument("--data", help="prepared folder, for quality")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    part: dict[str, Any] = {"command": command_line(), "commit": source_commit(), "torch": torch.__version__}
    if options.part == "time":
        part |= {"machine": platform.machine(), "positions": ROWS * WIDTH, "negatives": NEGATIVES, "model": MODEL}
        part["rows"] = times(options.items, options.steps)
    else:
        if options.data is None:
            parser.error("quality needs --data, a prepared folder")
        data = PreparedData(options.data).verified()
        part |= {"items": data.vocab_size - NUM_SPECIAL, "model": MODEL, "training": TRAINING}
        part["runs"] = qualities(data)
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    document[options.part if options.part == "time" else f"quality {Path(options.data).name}"] = part
    write_whole(options.output, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
