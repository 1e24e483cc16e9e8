"""What a scorer reads of a user: the past."""

from typing import NamedTuple

import numpy as np


class Past(NamedTuple):
    """What is known of one user.

    Attributes:
        items: `(L,)` tokens, oldest first.
        times: `(L,)` int64 moments in the log's unit; None where nothing reads them.
    """

    items: np.ndarray
    times: np.ndarray | None = None

    def last(self, length: int) -> "Past":
        """Its last interactions only."""
        return Past(self.items[-length:], None if self.times is None else self.times[-length:])

    def and_then(self, item: int) -> "Past":
        """One interaction more, at the moment of the last one: when it will be is not known."""
        times = None if self.times is None else np.append(self.times, self.times[-1] if len(self.times) else 0)
        return Past(np.append(self.items, item), times)
