"""What a log is like, before anything is trained on it: sizes, lengths, popularity, repeats, ties, time, leaks.

Numbers come from one pass over the sorted rows, a block of users at a time; the figure needs the extra `figures`.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sr_transformers.data.cuts import blocks, quantile
from sr_transformers.data.logs import cleaning, sources
from sr_transformers.data.logs.cleaning import Filters
from sr_transformers.data.logs.duckdb_engine import DuckDBEngine
from sr_transformers.data.logs.lists import unrolled
from sr_transformers.data.logs.timestamps import show_moment
from sr_transformers.data.manifest import MANIFEST
from sr_transformers.data.prepare import sorted_on_disk
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.reopen import reopen
from sr_transformers.data.splits import LEAKS, LEAVE_ONE_OUT, PAPER, TEMPORAL
from sr_transformers.data.writing import Rows, count_rows
from sr_transformers.figures import blank
from sr_transformers.public import shown_names

_SHARES = (0.01, 0.1, 0.5)
_BINS = 60


def describe(
    source: sources.Source | PreparedData,
    columns: dict[str, str] | None = None,
    time_unit: str | None = None,
    names: list[str] | None = None,
    separator: str | None = None,
) -> dict[str, Any]:
    """Looks at a log or a prepared folder.

    Args:
        source: a prepared folder, or what `prepare` takes.
        columns, time_unit, names, separator: of a log, as for `prepare`.

    Returns:
        `name`, `users`, `items`, `interactions`, `sparsity` (share of all pairs of user and item that do not occur),
        `mean_length`, `max_length`, `length_quantiles`, `popularity` (share of the interactions that the most frequent
        1, 10 and 50 % of the items have, and the Gini coefficient), `repeat_share`, `duplicate_rows`, `tied_share`,
        `test_targets` and `test_targets_tied_with_predecessor` (of the prepared split; of leave-one-out for a log),
        `first`, `last`, `time_unit`, `from`, `to`, `median_gap` and `gap_quantiles` (between interactions of a user),
        `leaks` (notes by split), `split` (of a prepared folder), and `curves` for the figure.

    Raises:
        FileNotFoundError, ValueError: as `prepare`.
    """
    with tempfile.TemporaryDirectory() as folder, _rows(source, columns, time_unit, names, separator, Path(folder)) as (
        name, rows, unit, data,
    ):  # fmt: skip
        counts = count_rows(rows)
        frequency = _frequency(rows)
        pairs = len(rows.items) - round(counts["repeat_share"] * len(rows.items))
        targets = _targets(rows, data)
        gaps = _gaps(rows, Path(folder))
        lengths = np.sort(rows.lengths)
        report: dict[str, Any] = {
            "name": name,
            **counts,
            "items": len(frequency),
            "sparsity": 1 - pairs / (len(rows.lengths) * len(frequency)),
            "length_quantiles": {str(q): int(np.quantile(lengths, q, method="higher")) for q in (0.1, 0.5, 0.9, 0.99)},
            "popularity": {
                **{f"top_{share:.0%}": _top(frequency, share) for share in _SHARES},
                "gini": _gini(frequency),
            },
            "test_targets": len(targets),
            "test_targets_tied_with_predecessor": int((rows.timestamps[targets] == rows.timestamps[targets - 1]).sum()),
            "time_unit": unit,
            "from": show_moment(counts["first"], unit),
            "to": show_moment(counts["last"], unit),
            "median_gap": quantile(gaps, 0.5) if len(gaps) else None,
            "gap_quantiles": {str(q): quantile(gaps, q) for q in (0.1, 0.9, 0.99)} if len(gaps) else {},
            "leaks": _leaks(counts, rows, data),
            "curves": {
                "lengths": _histogram(rows.lengths),
                "gaps": _histogram(gaps),
                "popularity": [int(frequency[i]) for i in _log_steps(len(frequency))],
                "popularity_ranks": [int(i) + 1 for i in _log_steps(len(frequency))],
                "activity": _activity(rows, counts["first"], counts["last"]),
            },
        }
        if data is not None:
            report["split"] = data.manifest["split"]
        return report


@contextlib.contextmanager
def _rows(
    source: Any, columns: dict | None, unit: str | None, names: list[str] | None, separator: str | None, folder: Path
) -> Iterator[tuple[str, Rows, str | None, PreparedData | None]]:
    """Name, rows, unit of time, and the prepared data if that is what it is."""
    is_folder = isinstance(source, str | Path) and (Path(source) / MANIFEST).is_file()
    if isinstance(source, PreparedData) or is_folder:
        data = (source if isinstance(source, PreparedData) else PreparedData(source)).verified()
        rows, _ = reopen(data, folder)
        yield data.path.name, rows, data.manifest.get("times", {}).get("unit"), data
        return
    log = sources.find_log(source, names, separator)
    engine = DuckDBEngine(folder)
    try:
        names_of = {**dict(log.columns), **(columns or {})}
        engine.load(unrolled(log, names_of, False, folder), names_of, False)
        sound = cleaning.clean_log(engine, log.name, Filters(), unit)
        _, rows = sorted_on_disk(engine, sound, folder)
    finally:
        engine.close()
    yield shown_names([log.name])[0], rows, sound.unit, None


def _targets(rows: Rows, data: PreparedData | None) -> np.ndarray:
    """Rows of the test targets: of the prepared split, or of leave-one-out."""
    ends = np.cumsum(rows.lengths)
    if data is None:
        return (ends - 1)[rows.lengths >= 3]
    targets = data.targets("test")
    return (ends - rows.lengths)[targets[:, 0]] + targets[:, 1]


def _gaps(rows: Rows, folder: Path) -> np.ndarray:
    """Times between a user's interactions, `(rows - users,)` int64, on disk."""
    number = len(rows.items) - len(rows.lengths)
    if not number:
        return np.zeros(0, np.int64)
    gaps = np.memmap(folder / "gaps", np.int64, "w+", shape=(number,))
    filled = 0
    for first, last, start, stop in blocks(rows.lengths):
        user = np.repeat(np.arange(last - first), rows.lengths[first:last])
        between = np.diff(rows.timestamps[start:stop])[user[1:] == user[:-1]]
        # Times rise within a user; a gap of 2**63 or more, which int64 does not hold, is counted as the largest.
        gaps[filled : filled + len(between)] = np.where(between < 0, np.iinfo(np.int64).max, between)
        filled += len(between)
    return gaps


def _frequency(rows: Rows) -> np.ndarray:
    """Interactions of every item that has any, falling."""
    counts = np.zeros(int(rows.items.max()) + 1, np.int64)
    for _, _, start, stop in blocks(rows.lengths):
        counts += np.bincount(rows.items[start:stop], minlength=len(counts))
    return np.sort(counts[counts > 0])[::-1]


def _top(frequency: np.ndarray, share: float) -> float:
    """Share of the interactions that the most frequent items have; `frequency` falls."""
    return float(frequency[: max(round(len(frequency) * share), 1)].sum() / frequency.sum())


def _gini(frequency: np.ndarray) -> float:
    """0: all items equally frequent; towards 1: one item has everything. `frequency` falls."""
    rising = frequency[::-1].astype(np.float64)
    n = len(rising)
    return float((2 * np.arange(1, n + 1) - n - 1) @ rising / (n * rising.sum()))


def _leaks(counts: dict[str, Any], rows: Rows, data: PreparedData | None) -> list[str]:
    """What a reader of results on this log should know."""
    if data is not None:
        notes = [LEAKS[data.manifest["split"]]]
    else:
        notes = [LEAKS[split] for split in (LEAVE_ONE_OUT, TEMPORAL, PAPER)]
        last = rows.timestamps[np.cumsum(rows.lengths) - 1]
        middle = quantile(rows.timestamps, 0.5)
        early = float((last <= middle).mean())
        notes.append(
            f"leave-one-out: {early:.0%} of the users end in the first half of the interactions; their targets are "
            "older than half of the training data."
        )
    if counts["tied_share"] > 0.01:
        notes.append(
            f"ties: {counts['tied_share']:.0%} of the interactions have the time of their predecessor; their order is "
            "that of the source, which may be sorted by something that tells the answer."
        )
    if counts["duplicate_rows"]:
        notes.append(f"{counts['duplicate_rows']:,} rows repeat user, item and time of another (repeats='distinct').")
    return notes


def _histogram(values: np.ndarray) -> dict[str, list]:
    """Numbers of values in bins whose edges double."""
    bins = np.zeros(65, np.int64)
    for start in range(0, len(values), 1 << 22):
        part = np.maximum(values[start : start + (1 << 22)], 0)
        bins += np.bincount(np.frexp(part.astype(np.float64))[1], minlength=65)[:65]
    last = int(np.flatnonzero(bins)[-1]) if bins.any() else 0
    return {"from": [0, *(2 ** (k - 1) for k in range(1, last + 1))], "count": bins[: last + 1].tolist()}


def _log_steps(size: int) -> np.ndarray:
    """Places 0 .. size - 1, ever farther apart."""
    return np.unique(np.geomspace(1, size, 200).astype(np.int64)) - 1 if size > 200 else np.arange(size)


def _activity(rows: Rows, first: int, last: int) -> dict[str, list]:
    """Interactions over time, in bins of equal length."""
    width = max((last - first) // _BINS + 1, 1)
    bins = np.zeros(_BINS, np.int64)
    for start in range(0, len(rows.timestamps), 1 << 22):
        part = rows.timestamps[start : start + (1 << 22)].view(np.uint64) - np.uint64(first % 2**64)
        bins += np.bincount((part // np.uint64(width)).astype(np.int64), minlength=_BINS)[:_BINS]
    return {"from": [first + n * width for n in range(_BINS)], "count": bins.tolist()}


def as_text(report: dict[str, Any]) -> str:
    """A report for people."""
    unit = report["time_unit"] or "units"
    lengths, popularity = report["length_quantiles"], report["popularity"]
    tied = report["test_targets_tied_with_predecessor"]
    lines = [
        f"{report['name']}: {report['interactions']:,} interactions of {report['users']:,} users with "
        f"{report['items']:,} items, {report['sparsity']:.2%} sparse",
        f"history      mean {report['mean_length']:.1f}, median {lengths['0.5']}, 90 % {lengths['0.9']}, "
        f"longest {report['max_length']:,}",
        f"popularity   top 1 % of the items {popularity['top_1%']:.0%} of the interactions, 10 % "
        f"{popularity['top_10%']:.0%}, 50 % {popularity['top_50%']:.0%}, Gini {popularity['gini']:.2f}",
        f"repeats      {report['repeat_share']:.1%} of the interactions, {report['duplicate_rows']:,} duplicate rows",
        f"ties         {report['tied_share']:.1%} of the interactions; {tied:,} of {report['test_targets']:,} test "
        "targets tie with their predecessor",
        f"time         {report['from']} to {report['to']}; between interactions of a user: median "
        f"{report['median_gap']}, 90 % {report['gap_quantiles'].get('0.9')} ({unit})",
    ]
    return "\n".join([*lines, *(f"leaks        {note}" for note in report["leaks"])])


def draw(report: dict[str, Any], path: str | Path) -> None:
    """One figure of a report: history lengths, popularity, activity over time, gaps.

    Raises:
        ImportError: without matplotlib.
        ValueError: for a suffix that matplotlib does not write.
    """
    figure = blank(10, 7)
    panels = figure.subplots(2, 2)
    curves = report["curves"]
    for panel, curve, title, what in (
        (panels[0, 0], "lengths", "interactions per user", "users"),
        (panels[1, 1], "gaps", f"time between interactions of a user ({report['time_unit'] or 'units'})", "pairs"),
    ):
        labels = [f"{start:.0e}" if start >= 10**5 else str(start) for start in curves[curve]["from"]]
        panel.bar(range(len(labels)), curves[curve]["count"], width=1, align="edge", edgecolor="white")
        step = len(labels) // 10 + 1
        panel.set_xticks(range(0, len(labels), step), labels[::step], rotation=45)
        panel.set_title(title)
        panel.set_ylabel(what)
    panels[0, 1].loglog(curves["popularity_ranks"], curves["popularity"])
    panels[0, 1].set_title("interactions of an item, by its rank")
    panels[0, 1].set_ylabel("interactions")
    activity = curves["activity"]
    panels[1, 0].stairs(activity["count"], fill=True)
    panels[1, 0].set_xticks([0, _BINS], [report["from"][:10], report["to"][:10]])
    panels[1, 0].set_title("interactions over time")
    panels[1, 0].set_ylabel("interactions")
    title = f"{report['name']}: {report['interactions']:,} interactions, {report['users']:,} users"
    figure.suptitle(title, parse_math=False)  # a file name may hold two dollar signs
    figure.savefig(path)
