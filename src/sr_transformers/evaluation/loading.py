"""Checkpoints by name: a folder here or a repository of the Hub. What is neither is refused at once, and so are files
that may not be read and a Hub that does not answer."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_FILES = ("config.json", "adapter_config.json")
_HUB_ID = r"[\w.-]+/[\w.-]+"


def load_model(name_or_path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained`, on the accelerator if there is one and `device_map` says nothing else.

    Raises:
        FileNotFoundError: for a folder without a model, or a name that is neither a folder nor OWNER/NAME.
        PermissionError: for a folder with a file that may not be read.
        OSError: if the Hub does not give it, or does not answer and the cache of this machine has no copy.
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
        check_readable(Path(name_or_path))
        return load(name_or_path, **kwargs)
    if not re.fullmatch(_HUB_ID, str(name_or_path)):
        raise FileNotFoundError(f"{name_or_path}: there is no such folder, and a name on the Hub is OWNER/NAME.")
    silence = None if kwargs.get("local_files_only") else _silence(str(name_or_path))
    try:
        # Of a silent Hub transformers would ask for every file, several times, and wait each time.
        return load(_cached(str(name_or_path), silence, **kwargs) if silence else name_or_path, **kwargs)
    except (OSError, httpx2.HTTPError) as error:
        what = " ".join(str(error).split())
        raise OSError(f"{name_or_path}: there is no such folder, and the Hub did not give it: {what}") from error


def check_readable(folder: Path) -> None:
    """Raises PermissionError for a file in a folder that may not be read: transformers would say that it is missing."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not os.access(path, os.R_OK):
            raise PermissionError(f"{path} may not be read by you: permission denied. Ask its owner for chmod a+r.")


def _silence(repo_id: str) -> str | None:
    """Why the Hub cannot be asked for a repository at all, in words; None if it answers, whatever it says."""
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, _FILES[0]), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except httpx2.TooManyRedirects:
        return f"{constants.ENDPOINT} sends requests round in a circle (redirects); check HF_ENDPOINT and your proxy."
    except httpx2.TimeoutException:
        return (
            f"{constants.ENDPOINT} did not answer within {constants.HF_HUB_ETAG_TIMEOUT} seconds "
            "(HF_HUB_ETAG_TIMEOUT); try again later."
        )
    except httpx2.RequestError as error:
        return f"the connection to {constants.ENDPOINT} failed ({error})."
    except OSError:  # an answer: no such repository or file, no right to see it
        return None
    return None


def _cached(
    repo_id: str, silence: str, revision: str | None = None, cache_dir: str | Path | None = None, **_: Any
) -> str:
    """The folder of this machine's cache that holds a repository.

    Raises:
        OSError: if there is none, with the reason why the Hub was not asked.
    """
    file = try_to_load_from_cache(repo_id, _FILES[0], cache_dir=cache_dir, revision=revision)
    if not isinstance(file, str):
        raise OSError(f"{silence} The cache of this machine has no copy.")
    return os.path.dirname(file)
