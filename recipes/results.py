"""python recipes/results.py: writes the results table of the README from the run records in recipes/results/.

python recipes/results.py --add RUN_FOLDER NAME first puts a finished run's record there, as NAME.json; names end in
-seed and a number, and records that differ in that only share a row.

Baselines are those of the record. What a record lacks, because the baseline came later, is taken from
results/baselines/NAME.json, which recipes/baselines.py wrote for the same log; another protocol is refused.
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

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
BASELINES = RESULTS / "baselines"
FLOORS = {"popularity": "popularity", "user frequency": "user frequency", "markov": "Markov"}
MIX = "mix: HR@10 / NDCG@10 / loss"
HEAD = ("data", "seen", "recipe", "N", "seeds", "HR@10", "NDCG@10", "loss", *FLOORS.values(), MIX, "minutes")
METRICS = ("hr@10", "ndcg@10", "loss")


def table(folder: Path = RESULTS) -> str:
    """Markdown: a row per data set, means over seeds (standard deviation where there are several).

    Raises:
        ValueError: if what a row is made of has different protocols, naming what differs.
    """
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        record = RunRecord.load(path)
        groups[path.stem.rsplit("-seed", 1)[0], record.name].append(record)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for (data, name), records in sorted(groups.items()):
        refuse_mixed((f"{data} seed {record.seed}", one["protocol"]) for record in records for one in record.reports)
        model, *baselines = records[0].reports
        measured = {one["model"]: one["metrics"] for one in [*_later_baselines(data, model), *baselines]}
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


def _later_baselines(data: str, model: dict[str, Any]) -> list[dict[str, Any]]:
    """Reports of all baselines on a log.

    Raises:
        ValueError: if their protocol is not that of the model, naming what differs.
    """
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
        target = RESULTS / f"{name}.json"
        if target.exists():
            sys.exit(f"{target} exists; remove it first.")
        RESULTS.mkdir(exist_ok=True)
        RunRecord.load(run)
        target.write_text((Path(run) / "run.json").read_text())
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1])
    print(table())
