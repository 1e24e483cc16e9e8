"""For someone's own log: the cheapest study that answers, and the answer in plain words with numbers.

It trains small sizes, and on parts of the users (`advice_study`), fits the laws of size, of size and data, and of the
metrics, and says what every size of the paper would reach, what it would cost, and whether data or size is the
bottleneck. How sure that is stands beside every number. A law that these runs do not determine, or that runs suggest
which were still improving or whose rates lie on the edge of what was tried, gives no number at all: then the answer is
that it is not known, why, and what another hour would buy. That size does not help is nothing that a few cheap runs
can say.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.records import source_commit
from sr_transformers.scaling.laws.forms import TOGETHER, N, law_named
from sr_transformers.scaling.studies.advice_study import advice_study, largest_part
from sr_transformers.scaling.studies.analysis import Analysis, analyse
from sr_transformers.scaling.studies.comparisons import best_sizes, means, per_doubling
from sr_transformers.scaling.studies.conclusions import bottleneck_of, misfit
from sr_transformers.scaling.studies.runner import run_study
from sr_transformers.scaling.studies.sentences import METRIC_NAMES, agreeing, because, sentences
from sr_transformers.scaling.studies.workers import threads_of
from sr_transformers.training.preflight import check_test, check_validation, free_memory

# Reasons that more runs of the same kind do not mend.
_UNSOUND = ("improving", "unwatched", "untuned", "edge", "cut short", "diverged")
_HOUR = 3600.0
_MEMORY = 2 << 30  # bytes that a run of these sizes takes at most on a CPU; measured
# The sizes of the paper, and one of their shape between 1.5 m and 9 m: layers, width, heads.
SIZES_ASKED = dict(sorted({**LSRM_SIZES, "3.1m": (10, 160, 5)}.items(), key=lambda item: item[1][0] * item[1][1] ** 2))
REACH = 100.0  # predictions further beyond the largest size measured than this are marked as guesses


@dataclasses.dataclass
class Hardware:
    """What an hour of an accelerator does and costs; assumptions of the user's, said in the answer.

    Attributes:
        flops: peak FLOPs per second; the default is 312e12, an A100 in bf16.
        utilisation: part of the peak that training reaches.
        price: of an hour, in the currency of the reader.
    """

    flops: float = 312e12
    utilisation: float = 0.3
    price: float = 2.0

    def __post_init__(self) -> None:
        if not (self.flops > 0 and 0 < self.utilisation <= 1 and self.price >= 0):
            raise ValueError(
                f"hardware is {self.flops} FLOP/s at a utilisation of {self.utilisation} for {self.price} an hour; "
                "give FLOP/s above 0, a utilisation in (0, 1] and a price of 0 or more."
            )

    def hours(self, flops: float) -> float:
        """Hours for so many FLOPs."""
        return flops / (self.flops * self.utilisation * 3600)


def advise(
    data: PreparedData | str | Path,
    output: str | Path,
    budget_minutes: float,
    epochs: float | None = None,
    recipe: str | Path | None = None,
    hardware: Hardware | None = None,
    draws: int = 200,
    jobs: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Runs the study within the budget (or goes on with it) and answers.

    Args:
        epochs, recipe: see `advice_study`.
        jobs: runs side by side; None: one for every core and 2 GiB of free memory, or one if there is an accelerator.

    Returns:
        The answer as text, and its numbers.

    Raises:
        ValueError: if the budget does not even pay for the runs that must be made, on the smallest part of the users.
    """
    data = data if isinstance(data, PreparedData) else PreparedData(data)
    check_validation(data)
    check_test(data)
    if jobs is None:
        fitting = max(free_memory() // _MEMORY, 1)
        jobs = 1 if torch.accelerator.is_available() else min(threads_of(1), fitting)
    part = largest_part(data, Path(output), budget_minutes * 60, jobs, epochs, recipe)
    run_study(advice_study(data, epochs, recipe, part), output, data, budget_minutes, jobs=jobs)
    found = analyse(output, draws)
    answer = numbers(found, data, hardware or Hardware(), jobs)
    return text(answer, found, data), answer


def numbers(found: Analysis, data: PreparedData, hardware: Hardware, jobs: int = 1) -> dict[str, Any]:
    """Predictions, costs and the bottleneck, from an analysis; null where the runs do not determine them."""
    d = float(data.num_train_interactions)
    vocabulary = data.vocab_size
    joint, size_law = found.together, found.laws.get("n")
    if size_law and (not size_law.fitted.usable or misfit(size_law)):
        size_law = None
    # The law of size describes the sizes on all of the data best; from a part of it only the law of both leads there.
    source = size_law if size_law and (found.fraction == 1 or not joint) else joint
    unsound = [one for one in found.document["reservations"] if one["kind"] in _UNSOUND]
    why = because(unsound) if unsound else None
    if source is None and why is None:
        one = found.closest or found.laws.get("n")
        why = one.fitted.reason if one else next(iter(found.notes), "too few runs were made")
        if one and one.fitted.usable:
            why = "no form of a law describes these runs as closely as runs agree whose seed alone differs"
    if unsound:
        source = None
    largest = max(run.record.num_non_embedding_parameters for run in found.runs)
    at_largest = [run.plan["epochs"] for run in found.runs if run.record.num_non_embedding_parameters == largest]
    epochs = found.epochs if found.epochs is not None else min(at_largest)
    rows = []
    for name, (layers, width, _) in SIZES_ASKED.items():
        n = 12.0 * layers * width**2
        columns = {N: np.array([n]), "D": np.array([d])}
        flops = 6.0 * (n + vocabulary * width) * d * epochs
        row: dict[str, Any] = {"size": name, "N": int(n), "hours": hardware.hours(flops)}
        row["cost"] = row["hours"] * hardware.price
        row["beyond"] = n / largest
        if source:
            row["loss"] = float(law_named(source.fitted.law).predict(source.fitted.params, columns)[0])
            row["loss_interval"] = _bounds(source.refits.of_new_run(columns))
        for metric in METRIC_NAMES:
            one = found.laws.get(metric)
            if one and one.fitted.usable and not unsound:
                row[metric] = float(law_named("saturating").predict(one.fitted.params, columns)[0])
                row[f"{metric}_interval"] = _bounds(one.refits.of_new_run(columns))
        rows.append(row)
    measured = means(found.runs, found.epochs)
    answer: dict[str, Any] = {
        "runs": len(found.runs),
        "protocol": found.runs[0].record.reports[0]["protocol"],
        "commits": sorted({run.record.commit or "unknown" for run in found.runs}),
        "answered_by_commit": source_commit(),
        "interactions": d,
        "epochs": epochs,
        "largest_measured": largest,
        "law": source.fitted.law if source else None,
        "sizes": rows,
        "hardware": dataclasses.asdict(hardware),
        "bottleneck": None,
        "not_known_because": why,
        "next_hour": _next_hour(found.document["left_out"], jobs),
        "measured": {"means": measured, "best": best_sizes(measured), "per_doubling": per_doubling(measured)},
    }
    if joint and not unsound:
        answer["bottleneck"] = bottleneck_of(joint, largest, d)
    return answer


def _next_hour(left_out: list[dict[str, Any]], jobs: int) -> list[str]:
    """The first runs left out by the budget that fit into an hour of so many jobs; if none does, the shortest one."""
    names, spent = [], 0.0
    for one in left_out:
        if spent + one["seconds"] <= _HOUR * jobs:
            names.append(one["run"])
            spent += one["seconds"]
    shortest = min(left_out, key=lambda one: one["seconds"], default=None)
    return names or ([shortest["run"]] if shortest else [])


def text(answer: dict[str, Any], found: Analysis, data: PreparedData) -> str:
    """The answer for people."""
    hardware = answer["hardware"]
    lines = [f"{data.path.name}: {answer['interactions']:,.0f} training interactions, {len(found.runs)} runs.", ""]
    choice = answer["bottleneck"]
    if choice:
        data_gain, size_gain = choice["gain_from_data"], choice["gain_from_size"]
        gains = f"{data_gain:.3f} nats from twice the data, {size_gain:.3f} from twice the size"
        lines.append(
            f"Bottleneck at N = {answer['largest_measured']:,}: {choice['bottleneck']} ({gains}; {agreeing(choice)})."
        )
    else:
        lines.append("Whether data or size is the bottleneck these runs do not say.")
    if answer["not_known_because"]:
        lines.append(f"What larger models would reach is not known, because {answer['not_known_because'].rstrip('.')}.")
    if answer["next_hour"]:
        lines.append(f"Another hour would buy {', '.join(answer['next_hour'])}; the same command goes on.")
    lines += ["", *measured_lines(answer["measured"])]
    if answer["not_known_because"]:
        lines.append("- For the reason above these gains are not what size and data would bring at their best.")
    # The law of size describes the fraction that it was fitted to, one of size and data any.
    whole = found.fraction == 1 or answer["law"] in TOGETHER
    where = "all of the data" if whole else f"{found.fraction:.0%} of the users"
    lines += [
        "",
        f"Expected on {where} with 95 % intervals for one run; time and cost of {answer['epochs']:g} epochs on one "
        f"accelerator of {hardware['flops'] / 1e12:g} TFLOP/s at {hardware['utilisation']:.0%} for "
        f"{hardware['price']:g} an hour:",
        "",
        "| size | N | loss | HR@10 | NDCG@10 | time | cost | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in answer["sizes"]:
        cells = [_shown(row, key) for key in ("loss", "hr@10", "ndcg@10")]
        note = "measured range" if row["beyond"] <= 1 else f"{row['beyond']:.0f} x beyond what was measured"
        if row["beyond"] > REACH and "loss" in row:
            note += ", a guess"
        lines.append(
            f"| {row['size']} | {row['N']:,} | {' | '.join(cells)} | {duration(row['hours'])} | "
            f"{price(row['cost'])} | {note} |"
        )
    lines += [
        "",
        "How sure:",
        "- All of this is for models that train until they stop improving, with the learning rate and dropout of their "
        "size.",
    ]
    if found.fraction < 1:
        what = "HR@10 and NDCG@10" if whole else "Loss, HR@10 and NDCG@10"
        lines.append(
            f"- {what} are those of {found.fraction:.0%} of the users: no more sizes were affordable. A larger budget "
            "goes on with these users in this folder, and begins with more of them in another one (--output)."
        )
    lines += [f"- {sentence}" for sentence in sentences(found.document)]
    lines += [f"- Not answered: {note}" for note in found.notes]
    return "\n".join(lines)


def measured_lines(measured: dict[str, Any]) -> list[str]:
    """The runs' own answer: it holds whether a law does or not."""
    lines = ["What was measured, without any law:", ""]
    for best in measured["best"]:
        lines.append(
            f"- On {best['fraction']:.0%} of the users the best of {best['sizes']} sizes from {best['smallest']:,} to "
            f"{best['largest']:,} is N = {best['N']:,}: loss {best['loss']:.3f}, NDCG@10 {best['ndcg@10']:.4f}."
        )
    for what, gain in measured["per_doubling"].items():
        if gain is None:
            lines.append(f"- Several amounts of {what} were not measured.")
            continue
        low, high, error = gain["from"], gain["to"], gain["standard_error"]
        where = (
            f"N = {low['N']:,}, from {low['fraction']:.0%} to {high['fraction']:.0%} of the users"
            if what == "data"
            else f"from N = {low['N']:,} to {high['N']:,} on {low['fraction']:.0%} of the users"
        )
        sure = "no seed was repeated" if error is None else f"± {error:.3f}"
        lines.append(f"- A doubling of the {what} gained {gain['nats']:.3f} nats ({sure}; {where}).")
    return lines


def duration(hours: float) -> str:
    """Hours in the unit that suits them.

    >>> duration(1.1e-05), duration(0.05), duration(31.2), duration(500)
    ('0.04 s', '3 min', '31 h', '500 h')
    """
    seconds = hours * 3600
    unit, size = next((one for one in (("h", 3600), ("min", 60)) if seconds >= one[1]), ("s", 1))
    return f"{float(f'{seconds / size:.2g}'):,g} {unit}"


def price(cost: float) -> str:
    """Money to a hundredth; next to nothing is not nothing."""
    return "< 0.01" if 0 < cost < 0.01 else f"{cost:,.2f}"


def _bounds(interval: np.ndarray) -> list[float] | None:
    return None if np.isnan(interval).any() else [float(value) for value in interval[0]]


def _shown(row: dict[str, Any], key: str) -> str:
    if key not in row:
        return "–"
    bounds = row[f"{key}_interval"]
    return f"{row[key]:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else f"{row[key]:.3f} (no interval)"
