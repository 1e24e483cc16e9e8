"""Where a model and counting differ: targets that begin a basket, alone or not, and those with which a basket goes on.

    python recipes/experiments/last_baskets.py run runs/demo/run runs/demo/data    # of `make demo`
    python recipes/experiments/last_baskets.py table     # writes the table of docs/history.md

The model, and the baseline `mix` fitted on the same log, rank the same targets of validation and test. A target goes on
with a basket if it happened at the moment of the interaction before it; else it begins one, and is alone if nothing
else happened at its moment. Differences are paired, with standard errors over users.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM

from sr_transformers import ModelScorer, PreparedData
from sr_transformers.evaluation.comparison import evaluate_each, standard_error
from sr_transformers.evaluation.metrics import hit_rate
from sr_transformers.evaluation.mix import Mix
from sr_transformers.marks import put
from sr_transformers.records import command_line, source_commit, write_whole

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "recipes" / "results" / "last_baskets" / "demo.json"
PAGE = ROOT / "docs" / "history.md"
GROUPS = ("all", "goes on with a basket", "begins a basket", "is alone in its basket")
K = 10


def groups_of(data: PreparedData, split: str) -> dict[str, np.ndarray]:
    """`(M,)` bool for each of `GROUPS`, over the targets of a split."""
    goes_on, alone = [], []
    for history, position in data.targets(split).tolist():
        times = data.timestamps(history, int(data.lengths[history]))
        goes_on.append(position > 0 and times[position] == times[position - 1])
        alone.append((times == times[position]).sum() == 1)
    on, lone = np.array(goes_on, bool), np.array(alone, bool)
    return dict(zip(GROUPS, (np.ones_like(on), on, ~on & ~lone, lone), strict=True))


def measure(model: ModelScorer, data: PreparedData) -> list[dict[str, Any]]:
    """A row for each group of each split: its share of the targets, HR@10 of both, and the paired difference."""
    mix, rows = Mix(data), []
    for split in ("validation", "test"):
        ours, theirs = (hit_rate(evaluate_each(one, data, split, (K,))[1].ranks, K) for one in (model, mix))
        for name, inside in groups_of(data, split).items():
            difference = (ours - theirs)[inside]
            if not len(difference):
                continue
            rows.append(
                {
                    "split": split,
                    "group": name,
                    "targets": len(difference),
                    "share": float(inside.mean()),
                    "model": float(ours[inside].mean()),
                    "mix": float(theirs[inside].mean()),
                    "difference": float(difference.mean()),
                    "standard_error": standard_error(difference),
                }
            )
    return rows


def table(found: dict[str, Any]) -> str:
    lines = ["| targets | which | share | HR@10: model | mix | paired difference |", "|---" * 6 + "|"]
    for row in found["rows"]:
        lines.append(
            f"| {row['split']} | {row['group']} | {row['share']:.1%} | {row['model']:.3f} | {row['mix']:.3f} | "
            f"{row['difference']:+.3f} ± {row['standard_error']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run")
    run.add_argument("model", help="folder or Hub id")
    run.add_argument("data", help="prepared folder")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        data = PreparedData(options.data).verified()
        rows = measure(ModelScorer(AutoModelForCausalLM.from_pretrained(options.model)), data)
        found = {"command": command_line(), "commit": source_commit(), "data": data.manifest["source"], "rows": rows}
        write_whole(RESULT, json.dumps(found, indent=1) + "\n")
    put(PAGE, "last-baskets", table(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
