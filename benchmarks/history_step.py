"""python benchmarks/history_step.py --data runs/demo/data: what does history cost in a step of training?

One process trains the demo's model with history and without, a step of one and a step of the other in turn, on the same
rows and one thread. The ratio is the median over pairs of steps, so what else the machine does mostly cancels out.
"""

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

import torch

from sr_transformers import LSRMForCausalLM, LSRMTrainer, PreparedData, Recipe

PARTS = ["recency", "bigrams", "items", "baskets", "intervals", "clock"]


class Training:
    """Steps of one model.

    Args:
        data: a prepared log.
        history: parts.
        folder: for the trainer, which writes nothing here.
    """

    def __init__(self, data: PreparedData, history: list[str], folder: str):
        recipe = Recipe.load("lsrm/98k", {"switch_optimizer": False, "history": history})
        torch.manual_seed(0)
        self.model = LSRMForCausalLM(recipe.config(data.vocab_size))
        arguments, sets = recipe.arguments(folder), (data.train_dataset(), data.eval_dataset("validation"))
        self.trainer: Any = LSRMTrainer(self.model, arguments, train_dataset=sets[0], eval_dataset=sets[1])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-3, fused=True)
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
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def main() -> None:
    """Prints the medians and the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--steps", type=int, default=60, help="pairs of steps that are measured")
    parser.add_argument("--history", nargs="+", default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = PreparedData(options.data).verified()
    with tempfile.TemporaryDirectory() as folder:
        plain, history = Training(data, [], f"{folder}/plain"), Training(data, options.history, f"{folder}/history")
        for one in (plain, history):
            for _ in range(4):
                one.step()
        pairs = [(plain.step(), history.step()) for _ in range(options.steps)]
    record = {
        "vocab_size": data.vocab_size,
        "history": options.history,
        "milliseconds_plain": 1e3 * statistics.median(a for a, _ in pairs),
        "milliseconds_with_history": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
