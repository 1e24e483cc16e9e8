"""What `mix` has counted by item (`lsrm.mix_lsrm`), carried over to another vocabulary."""

from collections.abc import Mapping

import torch

from sr_transformers.lsrm.configuration_lsrm import LAGS

_MIX = "history.mix."


def moved_counts(state: Mapping[str, torch.Tensor], source: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tables of `LSRMMix` for another vocabulary: items that stay keep what was counted of them, pairs with one
    that goes go with it, and new items were never seen.

    Args:
        state: the model's weights and tables by name.
        source: `(V,)` int64, the old token of every new one; -1 for new items.

    Returns:
        Tables by name; none of a model without them.
    """
    if f"{_MIX}popularity" not in state:
        return {}
    tables = {name.removeprefix(_MIX): table.cpu() for name, table in state.items() if name.startswith(_MIX)}
    known = source >= 0
    new_token = torch.full((len(tables["popularity"]),), -1, dtype=torch.int32)
    new_token[source[known]] = torch.arange(len(source), dtype=torch.int32)[known]
    found = {"popularity": tables["popularity"][source.clamp(min=0)] * known}

    starts = tables["successor_starts"]
    begins = starts[:, source.clamp(min=0)]
    sizes = (starts[:, source.clamp(min=0) + 1] - begins) * known
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.reshape(-1).cumsum(0)])
    pairs = torch.arange(int(ends[-1])) + (begins.reshape(-1) - ends[:-1]).repeat_interleave(sizes.reshape(-1))
    found |= _kept("successor", ends, tables, pairs, new_token)
    found["successor_starts"] = found["successor_starts"].unfold(0, len(source) + 1, len(source)).clone()
    assert len(found["successor_starts"]) == LAGS
    if "recent_ends" in tables:
        found["recent_ends"] = tables["recent_ends"]
        ends = tables["recent_starts"]
        found |= _kept("recent", ends, tables, torch.arange(int(ends[-1])), new_token)
    return {_MIX + name: table for name, table in found.items()}


def sizes_of(counts: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """What the configuration says of the sizes of such tables."""
    of_keys = {"successor_pairs": "successor_tokens", "mix_pairs": "recent_tokens"}
    return {key: len(counts[_MIX + name]) for key, name in of_keys.items() if _MIX + name in counts}


def _kept(
    kind: str, ends: torch.Tensor, tables: Mapping[str, torch.Tensor], pairs: torch.Tensor, new_token: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The pairs of a table whose token stays, in the given order; `ends` bounds their groups before any has gone."""
    tokens = new_token[tables[f"{kind}_tokens"][pairs].long()]
    stays = tokens >= 0
    before = torch.cat([torch.zeros(1, dtype=torch.int64), stays.cumsum(0)])
    rest = torch.zeros(0 if stays.any() else 1, dtype=torch.int32)  # an empty table cannot be saved
    return {
        f"{kind}_starts": before[ends],
        f"{kind}_tokens": torch.cat([tokens[stays], rest]),
        f"{kind}_counts": torch.cat([tables[f"{kind}_counts"][pairs][stays], rest]),
    }
