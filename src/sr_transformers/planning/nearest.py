"""What would fit where a plan does not: the nearest settings, one change after the other, each with what it takes.

Tried are, on the same GPUs: one row a step, the sampled softmax, and with it updates of a step's rows alone, which need
one number of state per row (row_adagrad). Then all but the first, and the training as it is, on more GPUs; and over
fewer numbers per item, which is a narrower and so another model: its N is given beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.planning.gpus import GPU
from sr_transformers.planning.memory import Work
from sr_transformers.planning.plan import best, rows, time_of
from sr_transformers.training.row_updates import ROW_ADAGRAD

MOST_DEVICES = 1024
NEGATIVES = 8192  # of the sampled softmax, where none were asked for


@dataclass(frozen=True)
class _Case:
    """A setting that is tried: in words, and what differs from the one asked for."""

    words: tuple[str, ...]
    config: LSRMConfig
    work: Work
    devices: int


def what_would_fit(
    config: LSRMConfig,
    work: Work,
    gpu: GPU,
    devices: int,
    utilisation: float = 0.4,
    bandwidth: float | None = None,
    targets: int | None = None,
    epochs: float = 1.0,
) -> list[dict[str, Any]]:
    """The nearest settings that fit, those that change least first.

    Args: as `make_plan`.

    Returns:
        `change`, in words; `devices`, `hidden_size`, `num_non_embedding_parameters`, `work`; and the row of `plan.rows`
        that is fastest, with its `time`. Empty if nothing that is tried fits.
    """
    trainings = list(_trainings(config, work))
    series = [[_Case(words, config, one, devices)] for words, one in trainings if words]
    if work.rows > 1:
        series.insert(0, [_Case(("1 row a step",), config, replace(work, rows=1), devices)])
    series += [
        [_Case((f"{number} x {gpu.name}", *words), config, one, number) for number in _doubled(devices)]
        for words, one in trainings
    ]
    series += [
        [_Case((f"a model {narrow.hidden_size} wide", *words), narrow, one, devices) for narrow in _narrower(config)]
        for words, one in trainings
    ]
    found: list[dict[str, Any]] = []
    for cases in series:
        nearest = _first_fitting(cases, gpu, utilisation, bandwidth)
        # What fits as it is needs no further change beside it.
        if nearest is not None and not any(set(one["change"]) <= set(nearest["change"]) for one in found):
            found.append({**nearest, "time": time_of(nearest, targets, epochs)})
    return found


def _trainings(config: LSRMConfig, work: Work) -> Iterator[tuple[tuple[str, ...], Work]]:
    """The training as asked for, then with less to hold, and what is different in words."""
    yield (), work
    if any(part != "clock" for part in config.history):  # of which the sampled softmax knows nothing
        return
    sampled = work
    words: tuple[str, ...] = ()
    if not work.num_negatives:
        sampled = replace(work, num_negatives=min(NEGATIVES, config.vocab_size // 2))
        words = (f"sampled softmax, {sampled.num_negatives:,} negatives",)
        yield words, sampled
    if work.table_updates != ROW_ADAGRAD:
        yield (*words, "table_updates row_adagrad"), replace(sampled, table_updates=ROW_ADAGRAD)


def _doubled(devices: int) -> Iterator[int]:
    while (devices := devices * 2) <= MOST_DEVICES:
        yield devices


def _narrower(config: LSRMConfig) -> Iterator[LSRMConfig]:
    """The same over narrower states, the widest first, with as many heads as divide the width."""
    shape = config.to_dict()
    ratio = (config.intermediate_size or 4 * config.hidden_size) / config.hidden_size
    for width in range((config.hidden_size - 1) // 16 * 16, 0, -16):
        heads = max(n for n in range(1, config.num_attention_heads + 1) if width % n == 0 and width // n % 2 == 0)
        changed = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": round(ratio * width)}
        yield LSRMConfig(**{**shape, **changed})


def _first_fitting(cases: list[_Case], gpu: GPU, utilisation: float, bandwidth: float | None) -> dict[str, Any] | None:
    """The first of some cases that fits. Each needs no more than the one before, so half of those left go at a time."""
    low, high, nearest = 0, len(cases), None
    while low < high:
        middle = (low + high) // 2
        case = cases[middle]
        fastest = best(rows(case.config, case.work, gpu, case.devices, utilisation, bandwidth))
        if fastest is None:
            low = middle + 1
            continue
        high = middle
        nearest = {
            "change": list(case.words),
            "devices": case.devices,
            "hidden_size": case.config.hidden_size,
            "num_non_embedding_parameters": case.config.num_non_embedding_parameters,
            "num_negatives": case.work.num_negatives,
            "table_updates": case.work.table_updates,
            "rows": case.work.rows,
            **fastest,
        }
    return nearest
