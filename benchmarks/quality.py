"""python benchmarks/quality.py --log ml-1m=ml-1m.parquet ...: models of other libraries beside ours, each at its best.

Every log is prepared once (leave-one-out). Each participant trains on it until validation NDCG@10 has not improved for
`--patience` epochs, or for `--minutes` of CPU time on one thread (then the row is marked), keeps its best epoch, and
all are ranked by our evaluator on the same test targets. Of a peer come vectors of users and items, whose product is
what it would score with. Ours is `sr-transformers train auto`, and with `--tune 1h` also `sr-transformers tune`.

Minutes are of CPU time, so that a machine that others use tells the truth as well; only the budget of a search is of
the clock, so that it needs a free core. What was asked of a participant, and what came of it, goes into
results/quality/LOG.json as soon as it has finished: asked for the same, it is not trained again, and what was not asked
for stays. An interrupted run of ours goes on in its folder below `--work`. With the default `--results` the tables of
README.md beside this file are written too.
"""

import argparse
import hashlib
import json
import os
import resource
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
from sr_transformers.cli.values import duration
from sr_transformers.data.logs import sources
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.baselines import Scorer
from sr_transformers.evaluation.comparison import standard_error
from sr_transformers.evaluation.evaluator import Kept, evaluate, known_past, rank_histories, target_tokens
from sr_transformers.evaluation.metrics import MISSED, hit_rate, ndcg
from sr_transformers.marks import put
from sr_transformers.records import source_commit, write_whole
from sr_transformers.training.portfolio import auto_recipe

PAGE = Path(__file__).parent / "README.md"
RESULTS = harness.RESULTS / "quality"
_FREE = 0.9  # of a core: with less the clock of a search ran while it could not work
WORKERS = 1  # to be counted up when a worker trains otherwise than before: its earlier results are then no answer
# How the log is prepared, and which of the published settings RecTools gets (those of its authors for ml-1m, and for
# the short histories of Beauty, Sports and Toys).
DENSE = {"width": 64, "layers": 2, "heads": 1, "dropout": 0.1, "window": 200}
SPARSE = {"width": 64, "layers": 1, "heads": 1, "dropout": 0.2, "window": 50}
# Of RePlay's own example on MovieLens, feed-forward as wide as the states.
REPLAY = {"width": 64, "layers": 2, "heads": 2, "dropout": 0.3, "window": 50, "rows": 32, "inner": 64}
REPLAY_LOGS = ("ml-1m", "movietweetings-5-core", "online-retail")
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
PLACES = "0123456789a"  # of a target's rank: 0 beyond the tenth place, a the tenth
METRICS = ("hr@10", "ndcg@10", "coverage@10", "less_popular@10")
VERDICT = (
    "log",
    "best peer",
    "model",
    "HR@10 less the peer's",
    "NDCG@10 less the peer's",
    "time to it / fastest peer's",
)
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
    np.savez(folder / "histories.part.npz", **arrays)
    (folder / "histories.part.npz").replace(folder / "histories.npz")


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
        top = np.asarray(rank_histories(scorer, shown, target_tokens(data, block), seen, (10,))[0].top)
        found.append(less[top[top >= 0]].mean())
    return float(np.mean(found))


def train_peer(name: str, data: PreparedData, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A peer in its environment: its curve, and how its vectors rank."""
    worker, environment, task = PEERS[name]
    filter_seen = data.filters_seen()
    settings = {"task": task, "folder": str(data.path), "output": str(output), "seed": options.seeds[0]}
    settings |= {"filter_seen": filter_seen, "minutes": options.minutes, "patience": options.patience}
    settings |= settings_of(name, options.current)
    python = options.environments / environment / "bin" / "python"
    if not python.exists():
        return {"skipped": f"no environment {environment}; run benchmarks/environments.py"}
    (output / "settings.json").write_text(json.dumps(settings))
    words = [str(python), str(Path(__file__).parent / "peers" / f"worker_{worker}.py"), str(output / "settings.json")]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    variables.pop("PYTHONPATH", None)
    with (output / "log").open("w") as log:
        code = subprocess.run(
            words, env=variables, stdout=log, stderr=subprocess.STDOUT, preexec_fn=harness.stay_in_memory
        ).returncode
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


def settings_of(name: str, log: str) -> dict[str, Any]:
    """The published settings that a peer gets for a log."""
    return REPLAY if PEERS[name][1] == "replay" else LOGS[log][1]


def peers_of(log: str) -> list[str]:
    """The peers that are trained on a log."""
    return [name for name in PEERS if PEERS[name][1] != "replay" or log in REPLAY_LOGS]


def train_ours(name: str, seed: int, data: PreparedData, output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`train auto` or `tune`, as a user would call it; it goes on where it was stopped.

    Raises:
        RuntimeError: if the command fails.
    """
    program = [sys.executable, "-m", "sr_transformers.cli"]
    if name == AUTO:
        words = ["train", "auto", "--data", str(data.path), "--output", str(output / "run"), "--seed", str(seed)]
    else:
        words = ["tune", str(data.path), "--output", str(output / "run"), "--budget", options.tune, "--seed", str(seed)]
    before, start = cpu_of_children(), time.perf_counter()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (output / "log").open("a") as log:
        code = subprocess.run([*program, *words], env=variables, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        last = ((output / "log").read_text().strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"exit {code}: {last.replace(str(options.work), 'WORK')[:300]}")
    busy = (cpu_of_children() - before) / (time.perf_counter() - start)  # CPU seconds per second, since it last started
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
    spent = record.seconds if name == AUTO else float(duration(options.tune))
    found |= {"busy": busy, "cpu_minutes": busy * spent / 60}
    return found | ranked(scorer, data, data.filters_seen())


def cpu_of_children() -> float:
    """Seconds of CPU that finished child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ranked(scorer: Scorer, data: PreparedData, filter_seen: bool) -> dict[str, Any]:
    """What the table shows of a scorer, on test targets."""
    kept = Kept(data.num_targets("test"))
    report = evaluate(scorer, data, "test", (10,), filter_seen, kept=kept)
    return {
        "protocol": report["protocol"],
        "metrics": report["metrics"] | {"less_popular@10": less_popular_share(scorer, data, filter_seen)},
        "standard_errors": report["standard_errors"],
        "places": "".join(PLACES[rank] if 1 <= rank <= 10 else PLACES[0] for rank in kept.ranks.tolist()),
    }


def done(
    path: Path, name: str, asked: dict[str, Any], folder: Path, train: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """What is known of a participant that was asked for the same, or that of training now, in a folder of its own.

    It is written to the file at once. A failure is no result: it is told, and replaces none.
    """
    for one in known_models(path, asked["log"]).get(name, []):
        if one["asked"] == asked:
            return one
    output = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{_digest(asked)[:8]}"
    output.mkdir(parents=True, exist_ok=True)
    try:
        found = {"asked": asked, **train(output)}
    except RuntimeError as error:
        found = {"skipped": str(error)}
    if "skipped" not in found:
        models = known_models(path, asked["log"])  # anew: another process may have written meanwhile
        others = [one for one in models.get(name, []) if one["asked"]["seed"] != asked["seed"]]
        models[name] = sorted([*others, found], key=lambda one: one["asked"]["seed"])
        content = {"command": command(), "commit": source_commit(), "hardware": harness.hardware(1)}
        path.parent.mkdir(parents=True, exist_ok=True)
        models = {one: models[one] for one in (*PEERS, AUTO, TUNE) if one in models}
        write_whole(path, json.dumps({**content, "models": models}, indent=1) + "\n")
    return found


def known_models(path: Path, log: str) -> dict[str, list[dict[str, Any]]]:
    """Results by participant that a file has of a log."""
    models = json.loads(path.read_text())["models"] if path.exists() else {}
    found = {name: [one for one in runs if one["asked"]["log"] == log] for name, runs in models.items()}
    return {name: runs for name, runs in found.items() if runs}


def command() -> str:
    """How the program was called, files without their folders."""
    words = [
        f"{word.partition('=')[0]}={Path(word).name}" if word.partition("=")[0] in LOGS else word for word in sys.argv
    ]
    return harness.command(words)


def log_of(data: PreparedData) -> str:
    """Digest of what is trained and tested on: items, their interactions, and how these are divided."""
    manifest = data.manifest
    return _digest([manifest["interactions_fingerprint"], manifest["items_fingerprint"], manifest["split"]])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
    for log, models in logs_of(results).items():
        for name, runs in models.items():
            means = [np.mean([one["metrics"][key] for one in runs]) for key in METRICS]
            best = [best_epoch(one) for one in runs]
            spent = runs if name == TUNE else best  # of a search all of it
            minutes = f"{np.mean([one['cpu_minutes'] for one in spent]):.1f}"
            there = time_to(models.get(AUTO, []), best[0]["ndcg@10"]) if name in PEERS else ""
            ahead = there if isinstance(there, str) else "not reached" if there is None else f"{there:.1f}"
            mark = "*" if any(one["still_improving"] for one in runs) else ""
            mark += "†" if any(one.get("busy", 1.0) < _FREE for one in runs) and name == TUNE else ""
            cells = [f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[2]:.3f}", f"{means[3]:.3f}", minutes + mark, ahead]
            lines.append(f"| {log} | {name}{f' ({len(runs)} seeds)' if len(runs) > 1 else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(results: Path) -> str:
    """Markdown: ours against the peer with the best test NDCG@10 of each log, paired by user, seeds averaged, with
    standard errors; and how long ours took to that peer's validation NDCG@10, beside the peer that was fastest to its
    own best."""
    lines = [f"| {' | '.join(VERDICT)} |", "|---" * len(VERDICT) + "|"]
    for log, models in logs_of(results).items():
        peers = {name: runs[0] for name, runs in models.items() if name in PEERS}
        if not peers:
            continue
        best = max(peers, key=lambda name: peers[name]["metrics"]["ndcg@10"])
        fastest = min(best_epoch(one)["cpu_minutes"] for one in peers.values())
        for name in (AUTO, TUNE):
            if name not in models:
                continue
            cells = []
            for metric in (hit_rate, ndcg):
                ours = np.mean([metric(ranks_of(one["places"]), 10) for one in models[name]], axis=0)
                difference = ours - metric(ranks_of(peers[best]["places"]), 10)
                cells.append(f"{difference.mean():+.4f} ± {standard_error(difference):.4f}")
            there = time_to(models[name], best_epoch(peers[best])["ndcg@10"]) if name == AUTO else None
            cells.append("" if name == TUNE else "not reached" if there is None else f"{there / fastest:.2f}")
            lines.append(f"| {log} | {best} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def logs_of(results: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By log and participant the runs that were measured."""
    found = {log: results / f"{log}.json" for log in LOGS}
    return {log: json.loads(path.read_text())["models"] for log, path in found.items() if path.exists()}


def best_epoch(run: dict[str, Any]) -> dict[str, float]:
    """The one that was kept."""
    return max(run["curve"], key=lambda epoch: epoch["ndcg@10"])


def time_to(ours: Sequence[dict[str, Any]], quality: float) -> float | None:
    """CPU minutes until validation NDCG@10 was as high, the mean over seeds; None if one never was."""
    there = [minutes_until(one["curve"], quality) for one in ours]
    known = [one for one in there if one is not None]
    return float(np.mean(known)) if known and len(known) == len(there) else None


def ranks_of(places: str) -> np.ndarray:
    """The ranks that `places` tells, `MISSED` beyond the tenth."""
    return np.array([PLACES.index(place) or MISSED for place in places], np.int64)


def main() -> None:
    """Trains what is missing, and writes results and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", nargs="+", metavar="NAME=FILE", default=[], help=f"names are {', '.join(LOGS)}")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of ours; peers have the first one")
    parser.add_argument("--minutes", type=float, default=40, help="CPU minutes after which a peer is ended")
    parser.add_argument("--patience", type=int, default=50, help="epochs without a better validation NDCG@10")
    parser.add_argument("--no-ours", dest="ours", action="store_false", help="peers alone")
    parser.add_argument("--tune", metavar="BUDGET", help="also run `sr-transformers tune` with this budget, say 1h")
    parser.add_argument("--environments", type=Path, default=harness.HERE / ".environments")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for word in options.log:
        name, _, file = word.partition("=")
        if name not in LOGS or not file:
            parser.error(f"--log {word}: give NAME=FILE with a name of {', '.join(LOGS)}.")
        options.current, folder = name, options.work / name
        data = prepared_log(name, file, folder / "data")
        if not (data.path / "histories.npz").exists():
            write_histories(data, data.path)
        log, path = log_of(data), options.results / f"{name}.json"
        for peer in [one for one in peers_of(name) if one in options.peers]:
            asked = {"log": log, "seed": options.seeds[0], "minutes": options.minutes, "patience": options.patience}
            asked |= {"settings": settings_of(peer, name), "worker": WORKERS}
            tell(name, peer, done(path, peer, asked, folder, lambda to: train_peer(peer, data, to, options)))  # noqa: B023
        recipe = auto_recipe(data)
        ways = {AUTO: {"recipe": [recipe.model, recipe.training]}, TUNE: {"budget": options.tune}}
        for way in [AUTO, *([TUNE] if options.tune else [])] if options.ours else []:
            for seed in options.seeds:
                asked = {"log": log, "seed": seed, **ways[way]}
                tell(name, way, done(path, way, asked, folder, lambda to: train_ours(way, seed, data, to, options)))  # noqa: B023
    if options.results == RESULTS:
        put(PAGE, "peers", table(options.results))
        put(PAGE, "peers-verdict", verdict(options.results))


def tell(log: str, name: str, found: dict[str, Any]) -> None:
    """One line of a participant."""
    said = found.get("skipped") or ", ".join(f"{key} {found['metrics'][key]:.4f}" for key in METRICS)
    print(f"{log} | {name} | {said}", flush=True)


if __name__ == "__main__":
    main()
