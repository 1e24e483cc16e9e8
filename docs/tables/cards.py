"""python docs/tables/cards.py: writes model_cards/ from the run records in recipes/results/.

One card per data set and recipe: the model is the run with the smallest seed, other seeds stand in a table of the card.
Baselines that a record lacks, because they came later, are those of the same log in recipes/results/baselines/.
What a record cannot know, the terms of the data, is in TERMS below; weights get terms that fit their data's.
"""

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from sr_transformers import CardOptions, RunRecord
from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.hub.model_card import Evidence, model_card

ROOT = Path(__file__).parents[2]
RESULTS, CARDS = ROOT / "recipes" / "results", ROOT / "model_cards"
BASELINES = RESULTS / "baselines"
INDEX = "README.md"

MOVIELENS = CardOptions(
    license="other",
    license_name="grouplens-research-use",
    license_link="https://files.grouplens.org/datasets/movielens/ml-1m-README.txt",
)
# The longest name that a record's name begins with decides; a log that is not here has unknown terms.
TERMS = {
    "ml-1m": MOVIELENS,
    "ml-100k": CardOptions(
        license="other",
        license_name="grouplens-research-use",
        license_link="https://files.grouplens.org/datasets/movielens/ml-100k-README.txt",
    ),
    "online-retail": CardOptions(license="cc-by-4.0"),
    "movietweetings": CardOptions(license="mit"),
    "complete-journey": CardOptions(license="mit"),
    "synthetic": CardOptions(license="apache-2.0"),
}
UNKNOWN = CardOptions(license="unknown")


def cards(folder: Path = RESULTS) -> dict[str, str]:
    """File name -> text of every card."""
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        record = RunRecord.load(path)
        groups[f"lsrm-{path.stem.rsplit('-seed', 1)[0]}-{record.name}"].append(record)
    made = {}
    for name, records in sorted(groups.items()):
        first, *others = sorted(records, key=lambda one: one.seed)
        later = _baselines(name.removeprefix("lsrm-").removesuffix(f"-{first.name}"), first)
        first = dataclasses.replace(first, reports=[*first.reports, *later])
        card = model_card(first, f"org/{name}", _terms(name), Evidence(siblings=others))
        made[f"{name}.md"] = str(card)
    return made


def _baselines(data: str, record: RunRecord) -> list[dict[str, Any]]:
    """Reports of the baselines of a log that a record lacks."""
    path = BASELINES / f"{data}.json"
    names = [one["model"] for one in record.reports]
    reports = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    refuse_mixed([(data, record.reports[0]["protocol"]), *((str(path), one["protocol"]) for one in reports)])
    return [one for one in reports if one["model"] not in names]


def _terms(name: str) -> CardOptions:
    known = [begin for begin in TERMS if name.startswith(f"lsrm-{begin}")]
    return TERMS[max(known, key=len)] if known else UNKNOWN


def index(names: list[str]) -> str:
    """The README of the folder."""
    lines = "\n".join(f"- [{name.removesuffix('.md')}]({name})" for name in names)
    return (
        "# Model cards\n\nOf the models behind the results table, written by `python docs/tables/cards.py` from "
        "[recipes/results/](../recipes/results);\na test compares. The models themselves are not on the Hub: `org` "
        "stands for whoever trains and publishes one\n(`sr-transformers publish`).\n\n" + lines + "\n"
    )


if __name__ == "__main__":
    made = cards()
    CARDS.mkdir(exist_ok=True)
    for old in CARDS.glob("*.md"):
        old.unlink()
    for name, text in made.items():
        (CARDS / name).write_text(text, encoding="utf-8")
    (CARDS / INDEX).write_text(index(list(made)), encoding="utf-8")
    print("\n".join(made))
