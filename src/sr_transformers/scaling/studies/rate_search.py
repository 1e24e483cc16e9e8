"""Searches the best learning rate and dropout rate of some sizes of a study, on validation loss, never on test loss.

For each size of the section `tuning`:

1. walk the ladder of learning rates: start where the study says, or at the rate that the smaller sizes suggest, try the
   two neighbours, go on to the better side until the best rate tried has both of them tried or is an end of the ladder;
2. walk the ladder of dropout rates at that rate in the same way, from where the study says or the best one of the size
   before;
3. if that changed the dropout, walk the rates again from the best one: with less dropout the best rate is another;
4. where the section has a `part`, walk the dropout rates once more, on that part of the data.

Sizes that begin where the study says are searched side by side; the others wait for all smaller ones. What is found
does not depend on which run ends first.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sr_transformers.scaling.studies.learning_rates import Tuned, best_rate, finite, rate_for
from sr_transformers.scaling.studies.study import PlannedRun, Study
from sr_transformers.scaling.studies.tuning_section import Tuning
from sr_transformers.scaling.studies.workers import Workers, finished

Pair = tuple[float, float | None]  # learning rate and dropout rate
Trial = tuple[float, float | None, bool]  # the same, and whether on the part of the data
Result = TypeVar("Result")
Asked = TypeVar("Asked")
Wanted = TypeVar("Wanted")
END = " (an end of the ladder)"


@dataclass
class Found:
    """What the search of a size found.

    Attributes:
        losses: by learning rate, rising, at the best dropout; dropout: that one.
        of_part: loss by dropout on the part of the data; empty if it was not tuned there.
    """

    losses: dict[float, float]
    dropout: float | None
    of_part: dict[float, float] = field(default_factory=dict)

    def any_loss(self) -> bool:
        """Whether a run has a finite loss."""
        return any(map(math.isfinite, self.losses.values()))

    def best_rate(self) -> tuple[float, int]:
        """See `learning_rates.best_rate`."""
        return best_rate(list(self.losses), list(self.losses.values()))

    def best_of_part(self) -> float | None:
        """The best dropout there; None if no run has a finite loss."""
        best = min(self.of_part, key=lambda one: finite(self.of_part[one]), default=None)
        return best if best is not None and math.isfinite(self.of_part[best]) else None


Search = Generator[Sequence[Trial], Sequence[float], Found]  # asks for the losses of several trials at once


def least_runs(study: Study, folder: Path) -> list[PlannedRun]:
    """As many runs as tuning still does at least, for an estimate: three rates and two more dropouts for every size, if
    it begins at the best ones, less what is finished in `folder`."""
    if (plan := study.tuning) is None:
        return []
    runs: list[PlannedRun] = []

    def add(size: str, pairs: list[Pair], part: bool) -> None:
        wanted = [study.tuning_run(size, *pair, part=part) for pair in pairs]
        alike = wanted[0].name.partition("-lr")[0] + "-lr"
        done = sum(one.name.startswith(alike) and finished(one) for one in folder.glob("*"))
        left = [run for run in wanted if not finished(folder / run.name)]
        runs.extend(left[: max(len(wanted) - done, 0)])

    for size in plan.sizes:
        rate, dropout = plan.start.get(size) or _suggested(plan, 1.0, {})
        pairs: list[Pair] = [(one, dropout) for one in _near(plan.learning_rates, rate)]
        pairs += [(rate, one) for one in _near(plan.dropouts, dropout) if one != dropout] if dropout is not None else []
        add(size, pairs, part=False)
        if plan.part is not None and size in plan.part.epochs:
            begin = plan.part.start.get(size, dropout or 0.0)
            add(size, [(rate, one) for one in _near(plan.dropouts, begin)], part=True)
    return runs


def _near(ladder: Sequence[float], start: float) -> list[float]:
    """A rung and its neighbours."""
    place = list(ladder).index(start)
    return list(ladder[max(place - 1, 0) : place + 2])


def tune(workers: Workers, folder: Path, tell: Callable[[str], None], late: Callable[[], bool] | None = None) -> Tuned:
    """Tries rates on the sizes of the study's section `tuning`; finished runs are not done again.

    Args:
        late: asked before every run; once it says so no run is begun, and searches that are not at their end take the
            best of what they tried (`Tuned.cut_short`).

    Raises:
        ValueError: if the study tunes nothing, or no run of a size has a finite loss.
    """
    study, plan = workers.study, workers.study.tuning
    if plan is None:
        raise ValueError(f"study {study.name} tunes no learning rate; add a section `tuning`.")
    n_of = {size: float(study.sizes[size].num_non_embedding_parameters) for size in plan.sizes}
    searches = _Searches(workers, folder, tell, late)

    def begin(ended: Mapping[str, Found]) -> None:
        for place, size in enumerate(plan.sizes):
            smaller = plan.sizes[:place]
            if size not in searches.begun and (size in plan.start or all(one in ended for one in smaller)):
                start = plan.start.get(size) or _suggested(plan, n_of[size], {n_of[one]: ended[one] for one in smaller})
                searches.begin(size, search_of(plan, size, n_of[size], start))

    begin({})
    found = Tuned(most_dropout=max(plan.dropouts, default=0.0), whole=plan.fraction)
    if plan.part is not None:
        found.part, found.at_edge["dropout on a part of the data"] = plan.part.fraction, []
    for size in searches.run():
        one = searches.ended[size]
        if size in searches.cut and not one.any_loss():
            raise ValueError(
                f"the budget ended tuning before a run of {size} had; raise --budget, and the same command goes on."
            )
        tell(_said(size, one, plan))
        begin(searches.ended)
    for size in plan.sizes:
        _add(found, size, n_of[size], searches.ended[size], plan, size in searches.cut)
    return found


def _add(found: Tuned, size: str, n: float, one: Found, plan: Tuning, cut: bool) -> None:
    """Adds what the search of a size found.

    Raises:
        ValueError: if no run of it has a finite loss.
    """
    found.rates[n], edge = one.best_rate()
    found.at_edge["learning_rate"] += [size] if edge else []
    found.cut_short += [size] if cut else []
    if one.dropout is not None:
        found.dropouts[n] = one.dropout
        found.at_edge["dropout"] += [size] if _is_end(plan, one.dropout) else []
    if plan.part is not None and size in plan.part.epochs:
        best = one.best_of_part()
        if best is None and not cut:
            raise ValueError(
                f"{size} on {plan.part.fraction:g} of the data: no dropout of {list(one.of_part)} has a finite loss."
            )
        found.dropouts_of_part[n] = found.dropouts[n] if best is None else best
        if best is not None and _is_end(plan, best):
            found.at_edge["dropout on a part of the data"].append(size)


def search_of(plan: Tuning, size: str, n: float, start: Pair) -> Search:
    """The whole search of a size: rates and dropouts, and those on a part of the data if the plan has the size there.

    Args:
        n: its N; start: where to begin.

    Yields:
        Several trials whose losses are to be sent.
    """
    found = Found(*(yield from _with(descend(plan, *start), lambda pair: (*pair, False))))
    if plan.part is not None and size in plan.part.epochs and found.any_loss():
        rate = rate_for(n, {n: found.best_rate()[0]})
        begin = plan.part.start.get(size, found.dropout or 0.0)
        found.of_part = yield from _with(walk(plan.dropouts, begin), lambda dropout: (rate, dropout, True))
    return found


def descend(
    plan: Tuning, rate: float, dropout: float | None
) -> Generator[Sequence[Pair], Sequence[float], tuple[dict[float, float], float | None]]:
    """Walks learning rates and dropout rates in turn, until a walk of one leaves the other where it was.

    Args:
        rate, dropout: where to start, both on the ladders of the plan; dropout None: it is not tuned.

    Yields:
        Several pairs (rate, dropout) whose losses are to be sent; a pair may be asked for again.

    Returns:
        Loss by rate, rising, of the walk at the best dropout, and that dropout.
    """
    while True:
        tried = yield from _with(walk(plan.learning_rates, rate), lambda one: (one, dropout))  # noqa: B023
        rate = min(tried, key=lambda one: finite(tried[one]))
        if dropout is None:
            return tried, None
        others = yield from _with(walk(plan.dropouts, dropout), lambda one: (rate, one))  # noqa: B023
        best = min(others, key=lambda one: finite(others[one]))
        if best == dropout:
            return tried, dropout
        dropout = best


def walk(ladder: Sequence[float], start: float) -> Generator[list[float], Sequence[float], dict[float, float]]:
    """Tries a rung and its neighbours, and on towards the lower loss until the best rung's neighbours are tried too.

    Yields:
        Several rungs whose losses are to be sent, and which may be computed side by side.

    Returns:
        Loss by rung tried, rising.

    >>> steps = walk([1, 2, 4, 8, 16], 2)
    >>> next(steps), steps.send([7, 6, 4]), steps.send([0])
    ([1, 2, 4], [8], [16])
    """
    tried: dict[float, float] = {}
    best = list(ladder).index(start)
    while True:
        new = [ladder[i] for i in (best - 1, best, best + 1) if 0 <= i < len(ladder) and ladder[i] not in tried]
        if not new:
            return dict(sorted(tried.items()))
        tried.update(zip(new, (yield new), strict=True))
        best = list(ladder).index(min(tried, key=lambda rung: finite(tried[rung])))


@dataclass
class _Searched:
    """A size's search: the runs it waits for, and the losses of all of its runs that have ended."""

    search: Search
    asked: list[str] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)


class _Searches:
    """Searches of several sizes, whose runs are trained side by side.

    Attributes:
        begun: by size; ended: their results; cut: those that ended because it was late (see `tune`).
    """

    def __init__(
        self, workers: Workers, folder: Path, tell: Callable[[str], None], late: Callable[[], bool] | None
    ) -> None:
        self.workers, self.folder, self.tell, self.late = workers, folder, tell, late
        self.begun: dict[str, _Searched] = {}
        self.ended: dict[str, Found] = {}
        self.cut: set[str] = set()
        self._queue: deque[tuple[PlannedRun, Path]] = deque()

    def begin(self, size: str, search: Search) -> None:
        """Adds a search; allowed while others run."""
        self.begun[size] = _Searched(search)
        self._ask(size, next(search))

    def run(self) -> Iterator[str]:
        """Trains what the searches ask for; the sizes whose search has ended, as they end."""
        for run, record, _ in self.workers.train(_Queue(self._queue, self.late)):
            one = self.begun[run.size.name]
            if record is None:
                self.tell(f"{run.name}: its model diverged; its rates are too high.")
            one.losses[run.name] = record.validation.get("loss", math.nan) if record else math.nan
            if all(name in one.losses for name in one.asked):
                yield from self._go_on(run.size.name)
        while late := [size for size in self.begun if size not in self.ended]:
            self._queue.clear()
            for size in late:
                self.cut.add(size)
                self.tell(f"{size}: the budget ends its tuning; the best of what was tried is taken.")
                yield from self._go_on(size)

    def _go_on(self, size: str) -> Iterator[str]:
        """Gives a search the losses that it asked for, as long as all are known; the size if that ends it.

        Nothing is trained twice, and of a search that was cut short what is not known is NaN.
        """
        one = self.begun[size]
        while size in self.cut or all(name in one.losses for name in one.asked):
            try:
                self._ask(size, one.search.send([one.losses.get(name, math.nan) for name in one.asked]))
            except StopIteration as end:
                self.ended[size] = end.value
                yield size
                return

    def _ask(self, size: str, trials: Sequence[Trial]) -> None:
        one = self.begun[size]
        runs = [self.workers.study.tuning_run(size, rate, dropout, part) for rate, dropout, part in trials]
        one.asked = [run.name for run in runs]
        self._queue.extend((run, self.folder / run.name) for run in runs if run.name not in one.losses)


class _Queue(Iterator[tuple[PlannedRun, Path]]):
    """What is left to train; it may be filled again after it was empty. Runs that are finished cost no time."""

    def __init__(self, left: deque[tuple[PlannedRun, Path]], late: Callable[[], bool] | None) -> None:
        self.left, self.late = left, late

    def __next__(self) -> tuple[PlannedRun, Path]:
        if not self.left or (self.late is not None and not finished(self.left[0][1]) and self.late()):
            raise StopIteration
        return self.left.popleft()


def _with(
    search: Generator[Sequence[Asked], Sequence[float], Result], more: Callable[[Asked], Wanted]
) -> Generator[Sequence[Wanted], Sequence[float], Result]:
    """A search that asks for the losses of the same with something more."""
    asked = next(search)
    while True:
        try:
            asked = search.send((yield [more(one) for one in asked]))
        except StopIteration as end:
            return end.value


def _suggested(plan: Tuning, n: float, smaller: dict[float, Found]) -> Pair:
    """Where a size begins of which the study says nothing: what the smaller sizes found, or the middles."""
    if not smaller:
        return _middle(plan.learning_rates), _middle(plan.dropouts) if plan.dropouts else None
    rates = {size: one.best_rate()[0] for size, one in smaller.items()}
    dropout = smaller[max(smaller)].dropout
    rate = min(plan.learning_rates, key=lambda rung: abs(math.log(rung / rate_for(n, rates))))
    return rate, dropout


def _said(size: str, found: Found, plan: Tuning) -> str:
    best, edge = found.best_rate()
    said = f"{size}: learning rate {best:.2g}" + (END if edge else "")
    if found.dropout is not None:
        said += f", dropout {found.dropout:g}" + (END if _is_end(plan, found.dropout) else "")
    if plan.part is not None and (there := found.best_of_part()) is not None:
        end = END if _is_end(plan, there) else ""
        said += f", on {plan.part.fraction:.0%} of the data dropout {there:g}{end}"
    return said


def _is_end(plan: Tuning, dropout: float) -> bool:
    """Whether a dropout rate is an end of its ladder beyond which a better one may lie: 0 is none."""
    return dropout == plan.dropouts[-1] or dropout == plan.dropouts[0] > 0


def _middle(ladder: Sequence[float]) -> float:
    return ladder[(len(ladder) - 1) // 2]
