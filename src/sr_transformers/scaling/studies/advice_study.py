"""The study behind `advise`: what small models, trained until they stop improving, can say within a budget of time.

    sizes     nine from 3 k to 786 k, each about twice the one before, as slender as the sizes of the paper
    rates     learning rate and dropout tuned for two sizes on the data, the dropout on a tenth of it too
    data      as large a part of the users as the budget pays for, and three tenths and a tenth of that

Epochs follow the recipe: smaller sizes need more, N to the power -0.1, and so do smaller parts of the users, the
fraction to the power -0.2. Whether these are enough is seen in the runs themselves (`soundness`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_transformers.data.prepared import PreparedData
from sr_transformers.recipe_files import RECIPES, find_recipe
from sr_transformers.scaling.laws.records_table import PLAN_FILE
from sr_transformers.scaling.studies.cost import calibrate, estimate
from sr_transformers.scaling.studies.rate_search import least_runs
from sr_transformers.scaling.studies.runner import STUDY_FILE
from sr_transformers.scaling.studies.study import PlannedRun, Study
from sr_transformers.scaling.studies.workers import threads_of
from sr_transformers.training.portfolio import choose
from sr_transformers.training.recipe import Recipe
from sr_transformers.training.yaml_reader import read_yaml

SIZES = {
    "3k": [2, 12, 1],
    "6k": [2, 16, 1],
    "14k": [2, 24, 1],
    "25k": [2, 32, 1],
    "55k": [2, 48, 2],
    "98k": [2, 64, 2],
    "187k": [3, 72, 3],
    "372k": [4, 88, 4],
    "786k": [4, 128, 4],
}
_MUST = list(SIZES)[:7]  # five sizes are the least that a law of size has intervals for
_TUNED = {"14k": [1.35e-2, 0.0], "187k": [4.5e-3, 0.1]}  # where to begin: what was best on MovieLens 1M
_ON_PARTS = ["14k", "55k", "187k"]
_PARTS = (0.3, 0.1)  # of the largest part of the users
_FEWEST_USERS = 100  # of a part; fewer say little about another draw of them
FRACTIONS = (1.0, 0.3, 0.1, 0.03)  # largest parts that a budget may pay for
_FORGETS = 0.4  # part of the epochs within which weights decay (`decay_epochs`)
_SPARE = 0.8  # part of a budget that the runs that must be made may take by the estimate
_MORE_TRIALS = 1.7  # times as many as a search that begins at the best rates
_IN_TURN = 6  # trials of the largest tuned size that wait for one another


def advice_study(
    data: PreparedData, epochs: float | None = None, recipe: str | Path | None = None, fraction: float = 1.0
) -> Study:
    """The study of a log.

    Args:
        epochs: for a model of the recipe's size; None: the recipe's.
        recipe: a file or a name; gives what the study does not set; None: the one that suits the log (`portfolio`).
        fraction: the largest part of the users that is trained on.

    Raises:
        ValueError: for epochs that are no number above 0.
    """
    if epochs is not None and not (0 < epochs < np.inf):
        raise ValueError(f"epochs is {epochs}; it must be a number above 0.")
    settings: dict[str, Any] = {
        "optimizer": "muon",
        "switch_optimizer": False,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.05,
        "metric_for_best_model": "loss",
        "patience": 1000,
    }
    if recipe is None:
        choice = choose(data.manifest["counts"])
        recipe, settings = choice.name, {**settings, **choice.overrides}
    path = find_recipe(recipe, RECIPES).resolve()
    base = Recipe.load(path)
    own = epochs if epochs is not None else float(base.training.get("num_train_epochs", 10))
    settings.update(weight_decay=0.0, decay_epochs=max(round(_FORGETS * own), 1))
    epochs_of = _epochs_by(base, own)
    users = _users(data) * fraction
    parts = [part for part in _PARTS if users * part >= _FEWEST_USERS]
    tuning: dict[str, Any] = {
        "sizes": list(_TUNED),
        "learning_rates": [5e-4, 1.5e-3, 4.5e-3, 1.35e-2, 4e-2, 1.2e-1],
        "dropouts": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "fraction": {"users": fraction},
        "epochs": epochs_of(list(_TUNED), fraction),
        "start": _TUNED,
    }
    if parts:
        part = {"fraction": {"users": fraction * parts[-1]}, "sizes": list(_TUNED)}
        tuning["part"] = {
            **part,
            "epochs": epochs_of(list(_TUNED), fraction * parts[-1]),
            "start": {"14k": 0.1, "187k": 0.3},
        }
    blocks: dict[str, Any] = {
        "main": {
            "sizes": _MUST,
            "fractions": [fraction],
            "epochs": epochs_of(_MUST, fraction),
            "seeds": [1],
            "must": True,
        },
        "more": {
            "sizes": list(SIZES),
            "fractions": [fraction],
            "epochs": epochs_of(list(SIZES), fraction),
            "seeds": [1, 2],
        },
    }
    for share in parts:
        blocks[f"users-{share:g}"] = {
            "sizes": _ON_PARTS, "fractions": [fraction * share], "seeds": [1],
            "epochs": epochs_of(_ON_PARTS, fraction * share), "must": True,
        }  # fmt: skip
    content = {
        "name": f"advice-{data.path.name}",
        "data": str(data.path.resolve()),  # however it was spelled, for the same study
        "recipe": str(path),
        "settings": settings,
        "validation_targets": 5000,
        "sizes": SIZES,
        "tuning": tuning,
        "blocks": blocks,
    }
    return Study.build(content, Path("advise"))


def largest_part(
    data: PreparedData,
    output: Path,
    budget_seconds: float,
    jobs: int = 1,
    epochs: float | None = None,
    recipe: str | Path | None = None,
) -> float:
    """The largest part of the users on which the runs that must be made fit into a budget of seconds.

    The smallest of `FRACTIONS` that leaves a hundred users if none does. A study in which something was trained keeps
    its part, however large the budget is now; one in which nothing was begins again.

    Raises:
        FileExistsError: if `output` holds a study of another kind.
    """
    if (output / STUDY_FILE).is_file():
        fraction = _part_of(output / STUDY_FILE)
        if any(any((output / kind).glob("*/*")) for kind in ("runs", "tuning")):
            return fraction
        for name in (STUDY_FILE, PLAN_FILE):
            (output / name).unlink(missing_ok=True)
    if jobs > 1:
        torch.set_num_threads(threads_of(jobs))  # as its runs will have
    users = _users(data)
    fractions = [one for one in FRACTIONS if one == FRACTIONS[0] or users * one >= _FEWEST_USERS]
    studies = {fraction: advice_study(data, epochs, recipe, fraction) for fraction in fractions}
    first = studies[fractions[0]]
    speed = calibrate([first.sizes[name] for name in ("3k", "187k")], first.recipe, data.vocab_size)

    def seconds(study: Study, runs: Iterable[PlannedRun]) -> list[float]:
        return [estimate(run, data, study.recipe, speed, study.validation_targets).seconds for run in runs]

    for fraction, study in studies.items():
        tuning = seconds(study, least_runs(study, output / "tuning"))
        must = seconds(study, (run for run in study.runs if run.must))
        searching = max(_MORE_TRIALS * sum(tuning) / jobs, _IN_TURN * max(tuning))
        if searching + max(sum(must) / jobs, max(must)) <= budget_seconds * _SPARE:
            return fraction
    return fractions[-1]


def _users(data: PreparedData) -> int:
    """Users that are trained on."""
    return int((data.train_lengths > 0).sum())


def _part_of(path: Path) -> float:
    """The part of the users that the study in a file of advice is about."""
    try:
        return float(read_yaml(path)["blocks"]["main"]["fractions"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        raise FileExistsError(f"{path} is no study of `advise`; choose another output folder.") from None


def _epochs_by(recipe: Recipe, own: float) -> Any:
    """A function of names of sizes, and a part of the users, that gives epochs by size, `own` for the recipe's size."""
    width, layers = int(recipe.model.get("hidden_size", 64)), int(recipe.model.get("num_hidden_layers", 2))

    def of(sizes: list[str], fraction: float) -> dict[str, float]:
        found = {}
        for name in sizes:
            n = SIZES[name][0] * SIZES[name][1] ** 2
            found[name] = float(max(round(own * (layers * width**2 / n) ** 0.1 * fraction**-0.2), 1))
        return found

    return of
