"""What is looked at in files of weights and in the weights themselves, and how it is told."""

import contextlib
import hashlib
import json
import logging
import pickle
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sr_transformers import records

COMPLETE = "COMPLETE"  # the last file of a run's checkpoint: name, size and SHA-256 of every other file
AGAIN = "Copy or download it again, or load another checkpoint of the run."
_EARLIER = "Load a checkpoint from before, or train again with a lower learning rate."
_SHOWN = 6  # names in a message


def tensor_names(file: Path) -> set[str]:
    """Names of the tensors in a file of weights. Only the head of a safetensors file is read, and of a pickle all but
    its tensors.

    Raises:
        ValueError: if the file is not whole, or holds more than weights.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as content:
                return set(content.keys())
        return set(torch.load(file, map_location="meta", weights_only=True))
    except pickle.UnpicklingError as error:  # its advice is to load it all the same
        raise ValueError(
            f"{file} is damaged, or holds more than weights and could run code: it stays unread. Ask for a "
            "model.safetensors."
        ) from error
    except PermissionError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, TypeError) as error:
        raise ValueError(f"{file} is damaged or cut short ({str(error) or 'it is empty'}). {AGAIN}") from error


def sha256(file: Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def refuse_changed(folder: Path, advice: str, names: Collection[str] | None = None) -> set[str]:
    """Compares files of a checkpoint that a run has written with its `COMPLETE`.

    Args:
        advice: ends the message.
        names: files to compare, as far as it lists them; None: all that it lists.

    Returns:
        The names of all files that it lists.

    Raises:
        ValueError: if one of them is missing or was changed, or if `COMPLETE` is damaged; the message names it.
    """
    try:
        listed = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        expected = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / COMPLETE} is damaged. {advice}") from error
    for name, (size, digest) in expected.items():
        if names is not None and name not in names:
            continue
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing. {advice}")
        if (folder / name).stat().st_size != size or sha256(folder / name) != digest:
            raise ValueError(f"{folder / name} was changed after it was written. {advice}")
    return set(expected)


def refuse_no_numbers(model: PreTrainedModel, where: str) -> None:
    """Raises ValueError if a weight is NaN or infinite, wherever it lies (offloaded ones are fetched one by one), or if
    a table of counts (`LSRMMix`) cannot be one."""
    for name, parameter in model.named_parameters():
        _refuse_no_number(name, parameter, where)
    for prefix, module in model.named_modules():
        for counts in ("successor", "recent"):
            if hasattr(module, f"{counts}_starts") and not module.popularity.is_meta:  # else: shapes without numbers
                _refuse_impossible_counts(prefix, module, counts, where)
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            with align_module_device(module):
                for name, parameter in module.named_parameters(prefix, recurse=False):
                    _refuse_no_number(name, parameter, where)


def _refuse_impossible_counts(prefix: str, module: Any, counts: str, where: str) -> None:
    """Of tables `counts`_starts, _tokens and _counts, and of popularity, which has a number for each item."""
    starts, tokens, numbers = (getattr(module, f"{counts}_{table}") for table in ("starts", "tokens", "counts"))
    popularity = module.popularity
    sound = {
        f"{counts}_starts": (starts >= 0).all() & (starts <= len(tokens)).all() & (starts.diff() >= 0).all(),
        f"{counts}_tokens": ((tokens >= 0) & (tokens < len(popularity))).all(),
        f"{counts}_counts": (numbers >= 0).all(),
        "popularity": (popularity >= 0).all(),
    }
    for name, fine in sound.items():
        if not fine:
            raise ValueError(
                f"{where}: {prefix}.{name} holds numbers that no counting gives (places and tokens lie between 0 and "
                f"those that there are, places rise, and nothing was counted less than 0 times). {AGAIN}"
            )


def _refuse_no_number(name: str, parameter: torch.Tensor, where: str) -> None:
    weight = parameter.detach()
    if isinstance(weight, DTensor):
        weight = weight.to_local()
    elif type(weight) is not torch.Tensor and weight.is_floating_point():
        weight = weight.dequantize()  # a quantized one, which says that it is a float
    if weight.is_meta or not weight.is_floating_point() or not weight.numel():
        return
    # Not isfinite: aminmax carries NaN along, makes no copy and takes a thirtieth of the time; it lacks 8-bit floats.
    low, high = (weight if weight.element_size() > 1 else weight.float()).aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(f"{where}: {name} holds NaN or infinite weights; the run diverged. {_EARLIER}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if it is none; the message names the file.
    """
    try:
        content = records.read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} is damaged or cut short ({error.__cause__}). {AGAIN}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it holds no JSON object. {AGAIN}")
    return content


def in_words(error: Exception) -> str:
    """An error of a library on one line."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
    text = " ".join(str(cause).split())
    return text if isinstance(cause, ValueError | OSError | RuntimeError) and text else f"{type(cause).__name__} {text}"


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """transformers' table of missing weights is kept from the log of this thread: an error says the same in a line."""
    thread = threading.get_ident()

    class NoReport(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return record.thread != thread or "LOAD REPORT" not in record.getMessage()

    # where the table is logged, because handlers of the root hear of it too (transformers propagates where CI is set)
    quiet, source = NoReport(), logging.getLogger("transformers.modeling_utils")
    source.addFilter(quiet)
    try:
        yield
    finally:
        source.removeFilter(quiet)
