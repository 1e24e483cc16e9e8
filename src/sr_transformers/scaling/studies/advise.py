"""For someone's own log: the cheapest study that answers, and the answer in plain words with numbers.

It trains small sizes on a tenth, a third and all of the users within a budget, fits the joint law and the saturating
form, and says what every size of the paper would reach, what it would cost, and whether data or size is the bottleneck.
How sure that is stands beside every number. A law that these runs do not determine, or that runs suggest which were
still improving or whose rates lie on the edge of what was tried, gives no number at all: then the answer is that it is
not known, why, and what another hour would buy. That size does not help is nothing that a few cheap runs can say.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.data.prepared import PreparedData
from sr_transformers.lsrm.configuration_lsrm import LSRM_SIZES
from sr_transformers.recipe_files import RECIPES, find_recipe
from sr_transformers.records import source_commit
from sr_transformers.scaling.laws.forms import N, law_named
from sr_transformers.scaling.studies.analysis import Analysis, analyse, bottleneck_of
from sr_transformers.scaling.studies.comparisons import best_sizes, means, per_doubling
from sr_transformers.scaling.studies.runner import run_study
from sr_transformers.scaling.studies.sentences import METRIC_NAMES, agreeing, because, sentences
from sr_transformers.scaling.studies.study import Study

SIZES = {
    "3k": [1, 16, 1],
    "12k": [1, 32, 1],
    "49k": [1, 64, 2],
    "98k": [2, 64, 2],
    "197k": [4, 64, 2],
    "786k": [4, 128, 4],
    "1.5m": [8, 128, 4],
}
# Reasons that more runs of the same kind do not mend.
_UNSOUND = ("improving", "unwatched", "untuned", "edge", "diverged")
_HOUR = 3600.0
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


def advice_study(data: PreparedData, epochs: float = 5, recipe: str | Path | None = None) -> Study:
    """The study that `advise` runs: seven sizes, three fractions of the users, two seeds of the smaller sizes.

    Args:
        recipe: a file or a name; gives what the study does not set; None: the defaults of model and training.
    """
    content: dict[str, Any] = {
        "name": f"advice-{data.path.name}",
        "data": str(data.path),
        **({"recipe": str(find_recipe(recipe, RECIPES).resolve())} if recipe else {}),
        "settings": {
            "switch_optimizer": False,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.05,
            "per_device_train_batch_size": 8,
            "patience": 100,
        },
        "validation_targets": 1000,
        "sizes": SIZES,
        "tuning": {
            "sizes": ["3k", "49k"],
            "learning_rates": [6.7e-4, 2e-3, 6e-3, 1.8e-2, 5.4e-2],
            "dropouts": [0.0, 0.1, 0.2, 0.3],  # rates that nothing chose would leave every answer open
            "fraction": {"users": 0.1},
            "epochs": epochs,
        },
        "blocks": {
            "main": {"sizes": list(SIZES), "fractions": [0.1, 0.3, 1.0], "epochs": [epochs], "seeds": [1]},
            "seeds": {"sizes": list(SIZES)[:4], "fractions": [0.1, 0.3, 1.0], "epochs": [epochs], "seeds": [2]},
        },
    }
    return Study.build(content, Path("advise"))


def advise(
    data: PreparedData | str | Path,
    output: str | Path,
    budget_minutes: float,
    epochs: float = 5,
    recipe: str | Path | None = None,
    hardware: Hardware | None = None,
    draws: int = 200,
) -> tuple[str, dict[str, Any]]:
    """Runs the study within the budget (or goes on with it) and answers.

    Returns:
        The answer as text, and its numbers.

    Raises:
        ValueError: if the budget does not even pay for tuning.
    """
    data = data if isinstance(data, PreparedData) else PreparedData(data)
    study = advice_study(data, epochs, recipe)
    run_study(study, output, data, budget_minutes)
    found = analyse(output, draws)
    answer = numbers(found, data, hardware or Hardware())
    return text(answer, found, data), answer


def numbers(found: Analysis, data: PreparedData, hardware: Hardware) -> dict[str, Any]:
    """Predictions, costs and the bottleneck, from an analysis; null where the runs do not determine them."""
    d = float(data.num_train_interactions)
    vocabulary = data.vocab_size
    joint, size_law = found.laws.get("joint"), found.laws.get("n")
    # The joint law at all of the data if it is there, else the law of size at the fraction that was measured.
    source = joint if joint and joint.fitted.usable else size_law if size_law and size_law.fitted.usable else None
    unsound = [one for one in found.document["reservations"] if one["kind"] in _UNSOUND]
    why = because(unsound) if unsound else None
    if source is None and why is None:
        one = joint or size_law
        why = one.fitted.reason if one else "; ".join(found.notes) or "too few runs were made"
    if unsound:
        source = None
    largest = max(run.record.num_non_embedding_parameters for run in found.runs)
    epochs = found.epochs if found.epochs is not None else max(run.plan["epochs"] for run in found.runs)
    rows = []
    for name, (layers, width, _) in LSRM_SIZES.items():
        n = 12.0 * layers * width**2
        columns = {N: np.array([n]), "D": np.array([d])}
        flops = 6.0 * (n + vocabulary * width) * d * epochs
        row: dict[str, Any] = {"size": name, "N": int(n), "hours": hardware.hours(flops)}
        row["cost"] = row["hours"] * hardware.price
        row["beyond"] = n / largest
        if source:
            row["loss"] = float(law_named(source.fitted.law).predict(source.fitted.params, columns)[0])
            row["loss_interval"] = _bounds(source.refits.of_law(columns))
        for metric in METRIC_NAMES:
            one = found.laws.get(metric)
            if one and one.fitted.usable and not unsound:
                row[metric] = float(law_named("saturating").predict(one.fitted.params, columns)[0])
                row[f"{metric}_interval"] = _bounds(one.refits.of_law(columns))
        rows.append(row)
    measured = means(found.runs, found.epochs)
    answer: dict[str, Any] = {
        "runs": len(found.runs),
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
        "next_hour": _next_hour(found.document["left_out"]),
        "measured": {"means": measured, "best": best_sizes(measured), "per_doubling": per_doubling(measured)},
    }
    if joint and joint.fitted.usable and not unsound:
        answer["bottleneck"] = bottleneck_of(joint, largest, d)
    return answer


def _next_hour(left_out: list[dict[str, Any]]) -> list[str]:
    """The first runs left out by the budget that fit into an hour; if none does, the shortest one alone."""
    names, spent = [], 0.0
    for one in left_out:
        if spent + one["seconds"] <= _HOUR:
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
    # The law of size describes the fraction that it was fitted to, the joint law any.
    whole = found.fraction == 1 or answer["law"] == "joint"
    where = "all of the data" if whole else f"{found.fraction:.0%} of the users"
    lines += [
        "",
        f"Expected on {where} after {answer['epochs']:g} epochs with 95 % intervals of the law; time and cost "
        f"on one accelerator of {hardware['flops'] / 1e12:g} TFLOP/s at {hardware['utilisation']:.0%} for "
        f"{hardware['price']:g} an hour:",
        "",
        "| size | N | loss | HR@10 | NDCG@10 | time | cost | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in answer["sizes"]:
        cells = [_shown(row, key) for key in ("loss", "hr@10", "ndcg@10")]
        note = "measured range" if row["beyond"] <= 1 else f"{row['beyond']:.0f} x beyond what was measured"
        if row["beyond"] > REACH:
            note += ", a guess"
        lines.append(
            f"| {row['size']} | {row['N']:,} | {' | '.join(cells)} | {duration(row['hours'])} | "
            f"{price(row['cost'])} | {note} |"
        )
    lines += [
        "",
        "How sure:",
        f"- All of this is for {answer['epochs']:g} epochs; larger models may use more (--epochs).",
    ]
    if found.fraction < 1:
        what = "HR@10 and NDCG@10" if whole else "Loss, HR@10 and NDCG@10"
        lines.append(f"- {what} are those of {found.fraction:.0%} of the users: no more sizes were affordable.")
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
