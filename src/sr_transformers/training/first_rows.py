"""First weights of a model whose tables are divided by rows: bit by bit those of a model that is made whole.

A model draws its first weights from one stream of random numbers. Here each process draws the whole stream, a table in
blocks of rows, and keeps of every table the rows that are its own; nothing of a table's size is ever there.
"""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard
from torch.utils._python_dispatch import TorchDispatchMode

_BLOCK = 1 << 16  # rows drawn at a time
_TOGETHER = 16  # numbers that torch draws together; the last so many of a tensor are drawn again if they are fewer

_EMPTY = torch.ops.aten.empty.memory_format
_FILLS = {
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.zero_.default,
    torch.ops.aten.fill_.Scalar,
}


class FirstRows(TorchDispatchMode):
    """While it is active, tensors of some shapes are made without memory, and of what fills them the rows of this
    process are kept.

    Args:
        shapes: `(V, d)` of the tables, float32 and filled in place.
        mesh: of one dimension, over whose processes rows are divided.
    """

    def __init__(self, shapes: Collection[tuple[int, ...]], mesh: DeviceMesh):
        super().__init__()
        self.shapes, self.mesh = frozenset(shapes), mesh
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def rows(self, table: torch.Tensor) -> torch.Tensor | None:
        """What was kept of a table, on the CPU; None for a tensor that has memory of its own."""
        return self._kept[id(table)][1] if id(table) in self._kept else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _EMPTY and tuple(args[0]) in self.shapes:
            return func(*args, **{**kwargs, "device": torch.device("meta")})
        if func in _FILLS and args[0].is_meta and tuple(args[0].shape) in self.shapes:
            self._kept[id(args[0])] = args[0], self._filled(func, args[0], args[1:], kwargs)
            return args[0]
        return func(*args, **kwargs)

    def _filled(self, func: Any, table: torch.Tensor, more: Any, kwargs: Any) -> torch.Tensor:
        size, first = Shard.local_shard_size_and_offset(len(table), self.mesh.size(), self.mesh.get_local_rank())
        last = first + size
        found = torch.empty(size, table.shape[1], dtype=table.dtype)
        for begin, end in _blocks(len(table), table.shape[1]):
            block = func(torch.empty(end - begin, table.shape[1], dtype=table.dtype), *more, **kwargs)
            here = slice(max(begin, first), min(end, last))
            if here.start < here.stop:
                found[here.start - first : here.stop - first] = block[here.start - begin : here.stop - begin]
        return found


def _blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Parts of a table that can be drawn one after the other as if they were one."""
    begin = 0
    while begin < rows:
        end = min(begin + _BLOCK, rows)
        if (rows - end) * width < _TOGETHER:
            end = rows
        yield begin, end
        begin = end
