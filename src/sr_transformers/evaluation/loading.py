"""Checkpoints by name: a folder here or a repository of the Hub. What is neither is refused at once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_FILES = ("config.json", "adapter_config.json")
_HUB_ID = r"[\w.-]+/[\w.-]+"


def load_model(name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained`, on the accelerator if there is one and `device_map` says nothing else.

    Raises:
        FileNotFoundError: for a folder without a model, or a name that is neither a folder nor OWNER/NAME.
        OSError: if the Hub does not give it.
    """
    model = _load(AutoModelForCausalLM.from_pretrained, name_or_path, **kwargs)
    if torch.accelerator.is_available() and "device_map" not in kwargs:
        model.to(torch.accelerator.current_accelerator())
    return model


def load_config(name_or_path: str | Path) -> PreTrainedConfig:
    """`AutoConfig.from_pretrained`; raises as `load_model`."""
    return _load(AutoConfig.from_pretrained, name_or_path)


def _load(load: Callable[..., Any], name_or_path: str | Path, **kwargs: Any) -> Any:
    if Path(name_or_path).is_dir():
        if not any((Path(name_or_path) / file).is_file() for file in _FILES):
            raise FileNotFoundError(f"{name_or_path} holds no model ({_FILES[0]} is missing).")
        return load(name_or_path, **kwargs)
    if not re.fullmatch(_HUB_ID, str(name_or_path)):
        raise FileNotFoundError(f"{name_or_path}: there is no such folder, and a name on the Hub is OWNER/NAME.")
    try:
        return load(name_or_path, **kwargs)
    except OSError as error:
        what = " ".join(str(error).split())
        raise OSError(f"{name_or_path}: there is no such folder, and the Hub did not give it: {what}") from error
