"""Preferences: a next-item model, and the same after learning from pairs of items that a user liked and did not like.

    python recipes/experiments/preferences.py run ml-100k.parquet --liked 4 --disliked 2 --work runs/preferences
    python recipes/experiments/preferences.py table     # writes the table of docs/preferences.md

A log with a column `rating`. Every fifth user is held out. The others' interactions, whatever their rating, train the
next-item model. A pair is two of the next ten items of a history, one rated at least `--liked` and the other at most
`--disliked`; what stands before both is the prompt. "SFT" goes on training on prompt and liked item, "DPO" on the
pairs, and the last model on the sum of both losses. Everything is measured on pairs of the held-out users: how often
the liked item has the higher score, and how often each of the two is among the first ten of all items that the user has
not had. Nothing was tuned on them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
import trl
from transformers import set_seed

from sr_transformers import ModelScorer, PreparedData, Recipe, prepare, train
from sr_transformers.data.vocabulary import UNK_ID, encode_items
from sr_transformers.finetuning.preferences import as_text, trl_model, trl_tokenizer
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM
from sr_transformers.marks import put
from sr_transformers.records import command_line, write_whole

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "preferences"
PAGE = ROOT / "docs" / "preferences.md"
WINDOW, AHEAD, PER_USER, STEPS, BATCH, SEED = 50, 10, 20, 300, 32, 42
SETTINGS = {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": 3e-4, "seed": SEED}


def pairs(log: pl.DataFrame, liked: float, disliked: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """`user`, `prompt`, `chosen`, `rejected` (raw ids): at most `PER_USER` of every user, drawn."""
    found = []
    for (user,), rows in log.sort("user_id", "timestamp", maintain_order=True).group_by("user_id", maintain_order=True):
        items, ratings = rows["item_id"].to_list(), rows["rating"].to_list()
        of_user = []
        for start in range(1, len(items)):
            ahead = range(start, min(start + AHEAD, len(items)))
            good = [place for place in ahead if ratings[place] >= liked]
            bad = [place for place in ahead if ratings[place] <= disliked]
            if good and bad:
                one = {"chosen": items[rng.choice(good)], "rejected": items[rng.choice(bad)]}
                of_user.append({"user": user, "prompt": items[max(0, start - WINDOW + 1) : start], **one})
        rng.shuffle(of_user)
        found += of_user[:PER_USER]
    return found


def known(examples: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """The same without items that the vocabulary does not have; pairs that lose one of their two go."""

    def has(item: Any) -> bool:
        return encode_items(tokenizer, [item])[0] != UNK_ID

    kept = [{**one, "prompt": [item for item in one["prompt"] if has(item)]} for one in examples]
    return [one for one in kept if one["prompt"] and has(one["chosen"]) and has(one["rejected"])]


@torch.inference_mode()
def measure(model: Any, tokenizer: Any, examples: list[dict[str, Any]]) -> dict[str, float]:
    """Of held-out pairs; a tie counts against the model."""
    scorer = ModelScorer(model.eval(), WINDOW)
    first, ten = [], {"chosen": [], "rejected": []}
    for start in range(0, len(examples), 256):
        batch = examples[start : start + 256]
        histories = [np.array(encode_items(tokenizer, one["prompt"])) for one in batch]
        scores = scorer.score(histories).clone()
        for row, history in enumerate(histories):
            scores[row, history] = -torch.inf
        values = {}
        for name in ten:
            tokens = torch.tensor(encode_items(tokenizer, [one[name] for one in batch]))[:, None]
            values[name] = scores.gather(1, tokens)
            ten[name] += ((scores >= values[name]).sum(1) <= 10).tolist()
        first += (values["chosen"] > values["rejected"])[:, 0].tolist()
    hits = {f"hr@10 {name}": float(np.mean(hit)) for name, hit in ten.items()}
    return {"liked above disliked": float(np.mean(first)), **hits}


def run(options: argparse.Namespace) -> None:
    """Trains the three models, measures them and writes the record."""
    log = pl.read_parquet(options.log)
    users = log["user_id"].unique().sort()
    held_out = set(users.gather_every(5, 4).to_list())
    ours = log.filter(~pl.col("user_id").is_in(held_out))
    theirs = log.filter(pl.col("user_id").is_in(held_out))
    work = options.work / options.log.stem
    folder = work / "data"
    data = PreparedData(folder) if folder.exists() else prepare(ours.drop("rating"), folder)
    recipe = Recipe.load("lsrm/98k", {"switch_optimizer": False, "disable_tqdm": True, "seed": SEED})
    if not (work / "base" / "run.json").exists():
        train(recipe, data, work / "base", with_baselines=False)
    tokenizer = data.tokenizer
    rng = np.random.default_rng(SEED)
    training = known(pairs(ours, options.liked, options.disliked, rng), tokenizer)
    testing = known(pairs(theirs, options.liked, options.disliked, rng), tokenizer)

    def base() -> Any:
        set_seed(SEED)
        return LSRMForCausalLM.from_pretrained(work / "base")

    def text(one: dict[str, Any]) -> dict[str, str]:
        return {"prompt": as_text(tokenizer, one["prompt"])} | {
            name: as_text(tokenizer, [one[name]]) for name in ("chosen", "rejected")
        }

    examples = [text(one) for one in training]
    common = {"use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True, "max_length": WINDOW}
    common |= {"logging_strategy": "no"}
    measured = {"next-item model": measure(base(), tokenizer, testing)}

    completions = [{"prompt": one["prompt"], "completion": one["chosen"]} for one in examples]
    arguments = trl.SFTConfig(output_dir=str(work / "sft"), **common, **SETTINGS)
    sft = trl.SFTTrainer(
        trl_model(base()),
        arguments,
        train_dataset=datasets.Dataset.from_list(completions),
        processing_class=trl_tokenizer(tokenizer),
    )
    sft.train()
    measured["SFT on liked items"] = measure(sft.model, tokenizer, testing)

    for name, losses in (("DPO on pairs", ["sigmoid"]), ("DPO and SFT at once", ["sigmoid", "sft"])):
        arguments = trl.DPOConfig(
            output_dir=str(work / "dpo"), beta=0.1, loss_type=losses, loss_weights=[1.0] * len(losses), **common,
            **SETTINGS,
        )  # fmt: skip
        dpo = trl.DPOTrainer(
            trl_model(base()),
            trl_model(base()),
            arguments,
            train_dataset=datasets.Dataset.from_list(examples),
            processing_class=trl_tokenizer(tokenizer),
        )
        dpo.train()
        measured[name] = measure(dpo.model, tokenizer, testing)

    record = {
        "command": command_line(),
        "log": options.log.stem,
        "liked": options.liked,
        "disliked": options.disliked,
        "users": {"training": len(users) - len(held_out), "held out": len({one["user"] for one in testing})},
        "pairs": {"training": len(training), "held out": len(testing)},
        "settings": {**SETTINGS, "beta": 0.1, "window": WINDOW, "items ahead": AHEAD, "pairs per user": PER_USER},
        "versions": {"trl": trl.__version__, "torch": torch.__version__},
        "measured": measured,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_whole(RESULTS / f"{options.log.stem}.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def table(records: list[dict[str, Any]]) -> str:
    """The records as Markdown."""
    lines = [
        "| log | model | liked above disliked | HR@10 of the liked | HR@10 of the disliked |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        for model, found in record["measured"].items():
            lines.append(f"| {record['log']} | {model} | " + " | ".join(f"{v:.3f}" for v in found.values()) + " |")
    return "\n".join(lines)


def write_table() -> None:
    """Puts the table of the kept records between the marks of the page."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    put(PAGE, "preferences", table(records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run", help="train and measure on a log")
    one.add_argument("log", type=Path, help="Parquet with user_id, item_id, timestamp and rating")
    one.add_argument("--liked", type=float, required=True, help="a rating from here on is a liking")
    one.add_argument("--disliked", type=float, required=True, help="a rating up to here is none")
    one.add_argument("--work", type=Path, default=Path("runs/preferences"), help="folder for data and models")
    one.set_defaults(do=run)
    commands.add_parser("table", help="write the page's table").set_defaults(do=lambda _: write_table())
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
