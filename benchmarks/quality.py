"""python benchmarks/quality.py --log ml-1m=ml-1m.parquet ...: models of other libraries beside ours, each at its best.

Every log is prepared once (leave-one-out). Each participant trains on it until validation NDCG@10 has not improved for
`--patience` epochs, or for `--minutes` of CPU time on one thread (then the row is marked), keeps its best epoch, and
all are ranked by our evaluator on the same test targets. Of a peer come vectors of users and items, whose product is
what it would score with. Ours is `sr-transformers train auto`, and with `--tune 1h` also `sr-transformers tune`.

Minutes are of CPU time, so that a machine that others use tells the truth as well. A participant that has finished is
not trained again with the same log and options: its folder below `--work` has its result. Writes the table of README.md
beside this file and results/quality/LOG.json, where participants that were not asked for keep theirs.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from sr_transformers import PreparedData, Recommender, RunRecord, prepare
from sr_transformers.data.logs import sources
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.evaluator import evaluate, known_past, rank_histories, target_tokens
from sr_transformers.marks import put
from sr_transformers.records import source_commit, write_whole

PAGE = Path(__file__).parent / "README.md"
# How the log is prepared, and which of the published settings the peers get.
DENSE = {"width": 64, "layers": 2, "heads": 1, "dropout": 0.1, "window": 200}
SPARSE = {"width": 256, "layers": 1, "heads": 1, "dropout": 0.2, "window": 50}
LOGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ml-1m": ({}, DENSE),
    "ml-100k": ({}, DENSE),
    "movietweetings-5-core": ({"min_interactions": 5}, SPARSE),
    "abxi-afk": ({}, SPARSE),
    "online-retail": ({}, DENSE),
    "complete-journey-5-core": ({"min_interactions": 5}, DENSE),
}
# name -> (worker, its environment, its task)
PEERS = {
    "RecTools SASRec": ("rectools_quality", "rectools", "sasrec"),
    "RecTools eSASRec": ("rectools_quality", "rectools", "esasrec"),
    "RecTools fast": ("rectools_quality", "rectools", "fast"),
    "RePlay SasRec": ("replay_quality", "replay", "sasrec"),
}
AUTO, TUNE = "ours, auto", "ours, tune"
HEAD = ("log", "model", "HR@10", "NDCG@10", "coverage@10", "less popular", "minutes", "minutes of ours to that")


class Vectors:
    """Scores by the product of vectors of histories and items.

    Args:
        name: for reports.
        known: histories whose vectors there are; others are not asked for.
        users: `(U, d)`, in the order of `known`.
        items: `(V - 2, d)`, by token less the special ones; rows of NaN for items that are never recommended.
    """

    gives_log_probabilities = False

    def __init__(self, name: str, known: Sequence[np.ndarray], users: np.ndarray, items: np.ndarray):
        self.name, self.users, self.items = name, users, items
        self.places = {history.tobytes(): place for place, history in enumerate(known)}

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        places = [self.places[np.ascontiguousarray(history).tobytes()] for history in histories]
        scores = np.full((len(histories), len(self.items) + NUM_SPECIAL), -np.inf, np.float32)
        scores[:, NUM_SPECIAL:] = np.nan_to_num(self.users[places] @ self.items.T, nan=-np.inf)
        return torch.from_numpy(scores)


def write_histories(data: PreparedData, folder: Path) -> None:
    """histories.npz, all that a peer sees: items without special tokens, numbered from 0; no test target."""
    arrays: dict[str, Any] = {"num_items": data.vocab_size - NUM_SPECIAL}
    parts = {"train": [data.train_items(row, stop) for row, stop in enumerate(data.train_lengths.tolist())]}
    parts |= {part: known_histories(data, part) for part in ("validation", "test")}
    for name, histories in parts.items():
        arrays[f"{name}_items"] = np.concatenate([history - NUM_SPECIAL for history in histories]).astype(np.int64)
        arrays[f"{name}_ends"] = np.cumsum([len(history) for history in histories])
    tokens = target_tokens(data, data.targets("validation"))
    arrays["targets"] = np.where(tokens >= NUM_SPECIAL, tokens - NUM_SPECIAL, -1)
    np.savez(folder / "histories.npz", **arrays)


def known_histories(data: PreparedData, part: str) -> list[np.ndarray]:
    """What a scorer without moments is shown before each target of a part."""
    popularity = Vectors("", [], np.zeros((0, 1)), np.zeros((0, 1)))
    return [known_past(popularity, data, row, position).items for row, position in data.targets(part).tolist()]


def less_popular_share(scorer: Scorer, data: PreparedData, filter_seen: bool) -> float:
    """Share of the first ten places of all users that hold an item of the less popular 80 % of the catalogue."""
    counts = data.item_counts[NUM_SPECIAL:]
    less = np.zeros(data.vocab_size, bool)
    less[NUM_SPECIAL + np.argsort(counts, kind="stable")[: int(0.8 * len(counts))]] = True
    found, rows = [], data.targets("test")
    for first in range(0, len(rows), 256):
        block = rows[first : first + 256]
        shown = [known_past(scorer, data, row, position) for row, position in block.tolist()]
        seen = [past.items for past in shown] if filter_seen else None
        top = rank_histories(scorer, shown, target_tokens(data, block), seen, (10,))[0].top
        found.append(less[np.asarray(top)].mean())
    return float(np.mean(found))


def train_peer(name: str, data: PreparedData, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A peer in its environment: its curve, and how its vectors rank."""
    worker, environment, task = PEERS[name]
    filter_seen = data.filters_seen()
    settings = {"task": task, "folder": str(data.path), "output": str(output), "seed": options.seeds[0]}
    settings |= {"filter_seen": filter_seen, "minutes": options.minutes, "patience": options.patience}
    settings |= LOGS[options.current][1]
    python = options.environments / environment / "bin" / "python"
    if not python.exists():
        return {"skipped": f"no environment {environment}; run benchmarks/environments.py"}
    (output / "settings.json").write_text(json.dumps(settings))
    words = [str(python), str(Path(__file__).parent / "peers" / f"worker_{worker}.py"), str(output / "settings.json")]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    variables.pop("PYTHONPATH", None)
    with (output / "log").open("w") as log:
        code = subprocess.run(words, env=variables, stdout=log, stderr=subprocess.STDOUT).returncode
    lines = [line for line in (output / "log").read_text().splitlines() if line.startswith(harness.MARK)]
    if not lines:
        return {"skipped": f"exit {code}; its output is in the log of its folder"}
    result = json.loads(lines[-1].removeprefix(harness.MARK))
    if "skipped" in result:
        return result
    with np.load(output / "vectors.npz") as arrays:
        scorer = Vectors(name, known_histories(data, "test"), arrays["test"], arrays["items"])
    del settings["folder"], settings["output"]
    return {"settings": settings, **result, **ranked(scorer, data, filter_seen)}


def train_ours(name: str, seed: int, data: PreparedData, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`train auto` or `tune`, as a user would call it."""
    program = [sys.executable, "-m", "sr_transformers.cli"]
    if name == AUTO:
        words = ["train", "auto", "--data", str(data.path), "--output", str(output / "run"), "--seed", str(seed)]
    else:
        words = ["tune", str(data.path), "--output", str(output / "run"), "--budget", options.tune, "--seed", str(seed)]
    before, start = cpu_of_children(), time.perf_counter()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (output / "log").open("w") as log:
        code = subprocess.run([*program, *words], env=variables, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        raise RuntimeError(f"{name} ended with exit {code}; its output is in {output / 'log'}.")
    busy = (cpu_of_children() - before) / (time.perf_counter() - start)  # CPU seconds per second
    run = output / "run" if name == AUTO else output / "run" / "model"
    record, recommender = RunRecord.load(run), Recommender.from_pretrained(run)
    curve = [
        {
            "epoch": one["epoch"],
            "cpu_minutes": busy * record.seconds / 60 * one["step"] / record.steps,
            "hr@10": one["eval_hr@10"],
            "ndcg@10": one["eval_ndcg@10"],
        }
        for one in record.history
        if "eval_ndcg@10" in one
    ]
    scorer = recommender.scorer
    found = {"command": record.command, "recipe": record.recipe, "curve": curve, "still_improving": False}
    found["cpu_minutes"] = (cpu_of_children() - before) / 60
    return found | ranked(scorer, data, data.filters_seen())


def cpu_of_children() -> float:
    """Seconds of CPU that finished child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ranked(scorer: Scorer, data: PreparedData, filter_seen: bool) -> dict[str, Any]:
    """What the table shows of a scorer, on test targets."""
    report = evaluate(scorer, data, "test", (10,), filter_seen)
    return {
        "protocol": report["protocol"],
        "metrics": report["metrics"] | {"less_popular@10": less_popular_share(scorer, data, filter_seen)},
        "standard_errors": report["standard_errors"],
    }


def done(folder: Path, asked: dict[str, Any], train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result that lies in a folder, if it is of what is `asked`, or that of training now. One that was left out is
    tried again."""
    path = folder / "result.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("asked") == asked and "skipped" not in known:
        return known
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = {"asked": asked, **train()}
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return found


def prepared_log(name: str, file: str, folder: Path) -> PreparedData:
    """The log of a file, prepared in a folder; what it holds already is taken if it is of that file."""
    if not folder.exists():
        prepare(file, folder, split="leave_one_out", **LOGS[name][0])
    data = PreparedData(folder)
    if sources.describe(sources.find_log(file)) != data.manifest["source"]:
        sys.exit(f"{folder} was prepared from another file than {file}: choose another --work.")
    return data


def minutes_until(curve: Sequence[dict[str, float]], quality: float) -> float | None:
    """CPU minutes until validation NDCG@10 is at least so high; None if it never is.

    >>> minutes_until([{"ndcg@10": 0.1, "cpu_minutes": 1.0}, {"ndcg@10": 0.2, "cpu_minutes": 2.0}], 0.15)
    2.0
    """
    return next((one["cpu_minutes"] for one in curve if one["ndcg@10"] >= quality), None)


def table(results: Path) -> str:
    """Markdown: for every log each model, ours last, means over seeds; `*`: still improving when its time was over."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for log in LOGS:
        if not (path := results / f"{log}.json").exists():
            continue
        models = json.loads(path.read_text())["models"]
        ours = [one for one in models.get(AUTO, []) if "curve" in one]
        for name, runs in models.items():
            runs = [one for one in runs if "metrics" in one]
            if not runs:
                continue
            means = [np.mean([one["metrics"][key] for one in runs]) for key in METRICS]
            best = [max(one["curve"], key=lambda epoch: epoch["ndcg@10"]) for one in runs]
            spent = runs if name == TUNE else best  # of a search all of it
            minutes = f"{np.mean([one['cpu_minutes'] for one in spent]):.1f}"
            there = [minutes_until(one["curve"], best[0]["ndcg@10"]) for one in ours] if name in PEERS else []
            known = [one for one in there if one is not None]
            ahead = f"{np.mean(known):.1f}" if known and len(known) == len(there) else "not reached" if there else ""
            mark = "*" if any(one["still_improving"] for one in runs) else ""
            cells = [f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[2]:.3f}", f"{means[3]:.3f}", minutes + mark, ahead]
            lines.append(f"| {log} | {name}{f' ({len(runs)} seeds)' if len(runs) > 1 else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


METRICS = ("hr@10", "ndcg@10", "coverage@10", "less_popular@10")


def main() -> None:
    """Trains what is missing, and writes results and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", nargs="+", metavar="NAME=FILE", default=[], help=f"names are {', '.join(LOGS)}")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of ours; peers have the first one")
    parser.add_argument("--minutes", type=float, default=40, help="CPU minutes after which a peer is ended")
    parser.add_argument("--patience", type=int, default=50, help="epochs without a better validation NDCG@10")
    parser.add_argument("--tune", metavar="BUDGET", help="also run `sr-transformers tune` with this budget, say 1h")
    parser.add_argument("--environments", type=Path, default=harness.HERE / ".environments")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--results", type=Path, default=harness.RESULTS / "quality")
    options = parser.parse_args()
    for word in options.log:
        name, _, file = word.partition("=")
        if name not in LOGS or not file:
            parser.error(f"--log {word}: give NAME=FILE with a name of {', '.join(LOGS)}.")
        options.current, folder = name, options.work / name
        data = prepared_log(name, file, folder / "data")
        if not (data.path / "histories.npz").exists():
            write_histories(data, data.path)
        asked = {"log": data.digest}
        of_peers = {**asked, "seed": options.seeds[0], "minutes": options.minutes, "patience": options.patience}
        path = options.results / f"{name}.json"
        known = json.loads(path.read_text())["models"] if path.exists() else {}
        models: dict[str, list[dict[str, Any]]] = {
            one: runs for one, runs in known.items() if runs and runs[0].get("asked", {}).get("log") == data.digest
        }
        for peer in options.peers:
            output = folder / peer.replace(" ", "-")
            models[peer] = [done(output, of_peers, lambda: train_peer(peer, data, output, options))]  # noqa: B023
        for way, how in ((AUTO, {}), *([(TUNE, {"budget": options.tune})] if options.tune else [])):
            models[way] = []
            for seed in options.seeds:
                output, of_way = folder / f"{way.replace(', ', '-')}-{seed}", {**asked, **how, "seed": seed}
                models[way].append(done(output, of_way, lambda: train_ours(way, seed, data, output, options)))  # noqa: B023
        models = {one: models[one] for one in (*PEERS, AUTO, TUNE) if one in models}
        content = {"command": harness.command(sys.argv), "commit": source_commit(), "hardware": harness.hardware(1)}
        options.results.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**content, "models": models}, indent=1) + "\n")
        for model, runs in models.items():
            for one in runs:
                shown = one.get("metrics", {})
                said = one.get("skipped") or ", ".join(f"{key} {shown[key]:.4f}" for key in METRICS)
                print(f"{name} | {model} | {said}", flush=True)
    put(PAGE, "peers", table(options.results))


if __name__ == "__main__":
    main()
