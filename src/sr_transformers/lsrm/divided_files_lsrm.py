# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""Saving a model whose item table is divided over processes: each writes its rows, and none ever holds the table.

The folder is an ordinary one. What is not divided lies in a file of its own, as transformers writes it; the divided
tables share a second file, which every process fills at the place of its rows (rows stand one after the other in a
safetensors file, so a process's part is one stretch of it); an index names both. All processes see one file system.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from .divided_lsrm import division

_REST, _ROWS = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def taken_apart(model: Any, options: Mapping[str, Any]) -> tuple[dict[str, DTensor], dict[str, Any]]:
    """The divided weights of a model by name, and options with which `save_pretrained` saves all others, each put
    together; for a model without nothing, and the options as they are.

    Args:
        options: of `save_pretrained`.

    Raises:
        ValueError: for an option that a divided table has no use for.
    """
    weights = options.get("state_dict") or model.state_dict()
    divided = {name: weight for name, weight in weights.items() if division(weight) is not None}
    if not divided or options.get("distributed_checkpoint"):
        return {}, dict(options)
    refused = [name for name in ("push_to_hub", "max_shard_size", "variant") if options.get(name)]
    if refused:
        raise ValueError(
            f"{refused[0]} is not for a model whose item table is divided over processes: save it without, and load "
            "the folder whole to save it in another way or to upload it."
        )
    rest = {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
        for name, weight in weights.items()
        if name not in divided
    }
    ignored = model._keys_to_ignore_on_save or ()
    divided = {name: weight for name, weight in divided.items() if name not in ignored}
    return divided, {**options, "state_dict": rest}


def write_rows(folder: Path, divided: Mapping[str, DTensor]) -> None:
    """Adds divided weights to a folder that `save_pretrained` has just written without them; called by all processes.

    Args:
        divided: weights by name, as `taken_apart` gives them; none: nothing is added.
    """
    if not divided:
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in divided.items():
        begin, end = end, end + weight.numel() * weight.element_size()
        header[name] = {"dtype": _DTYPES[weight.dtype], "shape": list(weight.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    writes_rest = dist.get_rank() == 0
    if writes_rest:
        with (folder / _ROWS).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    dist.barrier()
    with (folder / _ROWS).open("r+b") as file:
        for name, weight in divided.items():
            part = division(weight)
            assert part is not None
            if 0 not in dist.get_process_group_ranks(part.group):  # another group writes the same rows
                continue
            row = weight.numel() // weight.shape[0] * weight.element_size()
            file.seek(8 + len(text) + header[name]["data_offsets"][0] + part.first * row)
            file.write(weight.to_local().detach().cpu().contiguous().view(torch.uint8).numpy().data)
    dist.barrier()
    if writes_rest:
        (folder / "model.safetensors").replace(folder / _REST)
        names = _names(folder / _REST)
        total = end + sum(names.values())
        places = dict.fromkeys(names, _REST) | dict.fromkeys(divided, _ROWS)
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    dist.barrier()


def _names(file: Path) -> dict[str, int]:
    """Names of the tensors in a safetensors file, and their bytes."""
    with file.open("rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    return {
        name: one["data_offsets"][1] - one["data_offsets"][0] for name, one in header.items() if name != "__metadata__"
    }


__all__ = ["taken_apart", "write_rows"]
