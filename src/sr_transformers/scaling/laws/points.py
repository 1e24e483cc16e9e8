"""The points that a law is fitted to: N, D and loss of finished runs, from a table or from run records, checked.

Refused with the row: missing, not finite or not positive values, a column that is not there, fewer points than
parameters, a variable with one distinct value. Flagged in `Points.warnings`, since they can be meant: duplicates, and
values that look like another unit (millions of parameters, compute that does not fit). Nothing is dropped unless asked,
and then counted in `Points.dropped`.
"""

import contextlib
import csv
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sr_transformers.scaling.laws.forms import UNIQUE, D, Law, N, law_named

LOSS, METRIC, C = "loss", "metric", "C"
_ALIKE = 1.05  # amounts of data within so much are one: users of a fraction differ in their histories
# What tables call these columns, if nobody says.
_USUAL = {
    N: ("N", "n", "params", "parameters", "num_non_embedding_parameters", "Model Size"),
    D: ("D", "d", "tokens", "interactions", "num_interactions_seen"),
    C: ("C", "c", "flops", "FLOPs", "training_flops", "Training FLOP"),
    UNIQUE: ("unique", "unique_tokens", "num_train_interactions"),
    LOSS: ("loss", "L", "test_loss"),
    METRIC: ("metric", "ndcg@10", "hr@10"),
}


@dataclass
class Points:
    """P points.

    Attributes:
        columns: `(P,)` float64 each: N, D, unique (distinct interactions), loss (nats), metric (a fraction).
        rows: where each point came from, for messages: line of the table (from 1 on, without the head) or run folder.
        groups: `(P,)` labels; runs that differ in their seed only share one.
        warnings: what looks odd.
        dropped: points left out on request, by reason.
        metric: what the column metric holds, for example "ndcg@10"; empty if nobody said.
    """

    columns: dict[str, np.ndarray]
    rows: list[str]
    groups: np.ndarray
    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    metric: str = ""

    def __post_init__(self) -> None:
        self.columns = {name: np.asarray(values, dtype=np.float64) for name, values in self.columns.items()}
        for name, values in self.columns.items():
            wrong = ~np.isfinite(values) | (values <= 0)
            if wrong.any():
                at = int(np.argmax(wrong))
                raise ValueError(
                    f"{self.rows[at]}: {name} is {values[at]}; every value must be a finite number above 0 "
                    f"({int(wrong.sum())} of {len(values)} are not). Remove or correct these rows."
                )
        for name in (METRIC,):
            if name in self.columns and (self.columns[name] >= 1).any():
                at = int(np.argmax(self.columns[name] >= 1))
                raise ValueError(
                    f"{self.rows[at]}: the metric is {self.columns[name][at]}; HR and NDCG lie in (0, 1), divide per "
                    "cents by 100."
                )

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, law: Law) -> np.ndarray:
        """`(P,)` what the law describes: the loss, or the misses 1 - metric for the saturating form."""
        return 1.0 - self.columns[METRIC] if law.name == "saturating" else self.columns[LOSS]

    def quantity(self, law: Law) -> str:
        """The name of what the law describes: "loss", or the metric."""
        return self.metric or METRIC if law.name == "saturating" else LOSS

    def num_values(self, variable: str) -> int:
        """Distinct values of a variable, up to rounding (1e-6 of the value)."""
        return len(np.unique(np.round(np.log(self.columns[variable]), 6)))

    def num_distinct(self, law: Law) -> int:
        """Points that are not exact copies of others."""
        names = [*law.variables, METRIC if law.name == "saturating" else LOSS]
        return len(np.unique(np.stack([self.columns[name] for name in names]), axis=1).T)

    def take(self, index: np.ndarray) -> "Points":
        """Some of the points, by index or mask."""
        index = np.arange(len(self))[index]
        return dataclasses.replace(
            self,
            columns={name: values[index] for name, values in self.columns.items()},
            rows=[self.rows[i] for i in index],
            groups=self.groups[index],
        )

    def drop_largest_losses(self, count: int) -> "Points":
        """Without the `count` largest losses, as published refits drop runs that had not settled.

        Raises:
            ValueError: for a negative count, or one that leaves nothing.
        """
        if count and LOSS not in self.columns:
            raise ValueError("drop-largest-losses needs the column loss; name it with --loss-column.")
        if not 0 <= count < len(self):
            raise ValueError(f"drop-largest-losses is {count}; it must lie in 0..{len(self) - 1} for these points.")
        if not count:
            return self
        kept = np.sort(np.argsort(self.columns[LOSS], kind="stable")[: len(self) - count])
        rest = self.take(kept)
        rest.dropped = {**self.dropped, "largest losses": count}
        return rest

    def require(self, law: Law) -> None:
        """Checks that a law can be fitted at all.

        Raises:
            ValueError: if a column is missing, a variable has one distinct value, or points are fewer than parameters.
        """
        for name in (*law.variables, METRIC if law.name == "saturating" else LOSS):
            if name not in self.columns:
                raise ValueError(
                    f"law {law.name} needs the column {name}; these points have {', '.join(self.columns)}."
                )
        for name in law.powers:
            if self.num_values(name) == 1:
                raise ValueError(
                    f"{name} has one distinct value ({self.columns[name][0]:g}) in all points: a law of {name} needs "
                    "several; choose another law or measure more."
                )
        if len(self) < law.num_parameters:
            raise ValueError(
                f"{len(self)} points for {law.num_parameters} parameters of law {law.name}: measure at least "
                f"{law.num_parameters + 2} (two to spare give intervals)."
            )


def points_from(
    columns: Mapping[str, np.ndarray | Sequence[float]],
    rows: Sequence[str] | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
) -> Points:
    """Points from columns N, D, C, unique, loss, metric; D follows from C = 6 N D where it is not given.

    Raises:
        ValueError: for values that are no points (see `Points`), or no points at all.
    """
    given = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    size = len(next(iter(given.values()), []))
    if not size:
        raise ValueError("there are no points: the table is empty.")
    rows = list(rows) if rows is not None else [f"point {index + 1}" for index in range(size)]
    labels = np.asarray(groups) if groups is not None else np.array(rows)
    Points({C: given[C]} if C in given else {}, rows, labels)  # checks it before it is divided by
    if C in given and N in given and D not in given:
        given[D] = given[C] / (6.0 * Points({N: given[N]}, rows, labels).columns[N])
    points = Points({name: values for name, values in given.items() if name != C}, rows, labels)
    points.warnings = _odd(points, given.get(C))
    return points


def unread(law: Law, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Warns where points that a law takes for repetitions of one differ in the size or the data it does not read."""
    found = []
    keys = np.stack([np.round(np.log(columns[name]), 6) for name in law.powers], axis=1)
    _, groups = np.unique(keys, axis=0, return_inverse=True)
    for name in (N, D):
        if name in law.variables or name not in columns:
            continue
        ends = [
            (columns[name][mask].min(), columns[name][mask].max())
            for mask in (groups == np.arange(groups.max() + 1)[:, None])
        ]
        low, high = max(ends, key=lambda pair: pair[1] / pair[0])
        if high > low * _ALIKE:
            found.append(
                f"mixed: law {law.name} does not read {name}, and points of one {law.powers[0]} have {name} from "
                f"{low:g} to {high:g}; fit points of one {name}, or a law that reads it."
            )
    return found


def read_table(
    path: str | Path,
    names: Mapping[str, str | None] | None = None,
    law: Law | str | None = None,
    where: Mapping[str, str] | None = None,
) -> Points:
    """Points from a CSV or TSV file with a head, or from a Parquet file.

    Args:
        names: the table's column for each of N, D, C, unique, loss, metric and seed; what is left out is looked for
            under its usual names. Rows that agree in all but seed and loss belong to one group.
        law: read only the columns that it needs, so that nothing wrong elsewhere matters; None: all that are found.
        where: only rows that hold these values, by column, written as text (true, false; numbers in any way); how many
            were left out stands in `Points.dropped`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no table, a column that is not there, or a cell that is no number; the message
            names row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        table = _parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table as text: {error}.") from error
    if not table:
        raise ValueError(f"{path}: no rows below the head.")
    law = law_named(law) if isinstance(law, str) else law
    needed = {*law.variables, METRIC if law.name == "saturating" else LOSS} if law else set(_USUAL)
    needed |= {N, C} if D in needed else set()
    chosen: dict[str, str] = {}
    for name, usual in _USUAL.items():
        if name not in needed and not (names or {}).get(name):
            continue
        wanted = (names or {}).get(name)
        if wanted is not None and wanted not in table[0]:
            raise ValueError(f"{path}: no column {wanted!r}; it has {', '.join(map(repr, table[0]))}.")
        found = wanted or next((one for one in usual if one in table[0]), None)
        if found:
            chosen[name] = found
    if law is not None:
        wanted_columns = (*law.variables, METRIC if law.name == "saturating" else LOSS)
        missing = [name for name in wanted_columns if name not in chosen and not (name == D and C in chosen)]
        if missing:
            raise ValueError(
                f"{path}: law {law.name} needs the column {missing[0]}; it has {', '.join(map(repr, table[0]))}. If it "
                f"has another name, say --{missing[0].lower()}-column NAME."
            )
    if (names or {}).get(C) and not (names or {}).get(D):
        chosen.pop(D, None)  # asked for C in place of D
    rows = [f"{path} row {index}" for index in range(1, len(table) + 1)]
    kept = [_matches(line, where or {}, path) for line in table]
    if not any(kept):
        raise ValueError(
            f"{path}: no row holds {', '.join(f'{name} = {value}' for name, value in (where or {}).items())}."
        )
    table = [line for line, keep in zip(table, kept, strict=True) if keep]
    rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    columns = {
        name: [_number(line.get(column), row, column) for line, row in zip(table, rows, strict=True)]
        for name, column in chosen.items()
    }
    keys = [name for name in columns if name not in (LOSS, METRIC)]
    groups = ["|".join(f"{columns[name][index]:.9g}" for name in keys) for index in range(len(table))]
    points = points_from(columns, rows, groups)
    points.metric = chosen.get(METRIC, "")
    if where:
        points.dropped = {"other rows of the table": kept.count(False)}
    if law is not None:
        points.warnings += unread(law, {**_readable(table, set(_USUAL) - set(chosen)), **points.columns})
    return points


def _readable(table: list[dict[str, Any]], names: set[str]) -> dict[str, np.ndarray]:
    """Columns of points under their usual names, of those asked for, that hold positive numbers throughout."""
    found = {}
    for name in names:
        column = next((one for one in _USUAL[name] if one in table[0]), None)
        with contextlib.suppress(ValueError, TypeError):
            values = np.array([float(line[column]) for line in table if column is not None])
            if len(values) and (values > 0).all() and np.isfinite(values).all():
                found[name] = values
    return found


def _text_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter="\t" if "\t" in head else ";" if ";" in head else ",")
        twice = [name for name, count in Counter(reader.fieldnames or []).items() if count > 1 and name]
        if twice:
            raise ValueError(f"{path}: the head names the column {twice[0]!r} more than once; rename or remove one.")
        table = list(reader)
    for index, line in enumerate(table, 1):
        if any(line.pop(None, [])):
            raise ValueError(
                f"{path} row {index}: more cells than the head has columns ({len(reader.fieldnames or [])}); write "
                "numbers with a point, not a comma, or quote them."
            )
    return table


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


def _matches(line: Mapping[str, Any], where: Mapping[str, str], path: Path) -> bool:
    for name in where:
        if name not in line:
            raise ValueError(f"{path}: no column {name!r}; it has {', '.join(map(repr, line))}.")
    return all(_is(line[name], value) for name, value in where.items())


def _is(there: Any, wanted: str) -> bool:
    """Whether a cell holds what is written so: a number in any way of writing it, 3 and 3.0 alike."""
    if isinstance(there, bool):
        return str(there).lower() == wanted
    try:
        return str(there) == wanted or float(there) == float(wanted)
    except (TypeError, ValueError):  # one of them is no number
        return False


def _number(text: Any, row: str, column: str) -> float:
    try:
        return float("" if text is None else text)
    except ValueError:
        raise ValueError(
            f"{row}: column {column!r} holds {text!r}, which is no number; write 1234.5 or 1.2e3."
        ) from None


def _odd(points: Points, compute: np.ndarray | None) -> list[str]:
    """What looks like a mistake without having to be one."""
    found = []
    table = np.stack(list(points.columns.values()))
    _, first, counts = np.unique(table, axis=1, return_index=True, return_counts=True)
    if (counts > 1).any():
        at = points.rows[int(first[np.argmax(counts > 1)])]
        found.append(
            f"duplicates: {int((counts - 1).sum())} points are exact copies of others (the first is {at}); each counts "
            "as often as it stands there."
        )
    if N in points.columns and float(np.median(points.columns[N])) < 1000:
        found.append(
            f"units: the median N is {np.median(points.columns[N]):g}; N counts parameters, not thousands or millions."
        )
    if D in points.columns and float(np.median(points.columns[D])) < 1000:
        found.append(
            f"units: the median D is {np.median(points.columns[D]):g}; D counts interactions, not thousands or "
            "millions (and C counts FLOPs, if D comes from C)."
        )
    if LOSS in points.columns and float(points.columns[LOSS].max()) > 30:
        found.append(
            f"units: the largest loss is {points.columns[LOSS].max():g}; losses are nats per interaction (exp(30) "
            "items would be a large catalogue), not sums and not perplexities."
        )
    if compute is not None and {N, D} <= set(points.columns):
        ratio = float(np.median(compute / (6.0 * points.columns[N] * points.columns[D])))
        if not math.isclose(ratio, 1.0, rel_tol=0.5):
            found.append(
                f"units: C is {ratio:.3g} times 6 N D at the median; check which of the three is in other units."
            )
    if UNIQUE in points.columns and D in points.columns:
        more = points.columns[UNIQUE] > points.columns[D] * (1 + 1e-9)
        if more.any():
            at = points.rows[int(np.argmax(more))]
            raise ValueError(
                f"{at}: unique is larger than D; D counts interactions seen, epochs included, unique the distinct ones."
            )
    return found
