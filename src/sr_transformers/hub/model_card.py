"""Model cards, written from records: metadata for the Hub and text for readers.

Nothing is typed by hand and nothing is computed anew: what no record holds does not appear. The same records give the
same card, byte for byte. Texts of records stand in it as they are: HTML or Markdown in them is shown, not carried out.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sr_transformers.evaluation.tasks import markdown
from sr_transformers.fingerprints import FINGERPRINT
from sr_transformers.hub import card_tables as tables
from sr_transformers.hub.curve import CURVE
from sr_transformers.lsrm.configuration_lsrm import NEEDS_TIMES
from sr_transformers.public import plain
from sr_transformers.records import RunRecord, read_json

TEMPLATE = Path(__file__).with_name("card_template.md")
TAGS = ["sr_transformers", "recommendation", "sequential-recommendation"]
FIGURES = (".svg", ".png")  # the later one is shown where there are both


@dataclass(frozen=True)
class CardOptions:
    """What records cannot know.

    Attributes:
        license: of weights and code, an identifier of the Hub; "unknown" must be said, and "other" needs a name.
        license_name, license_link: of a license that the Hub does not list.
        dataset: id of the training data on the Hub; default is the name of the source file.
        base_model: id of the model that this one was fine-tuned from; default: as the record has it.
        study_repo: id of the scaling study that the model belongs to; study: its folder, for the fits.

    Raises:
        ValueError: for license "other" without a name, or a name with another license.
    """

    license: str = "apache-2.0"
    license_name: str | None = None
    license_link: str | None = None
    dataset: str | None = None
    base_model: str | None = None
    study_repo: str | None = None
    study: str | None = None

    def __post_init__(self) -> None:
        if (self.license == "other") != (self.license_name is not None):
            raise ValueError(
                f"license {self.license!r} with name {self.license_name!r}: 'other' needs a license name (and best a "
                "link), the licenses that the Hub lists take none."
            )


@dataclass
class Evidence:
    """Records beside run.json.

    Attributes:
        tasks: content of tasks.json.
        reports: further evaluations, content of evaluation.json.
        fits: fitted scaling laws.
        figures: paths in the repository.
        siblings: the same recipe and data with other seeds.
    """

    tasks: dict[str, Any] | None = None
    reports: list[dict[str, Any]] = field(default_factory=list)
    fits: list[dict[str, Any]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    siblings: Sequence[RunRecord] = ()

    @classmethod
    def of(cls, folder: Path) -> "Evidence":
        """What a folder with the repository's layout holds."""
        tasks, evaluation = folder / "tasks.json", folder / "evaluation.json"
        return cls(
            read_json(tasks) if tasks.exists() else None,
            read_json(evaluation) if evaluation.exists() else [],
            find_fits(folder / "scaling"),
            figures_of(folder),
        )


def figures_of(folder: Path) -> list[str]:
    """The figures of a repository, one of those that differ in their format only."""
    found = {path.with_suffix(""): path for ending in FIGURES for path in folder.glob(f"figures/**/*{ending}")}
    return sorted(str(path.relative_to(folder)) for path in found.values())


def find_fits(folder: Path) -> list[dict[str, Any]]:
    """The fitted laws in the JSON files of a folder: objects with a law, its parameters and a status."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        content = read_json(path)
        for one in content if isinstance(content, list) else [content]:
            if isinstance(one, dict) and {"law", "params", "status"} <= set(one):
                found.append(one)
    return found


def model_card(record: RunRecord, repo_id: str, options: CardOptions, evidence: Evidence) -> ModelCard:
    """Writes a card.

    Args:
        record: of the run; its first report is the model's, the others are baselines.
        repo_id: where the model will be found.
        options: what records cannot know.
        evidence: further records.
    """
    name = repo_id.split("/")[-1]
    metadata = card_data(record, name, options, evidence)  # YAML, whose writer quotes what needs it
    record, evidence = _as_text(record), _as_text(evidence)
    report, counts, model = record.reports[0], record.data["counts"], record.recipe["model"]
    fits = evidence.fits + (_as_text(find_fits(Path(options.study))) if options.study else [])
    source = record.data["source"]["name"]
    core = record.data["min_interactions"]
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        repo_id=repo_id,
        architecture=f"`{model['model_type']}`",
        base_model=options.base_model or record.recipe.get("origin", {}).get("model"),
        curve=next((one for one in evidence.figures if Path(one).stem == CURVE), None),
        data_name=source,
        size=tables.size_rows(record),
        window=model["max_position_embeddings"],
        counts_past=bool(set(model.get("history", ())) - {"clock"}),
        reads_moments=model.get("attention_time", False) or bool(set(model.get("history", ())) & set(NEEDS_TIMES)),
        query_time=model.get("query_time", False),
        asked=', "query_time": 1700090000' if model.get("query_time", False) else "",
        data_line=f"{source}, {f'{core}-core, ' if core > 1 else ''}split {record.data['split'].replace('_', '-')}.",
        counts=tables.count_rows(record),
        leaks=record.data["leaks"],
        training=tables.training_rows(record),
        best_step=tables.number(record.best_step),
        chosen=record.chosen_on_validation,
        validation=tables.metric_line(record.validation),
        results=tables.results_table(record.reports),
        errors=tables.error_line(report),
        siblings=tables.sibling_table(evidence.siblings),
        more_results=[tables.results_table(same) for same in _by_protocol(evidence.reports)],
        tasks=markdown.markdown(evidence.tasks) if evidence.tasks else "",
        fits=tables.fit_table(fits),
        study_repo=options.study_repo,
        figures=[one for one in evidence.figures if Path(one).stem != CURVE],
        popularity=_popularity(record),
        leave_one_out=record.data["split"] == "leave_one_out",
        unknown=f"{counts['test_targets_outside_vocabulary']:,}",
        provenance=tables.provenance_rows(record),
        license_line=_license_line(options),
    )
    return ModelCard(re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n")


def _as_text(value: Any) -> Any:
    """Records whose texts, names of keys too, can stand in Markdown."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {_as_text(key): _as_text(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: _as_text(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def card_data(record: RunRecord, name: str, options: CardOptions, evidence: Evidence) -> ModelCardData:
    """The metadata: the five metrics that people compare, each with its protocol in its name.

    No task of the Hub is recommendation: `pipeline_tag` says "other", so that nobody is offered text generation.
    """
    dataset = options.dataset or record.data["source"]["name"].rsplit(".", 1)[0]
    report = record.reports[0]
    results = [
        EvalResult(
            task_type="sequential-recommendation",
            task_name="Next-item recommendation",
            dataset_type=dataset,
            dataset_name=report["protocol"]["data"],
            dataset_config=report["protocol"]["split"],
            dataset_split=report["protocol"]["part"],
            metric_type=tables.identifier(metric),
            metric_name=f"{tables.display(metric)} ({tables.short_protocol(report)})",
            metric_value=report["metrics"][metric],
        )
        for metric in tables.HEADLINES
        if metric in report["metrics"]
    ]
    return ModelCardData(
        license=options.license,
        license_name=options.license_name,
        license_link=options.license_link,
        library_name="transformers",
        pipeline_tag="other",
        tags=[*TAGS, record.recipe["model"]["model_type"]],
        datasets=[dataset],
        metrics=sorted({result.metric_type for result in results}),
        base_model=_base_model(record, options),
        model_name=name,
        eval_results=results,
    )


def _base_model(record: RunRecord, options: CardOptions) -> str | None:
    """The model on the Hub that this one was fine-tuned from; a folder is no name there, and has no commit."""
    origin = record.recipe.get("origin", {})
    return options.base_model or (origin["model"] if origin.get("commit") else None)


def _by_protocol(reports: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        groups.setdefault(report["protocol"][FINGERPRINT], []).append(report)
    return list(groups.values())


def _popularity(record: RunRecord) -> str:
    """What the reports say about the model against popularity."""
    model = record.reports[0]["metrics"]
    baseline = next((one["metrics"] for one in record.reports if one["model"] == "popularity"), None)
    text = "the model learns what is popular in its log."
    if "coverage@10" in model:
        text += f" Its top 10 over all test users cover {model['coverage@10']:.4f} of the items"
        covered = f", recommending by popularity {baseline['coverage@10']:.4f}" if baseline else ""
        text += covered + "; items outside are never shown first."
    return text


def _license_line(options: CardOptions) -> str:
    named = options.license_name or options.license
    link = f" ({options.license_link})" if options.license_link else ""
    known = (
        "The license of the weights is unknown; ask the author before you use them."
        if options.license == "unknown"
        else f"Weights: {named}{link}."
    )
    return (
        known
        + " The code (`*.py`) is Apache-2.0. The training data is not part of this repository and keeps its own terms."
    )
