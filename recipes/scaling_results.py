"""python recipes/scaling_results.py: writes the README's part on the real scaling studies from results/scaling/.

python recipes/scaling_results.py --add STUDY_FOLDER NAME first keeps a study there: its plan and its run records, whose
training histories are cut down to the validation losses. `sr-transformers scaling report recipes/results/scaling/NAME
--output FOLDER` writes the whole report, figures included.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from sr_transformers import RunRecord
from sr_transformers.study.analysis import analyse
from sr_transformers.study.report import ablation_table, held_out_table, size_table
from sr_transformers.study.words import sentences

RESULTS = Path(__file__).parent / "results" / "scaling"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- scaling -->", "<!-- /scaling -->"


def keep(study: Path, name: str, results: Path = RESULTS) -> Path:
    """Copies a study without what nobody will read again; returns the copy.

    Raises:
        FileExistsError: if a study of this name is kept already.
    """
    target = results / name
    if target.exists():
        raise FileExistsError(f"{target} exists; remove it first.")
    for path in sorted(study.glob("*/*/run.json")):
        record = dataclasses.asdict(RunRecord.load(path))
        record["history"] = [
            {key: entry[key] for key in ("step", "epoch", "eval_loss")}
            for entry in record["history"]
            if "eval_loss" in entry
        ]
        copy = target / path.relative_to(study)
        copy.parent.mkdir(parents=True)
        copy.write_text(json.dumps(record) + "\n")
    for file in ("plan.json", "study.yaml"):
        shutil.copy(study / file, target / file)
    return target


def text(results: Path = RESULTS) -> str:
    """Markdown: what every kept study found."""
    parts = []
    for folder in sorted(path.parent for path in results.glob("*/plan.json")):
        found = analyse(folder)
        records = [run.record for run in found.runs]
        sizes = [record.num_non_embedding_parameters for record in records]
        started, hours = min(record.started for record in records)[:10], found.document["training_hours"]
        planned = json.loads((folder / "plan.json").read_text())["runs"]
        missing = len(set(planned) - {run.name for run in found.runs})
        count = f"{len(records)} of {len(records) + missing}" if missing else f"{len(records)}"
        parts += [
            f"**{folder.name}** ({started}, {count} runs, N from {min(sizes):,} to {max(sizes):,}, "
            f"{hours:.1f} hours of training on one CPU thread):",
            "",
        ]
        if missing:  # laws may still change: means only
            tables = [size_table(found), ablation_table(found)]
        else:
            parts += [f"- {sentence}" for sentence in sentences(found.document)]
            parts += [*(f"- Not answered: {note}" for note in found.notes), ""]
            tables = [size_table(found), held_out_table(found), ablation_table(found)]
        for table in tables:
            if table:
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
    readme = README.read_text()
    before, rest = readme.split(BEGIN)
    README.write_text(before + BEGIN + "\n" + text() + "\n" + END + rest.split(END)[1])
    print(text())
