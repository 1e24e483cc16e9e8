"""python docs/tables/scaling.py: writes what the kept studies in results/scaling/ say: their part of
results/README.md, summary.json (every law with its intervals and held-out sizes), points.parquet (every run, with
units and command), what the law of ml-1m predicts for sizes that nobody trained, in the heads of their recipes, and
figures of that study in docs/images/, once all runs of its laws are made.

python docs/tables/scaling.py --add STUDY_FOLDER NAME first keeps a study there: its plan and its run records, whose
training histories are cut down to the validation losses; runs of an unfinished study can be added later. A kept study
is a study folder: copied to another place it goes on with `sr-transformers scaling run`, and `sr-transformers scaling
report recipes/results/scaling/NAME --output FOLDER` writes the whole report, figures included.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from sr_transformers.figures import save
from sr_transformers.marks import put
from sr_transformers.records import RUN_FILE, RunRecord
from sr_transformers.scaling.studies.analysis import FLOOR_FILE, Analysis, analyse
from sr_transformers.scaling.studies.points_table import table_of, write_points
from sr_transformers.scaling.studies.report import ablation_table, figures_of, held_out_table, size_table
from sr_transformers.scaling.studies.sentences import sentences
from sr_transformers.scaling.studies.summary import summary
from sr_transformers.scaling.studies.workers import DIVERGED_FILE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results" / "scaling"
PAGE = RESULTS.parent / "README.md"
SIZES = ROOT / "recipes" / "lsrm"
IMAGES = ROOT / "docs" / "images"
DRAWN = "ml-1m"  # the study whose figures are pictures of the pages
SLIDES = {
    "loss-held-out": "the law of size, fitted without the two largest sizes, and what these measured",
    "isoloss": "lines of equal loss over size and data, and where compute is best spent",
    "learning-curves": "validation loss of all sizes by epoch",
    "compute": "validation loss of all sizes by compute, and the lowest",
}
PREDICTED = "# Predicted, "  # how the lines of a head begin that are written here


def keep(study: Path, name: str, results: Path = RESULTS) -> Path:
    """Copies a study without what nobody will read again, to its kept copy if there is one; returns the copy.

    Raises:
        FileExistsError: if a run is kept already and says something else: it is of another study.
    """
    target = results / name
    new = {}
    for path in sorted(study.glob("*/*/run.json")):
        record = dataclasses.asdict(RunRecord.load(path))
        record["history"] = [
            {key: entry[key] for key in ("step", "epoch", "eval_loss")}
            for entry in record["history"]
            if "eval_loss" in entry
        ]
        copy, content = target / path.relative_to(study), json.dumps(record) + "\n"
        if copy.exists() and copy.read_text() != content:
            raise FileExistsError(f"{copy} exists and holds another run; remove {target} first.")
        new[copy] = content
    new |= {target / path.relative_to(study): path.read_text() for path in study.glob(f"*/*/{DIVERGED_FILE}")}
    for copy, content in new.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(content)
    for file in ("plan.json", "study.yaml", FLOOR_FILE):
        if (study / file).exists():
            shutil.copy(study / file, target / file)
    return target


def studies(results: Path = RESULTS) -> dict[str, Analysis]:
    """What every kept study with finished runs found, by name; one that is still tuned has none."""
    folders = [path.parent for path in sorted(results.glob("*/plan.json"))]
    return {folder.name: analyse(folder) for folder in folders if any(folder.glob(f"runs/*/{RUN_FILE}"))}


def write_tables(found: dict[str, Analysis], results: Path = RESULTS) -> list[dict[str, Any]]:
    """Writes summary.json and points.parquet; returns the entries of the summary."""
    entries = [entry for name, one in found.items() for entry in summary(name, one)]
    (results / "summary.json").write_text(json.dumps(entries, indent=2) + "\n")
    write_points(
        pa.concat_tables([table_of(name, one.runs) for name, one in found.items()]), results / "points.parquet"
    )
    return entries


def write_heads(entries: list[dict[str, Any]], recipes: Path = SIZES) -> None:
    """Writes into the recipes of the paper's sizes what the laws of ml-1m predict for them, where they are laws."""
    laws = {one["quantity"]: one for one in entries if one["study"] == "ml-1m" and one["law"] in ("n", "saturating")}
    for path in recipes.glob("*.yaml"):
        found = {
            name: row
            for name, law in laws.items()
            for row in law["predicted"]
            if row["size"] == path.stem and not law["reservations"]
        }
        lines = [line for line in path.read_text().split("\n") if not line.startswith(PREDICTED)]
        if found:
            said = ", ".join(_prediction(name, row) for name, row in found.items())
            farthest = max(row["times_largest"] for row in found.values())
            place = next(index for index, one in enumerate(lines) if one.startswith("# Verified"))
            lines[place:place] = [
                f"{PREDICTED}not measured: {said} on ml-1m.",
                f"{PREDICTED}that is, by the law of the study `ml-1m`, if trained as its runs are; N is "
                f"{farthest:.2g} times that of the largest.",
            ]
        path.write_text("\n".join(lines))


def _prediction(quantity: str, row: dict[str, Any]) -> str:
    unit = "nats" if quantity == "loss" else quantity.upper()
    bounds = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f} {unit}{bounds}"


def is_whole(found: Analysis) -> bool:
    """Whether all runs of a study's laws were made: before that, laws may still change."""
    return all(one["kind"] != "missing" for one in found.document["reservations"])


def draw(kept: dict[str, Analysis], images: Path = IMAGES) -> None:
    """Draws the figures of `DRAWN`, once its laws are final."""
    if DRAWN in kept and is_whole(kept[DRAWN]):
        for label, make in figures_of(kept[DRAWN], DRAWN):
            if label in SLIDES:
                save(make(), images, f"{DRAWN}-{label}")


def text(kept: dict[str, Analysis], results: Path = RESULTS) -> str:
    """Markdown: what every kept study found."""
    parts = []
    for name, found in kept.items():
        records = [run.record for run in found.runs]
        sizes = [record.num_non_embedding_parameters for record in records]
        started, hours = min(record.started for record in records)[:10], found.document["training_hours"]
        planned = json.loads((results / name / "plan.json").read_text())["runs"]
        missing = set(planned) - {run.name for run in found.runs}
        count = f"{len(records)} of {len(planned)}" if missing else f"{len(records)}"
        parts += [
            f"**{name}** ({started}, {count} runs, N from {min(sizes):,} to {max(sizes):,}, "
            f"{hours:.1f} hours of training on one CPU thread):",
            "",
        ]
        if not is_whole(found):
            tables = [size_table(found), ablation_table(found)]
        else:
            parts += [f"- {sentence}" for sentence in sentences(found.document)]
            parts += [f"- Not answered: {note}" for note in found.notes]
            blocks = dict.fromkeys(plan["block"] for run, plan in planned.items() if run in missing)
            parts += [f"- Not finished: {', '.join(blocks)} ({len(missing)} runs).", ""] if missing else [""]
            tables = [size_table(found), held_out_table(found), ablation_table(found)]
        if name == DRAWN and is_whole(found):
            for label, _ in figures_of(found, name):
                if label in SLIDES:
                    parts += [f"![{SLIDES[label]}](../../docs/images/{name}-{label}.png)", ""]
        for table in filter(None, tables) if any(tables) else ["Too few of its runs are finished for a table."]:
            parts += [table, ""]
    return "\n".join(parts).strip() or "No study is kept in `recipes/results/` yet."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", nargs=2, metavar=("STUDY_FOLDER", "NAME"))
    options = parser.parse_args()
    if options.add:
        try:
            keep(Path(options.add[0]), options.add[1])
        except FileExistsError as error:
            sys.exit(str(error))
    kept = studies()
    write_heads(write_tables(kept))
    draw(kept)
    put(PAGE, "scaling", text(kept))
    print(text(kept))
