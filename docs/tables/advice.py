"""python docs/tables/advice.py: writes what `scaling advise` said of logs whose full study is kept, beside what that
study measured, into results/README.md.

An answer is what `sr-transformers scaling advise ... --json recipes/results/advice/NAME.json` wrote; the truth is the
study results/scaling/NAME, of the same prepared log: means over its seeds on test targets. Answers of earlier versions,
which do not say their protocol, are shown without it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.fingerprints import refuse_mixed
from sr_transformers.marks import put
from sr_transformers.records import RUN_FILE
from sr_transformers.scaling.studies.advise import measured_lines
from sr_transformers.scaling.studies.analysis import analyse
from sr_transformers.scaling.studies.comparisons import difference, means, seed_spread

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results"
PAGE = RESULTS / "README.md"
HEAD = ("log", "question", "advice", "full study", "")
LOSSES = ("786k", "3.1m")  # the sizes whose loss is asked for, and between which that of size is
NEAR = 0.05  # sizes of two studies that differ by no more are the same


def text(results: Path = RESULTS) -> str:
    """Markdown: the table of all answers, then what each measured."""
    answers = {path.stem: json.loads(path.read_text()) for path in sorted((results / "advice").glob("*.json"))}
    known = {
        name: one
        for name, one in answers.items()
        if "protocol" in one and any((results / "scaling" / name).glob(f"runs/*/{RUN_FILE}"))
    }
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"] if known else []
    for name, answer in known.items():
        measured = truth(results / "scaling" / name, answer)
        lines += [f"| {name} | {' | '.join(row)} |" for row in beside(answer, measured)]
    for name, answer in answers.items():
        lines += ["", f"{name}, {answer['runs']} runs:", "", *measured_lines(answer["measured"])[2:]]
        if answer.get("not_known_because"):
            lines.append(f"- What larger models would reach is not known, because {answer['not_known_because']}.")
    return "\n".join(lines).strip()


def truth(study: Path, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the study of an answer's log measured: a row per fraction of the users and size (`means`).

    Raises:
        ValueError: if it was measured by another protocol than the answer.
    """
    found = analyse(study, draws=0)
    refuse_mixed([("the advice", answer["protocol"]), (str(study), found.runs[0].record.reports[0]["protocol"])])
    return means(found.runs, found.epochs)


def beside(answer: dict[str, Any], measured: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Question, advice, truth and whether they agree; questions that the full study does not answer are left out."""
    spread = seed_spread(measured)
    rows = []
    for size in LOSSES:
        said = _row(answer, size)
        there = _near(measured, said["N"])
        if there:
            rows.append((f"loss of {size}", *_loss(said, there[-1], answer["not_known_because"])))
    whole = [row for row in measured if row["fraction"] == 1]
    small, large = _row(answer, LOSSES[0]), _row(answer, LOSSES[1])
    ends = [_near(whole, small["N"]), _near(whole, large["N"])]
    if all(ends):
        gain = small["loss"] - large["loss"] if "loss" in small else _per_doubling(answer, "size")
        rows.append((f"gain from {LOSSES[0]} to {LOSSES[1]}", *_gain(gain, ends[0][0], ends[1][0], spread)))
    parts = _near(measured, small["N"])
    if len(parts) > 1 and parts[-1]["fraction"] == 1:
        choice = answer["bottleneck"]
        gain = choice["gain_from_data"] if choice else _per_doubling(answer, "data")
        few = min(parts[:-1], key=lambda row: abs(np.log(row["fraction"] * 2)))
        question = f"gain of {LOSSES[0]} from {few['fraction']:.0%} to all of the users"
        rows.append((question, *_gain(gain, few, parts[-1], spread)))
    return rows


def _row(answer: dict[str, Any], size: str) -> dict[str, Any]:
    return next(row for row in answer["sizes"] if row["size"] == size)


def _near(measured: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Rows of that size, the least data first."""
    return [row for row in measured if abs(row["N"] / n - 1) <= NEAR]


def _per_doubling(answer: dict[str, Any], what: str) -> float | None:
    gain = answer["measured"]["per_doubling"][what]
    return gain and gain["nats"]


def _loss(said: dict[str, Any], there: dict[str, Any], why: str | None) -> tuple[str, str, str]:
    found = f"{there['loss']:.3f}" + ("" if there["fraction"] == 1 else f" ({there['fraction']:.0%} of the users)")
    if not said.get("loss_interval"):
        return f"not known{', because ' + why if why else ''}", found, "open"
    low, high = said["loss_interval"]
    inside = "inside" if low <= there["loss"] <= high else "outside"
    return f"{said['loss']:.3f} [{low:.3f}, {high:.3f}]", found, inside


def _gain(gain: float | None, low: dict[str, Any], high: dict[str, Any], spread: float | None) -> tuple[str, str, str]:
    """Only the direction is compared: the two gains are not of the same steps."""
    measured, error = difference(low, high, spread)
    found = f"{measured:+.3f} nats" + ("" if error is None else f" ± {error:.3f}")
    if gain is None:
        return "not known", found, "open"
    return f"{gain:+.3f} nats", found, "same direction" if (gain > 0) == (measured > 0) else "other direction"


if __name__ == "__main__":
    put(PAGE, "advice", text())
    print(text())
