"""Does the best learning rate of a narrow model hold for a wide one: as the library sets models up, and by muP.

    python recipes/experiments/mup.py run prepared/ml-1m-paper --work runs/mup    # goes on where it was stopped
    python recipes/experiments/mup.py table     # writes the table of recipes/results/README.md

Models of 2 layers and of each width train at each learning rate, on a part of the users, with Muon for the matrices of
the blocks and Adam for the rest; dropout, epochs, batches and seed are the same for all. "standard" is the recipe
`dense`: all initial weights have the same standard deviation, all learn at the same rate. "muP" differs in three ways,
counted from `BASE`, at which both are the same model: matrices of the blocks begin smaller by the root of the width and
learn slower by the width; scores are divided by the width, since items and head share one table; tables, norms and
biases are as they were. Heads have 32 numbers at all widths but the smallest, so attention needs no other scale.

Source: Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", arXiv
2203.03466, table 8 and appendix B.1. Updates of Muon with `match_rms_adamw` are as large in each entry as Adam's, so
its rate follows Adam's rule.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from sr_transformers import LSRMForCausalLM, LSRMTrainer, PreparedData, Recipe
from sr_transformers.data.fractions import USERS, FractionOfData
from sr_transformers.marks import put
from sr_transformers.records import command_line, source_commit, write_whole
from sr_transformers.scaling.studies.learning_rates import best_rate
from sr_transformers.training.checkpoints import last_complete_checkpoint
from sr_transformers.training.optimizers import matrices_of_blocks, with_muon

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "recipes" / "results" / "mup" / "ml-1m.json"
PAGE = ROOT / "recipes" / "results" / "README.md"
ARMS = ("standard", "muP")
WIDTHS = (16, 32, 64, 128)
BASE = 64
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SHARE, EPOCHS, DROPOUT = 0.3, 12, 0.1


def recipe_of(width: int, rate: float) -> Recipe:
    """The recipe `dense` at a width, its schedule to the end, the epoch kept whose validation loss is best."""
    model = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": max(width // 32, 1),
        "residual_dropout": DROPOUT,
        "embedding_dropout": DROPOUT,
        "head": "scaled",  # by a number that is not trained here: 1, and in muP what the scores are divided by
    }
    training = {
        "num_train_epochs": EPOCHS,
        "learning_rate": rate,
        "warmup_steps": 0.05,
        "metric_for_best_model": "loss",
        "patience": 100,
        "optimizer": None,  # the script's own, see `optimizer_of`
    }
    dense = Recipe.load("dense")
    return Recipe(f"mup-{width}", {**dense.model, **model}, {**dense.training, **training})


def set_up(model: LSRMForCausalLM, arm: str, width: int) -> None:
    """Gives a fresh model the initial weights of an arm, in place."""
    scale = model.model.temperature.log_scale.requires_grad_(False)
    if arm == "muP":
        with torch.no_grad():
            scale.fill_(math.log(BASE / width))
            for matrix in matrices_of_blocks(model):
                matrix.mul_(math.sqrt(BASE / width))


def optimizer_of(model: LSRMForCausalLM, arm: str, width: int, rate: float) -> torch.optim.Optimizer:
    """Muon for the matrices of the blocks, Adam for the rest."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    slower = BASE / width if arm == "muP" else 1.0
    return with_muon(torch.optim.AdamW(trained, lr=rate, weight_decay=0.0), model, rate * slower, 0.0)


def train_one(data: FractionOfData, arm: str, width: int, rate: float, folder: Path) -> dict[str, Any]:
    """A row of the record: a run, and the best validation loss of its epochs."""
    recipe = recipe_of(width, rate)
    arguments = recipe.arguments(folder)
    set_seed(arguments.seed)
    model = LSRMForCausalLM(recipe.config(data.vocab_size))
    set_up(model, arm, width)
    optimizer = optimizer_of(model, arm, width, rate)
    datasets = {"train_dataset": data.train_dataset(), "eval_dataset": data.eval_dataset("validation")}
    trainer = LSRMTrainer(model, arguments, **datasets, optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder))
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return {"arm": arm, "width": width, "learning_rate": rate, "epochs": len(losses), "loss": min(losses)}


def run(folder: Path, work: Path) -> dict[str, Any]:
    """The record: all runs, those that are done read from `work`."""
    data = FractionOfData(PreparedData(folder), USERS, SHARE)
    rows = []
    for width in WIDTHS:
        for arm in ARMS[: 1 if width == BASE else 2]:
            for rate in RATES:
                one = work / f"{arm}-{width}-{rate:g}"
                done = one / "row.json"
                if not done.exists():
                    write_whole(done, json.dumps(train_one(data, arm, width, rate, one)) + "\n")
                rows.append(json.loads(done.read_text()))
                print(rows[-1], flush=True)
    return {"command": command_line(), "commit": source_commit(), "users": SHARE, "runs": rows}


def losses_of(record: dict[str, Any], arm: str, width: int) -> dict[float, float]:
    """Loss by learning rate; at `BASE` both arms are one."""
    own = "standard" if width == BASE else arm
    return {row["learning_rate"]: row["loss"] for row in record["runs"] if (row["arm"], row["width"]) == (own, width)}


def table(record: dict[str, Any]) -> str:
    """Markdown: the loss at every rate, the best rate, and what the rate that is best at the least width costs."""
    lines = [
        "| width | set up by | " + " | ".join(f"{rate:g}" for rate in RATES) + " | best rate | "
        f"lost with the best rate of width {WIDTHS[0]} |",
        "|---" * (len(RATES) + 4) + "|",
    ]
    for width in WIDTHS:
        for arm in ARMS:
            losses, narrow = losses_of(record, arm, width), losses_of(record, arm, WIDTHS[0])
            carried = min(narrow, key=narrow.__getitem__)
            cells = [f"{losses[rate]:.3f}" for rate in RATES]
            lines.append(
                f"| {width} | {arm} | {' | '.join(cells)} | {best_rate(list(losses), list(losses.values()))[0]:.2g} | "
                f"{losses[carried] - min(losses.values()):.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    runs = commands.add_parser("run")
    runs.add_argument("data", type=Path, help="prepared folder of ml-1m")
    runs.add_argument("--work", type=Path, required=True, help="folder of the runs")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        write_whole(RESULT, json.dumps(run(options.data, options.work), indent=1) + "\n")
    put(PAGE, "mup", table(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
