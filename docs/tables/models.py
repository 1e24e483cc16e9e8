"""python docs/tables/models.py: writes the tables of models, in recipes/results/README.md and in the project's README,
from the records in recipes/results/.

python docs/tables/models.py --add RUN_FOLDER NAME first puts a finished run's record there, as NAME.json; names end in
-seed and a number, and records that differ in that only share a row. Models that were told when the target happened go
to request-time/ and have a table of their own.

Baselines are those of the record. What a record lacks, because the baseline came later, is taken from
recipes/results/baselines/NAME.json, which docs/tables/baselines.py wrote for the same log; another protocol is refused.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from sr_transformers import RunRecord
from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.marks import put

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results"
PAGE = RESULTS / "README.md"
REQUEST_TIME = RESULTS / "request-time"
README = ROOT / "README.md"
BASELINES = RESULTS / "baselines"
FLOORS = {"popularity": "popularity", "user frequency": "user frequency", "markov": "Markov"}
MIX = "mix: HR@10 / NDCG@10 / loss"
HEAD = ("data", "seen", "recipe", "N", "seeds", "HR@10", "NDCG@10", "loss", *FLOORS.values(), MIX, "minutes")
METRICS = ("hr@10", "ndcg@10", "loss")


def table(folder: Path = RESULTS) -> str:
    """Markdown: a row per data set, means over seeds (standard deviation where there are several)."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for (data, name), records in _groups(folder):
        model, measured = _first_and_baselines(data, records)
        cells = [_mean([one.reports[0]["metrics"][metric] for one in records]) for metric in METRICS]
        floors = [f"{measured[name]['hr@10']:.3f}" for name in FLOORS]
        floors.append(" / ".join(f"{measured['mix'][metric]:.3f}" for metric in METRICS))
        seen = "removed" if model["protocol"]["filter_seen"] else "kept"
        minutes = statistics.mean(one.seconds for one in records) / 60
        lines.append(
            f"| {data} | {seen} | {name} | {records[0].num_non_embedding_parameters:,} | {len(records)} | "
            + " | ".join([*cells, *floors])
            + f" | {minutes:.0f} |"
        )
    return "\n".join(lines)


def quality_table(folder: Path = RESULTS) -> str:
    """Markdown for the project's README: a row per real log, the model beside the best that counting does."""
    lines = ["| log | users come back | recipe | HR@10 | NDCG@10 | counting: HR@10 | NDCG@10 |", "|---" * 7 + "|"]
    for (data, name), records in _groups(folder):
        if data == "synthetic":
            continue
        model, measured = _first_and_baselines(data, records)
        means = [statistics.mean(one.reports[0]["metrics"][metric] for one in records) for metric in METRICS[:2]]
        cells = [f"{value:.3f}" for value in (*means, *(measured["mix"][metric] for metric in METRICS[:2]))]
        repeats = "no" if model["protocol"]["filter_seen"] else "yes"
        lines.append(f"| {data} | {repeats} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(folder: Path) -> list[tuple[tuple[str, str], list[RunRecord]]]:
    """Records of one log and recipe together, sorted by name."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        record = RunRecord.load(path)
        groups[path.stem.rsplit("-seed", 1)[0], record.name].append(record)
    return sorted(groups.items())


def _first_and_baselines(data: str, records: list[RunRecord]) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The model's report of the first record, and the metrics of every scorer on that log by name.

    Raises:
        ValueError: if the records have different protocols, naming what differs.
    """
    refuse_mixed((f"{data} seed {record.seed}", one["protocol"]) for record in records for one in record.reports)
    model, *baselines = records[0].reports
    return model, {one["model"]: one["metrics"] for one in [*_later_baselines(data, model), *baselines]}


def _later_baselines(data: str, model: dict[str, Any]) -> list[dict[str, Any]]:
    """Reports of all baselines on a log.

    Raises:
        ValueError: if their protocol is not that of the model, naming what differs.
    """
    if "request_time" in model["protocol"]:  # those that the run made know it too
        return []
    path = BASELINES / f"{data}.json"
    reports = json.loads(path.read_text()) if path.exists() else []
    refuse_mixed([(data, model["protocol"]), *((str(path), one["protocol"]) for one in reports)])
    return reports


def _mean(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", nargs=2, metavar=("RUN_FOLDER", "NAME"))
    options = parser.parse_args()
    if options.add:
        run, name = options.add
        told = "request_time" in RunRecord.load(run).reports[0]["protocol"]
        target = (REQUEST_TIME if told else RESULTS) / f"{name}.json"
        if target.exists():
            sys.exit(f"{target} exists; remove it first.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((Path(run) / "run.json").read_text())
    put(PAGE, "results", table())
    put(PAGE, "request-time", table(REQUEST_TIME))
    put(README, "quality", quality_table())
    print(table())
