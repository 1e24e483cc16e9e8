"""python docs/tables/speed.py: writes the tables of speed from the rows in benchmarks/results/: all of them into
benchmarks/README.md, and those of FRONT into the project's README."""

import json
from pathlib import Path
from typing import Any

from marks import put

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "README.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
SPEED_BEGIN, SPEED_END = "<!-- speed -->", "<!-- /speed -->"
# What a buyer asks first: (case, what was measured).
FRONT = (
    ("d 64, V 3.4k", "training, fp32"),
    ("d 64, V 26k", "training, fp32"),
    ("d 256, V 26k", "training, fp32"),
    ("d 64, V 26k", "peak memory, fp32"),
    ("V 26k", "full ranking, fp32"),
    ("V 26k", "one history, compiled, p50"),
    ("V 26k", "batches of 256, compiled in bf16"),
    ("18.5 M rows", "preparation"),
)
NAMES = ("training", "packing", "evaluation", "serving", "sessions", "preparation", "startup")
HEAD = ("case", "measured", "unit", "ours", "best peer", "", "ratio")


def load(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Result files by name, in the order of the table; other files of the folder belong to other measurements."""
    return {name: json.loads(path.read_text()) for name in NAMES if (path := folder / f"{name}.json").exists()}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row per row; a ratio counts how many times better ours is, whichever way better points."""
    rows = [one for content in results.values() for one in content["rows"]]
    return "\n".join([*_lines(rows), "", *(f"- {line}" for line in conditions(results))])


def front_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: the rows of FRONT that were measured, in its order."""
    rows = {(one["case"], one["metric"]): one for content in results.values() for one in content["rows"]}
    return "\n".join(_lines([rows[key] for key in FRONT if key in rows]))


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for one in rows:
        better = one["ratio"] if one["higher_is_better"] else 1 / one["ratio"]
        cells = [one["case"], one["metric"], one["unit"], number(one["ours"]), number(one["best_peer"])]
        lines.append(f"| {' | '.join([*cells, one['peer'], f'{better:.2f}'])} |")
    return lines


def conditions(results: dict[str, dict[str, Any]]) -> list[str]:
    """Hardware, versions, commits and dates behind the rows, each once."""
    machines: dict[str, None] = {}
    versions: dict[str, None] = {}
    commits: dict[str, None] = {}
    for content in results.values():
        for one in content["rows"]:
            commits[f"{(one['commit'] or 'unknown')[:10]} ({one['date']})"] = None
        for case in content.get("cases", {}).values():
            machine = case["hardware"]
            bf16 = f", {', '.join(machine['fast_bf16'])}" if machine["fast_bf16"] else ""
            machines[
                f"{machine['cpu']}, {machine['cores']} cores{bf16}, {machine['memory_gib']} GiB, "
                f"{machine['threads']} threads"
            ] = None
            for name, turns in case["measured"].items():
                for turn in turns:
                    if "versions" in turn:
                        parts = (f"{package} {version}" for package, version in turn["versions"].items())
                        library = name.removesuffix(" bf16").removesuffix(" compiled").removesuffix(" fast")
                        versions[f"{library}: {', '.join(parts)}"] = None
    return [f"Machine: {'; '.join(machines)}.", *(f"{line}." for line in versions), f"Commits: {', '.join(commits)}."]


def number(value: float) -> str:
    """Thousands apart, no more digits than are kept.

    >>> number(12345.0), number(0.0123), number(3.5)
    ('12,345', '0.0123', '3.5')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


if __name__ == "__main__":
    put(PAGE, BEGIN, END, table(load()))
    put(README, SPEED_BEGIN, SPEED_END, front_table(load()))
    print(table(load()))
