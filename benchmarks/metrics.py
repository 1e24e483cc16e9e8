"""python benchmarks/metrics.py --model RUN --data PREPARED: do the metrics of other libraries give our numbers?

Lists for all users and their test targets are written as two tables, and RecTools and RePlay, each in its environment
(environments.py), and ranx compute HR@10 and NDCG@10 from them. Writes results/metrics.json and the table of
docs/lists.md.
"""

import argparse
import json
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import polars as pl
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from sr_transformers import PreparedData, Recommender, evaluate, recommend_all
from sr_transformers.marks import put

HERE = Path(__file__).parent
RESULT = HERE / "results" / "metrics.json"
PAGE = HERE.parent / "docs" / "lists.md"
METRICS = ("hr@10", "ndcg@10")
# In the peer's environment: reads lists.csv and targets.csv of the working folder, prints metrics and version as JSON.
RECTOOLS = """
import json, pandas as pd, rectools
from rectools.metrics import HitRate, NDCG, calc_metrics
lists, targets = pd.read_csv("lists.csv"), pd.read_csv("targets.csv")
metrics = {"hr@10": HitRate(k=10), "ndcg@10": NDCG(k=10, divide_by_achievable=True)}
found = calc_metrics(metrics, reco=lists, interactions=targets)
print(json.dumps({**{name: float(value) for name, value in found.items()}, "version": rectools.__version__}))
"""
REPLAY = """
import json, polars as pl
from importlib.metadata import version
from replay.metrics import HitRate, NDCG
lists, targets = pl.read_csv("lists.csv"), pl.read_csv("targets.csv")
lists = lists.with_columns(rating=1 / pl.col("rank"))
columns = dict(query_column="user_id", item_column="item_id", rating_column="rating")
found = {"hr@10": HitRate([10], **columns)(lists, targets), "ndcg@10": NDCG([10], **columns)(lists, targets)}
print(json.dumps({**{name: next(iter(one.values())) for name, one in found.items()}, "version": version("replay-rec")}))
"""


def targets(data: PreparedData, split: str) -> pl.DataFrame:
    """user_id and item_id of the targets of a split; those outside the vocabulary have the item null."""
    users, ids, rows = data.histories["user_id"], data.item_ids.to_pylist(), []
    for history, position in data.targets(split).tolist():
        token = data.items(history, position + 1, position)[0]
        rows.append((users[history], ids[token - 2] if token >= 2 else None))
    return pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")


def by_ranx(lists: pl.DataFrame, wanted: pl.DataFrame, score: str) -> dict[str, float]:
    """HR@10 and NDCG@10 of lists by ranx; targets outside the vocabulary are judged by a name that no list has."""
    qrels = Qrels({str(user): {"?" if item is None else str(item): 1} for user, item in wanted.rows()})
    shown: dict[str, dict[str, float]] = {}
    for user, item, value in lists.select("user_id", "item_id", score).rows():
        shown.setdefault(str(user), {})[str(item)] = value
    found = ranx_evaluate(qrels, Run(shown), ["hit_rate@10", "ndcg@10"], make_comparable=True)
    return dict(zip(METRICS, (float(value) for value in found.values()), strict=True))


def by_peer(code: str, name: str, folder: Path, environments: Path) -> dict[str, float | str]:
    """What a library says in its own environment.

    Raises:
        FileNotFoundError: if it has none.
    """
    python = environments / name / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is missing: python benchmarks/environments.py {name}")
    run = subprocess.run([str(python), "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1])


def measure(model: str, folder: str, environments: Path) -> dict:
    """Everything that the table shows."""
    data = PreparedData(folder).verified()
    recommender = Recommender.from_pretrained(model)
    report = evaluate(recommender.scorer, data, "test", (10,), recommender.exclude_seen)
    wanted = targets(data, "test")
    with tempfile.TemporaryDirectory() as temporary:
        recommend_all(recommender, data, Path(temporary) / "lists.parquet", 10, before="test")
        lists = pl.read_parquet(Path(temporary) / "lists.parquet")
        lists.write_csv(Path(temporary) / "lists.csv")
        # -1 is an item that no list has.
        wanted.fill_null(-1).write_csv(Path(temporary) / "targets.csv")
        found = {
            "sr_transformers": {name: report["metrics"][name] for name in METRICS},
            "RecTools": by_peer(RECTOOLS, "rectools", Path(temporary), environments),
            "RePlay": by_peer(REPLAY, "replay", Path(temporary), environments),
            "ranx": {
                **by_ranx(lists.with_columns(score=1 / pl.col("rank")), wanted, "score"),
                "version": version("ranx"),
            },
        }
    return {
        "command": "python benchmarks/metrics.py --model RUN --data PREPARED",
        "data": {"name": data.path.name, "users": len(wanted), "items": len(data.item_ids)},
        "found": found,
    }


def table(content: dict) -> str:
    """The page's table."""
    lines = ["| library | version | HR@10 | NDCG@10 |", "|---|---|---|---|"]
    for name, one in content["found"].items():
        lines.append(f"| {name} | {one.get('version', '')} | {one['hr@10']:.10f} | {one['ndcg@10']:.10f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and writes the result and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a run")
    parser.add_argument("--data", required=True, help="prepared folder; its item and user ids are integers")
    parser.add_argument("--environments", type=Path, default=HERE / ".environments")
    options = parser.parse_args()
    content = measure(options.model, options.data, options.environments)
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    put(PAGE, "metrics", table(content))
    print(table(content))


if __name__ == "__main__":
    main()
