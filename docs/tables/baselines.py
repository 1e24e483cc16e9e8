"""python docs/tables/baselines.py FOLDER: what counting does on every log, leave-one-out and after a cut in time.

FOLDER holds the logs as Parquet files. Each is prepared twice and all baselines are evaluated, as by

    sr-transformers prepare LOG --output prepared/NAME --time-unit s [--min-interactions K] [--split temporal]
    sr-transformers evaluate --data prepared/NAME [--target period] --json FILE

The reports go to results/baselines/NAME.json and results/baselines/temporal/NAME.json, and the tables of both into
docs/protocols.md. Without FOLDER the tables alone are written anew.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from sr_transformers import PreparedData, prepare
from sr_transformers.data.splits import LEAVE_ONE_OUT, TEMPORAL
from sr_transformers.evaluation.baselines import baselines
from sr_transformers.evaluation.comparison import evaluate_floors
from sr_transformers.evaluation.periods import evaluate_periods
from sr_transformers.fingerprints import FINGERPRINT, refuse_mixed
from sr_transformers.marks import put

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "baselines"
PAGE = ROOT / "docs" / "protocols.md"
FOLDERS = {LEAVE_ONE_OUT: RESULTS, TEMPORAL: RESULTS / TEMPORAL}
# By name: file or named set, least interactions, and whether its times are seconds.
LOGS = {
    "abxi-afk": ("abxi-afk.parquet", 1, True),
    "complete-journey-100-core": ("complete-journey", 100, True),
    "complete-journey-5-core": ("complete-journey", 5, True),
    "ml-100k": ("ml-100k.parquet", 1, True),
    "ml-1m": ("ml-1m.parquet", 1, True),
    "movietweetings-100k-5-core": ("movietweetings-100k.parquet", 5, True),
    "online-retail": ("online-retail.parquet", 1, True),
    "synthetic": ("synthetic", 1, False),
}
COLUMNS = {
    "popularity": "popularity",
    "recent popularity": "recent popularity",
    "user frequency": "user frequency",
    "decayed frequency": "decayed frequency",
    "markov": "Markov",
    "mix": "mix",
}


def measure(log: str | Path, name: str, split: str) -> list[dict[str, Any]]:
    """Reports of all baselines on the next item, and after a cut in time on the whole period too."""
    _, least, seconds = LOGS[name]
    with tempfile.TemporaryDirectory() as folder:
        options = {"split": split, "min_interactions": least, "time_unit": "s" if seconds else None}
        data: PreparedData = prepare(log, Path(folder) / name, **options)
        floors = baselines(data)
        reports, _ = evaluate_floors(floors, data)
        return reports + [evaluate_periods(one, data) for one in floors if split == TEMPORAL]


def tables(split: str) -> str:
    """Markdown: a row per log that was prepared by a split; after a cut in time also a table of whole periods."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDERS[split].glob("*.json"))}
    parts = []
    for target, metrics in (("item", ("hr@10", "ndcg@10")), ("period", ("hr@10", "recall@10", "ndcg@10"))):
        rows = [
            _row(name, [one for one in reports if one["protocol"]["target"] == target], metrics)
            for name, reports in found.items()
            if any(one["protocol"]["target"] == target for one in reports)
        ]
        if rows:
            shown = " / ".join(name.upper() if name != "recall@10" else "recall@10" for name in metrics)
            head = ["log", "protocol", "seen", "users", "new items", *COLUMNS.values()]
            lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]
            parts.append(f"Target {target}, {shown}:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _row(name: str, reports: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    refuse_mixed((one["model"], one["protocol"]) for one in reports)
    first, measured = reports[0], {one["model"]: one["metrics"] for one in reports}
    days = {one["model"]: one["fitted"]["days"] for one in reports if "days" in one.get("fitted", {})}
    protocol = first["protocol"]
    unknown = first.get("num_targets_outside_vocabulary", first.get("num_items_outside_vocabulary"))
    cells = [
        " / ".join(f"{measured[model][metric]:.3f}" for metric in metrics)
        + (f" ({days[model]:.1f} days)" if model in days else "")
        if model in measured
        else "–"
        for model in COLUMNS
    ]
    seen = "removed" if protocol["filter_seen"] else "kept"
    front = [name, f"`{protocol[FINGERPRINT]}`", seen, f"{first['num_targets']:,}", f"{unknown:,}"]
    return f"| {' | '.join([*front, *cells])} |"


def write_tables() -> None:
    """Puts the tables into the page, between their marks."""
    for split in FOLDERS:
        put(PAGE, split, tables(split))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="with the logs as Parquet files")
    parser.add_argument("--log", choices=tuple(LOGS), action="append", help="this one only; may be given several times")
    options = parser.parse_args()
    for name in (options.log or LOGS) if options.folder else ():
        source = LOGS[name][0]
        log = options.folder / source if source.endswith(".parquet") else source
        for split, folder in FOLDERS.items():
            folder.mkdir(parents=True, exist_ok=True)
            found = measure(log, name, split)
            (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            print(name, split, found[0]["protocol"][FINGERPRINT], flush=True)
    write_tables()
