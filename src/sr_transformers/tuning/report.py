"""What a search leaves for people and programs: `report.md` with pictures, `recipe.yaml`, `tune.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sr_transformers import __version__
from sr_transformers.data.prepared import PreparedData
from sr_transformers.evaluation.evaluator import table
from sr_transformers.public import plain
from sr_transformers.records import RunRecord, command_line, source_commit, write_whole
from sr_transformers.training.portfolio import choose
from sr_transformers.tuning import storage
from sr_transformers.tuning.budget import as_dict, in_words
from sr_transformers.tuning.figures import draw
from sr_transformers.tuning.progress import Progress, in_line, value_of
from sr_transformers.tuning.trials import OF_SEARCH, Terms

TUNE, RECIPE, REPORT, FIGURES = "tune.json", "recipe.yaml", "report.md", "figures"
_SHOWN = 10  # trials in the report's table
_CAPTIONS = {
    "score": "Every trial by the best it reached on validation. Those of the portfolio are circled.",
    "importance": "How much each key mattered for being among the better trials. With few trials this is a hint.",
    "learning": "The best trial while it trained.",
    "time": "All trials together, and what came before and after them.",
}


def write_report(
    folder: Path,
    study: Any,
    terms: Terms,
    data: PreparedData,
    progress: Progress,
    record: RunRecord,
    budget: float,
    jobs: int,
) -> dict[str, Any]:
    """Writes all of it; `tune.json` last, by which a finished search is known. Returns what that holds."""
    document = document_of(study, terms, data, progress, record, budget, jobs)
    write_whole(folder / RECIPE, recipe_yaml(document))
    names = draw(document, folder / FIGURES)
    write_whole(folder / REPORT, markdown(document, names))
    progress.keep()
    write_whole(folder / TUNE, json.dumps(document, indent=1) + "\n")
    return document


def document_of(
    study: Any,
    terms: Terms,
    data: PreparedData,
    progress: Progress,
    record: RunRecord,
    budget: float,
    jobs: int,
) -> dict[str, Any]:
    """Everything that is known of a search, in plain values."""
    winner = storage.best(study)
    assert winner is not None  # else there is no record
    trials = [_trial(one) for one in storage.ended(study)]
    minutes = {"probe": progress.content["parts"].get("probe", 0.0) / 60}
    for name, ends in (
        ("trials that trained", (storage.FULL, storage.PLATEAU, storage.TIME)),
        ("trials that were pruned", (storage.PRUNED,)),
        ("trials that failed", (storage.FAILED,)),
    ):
        minutes[name] = sum(one["minutes"] for one in trials if one["ended"] in ends)
    minutes["final training and evaluation"] = progress.content["parts"].get("final", 0.0) / 60
    return {
        "budget": budget,
        "spent": progress.spent(),
        "jobs": jobs,
        "seed": terms.seed,
        "fixed": terms.fixed,
        "kind": choose(data.manifest["counts"]).because.replace("auto takes", "it began with", 1),
        "data": data.manifest,
        "metric": storage.METRIC,
        "probe": as_dict(terms.probe),
        "plan": as_dict(terms.plan),
        "best": winner.number,
        "recipe": winner.user_attrs["recipe"],
        "trials": trials,
        "importances": storage.importances(study),
        "minutes": minutes,
        "validation": record.validation,
        "reports": record.reports,
        "command": command_line(),
        "version": __version__,
        "commit": source_commit(),
    }


def _trial(one: Any) -> dict[str, Any]:
    of_trial = one.user_attrs
    return {
        "number": one.number,
        "name": of_trial.get("name"),
        "parameters": dict(one.params),
        "ended": of_trial["ended"],
        "value": value_of(one),
        "epochs": of_trial["epochs"],
        "minutes": of_trial["seconds"] / 60,
        "begun_minutes": of_trial["begun"] / 60,
        "validation": {str(epoch): value for epoch, value in one.intermediate_values.items()},
        "losses": of_trial.get("losses", []),
        "error": of_trial.get("error"),
    }


def recipe_yaml(document: Mapping[str, Any]) -> str:
    """The best trial's recipe as a file for `sr-transformers train`."""
    best = next(one for one in document["trials"] if one["number"] == document["best"])
    model, training = dict(document["recipe"]["model"]), dict(document["recipe"]["training"])
    for key in OF_SEARCH:
        del training[key]
    counts = document["data"]["counts"]
    tried = sum(one["ended"] != storage.TOO_LONG for one in document["trials"])
    head = [
        f"# Trial {best['number']} of a search of {in_words(document['spent'])}: the best of {tried} by NDCG@10 of "
        f"validation ({best['value']:.4f}).",
        f"# Found on a log of {counts['interactions']:,} interactions of {counts['users']:,} users with "
        f"{counts['items']:,} items.",
    ]
    if best["ended"] == storage.TIME:
        head.append(f"# The time was over after {best['epochs']:.3g} of its epochs; to the end it may be better.")
    return "\n".join(head) + "\n" + yaml.safe_dump({"model": model, "training": training}, sort_keys=False)


def markdown(document: Mapping[str, Any], figures: list[str]) -> str:
    """The report: one page."""
    trials, plan = document["trials"], document["plan"]
    best = next(one for one in trials if one["number"] == document["best"])
    model = document["reports"][0]["metrics"]
    counts, source = document["data"]["counts"], document["data"]["source"]["name"]
    ran = [one for one in trials if one["ended"] != storage.TOO_LONG]
    pruned = sum(one["ended"] == storage.PRUNED for one in trials)
    failed = sum(one["ended"] == storage.FAILED for one in trials)
    part = "all users" if plan["fraction"] == 1 else f"{plan['fraction']:.0%} of the users, the best one on all of them"
    lines = [
        f"# A search on {plain(source)}",
        "",
        f"{counts['interactions']:,} interactions of {counts['users']:,} users with {counts['items']:,} items, split "
        f"{document['data']['split']}. In {in_words(document['spent'])} of a budget of {in_words(document['budget'])} "
        f"{len(ran)} settings were tried, {pruned} of them ended early because others were better by then"
        + (f", {failed} failed" if failed else "")
        + f". Trials trained on {part}. By the log's kind {document['kind'][0].lower()}{document['kind'][1:]}",
        "",
        f"**The best is trial {best['number']}**, NDCG@10 {best['value']:.4f} on {plan['targets']:,} validation "
        f"targets: {in_line(best['parameters'])}. On the test targets, which no trial has seen, it has HR@10 "
        f"{model['hr@10']:.4f} and NDCG@10 {model['ndcg@10']:.4f}. The best of many on validation is a little lucky "
        "there; the test is not.",
        "",
        table(document["reports"]),
        "",
        f"`{RECIPE}` is its recipe: `sr-transformers train {RECIPE} --data PREPARED --output RUN`, with other seeds "
        "too. `model/` is the trained model, `tune.json` holds every number of this page.",
    ]
    for name in figures:
        lines += ["", f"![{name}]({FIGURES}/{name}.png)", "", _CAPTIONS[name]]
    lines += [
        "",
        "## Trials",
        "",
        "| trial | NDCG@10 | epochs | minutes | ended | setting |",
        "|---|---|---|---|---|---|",
    ]
    order = sorted((one for one in ran if one["value"] is not None), key=lambda one: -one["value"])
    for one in order[:_SHOWN]:
        name = f"{one['name']}: " if one["name"] else ""
        lines.append(
            f"| {one['number']} | {one['value']:.4f} | {one['epochs']:.3g} | {one['minutes']:.1f} | {one['ended']} | "
            f"{plain(name + in_line(one['parameters']))} |"
        )
    if len(order) > _SHOWN:
        lines.append(f"\nThe best {_SHOWN} of {len(order)}.")
    lines += ["", f"By `{plain(document['command'])}`, sr_transformers {document['version']}.", ""]
    return "\n".join(lines)
