"""A study as a folder that the Hub shows as a data set: card, report, figures, fits, runs as Parquet and JSON lines.

    README.md          the card: metadata of the Hub, then the report in Markdown
    report.html        the same in one file, figures inside
    figures/           PNG and SVG
    analysis.json      laws, intervals, held-out predictions, ablations
    runs.parquet       a row per run
    runs.jsonl         the run records without their training histories
    study.yaml         what was run

Nothing is typed by hand: every number is computed from the run records.
"""

import base64
import dataclasses
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.data.splits import LEAVE_ONE_OUT
from sr_transformers.figures import save
from sr_transformers.public import plain
from sr_transformers.records import read_json, write_whole
from sr_transformers.scaling.laws import figures
from sr_transformers.scaling.laws.forms import UNIQUE, D, N
from sr_transformers.scaling.laws.points import LOSS, METRIC, Points
from sr_transformers.scaling.studies.analysis import FLOOR_FILE, Analysis, StudyRun, analyse, load_runs
from sr_transformers.scaling.studies.curve_figures import compute_figure, curve_of, learning_curves_figure
from sr_transformers.scaling.studies.points_table import table_of, write_points
from sr_transformers.scaling.studies.runner import STUDY_FILE
from sr_transformers.scaling.studies.sentences import METRIC_NAMES, duration_of, sentences
from sr_transformers.scaling.studies.teacher import SAMPLED_FILE


def write_report(study: str | Path, output: str | Path, draws: int = 200, floor: str | Path | None = None) -> Analysis:
    """Analyses a study folder and writes the published form.

    Args:
        floor: for a log from `scaling sample`, the `sampled.json` beside it, with the loss that no model can go below;
            it is kept in the study's folder.

    Raises:
        FileNotFoundError: if `study` is no study folder with finished runs, or `floor` is not there.
        ValueError: if `floor` is another file, or that of another log or split.
        FileExistsError: if `output` is a folder of something else.
        ModuleNotFoundError: without matplotlib (extra `figures`).
    """
    study, output = Path(study), Path(output)
    if output.exists() and any(output.iterdir()) and not (output / "analysis.json").exists():
        raise FileExistsError(f"{output} is not empty and holds no report; choose another output folder.")
    if floor is not None:
        keep_floor(study, Path(floor))
    found = analyse(study, draws)
    name = found.runs[0].record.data["source"]["name"].rsplit(".", 1)[0]
    output.mkdir(parents=True, exist_ok=True)
    # First: it says that the folder is a report's, should the disk be full before the rest is written.
    write_whole(output / "analysis.json", json.dumps(found.document, indent=2) + "\n")
    (output / "figures").mkdir(exist_ok=True)
    drawn = [(label, save(make(), output / "figures", label)) for label, make in figures_of(found, name)]
    _tables(found, name, output)
    text = markdown(found, name, [label for label, _ in drawn])
    write_whole(output / "README.md", _card(name) + text)
    write_whole(output / "report.html", _html(found, name, [(label, files[0]) for label, files in drawn]))
    if (study / STUDY_FILE).is_file() and study.resolve() != output.resolve():
        write_whole(output / STUDY_FILE, (study / STUDY_FILE).read_text())
    return found


def keep_floor(study: Path, floor: Path) -> None:
    """Copies what `scaling sample` said of a log into the folder of a study of that log, and of no other."""
    if not floor.is_file():
        raise FileNotFoundError(f"{floor} is no file; --floor takes the {SAMPLED_FILE} that `scaling sample` wrote.")
    content = read_json(floor)
    if not isinstance(content, dict) or not {"last_loss", "last_loss_error"} <= set(content):
        raise ValueError(f"{floor} is not what `scaling sample` writes: it has no last_loss and last_loss_error.")
    data = load_runs(study)[0].record.data  # or nothing is put there
    if data["split"] != LEAVE_ONE_OUT:
        raise ValueError(
            f"{floor} has the loss of every user's last item, and {study} is of the split {data['split']}, which tests "
            f"on others: there is no floor for it. Prepare the sampled log with --split {LEAVE_ONE_OUT} for one."
        )
    for what in ("users", "interactions"):
        there, here = content.get(what), data["counts"].get(what)
        if None not in (there, here) and there != here:
            raise ValueError(
                f"{floor} is of a log of {there:,} {what}, and that of {study} has {here:,}: "
                "give the file that `scaling sample` wrote beside this log, which must be prepared whole."
            )
    write_whole(study / FLOOR_FILE, json.dumps(content, indent=2) + "\n")


def markdown(found: Analysis, name: str, labels: list[str]) -> str:
    """The report, figures linked."""
    document = found.document
    lines = [f"# Scaling study on {plain(name)}", "", plain(_what(found)), ""]
    lines += [f"- {plain(sentence)}" for sentence in sentences(document)]
    lines += [f"- Not answered: {plain(note)}" for note in found.notes]
    for label in labels:
        lines += ["", f"![{label}](figures/{label}.png)"]
    for title, table in _tables_of(found):
        lines += ["", f"## {title}", "", _markdown_table(table)]
    return "\n".join(lines) + "\n"


def _what(found: Analysis) -> str:
    records = [run.record for run in found.runs]
    data, first = records[0].data, min(record.started for record in records)
    protocol = records[0].reports[0]["protocol"]
    seen = "seen items removed" if protocol["filter_seen"] else "seen items kept"
    hardware = records[0].hardware
    return (
        f"{len(found.runs)} runs on {data['counts']['users']:,} users, {data['counts']['items_in_vocabulary']:,} "
        f"items, {data['counts']['train_interactions']:,} training interactions ({data['split']}); N from "
        f"{min(r.num_non_embedding_parameters for r in records):,} to "
        f"{max(r.num_non_embedding_parameters for r in records):,}; test targets by full ranking, {seen}. Begun "
        f"{first[:10]}, {found.document['training_hours']:.1f} hours of training on {hardware['device']} with "
        f"{hardware['threads']} thread(s)."
    )


def figures_of(found: Analysis, name: str) -> list[tuple[str, Callable[[], Any]]]:
    """The figures of a study: what each is called, and what draws it."""
    part = f"{found.fraction:.0%} of users, {duration_of(found.epochs)}"
    name += " (a fit, not a law)" if found.document["reservations"] else ""
    made: list[tuple[str, Callable[[], Any]]] = []
    for law, label in (("n", "loss"), *METRIC_NAMES.items()):
        made += _of_size(found, name, law, label, part)
    series = found.members.get("n", [])
    if any(len(curve_of(run)) > 1 for run in series):
        made.append(("learning-curves", lambda: learning_curves_figure(series, f"{name}: learning curves ({part})")))
        made.append(("compute", lambda: compute_figure(series, f"{name}: loss against compute ({part})")))
    if "n" in found.held:
        title = f"{name}: held-out sizes, predicted against measured loss"
        made.append(("predicted-measured", lambda: figures.predicted_figure(found.held["n"], title)))
    joint = found.closest
    if joint is not None:
        made.append(("size-and-data", lambda: figures.joint_figure(
            joint.points, joint.fitted, f"{name}: loss against size for several amounts of data")))  # fmt: skip
        made.append(("data", lambda: figures.data_figure(joint.points, joint.fitted, f"{name}: loss against data")))
        if found.together:
            ranges = {key: (float(joint.points.columns[key].min()), float(joint.points.columns[key].max()))
                      for key in (N, D)}  # fmt: skip
            vocabulary = found.runs[0].record.recipe["model"]["vocab_size"]
            made.append(("isoloss", lambda: figures.isoloss_figure(
                joint.fitted, joint.points, vocabulary, f"{name}: lines of equal loss")))  # fmt: skip
            made.append(("isoflop", lambda: figures.isoflop_figure(
                joint.fitted, ranges, vocabulary, f"{name}: same compute, different sizes",
                found.document["compute_optimal"][0]["passes"])))  # fmt: skip
    if "repeated" in found.laws:
        repeated = found.laws["repeated"]
        chosen = _repeating(repeated.points)
        # Runs that were stopped at different epochs are no study of repetition.
        planned = {run.plan["epochs"] for run in found.runs if not run.plan["settings"]}
        if chosen is not None and len(planned) > 1:
            made.append(("repetition", lambda: figures.repetition_figure(
                chosen, f"{name}: more epochs on the same data",
                repeated.fitted if repeated.fitted.usable else None)))  # fmt: skip
    if found.document["shapes"]:
        made.append(("shape", lambda: figures.shape_figure(found.document["shapes"], f"{name}: shape at the same N")))
    return made


def _repeating(points: Points) -> Points | None:
    """The sizes with several numbers of epochs on one amount of distinct data: the largest amount that was seen for
    three numbers of epochs or more, else the one with most; None if no size has several."""
    data, sizes = points.columns[UNIQUE], points.columns[N]
    epochs = np.round(points.columns[D] / data, 1)

    def several(amount: float) -> np.ndarray:
        there = np.isclose(data, amount, rtol=0.05)
        return there & np.array([len(np.unique(epochs[there & (sizes == n)])) > 1 for n in sizes])

    # The largest amount first: of equals `max` takes the first.
    best = max((several(one) for one in np.unique(data)[::-1]), key=lambda mask: min(len(np.unique(epochs[mask])), 3))
    return points.take(best) if best.any() else None


def _of_size(found: Analysis, name: str, law: str, label: str, part: str) -> list[tuple[str, Callable[[], Any]]]:
    """Loss or a metric against size: the law on all sizes, and on all but the largest two."""
    one, held = found.laws.get(law), found.held.get(law)
    if one is None:
        return []
    value = "test loss, nats" if law == "n" else label
    file = label.lower().replace("@", "")
    title = f"{name}: {label} against size ({part})"
    made: list[tuple[str, Callable[[], Any]]] = [
        (f"{file}-size", lambda: figures.law_figure(one.points, one.fitted, one.refits, title, value=value))
    ]
    if held:
        other = f"{name}: {label} of the two largest sizes, predicted"
        made.append(
            (
                f"{file}-held-out",
                lambda: figures.law_figure(one.points, held.fitted, held.refits, other, held, value),
            )
        )
    return made


def _tables_of(found: Analysis) -> list[tuple[str, list[dict[str, Any]]]]:
    document, tables = found.document, []
    for law, label in (("n", "Loss"), *METRIC_NAMES.items()):
        if law in document["held_out"]:
            tables.append((f"{label} of the largest sizes, held out", document["held_out"][law]["rows"]))
    if document["closest"] in document["held_out"]:
        rows = document["held_out"][document["closest"]]["rows"]
        tables.append(("Loss on all of the data, predicted from little", rows))
    for key, label in (("compute_optimal", "Compute-optimal"), ("epochs_worth", "When more epochs stop paying")):
        if document[key]:
            tables.append((label, document[key]))
    if document["ablations"]:
        tables.append(("Ablations", document["ablations"]))
    if document["shapes"]:
        tables.append(("Shapes", document["shapes"]))
    if document["ways"]:
        tables.append(("Less data in other ways", document["ways"]))
    tables.append(("Runs", [_run_row(run) for run in found.runs]))
    return tables


def size_table(found: Analysis) -> str:
    """Loss and metrics by size at the main amount of data and epochs: means over seeds and their standard deviations,
    and whether learning rate and dropout were tuned for the size; empty if no law of size was tried."""
    if "n" not in found.laws:
        return ""
    columns = {"test loss": (found.laws["n"].points, LOSS)} | {
        label: (found.laws[key].points, METRIC) for key, label in METRIC_NAMES.items() if key in found.laws
    }
    rows, tuned = [], found.document["tuning"]
    for n in np.unique(found.laws["n"].points.columns[N]).tolist():
        one = next(run for run in found.members["n"] if run.record.num_non_embedding_parameters == n)
        row: dict[str, Any] = {"N": int(n), "with item table": one.size_with_table}
        if tuned:
            row["rates"] = "tuned" if str(int(n)) in tuned.get("learning_rates", ()) else "carried"
        for label, (points, column) in columns.items():
            values = points.columns[column][points.columns[N] == n]
            spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
            row |= {"runs": len(values), label: f"{values.mean():.4g}{spread}"}
        rows.append(row)
    return _markdown_table(rows)


def held_out_table(found: Analysis) -> str:
    """The two largest sizes against what the smaller ones predict, for loss and metrics; empty if there is none."""
    rows = [
        {
            "predicted": label,
            "N": int(row["N"]),
            "measured value": row["measured"],
            "predicted value": row["predicted"],
            "95 % interval": "–" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}",
            "inside": row["inside"],
        }
        for law, label in (("n", "loss"), *METRIC_NAMES.items())
        if law in found.document["held_out"]
        for row in found.document["held_out"][law]["rows"]
    ]
    return _markdown_table(rows) if rows else ""


def ablation_table(found: Analysis) -> str:
    """Variants and what they change; empty if there is none."""
    keys = ("variant", "N", "fraction", "epochs", "seeds", "loss", "loss_minus_plain", "pairs")
    rows = [{key: row[key] for key in keys} for row in found.document["ablations"]]
    return _markdown_table(rows) if rows else ""


def _run_row(run: StudyRun) -> dict[str, Any]:
    record = run.record
    return {
        "run": run.name,
        "N": record.num_non_embedding_parameters,
        "D": record.num_train_interactions,
        "seen": record.num_interactions_seen,
        "learning_rate": record.recipe["training"]["learning_rate"],
        "loss": run.loss,
        "hr@10": run.metric("hr@10"),
        "ndcg@10": run.metric("ndcg@10"),
        "minutes": record.seconds / 60,
    }


def _tables(found: Analysis, name: str, output: Path) -> None:
    write_points(table_of(name, found.runs), output / "runs.parquet")
    lines = []
    for run in found.runs:
        record = dataclasses.asdict(run.record)
        record["history"] = []
        lines.append(json.dumps({"run": run.name, **record}))
    write_whole(output / "runs.jsonl", "\n".join(lines) + "\n")


def _card(name: str) -> str:
    return (
        "---\n"
        "library_name: sr_transformers\n"
        "license: apache-2.0\n"
        f"pretty_name: {json.dumps(f'Scaling study on {name}')}\n"
        "tags: [recommendation, sequential-recommendation, scaling-laws]\n"
        "configs:\n- config_name: runs\n  data_files: runs.parquet\n"
        "---\n\n"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    return str(value)


def _markdown_table(rows: list[dict[str, Any]]) -> str:
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(plain(_cell(row[key])) for key in head)} |" for row in rows)])


def _html(found: Analysis, name: str, drawn: list[tuple[str, Path]]) -> str:
    body = [f"<h1>Scaling study on {html.escape(name)}</h1>", f"<p>{html.escape(_what(found))}</p>", "<ul>"]
    body += [f"<li>{html.escape(sentence)}</li>" for sentence in sentences(found.document)]
    body += [f"<li>Not answered: {html.escape(note)}</li>" for note in found.notes]
    body.append("</ul><div class='figures'>")
    for label, png in drawn:
        data = base64.b64encode(png.read_bytes()).decode()
        body.append(f"<img alt='{html.escape(label)}' src='data:image/png;base64,{data}'>")
    body.append("</div>")
    for title, table in _tables_of(found):
        head = "".join(f"<th>{html.escape(key)}</th>" for key in table[0])
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
            for row in table
        )
        body.append(f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{rows}</table>")
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
        ".figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem}img{width:100%}"
        "table{border-collapse:collapse;font-size:13px}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;"
        "text-align:right}td:first-child,th:first-child{text-align:left}"
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Scaling study on {html.escape(name)}</title>"
        f"<style>{style}</style><body>{''.join(body)}</body></html>\n"
    )
