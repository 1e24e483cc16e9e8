"""What each arm of a study is worth: its blocks, which have a part less or more each, against the one without a change.

    sr-transformers scaling run history-online-retail --output studies/history-online-retail --keep-weights
    python recipes/experiments/arms.py run studies/history-online-retail prepared/online-retail --base all
    sr-transformers scaling run blocks-ml-100k --output studies/blocks-ml-100k --keep-weights
    python recipes/experiments/arms.py run studies/blocks-ml-100k prepared/ml-100k --base none
    python recipes/experiments/arms.py table     # writes the tables of docs/history.md and docs/blocks.md

Ranks of validation and test targets are compared user by user, over the seeds of an arm (`sr-transformers compare`).
Which parts are kept is decided on validation; the test figures stand beside it.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from sr_transformers import ModelScorer, PreparedData
from sr_transformers.evaluation.significance import compare
from sr_transformers.marks import put
from sr_transformers.records import command_line, source_commit, write_whole
from sr_transformers.scaling.studies.analysis import StudyRun, load_runs

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "arms"
# The page that shows a record, by how its name begins.
PAGES = {"history": "history", "ids": "history", "blocks": "blocks"}
SPLITS = ("validation", "test")
METRICS = {"hr@10": ("HR@10", 4), "ndcg@10": ("NDCG@10", 4), "loss": ("loss", 3)}  # heading, decimals


def arms_of(runs: list[StudyRun], base: str, others: Sequence[str]) -> dict[str, list[StudyRun]]:
    """Runs by the block of the study, that of `base` first; others: the other blocks, all if there are none."""
    arms: dict[str, list[StudyRun]] = defaultdict(list)
    for run in runs:
        arms[run.plan["block"]].append(run)
    return {name: arms[name] for name in [base, *(others or sorted(set(arms) - {base}))]}


def measure(study: Path, data: PreparedData, base: str, others: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each arm, the base first: by split and metric what `compare` says."""
    arms = arms_of(load_runs(study), base, others)
    models = {
        name: [ModelScorer(AutoModelForCausalLM.from_pretrained(study / "runs" / run.name)) for run in runs]
        for name, runs in arms.items()
    }
    found = {split: compare(models, data, split)["entries"] for split in SPLITS}
    return [
        {
            "arm": name,
            "settings": runs[0].plan["settings"],
            "seeds": [run.record.seed for run in runs],
            "epochs": runs[0].plan["epochs"],
            **{split: found[split][place]["metrics"] for split in SPLITS},
        }
        for place, (name, runs) in enumerate(arms.items())
    ]


def table(found: dict[str, Any]) -> str:
    """Markdown: a row for each arm, differences from the first with standard errors over users."""
    heads = [f"{split}: {head}" for split in SPLITS for head, _ in METRICS.values()]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for row in found["rows"]:
        cells = []
        for split in SPLITS:
            for metric, (_, decimals) in METRICS.items():
                one = row[split][metric]
                if "difference" not in one:
                    cells.append(f"{one['value']:.{decimals}f}")
                    continue
                error = f" ± {one['standard_error']:.{decimals}f}" if "standard_error" in one else ""
                cells.append(f"{one['difference']:+.{decimals}f}{error}")
        lines.append(f"| {row['arm']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page_of(name: str) -> Path:
    """The page that shows the record of a name.

    Raises:
        ValueError: if there is none.
    """
    page = PAGES.get(name.split("-")[0])
    if page is None:
        raise ValueError(f"{name}: no page shows it; a record's name begins with {', '.join(PAGES)}.")
    return ROOT / "docs" / f"{page}.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run")
    run.add_argument("study", type=Path, help="folder of the study, its models kept")
    run.add_argument("data", help="prepared folder")
    run.add_argument("--base", required=True, help="block of the study that the others are compared with")
    run.add_argument("--others", nargs="+", default=[], help="blocks that are compared with it; all if left out")
    run.add_argument("--name", help="of the record and the table; that of the folder if left out")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "run":
        name = options.name or options.study.name
        page_of(name)  # before the work
        data = PreparedData(options.data).verified()
        rows = measure(options.study, data, options.base, options.others)
        found = {"command": command_line(), "commit": source_commit(), "data": data.manifest["source"], "rows": rows}
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_whole(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")
    for path in sorted(RESULTS.glob("*.json")):
        put(page_of(path.stem), path.stem, table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
