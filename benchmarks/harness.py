"""Runs workers in turns, takes medians, and turns them into rows.

A result file holds `rows`, a list of {case, metric, unit, ours, best_peer, peer, ratio, higher_is_better, commit, date}
with ratio = ours / best_peer, and `cases`: by case, everything that was measured and on what.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sr_transformers.records import source_commit, write_whole

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MARK = "RESULT "
# participant -> what rows call its way; the last word is the precision
OURS = {"ours": "fp32", "ours bf16": "bf16", "ours compiled": "compiled in bf16"}
FOLDERS = ("--work", "--environments", "--results", "--sasrec-pytorch")
# name -> (worker, environment; None is the one that runs this program, further settings)
PARTICIPANTS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "ours": ("ours", None, {"precision": "fp32"}),
    "ours bf16": ("ours", None, {"precision": "bf16"}),
    "ours compiled": ("ours", None, {"precision": "bf16", "compile": True}),
    "RePlay": ("replay", "replay", {"precision": "fp32"}),
    "RePlay bf16": ("replay", "replay", {"precision": "bf16"}),
    "RePlay compiled": ("replay", "replay", {"precision": "bf16", "compile": True}),
    "Polars by hand": ("replay", "replay", {"task": "by_hand"}),
    "HF GPT-2": ("hf", None, {"precision": "fp32"}),
    "HF GPT-2 bf16": ("hf", None, {"precision": "bf16"}),
    "HF GPT-2 compiled": ("hf", None, {"precision": "bf16", "compile": True}),
    "RecTools": ("rectools", "rectools", {"precision": "fp32"}),
    "RecTools bf16": ("rectools", "rectools", {"precision": "bf16"}),
    "RecTools fast": ("rectools", "rectools", {"precision": "fp32", "fast": True}),
    "RecTools fast bf16": ("rectools", "rectools", {"precision": "bf16", "fast": True}),
    "RecTools fast compiled": ("rectools", "rectools", {"precision": "bf16", "fast": True, "compile": True}),
    "RecBole": ("recbole", "recbole", {"precision": "fp32"}),
    "SASRec.pytorch": ("sasrec_pytorch", None, {"precision": "fp32"}),
}


def parser(description: str | None, cases: Sequence[str], peers: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--case", nargs="+", choices=cases, default=list(cases), help="which cases (default all)")
    others = [name for name in PARTICIPANTS if name not in OURS]
    result.add_argument("--peers", nargs="+", choices=others, default=list(peers))
    result.add_argument("--rounds", type=int, default=3, help="turns of each participant")
    result.add_argument("--seconds", type=float, default=8, help="measured per worker, beyond its start")
    result.add_argument("--limit", type=float, default=150, help="seconds after which a worker is ended and left out")
    result.add_argument("--threads", type=int, default=2)
    result.add_argument("--prefix", default="", help='put before each worker, for example "chrt -r 5" (root)')
    result.add_argument("--environments", type=Path, default=HERE / ".environments", help="made by environments.py")
    result.add_argument("--sasrec-pytorch", type=Path, help="a checkout of github.com/pmixer/SASRec.pytorch")
    result.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "sr-transformers-benchmarks")
    result.add_argument("--results", type=Path, default=RESULTS)
    return result


def run(name: str, settings: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One turn of a participant: its measurements, or {"skipped": why}."""
    worker, environment, more = PARTICIPANTS[name]
    python = sys.executable if environment is None else str(options.environments / environment / "bin" / "python")
    if not Path(python).exists():
        return {"skipped": f"no environment {environment}; run benchmarks/environments.py"}
    settings = {**settings, **more}
    if worker == "sasrec_pytorch":
        if options.sasrec_pytorch is None:
            return {"skipped": "no checkout given (--sasrec-pytorch)"}
        settings["checkout"] = str(options.sasrec_pytorch)
    threads = str(options.threads)
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads}
    variables |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    if environment is not None:
        variables.pop("PYTHONPATH", None)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(settings, file)
        file.flush()
        words = [*shlex.split(options.prefix), python, str(HERE / "peers" / f"worker_{worker}.py"), file.name]
        load = os.getloadavg()[0]
        try:
            done = subprocess.run(
                words,
                env=variables,
                capture_output=True,
                text=True,
                timeout=options.limit,
                cwd=options.work,
                preexec_fn=stay_in_memory,
            )
        except subprocess.TimeoutExpired:
            return {"skipped": f"not done after {options.limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        last = last.replace(str(options.environments), "ENVIRONMENTS").replace(str(HERE.parent), ".")
        return {"skipped": f"exit {done.returncode}: {last[:300]}"}
    return {**json.loads(lines[-1].removeprefix(MARK)), "load": load}


def stay_in_memory() -> None:
    """Limits a worker to nine tenths of the memory that is free: it fails with a message instead of ending others."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        free = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        limit = int(int(free.split()[1]) * 1024 * 0.9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def rounds(names: Sequence[str], settings: dict[str, Any], options: argparse.Namespace) -> dict[str, list[dict]]:
    """All participants in turn, `options.rounds` times; a peer that is skipped once is not asked again.

    Raises:
        RuntimeError: if ours has no result: there is nothing to compare.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            if found[name] and "skipped" in found[name][-1]:
                continue
            result = run(name, settings, options)
            if name.startswith("ours") and "skipped" in result:
                raise RuntimeError(f"{name}: {result['skipped']}")
            found[name].append(result)
            shown = {key: value for key, value in result.items() if isinstance(value, int | float | str)}
            print(f"  round {turn + 1} {name}: {json.dumps(shown)}", flush=True)
    return found


def median(turns: Sequence[dict[str, Any]], key: str) -> float | None:
    """Median of a measurement over the turns that have it; None if none does."""
    values = [turn[key] for turn in turns if key in turn]
    return statistics.median(values) if values else None


def row(
    case: str,
    metric: str,
    unit: str,
    ours: float,
    peers: dict[str, float | None],
    higher_is_better: bool = True,
    digits: int = 4,
) -> dict[str, Any]:
    """A row of results: ours beside the best of the peers that were measured.

    Args:
        peers: value by name; None where there is none.
        digits: significant ones that are kept.

    Raises:
        ValueError: if no peer has a value: a row compares.
    """
    known = {name: value for name, value in peers.items() if value is not None}
    if not known:
        raise ValueError(f"{case}, {metric}: no peer was measured; the reasons stand above.")
    best = (max if higher_is_better else min)(known, key=lambda name: known[name])
    return {
        "case": case,
        "metric": metric,
        "unit": unit,
        "ours": significant(ours, digits),
        "best_peer": significant(known[best], digits),
        "peer": best,
        "ratio": significant(ours / known[best], 3),
        "higher_is_better": higher_is_better,
        "commit": source_commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def significant(value: float, digits: int) -> float:
    """Rounded to significant digits.

    >>> significant(12345.6, 3), significant(0.012345, 3)
    (12300.0, 0.0123)
    """
    return float(f"{value:.{digits}g}")


def hardware(threads: int) -> dict[str, Any]:
    """What it ran on."""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    flags = next((line for line in info if line.startswith("flags")), "")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "fast_bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def command(words: Sequence[str]) -> str:
    """A command line for the record: without the folders of the machine that it ran on.

    >>> command(["/home/me/training.py", "--work", "/tmp/x", "--case", "d 64, V 26k", "--results=/tmp/y"])
    "python benchmarks/training.py --case 'd 64, V 26k'"
    """
    kept, rest = [], iter(words[1:])
    for word in rest:
        if word in FOLDERS:
            next(rest)
        elif word.partition("=")[0] not in FOLDERS:
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{Path(words[0]).name}", *kept])


def save(
    name: str, case: str, rows: list[dict[str, Any]], found: dict[str, list[dict]], options: argparse.Namespace
) -> None:
    """Puts a case into results/{name}.json, in place of what was there of it."""
    path = options.results / f"{name}.json"
    content = json.loads(path.read_text()) if path.exists() else {"rows": [], "cases": {}}
    content["rows"] = merged(content["rows"], rows)
    content["cases"][case] = {
        "command": command(sys.argv),
        "hardware": hardware(options.threads),
        "measured": found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")
    for one in rows:
        print(f"{one['case']} | {one['metric']} | {one['ours']:g} against {one['best_peer']:g} {one['unit']} "
              f"({one['peer']}) | {one['ratio']:g}x", flush=True)  # fmt: skip


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old rows with those of the same case replaced, where the case stood; new cases at the end."""
    cases = {one["case"] for one in new}
    place = next((index for index, one in enumerate(old) if one["case"] in cases), len(old))
    before = [one for one in old[:place] if one["case"] not in cases]
    return before + new + [one for one in old[place:] if one["case"] not in cases]
