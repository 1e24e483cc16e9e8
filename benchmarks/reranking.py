"""python benchmarks/reranking.py --model RUN --data PREPARED: does a second stage help?

The model names a hundred items for every user, LightGBM puts them in order by features that the model does not read:
how often an item was bought of late, and what followed the last items elsewhere. It learns on the validation targets
and is judged on the test targets, in full ranking: a target that is not among the hundred is missed. Metrics are taken
by ranx from the same tables, beside `evaluate`'s own. Writes results/reranking.json, and the table of docs/lists.md.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
from metrics import METRICS, by_ranx, targets

from sr_transformers import PreparedData, Recommender, evaluate, recommend_all
from sr_transformers.marks import put

HERE = Path(__file__).parent
RESULT = HERE / "results" / "reranking.json"
PAGE = HERE.parent / "docs" / "lists.md"
FEATURES = ["rank", "score", "count", "recent_count", "after_last", "after_recent", "history_length"]
SETTINGS = {
    "objective": "lambdarank",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "deterministic": True,
    "num_threads": 1,
    "seed": 0,
    "verbose": -1,
}
LAST, RECENT_SHARE, NUM_CANDIDATES = 10, 0.1, 100


def training_rows(data: PreparedData) -> pl.DataFrame:
    """user_id, item_id, timestamp and the item before, of the training interactions."""
    ids = np.array(data.item_ids.to_pylist())
    parts = []
    for row, user in enumerate(data.histories["user_id"]):
        stop = int(data.train_lengths[row])
        items = ids[data.items(row, stop) - 2]
        parts.append(pl.DataFrame({"user_id": user, "item_id": items, "timestamp": data.timestamps(row, stop)}))
    return pl.concat(parts).with_columns(before=pl.col("item_id").shift(1).over("user_id"))


def with_features(lists: pl.DataFrame, data: PreparedData, split: str, train: pl.DataFrame) -> pl.DataFrame:
    """The lists with what the second stage reads; all of it is known before the target."""
    recent_from = train["timestamp"].quantile(1 - RECENT_SHARE)
    counts = train.group_by("item_id").agg(count=pl.len(), recent_count=(pl.col("timestamp") >= recent_from).sum())
    followed = train.drop_nulls().group_by("before", "item_id").agg(times=pl.len())
    ids = data.item_ids.to_pylist()
    users = data.histories["user_id"]
    read = [
        (users[history], place, ids[token - 2], position)
        for history, position in data.targets(split).tolist()
        for place, token in enumerate(data.items(history, position)[-LAST:][::-1].tolist())
        if token >= 2
    ]
    last = pl.DataFrame(read, schema=["user_id", "place", "before", "history_length"], orient="row")
    after = (
        last.join(followed, on="before")
        .group_by("user_id", "item_id")
        .agg(
            after_last=pl.col("times").filter(pl.col("place") == 0).sum(),
            after_recent=(pl.col("times") / (1 + pl.col("place"))).sum(),
        )
    )
    lengths = last.group_by("user_id").agg(pl.col("history_length").first())
    found = lists.join(counts, on="item_id", how="left", maintain_order="left")
    found = found.join(after, on=["user_id", "item_id"], how="left", maintain_order="left")
    found = found.join(lengths, on="user_id", how="left", maintain_order="left").fill_null(0)
    wanted = targets(data, split).rename({"item_id": "target"})
    found = found.join(wanted, on="user_id", maintain_order="left")
    return found.with_columns(hit=pl.col("target").eq_missing(pl.col("item_id")).cast(pl.Int32))


def measure(model: str, folder: str) -> dict:
    """Everything that the table shows."""
    data = PreparedData(folder).verified()
    recommender = Recommender.from_pretrained(model)
    train = training_rows(data)
    tables = {}
    with tempfile.TemporaryDirectory() as temporary:
        for split in ("validation", "test"):
            output = Path(temporary) / f"{split}.parquet"
            recommend_all(recommender, data, output, NUM_CANDIDATES, before=split)
            tables[split] = with_features(pl.read_parquet(output), data, split, train)
    learn = tables["validation"].filter(pl.col("hit").max().over("user_id") == 1)
    sizes = learn.group_by("user_id", maintain_order=True).len()["len"].to_numpy()
    rows = lightgbm.Dataset(learn.select(FEATURES).to_numpy(), learn["hit"].to_numpy(), group=sizes)
    ranker = lightgbm.train(SETTINGS, rows, num_boost_round=200)
    test = tables["test"]
    second = pl.Series(ranker.predict(test.select(FEATURES).to_numpy()))
    test = test.with_columns(second=second, first=1 / pl.col("rank"))
    wanted = targets(data, "test")
    report = evaluate(recommender.scorer, data, "test", (10, NUM_CANDIDATES), recommender.exclude_seen)
    importance = dict(zip(FEATURES, ranker.feature_importance("gain").tolist(), strict=True))
    return {
        "command": "python benchmarks/reranking.py --model RUN --data PREPARED",
        "data": {"name": data.path.name, "users": len(wanted), "items": len(data.item_ids)},
        "users_learned_from": len(sizes),
        "candidates": NUM_CANDIDATES,
        "targets_among_candidates": report["metrics"][f"hr@{NUM_CANDIDATES}"],
        "evaluate": {name: report["metrics"][name] for name in METRICS},
        "model": by_ranx(test, wanted, "first"),
        "reranked": by_ranx(test, wanted, "second"),
        "gain": {name: value / sum(importance.values()) for name, value in importance.items()},
        "versions": {name: version(name) for name in ("lightgbm", "ranx", "torch", "transformers")},
    }


def table(found: dict) -> str:
    """The page's table."""
    rows = [
        ("the model, by `evaluate`", found["evaluate"]),
        ("the model, by ranx", found["model"]),
        ("its best hundred in LightGBM's order, by ranx", found["reranked"]),
    ]
    lines = ["| lists | HR@10 | NDCG@10 |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {row['hr@10']:.4f} | {row['ndcg@10']:.4f} |" for name, row in rows])


def main() -> None:
    """Measures, and writes the result and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder or Hub id of a run")
    parser.add_argument("--data", required=True, help="prepared folder")
    options = parser.parse_args()
    found = measure(options.model, options.data)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    put(PAGE, "reranking", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
