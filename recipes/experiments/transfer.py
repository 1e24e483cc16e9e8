"""What a checkpoint is worth on another log: fine-tuning against training from scratch at equal cost.

    python recipes/experiments/transfer.py run periods online-retail.parquet --work runs/transfer
    python recipes/experiments/transfer.py run domains abxi-afk.parquet --work runs/transfer
    python recipes/experiments/transfer.py table          # writes the tables in recipes/results/README.md

periods   the first half of a shop's interactions is the source, the second half the target, split leave-one-out: most
          items are known. The source ends where the target begins, so it tells nothing about any target.
domains   one domain of a log with a column `domain` is the source, the other the target, each its 5-core: no item is
          known, so all that can transfer is what stands above the item table. Users are in both logs at the same time,
          and what somebody did elsewhere during the test would tell about it: the target is split at two moments
          (`temporal`, 90 % and 95 % of its interactions), and the source ends at the first of them.

Both starts of a pair see the same targets for the same number of epochs, with one recipe and one schedule.
"""

import argparse
import dataclasses
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl

from sr_transformers import ModelScorer, PreparedData, Recipe, RunRecord, evaluate, finetune, prepare, train
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.finetuning.vocabulary_transfer import item_list, with_vocabulary
from sr_transformers.marks import put
from sr_transformers.records import command_line, source_commit, write_whole

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "finetune"
PAGE = RESULTS.parent / "README.md"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A pair of logs and what is compared on it.

    Attributes:
        recipe: file under recipes/.
        source_epochs: of the checkpoint's training.
        arms: start -> options of `finetune`; None is training from scratch.
        epochs: start -> budgets.
        settings: keys in which the recipe has moved on since this was measured.
    """

    recipe: str
    source_epochs: int
    arms: dict[str, dict[str, Any] | None]
    epochs: dict[str, tuple[int, ...]]
    settings: dict[str, Any]


EXPERIMENTS = {
    "periods": Experiment(
        "regimes/repeats",
        5,
        {
            "from scratch": None,
            "fine-tuned": {"init": "nearest"},
            "fine-tuned, new rows mean": {"init": "mean"},
            "fine-tuned, new rows random": {"init": "random"},
            "fine-tuned, body frozen": {"init": "nearest", "freeze": "body"},
            "fine-tuned, table frozen": {"init": "nearest", "freeze": "table"},
            "fine-tuned, LoRA rank 8": {"init": "nearest", "lora_rank": 8},
        },
        {"from scratch": (1, 3, 10), "fine-tuned": (1, 3, 10)},
        {"history": []},
    ),
    "domains": Experiment(
        "regimes/sparse",
        5,
        {
            "from scratch": None,
            "fine-tuned, new rows random": {"init": "random"},
            "fine-tuned, new rows mean": {"init": "mean"},
        },
        {"from scratch": (1, 3, 10), "fine-tuned, new rows random": (1, 3, 10)},
        {
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "embedding_dropout": 0.5,
            "attention_dropout": [0.0, 0.0],
            "residual_dropout": [0.3, 0.2],
            "learning_rate": 2e-3,
            "patience": 10,
        },
    ),
}
OTHER_EPOCHS = (3,)
SOURCE_DOMAIN, TARGET_DOMAIN = "Grocery_and_Gourmet_Food", "Home_and_Kitchen"
UNTRAINED = "table regrown, not trained"
METRICS = ("hr@10", "ndcg@10", "loss")


def make_logs(name: str, log: Path, work: Path) -> tuple[PreparedData, PreparedData]:
    """Source and target, prepared in `work`; made once."""
    folders = work / name / "source", work / name / "target"
    if not folders[1].exists():
        rows = pl.read_parquet(log)
        if name == "periods":
            middle = int(rows["timestamp"].quantile(0.5, "nearest"))
            source, target = rows.filter(pl.col("timestamp") < middle), rows.filter(pl.col("timestamp") >= middle)
        else:
            source, target = (rows.filter(pl.col("domain") == one) for one in (SOURCE_DOMAIN, TARGET_DOMAIN))
        if name == "periods":
            prepare(target, folders[1])
        else:
            data = prepare(target, folders[1], split="temporal", min_interactions=5)
            source = source.filter(pl.col("timestamp") < data.manifest["counts"]["validation_from"])
        prepare(source, folders[0], min_interactions=1 if name == "periods" else 5)
    return PreparedData(folders[0]), PreparedData(folders[1])


def run(
    name: str, log: Path, work: Path, seeds: list[int], starts: list[str] | None = None, most_epochs: int | None = None
) -> None:
    """The baselines and all runs of an experiment, or those of some starts and budgets; runs in its results are not
    made again."""
    experiment = EXPERIMENTS[name]
    source, target = make_logs(name, log, work)
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.exists() else {"rows": []}
    results["source"], results["target"] = source.manifest, target.manifest
    results["baselines"] = {"command": command_line(), "commit": source_commit()}
    results["baselines"]["reports"] = [evaluate(one, target) for one in baselines(target)]
    write_whole(path, json.dumps(results, indent=1) + "\n")
    done = {(row["start"], row["num_epochs"], row["seed"]) for row in results["rows"]}

    def keep(start: str, num_epochs: int, seed: int, reports: list[dict], record: RunRecord | None) -> None:
        kept = ("command", "commit", "versions", "hardware", "recipe", "seconds", "num_interactions_seen",
                "training_flops", "head_flops", "parameters", "best_step", "steps")  # fmt: skip
        details = {key: getattr(record, key) for key in kept} if record else {}
        results["rows"].append({"start": start, "num_epochs": num_epochs, "seed": seed, **details, "reports": reports})
        write_whole(path, json.dumps(results, indent=1) + "\n")
        print(name, start, num_epochs, seed, {key: round(reports[0]["metrics"][key], 4) for key in METRICS}, flush=True)

    for seed in seeds:
        checkpoint = work / name / f"checkpoint-{seed}"
        if not (checkpoint / "run.json").exists():
            record = train(recipe(experiment, experiment.source_epochs, seed), source, checkpoint)
            keep("the checkpoint, on its own log", experiment.source_epochs, seed, record.reports, record)
        if "fine-tuned" in experiment.arms and (UNTRAINED, 0, seed) not in done:
            loaded = Checkpoint(checkpoint)
            model, tokenizer = loaded.model(), loaded.tokenizer()
            grown, _, _ = with_vocabulary(model, tokenizer, item_list(target.tokenizer), "nearest", target, seed)
            keep(UNTRAINED, 0, seed, [evaluate(ModelScorer(grown), target)], None)
        for start, options in experiment.arms.items():
            for num_epochs in experiment.epochs.get(start, OTHER_EPOCHS):
                wanted = start in (starts or experiment.arms) and num_epochs <= (most_epochs or num_epochs)
                if not wanted or (start, num_epochs, seed) in done:
                    continue
                settings = recipe(experiment, num_epochs, seed)
                output = work / name / f"{re.sub('[^a-z0-9]+', '-', start.lower())}-{num_epochs}-{seed}"
                if options is None:
                    record = train(settings, target, output)
                else:
                    record = finetune(checkpoint, target, settings, output, **options)
                keep(start, num_epochs, seed, record.reports, record)


def recipe(experiment: Experiment, num_epochs: int, seed: int) -> Recipe:
    """The regime's recipe with a budget: the learning rate warms up for a tenth of it and falls to zero at its end."""
    overrides = {"num_train_epochs": num_epochs, "warmup_steps": 0.1, "seed": seed, "disable_tqdm": True}
    return Recipe.load(experiment.recipe, {**experiment.settings, **overrides})


def table(name: str) -> str:
    """Markdown: a row per start and budget, means over seeds with standard deviations, then the baselines."""
    groups: dict[tuple[str, int], list[dict]] = defaultdict(list)
    results = json.loads((RESULTS / f"{name}.json").read_text())
    rows, counts = results["rows"], results["target"]["counts"]
    for row in rows:
        groups[row["start"], row["num_epochs"]].append(row)
    order = [UNTRAINED, *EXPERIMENTS[name].arms]
    items = next(row["recipe"]["origin"]["items"] for row in rows if "origin" in row.get("recipe", {}))
    lines = [
        f"*{name}*: {counts['train_interactions']:,} training interactions of {counts['users']:,} users with "
        f"{items['known'] + items['new']:,} items, {items['known']:,} of them known to the checkpoint; "
        f"{results['target']['split']}, {counts['test_targets']:,} test targets.",
        "",
        "| start | epochs | seeds | HR@10 | NDCG@10 | loss | TFLOP |",
        "|---|---|---|---|---|---|---|",
    ]
    for start in order:
        for (other, num_epochs), runs in sorted(groups.items()):
            if other == start:
                cells = [_mean([one["reports"][0]["metrics"][metric] for one in runs]) for metric in METRICS]
                cost = [one["training_flops"] + one["head_flops"] for one in runs if "training_flops" in one]
                shown = f"{statistics.mean(cost) / 1e12:.1f}" if cost else "0"
                lines.append(f"| {start} | {num_epochs} | {len(runs)} | {' | '.join(cells)} | {shown} |")
    for report in results["baselines"]["reports"]:
        shown = " | ".join(
            f"{report['metrics'][metric]:.4f}" if metric in report["metrics"] else "" for metric in METRICS
        )
        lines.append(f"| *{report['model']}* | | | {shown} | |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def main() -> None:
    """Runs an experiment, or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("experiment", choices=EXPERIMENTS)
    one.add_argument("log", type=Path)
    one.add_argument("--work", type=Path, required=True)
    one.add_argument("--seeds", type=int, nargs="*", default=[42, 43, 44], help="none: only the baselines")
    one.add_argument("--starts", nargs="+", help="only these, for example 'from scratch' fine-tuned")
    one.add_argument("--most-epochs", type=int, help="only budgets up to this")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        run(options.experiment, options.log, options.work, options.seeds, options.starts, options.most_epochs)
        return
    for name in sorted(path.stem for path in RESULTS.glob("*.json")):
        put(PAGE, name, table(name))


if __name__ == "__main__":
    main()
