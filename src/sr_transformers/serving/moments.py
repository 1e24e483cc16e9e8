"""The moments of a request: when the interactions of its histories happened, and when it is made."""

from collections.abc import Collection, Sequence
from typing import Any

from sr_transformers.lsrm.requests_lsrm import check_times, moment_of_request


def moments_of_items(histories: Sequence[Collection[Any]], times: Any) -> list[list[int]]:
    """The moments of all items of each history; histories without items need none.

    Raises:
        ValueError: without them, or as `requests_lsrm.check_times`.
    """
    if times is None and not any(len(history) for history in histories):
        times = [()] * len(histories)
    if not isinstance(times, Collection) or len(times) != len(histories):
        raise ValueError(
            "this model reads when interactions happened: pass times, for every history as many moments as items, "
            "in the unit of the log that it was trained on."
        )
    pairs = zip(times, histories, strict=True)
    return [check_times(of_one, history, f"the times of history {at}") for at, (of_one, history) in enumerate(pairs)]


def moments_of_requests(query_time: Any, times: Sequence[Collection[int]], config: Any) -> list[int | None]:
    """When it is asked what comes after each history, None for a model that is not told (`query_time`).

    Args:
        query_time: one moment for all, one for each history, or None: now.
        times: of their items; empty for a model that reads no moments.
        config: of the model.

    Raises:
        ValueError: as `requests_lsrm.moment_of_request`; for query_time of another length than the histories.
    """
    several = isinstance(query_time, Collection) and not isinstance(query_time, str | bytes)
    asked = list(query_time) if several else [query_time] * len(times)
    if len(asked) != len(times):
        raise ValueError(f"query_time has {len(asked)} moments for {len(times)} histories; give one for each.")
    return [moment_of_request(one, of_items, config) for one, of_items in zip(asked, times, strict=True)]
