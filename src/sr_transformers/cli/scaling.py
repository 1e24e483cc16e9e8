"""`sr-transformers scaling run | fit | predict | advise | report | sample`: scaling laws from measured runs.

`fit` and `predict` read tables and records and load neither torch nor transformers.
"""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sr_transformers.cli.values import MOST_DRAWS, at_least, duration

if TYPE_CHECKING:
    from sr_transformers.scaling.laws.constraints import Constraints
    from sr_transformers.scaling.laws.points import Points

LAWS = ("n", "d", "joint", "kaplan", "repeated", "power", "saturating")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declares the command, its parts and their options."""
    group = commands.add_parser("scaling", help="measure, fit and use scaling laws")
    parts = group.add_subparsers(dest="part", required=True, metavar="PART")

    fit = parts.add_parser("fit", help="fit a law to a table of points or to run records")
    _add_points(fit)
    fit.add_argument("--law", choices=LAWS, default="joint", help="form of the law")
    fit.add_argument("--starts", type=at_least(1, MOST_DRAWS), default=24, metavar="K", help="random starting points")
    _add_bootstrap(fit)
    fit.add_argument(
        "--compare", nargs="*", action="extend", choices=LAWS, metavar="LAW", help="other forms to compare with"
    )
    fit.add_argument(
        "--fix", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="parameters taken as given"
    )
    fit.add_argument(
        "--tie", nargs="+", action="extend", default=[], metavar="NAME=NAME", help="equal parameters: alpha=beta"
    )
    fit.add_argument("--seed", type=at_least(0), default=0, help="of starting points and refits")
    fit.add_argument("--json", metavar="FILE", help="write the fit here")
    fit.set_defaults(run=_fit)

    predict = parts.add_parser("predict", help="hold out the largest sizes and predict them, or use a fit")
    predict.add_argument("--fit", metavar="FILE", help="a fit as JSON, in place of points")
    _add_points(predict, nargs="*")
    predict.add_argument("--law", choices=LAWS, default="n", help="form of the law")
    predict.add_argument(
        "--hold-out", type=at_least(1), default=2, metavar="K", help="largest sizes that the fit must not see"
    )
    _add_bootstrap(predict)
    predict.add_argument("--n", type=float, nargs="+", metavar="N", help="with --fit: sizes to predict")
    predict.add_argument("--d", type=float, metavar="D", help="with --fit: interactions")
    predict.add_argument("--unique", type=float, metavar="U", help="with --fit of law repeated: distinct interactions")
    predict.add_argument("--flops", type=float, nargs="+", metavar="C", help="with --fit: compute-optimal N and D")
    predict.add_argument("--vocab-size", type=at_least(0), default=0, metavar="V", help="count the head's FLOPs too")
    predict.add_argument("--seed", type=at_least(0), default=0, help="of starting points and refits")
    predict.add_argument("--json", metavar="FILE")
    predict.set_defaults(run=_predict)

    run = parts.add_parser("run", help="do the runs of a study file; goes on where it was stopped")
    run.add_argument("study", help="a YAML, or a name that `sr-transformers recipes` lists, for example ml-1m")
    run.add_argument("--output", required=True, help="folder of the study")
    run.add_argument("--data", help="prepared folder; the study's own if left out")
    run.add_argument(
        "--budget", type=_minutes, metavar="TIME", help="for example 90m, 2h or 1h30m: the runs worth most in that time"
    )
    run.add_argument("--dry-run", action="store_true", help="estimate only")
    run.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="K", help="runs side by side, each on its share of cores"
    )
    run.add_argument("--keep-weights", action="store_true", help="keep the model of every run")
    run.set_defaults(run=_run, go_on="the same command goes on with the run that {output} lacks.")

    sample = parts.add_parser("sample", help="sample a log from a trained checkpoint: its loss is the log's floor")
    sample.add_argument("--model", required=True, help="the teacher: a folder or a Hub id")
    sample.add_argument("--revision", help="branch, tag or commit of the teacher on the Hub")
    sample.add_argument("--data", required=True, help="the prepared log that it was trained on")
    sample.add_argument("--interactions", type=at_least(1), required=True, metavar="K", help="how many to sample")
    sample.add_argument("--output", required=True, help="folder to write log.parquet and sampled.json to")
    sample.add_argument("--seed", type=at_least(0), default=0, help="of the draws")
    sample.set_defaults(run=_sample)

    report = parts.add_parser("report", help="write a study's report: Markdown, HTML, figures, fits, runs")
    report.add_argument("study", help="folder of a study")
    report.add_argument("--output", required=True, help="folder to write")
    _add_bootstrap(report)
    report.add_argument(
        "--floor",
        metavar="FILE",
        help="the sampled.json of the log, if `sample` made it: is the fitted floor its loss?",
    )
    report.set_defaults(run=_report)

    advise = parts.add_parser("advise", help="what larger models would bring on your log, from a small study of it")
    advise.add_argument("--data", required=True, help="prepared folder")
    advise.add_argument("--budget", type=_minutes, required=True, metavar="TIME", help="for example 90m, 2h or 1h30m")
    advise.add_argument("--output", help="folder of the study; DATA-advice beside the data if left out")
    advise.add_argument("--recipe", help="a YAML or a name; the one that suits the log if left out")
    advise.add_argument("--epochs", type=float, help="of a model of the recipe's size; the recipe's if left out")
    advise.add_argument(
        "--jobs", type=at_least(1), metavar="K", help="runs side by side; one for every core if left out, one on a GPU"
    )
    advise.add_argument("--gpu-flops", type=float, default=312e12, help="peak FLOP/s of the accelerator to price")
    advise.add_argument("--utilisation", type=float, default=0.3, help="part of the peak that training reaches")
    advise.add_argument("--price", type=float, default=2.0, help="of an hour")
    advise.add_argument("--json", metavar="FILE", help="write the numbers here")
    advise.set_defaults(run=_advise, go_on="the same command goes on with the runs that are not done yet.")


def _minutes(text: str) -> float:
    """The type of an option that takes a time: its minutes."""
    return duration(text) / 60


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap", type=at_least(0, MOST_DRAWS), default=200, metavar="K", help="refits for the intervals; 0: none"
    )


def _add_points(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    parser.add_argument(
        "points", nargs=nargs, help="a CSV, TSV or Parquet table, run.json files or folders of them, or a study"
    )
    for flag, what in (
        ("n", "parameters in the blocks"),
        ("d", "training interactions"),
        ("c", "training FLOPs, in place of D: D = C / (6 N)"),
        ("unique", "distinct interactions behind D"),
        ("loss", "test loss, nats"),
        ("metric", "HR or NDCG, a fraction"),
    ):
        parser.add_argument(f"--{flag}-column", metavar="NAME", help=f"the table's column of {what}")
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="rows of the table to read"
    )
    parser.add_argument(
        "--metric", help="of run records, or the table's column, for --law saturating; ndcg@10 if left out"
    )
    parser.add_argument(
        "--drop-largest-losses", type=at_least(0), default=0, metavar="K", help="leave out the K worst points"
    )


def _read(options: argparse.Namespace) -> "Points":
    # The BLAS behind numpy starts a thread a core for matrices of five rows; this must be said before it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sr_transformers.scaling.laws.forms import law_named
    from sr_transformers.scaling.laws.points import read_table
    from sr_transformers.scaling.laws.records_table import read_records

    paths = [Path(path) for path in options.points]
    if not paths:
        raise ValueError("give a table of points or run records, or --fit FILE.")
    columns = {flag: getattr(options, f"{flag}_column") for flag in ("n", "d", "c", "unique", "loss", "metric")}
    if any(path.is_dir() or path.suffix == ".json" for path in paths):
        flags = [f"--{flag}-column" for flag, column in columns.items() if column] + ["--where"] * bool(options.where)
        if flags:
            raise ValueError(f"{flags[0]} is for a table, and {paths[0]} is none: leave it out, or give a table.")
        points = read_records(paths, law_named(options.law), options.metric or "ndcg@10")
    else:
        if len(paths) > 1:
            raise ValueError(f"give one table, or run records; these are {len(paths)} tables.")
        if options.metric and options.metric_column:
            raise ValueError("--metric and --metric-column both name the table's column of the metric: give one.")
        names = {"N": columns["n"], "D": columns["d"], "C": columns["c"], "unique": columns["unique"],
                 "loss": columns["loss"], "metric": columns["metric"] or options.metric}  # fmt: skip
        where = _pairs("--where", options.where, "study=ml-1m")
        points = read_table(paths[0], names, None if getattr(options, "compare", None) else options.law, where)
    return points.drop_largest_losses(options.drop_largest_losses)


def _pairs(flag: str, texts: list[str], example: str) -> dict[str, str]:
    """Values by name of NAME=VALUE, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{flag} {text!r}: write NAME=VALUE, for example {flag} {example}.")
        if name in found:
            raise ValueError(f"{flag} gives {name} twice, {found[name]} and {value}: give it once.")
        found[name] = value
    return found


def _fit(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_place, write_document

    if options.compare and (options.fix or options.tie):
        raise ValueError("--compare fits every form with all of its parameters free: leave out --fix and --tie, or it.")
    check_place(options.json, options.points, ("law", "params"))
    points = _read(options)
    from sr_transformers.scaling.laws.bootstrap import bootstrap
    from sr_transformers.scaling.laws.fit_file import describe_fit, fit_text
    from sr_transformers.scaling.laws.fitting import fit
    from sr_transformers.scaling.laws.model_selection import compare

    constraints = _constraints(options.fix, options.tie)
    fitted = fit(options.law, points, options.starts, options.seed, constraints=constraints)
    refits = bootstrap(fitted, points, options.bootstrap, options.seed)
    comparison = compare(points, [options.law, *options.compare], seed=options.seed) if options.compare else None
    document = describe_fit(fitted, points, refits, comparison)
    write_document(options.json, document)
    print(fit_text(document))


def _constraints(fixed: list[str], tied: list[str]) -> "Constraints":
    from sr_transformers.scaling.laws.constraints import Constraints

    values: dict[str, float] = {}
    for name, value in _pairs("--fix", fixed, "alpha=0.35").items():
        try:
            values[name] = float(value)
        except ValueError:
            raise ValueError(f"--fix '{name}={value}': write NAME=VALUE, for example --fix alpha=0.35.") from None
    pairs = [tuple(text.split("=")) for text in tied]
    for pair, text in zip(pairs, tied, strict=True):
        if len(pair) != 2:
            raise ValueError(f"--tie {text!r}: write NAME=NAME, for example --tie alpha=beta.")
    return Constraints(values, tuple(pairs))  # type: ignore[arg-type]


def _predict(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_place, write_document

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    check_place(options.json, filter(None, (*options.points, options.fit)), ("law", "params"))
    if options.fit:
        answers = _from_fit(options)
    else:
        points = _read(options)
        from sr_transformers.scaling.laws.fit_file import plain
        from sr_transformers.scaling.laws.forms import law_named
        from sr_transformers.scaling.laws.prediction import hold_out_largest

        held = hold_out_largest(points, options.law, options.hold_out, options.bootstrap, options.seed)
        answers = plain(
            {
                "law": held.fitted.law,
                "quantity": points.quantity(law_named(held.fitted.law)),
                "status": held.fitted.status,
                "reason": held.fitted.reason,
                "params": held.fitted.params,
                "no_intervals": held.refits.reason or None,
                "reach": held.reach,
                "dropped": points.dropped,
                "warnings": points.warnings,
                "rows": held.rows,
            }
        )
    write_document(options.json, answers)
    print(json.dumps(answers, indent=2))


def _from_fit(options: argparse.Namespace) -> dict:
    import numpy as np

    from sr_transformers.scaling.laws.fit_file import read_fit
    from sr_transformers.scaling.laws.forms import law_named
    from sr_transformers.scaling.laws.prediction import compute_optimal

    document = read_fit(options.fit)
    law = law_named(document["law"])
    if options.points:
        raise ValueError("give points or --fit, not both.")
    for flag in ("n", "d", "unique", "flops"):
        given = getattr(options, flag)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"--{flag} is {value:g}; it must be a finite number above 0.")
    needed = {name: flag for name, flag in (("D", "d"), ("unique", "unique")) if name in law.variables}
    given_all = all(getattr(options, flag) is not None for flag in needed.values())
    if not (options.n or options.flops or (law.name == "d" and given_all)):
        raise ValueError("--fit answers --n N ... (with --d D where the law needs it) or --flops C ...")
    if options.n and law.name == "d":
        raise ValueError("law d does not know N: give --d alone.")
    answers: dict = {key: document.get(key) for key in ("law", "quantity", "status", "reason", "params", "ranges")}
    if options.n or law.name == "d":
        if not given_all:
            missing = next(flag for flag in needed.values() if getattr(options, flag) is None)
            raise ValueError(f"law {law.name} needs --{missing} with --n.")
        asked = [({"N": n} if options.n else {}) | {name: getattr(options, flag) for name, flag in needed.items()}
                 for n in options.n or [None]]  # fmt: skip
        columns = {name: np.array([one[name] for one in asked]) for name in law.variables}
        values = law.predict(document["params"], columns).tolist()
        answers["predicted"] = [
            {**one, "value": value, "beyond": _beyond(one, document.get("ranges") or {})}
            for one, value in zip(asked, values, strict=True)
        ]
    if options.flops:
        best = [compute_optimal(document["params"], flops, options.vocab_size, law=law) for flops in options.flops]
        answers["compute_optimal"] = [
            {"flops": flops, **one, "beyond": _beyond(one, document.get("ranges") or {})}
            for flops, one in zip(options.flops, best, strict=True)
        ]
    return answers


def _beyond(place: dict, ranges: dict) -> str | None:
    """In which variables, and how far, a place lies outside the points that were fitted."""
    said = []
    for name, (low, high) in ranges.items():
        if name in place and place[name] > high * (1 + 1e-9):
            said.append(f"{name} is {place[name] / high:.3g} times the largest fitted")
        elif name in place and place[name] < low * (1 - 1e-9):
            said.append(f"{name} is {place[name] / low:.3g} times the smallest fitted")
    return "; ".join(said) or None


def _run(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.scaling.studies.runner import run_study
    from sr_transformers.scaling.studies.study import Study
    from sr_transformers.training.progress import silence
    from sr_transformers.training.train import leave_processes

    silence()
    study = Study.load(options.study)
    run_study(study, options.output, options.data, options.budget, options.dry_run, options.keep_weights, options.jobs)
    leave_processes()


def _sample(options: argparse.Namespace, rest: list[str]) -> None:
    import dataclasses

    from sr_transformers.data.prepared import PreparedData
    from sr_transformers.evaluation.loading import Checkpoint
    from sr_transformers.scaling.studies.teacher import sample_log

    checkpoint = Checkpoint(options.model, revision=options.revision)
    found = sample_log(
        checkpoint.model(), PreparedData(options.data).verified(), options.interactions, options.output, options.seed
    )
    print(json.dumps(dataclasses.asdict(found), indent=2))


def _report(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.scaling.studies.report import write_report
    from sr_transformers.scaling.studies.sentences import sentences

    found = write_report(options.study, options.output, options.bootstrap, options.floor)
    print("\n".join(sentences(found.document)))
    print(f"written: {Path(options.output) / 'report.html'} and README.md")


def _advise(options: argparse.Namespace, rest: list[str]) -> None:
    from sr_transformers.cli.documents import check_place, write_document
    from sr_transformers.scaling.laws.fit_file import plain
    from sr_transformers.scaling.studies.advise import Hardware, advise
    from sr_transformers.training.progress import silence

    check_place(options.json, filter(None, (options.data, options.recipe)), ("law", "sizes", "hardware"))
    silence()
    hardware = Hardware(options.gpu_flops, options.utilisation, options.price)
    output = options.output or f"{options.data.rstrip('/')}-advice"
    answer, numbers = advise(
        options.data, output, options.budget, options.epochs, options.recipe, hardware, jobs=options.jobs
    )
    write_document(options.json, plain(numbers))
    print(answer)
