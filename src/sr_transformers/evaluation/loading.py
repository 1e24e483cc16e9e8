"""Models by name: a folder here or a repository on the Hub. A model, its vocabulary and what else lies beside them come
from that one folder, or from one commit of that repository.

Refused, by file and tensor: weights that are missing, left over, of other shapes, cut short, changed after a run wrote
them, NaN or infinite, and files that hold more than weights. transformers would go on with random numbers for what is
missing. Code that lies beside a model runs only for those who ask for it (`trust_remote_code`); nobody is asked on the
terminal.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_peft_available

from sr_transformers.data.logs.hub import silence
from sr_transformers.evaluation.weights import (
    AGAIN,
    COMPLETE,
    in_words,
    read_json,
    refuse_changed,
    refuse_no_numbers,
    some,
    tensor_names,
    without_report,
)

CONFIG, ADAPTER = "config.json", "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER, VOCABULARY = "tokenizer_config.json", "tokenizer.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_HUB_ID = r"[\w.-]+/[\w.-]+"
# What a run with adapters keeps in its checkpoints beside the merged matrices (finetuning.adapters), to go on from.
_TRAINING_STATE = re.compile(r"\.(base_layer|lora_A|lora_B)\.")


class Checkpoint:
    """A model that can be loaded, with all that belongs to it.

    Args:
        name_or_path: a folder, or OWNER/NAME on the Hub.
        revision: branch, tag or commit on the Hub; None: main. It is looked up once, here: whatever is loaded later
            comes from the commit that it was then, even if the branch has moved on.
        token: of the Hub; None: the one that huggingface_hub finds.
        cache_dir: where files from the Hub are kept; None: huggingface_hub's own cache.
        subfolder: of the folder or repository.
        local_files_only: take what the cache has and ask nobody.
        trust_remote_code: run code that lies beside the model.

    Attributes:
        source: the folder or OWNER/NAME.
        name: the same, with "@revision" if one was given.
        commit: on the Hub, 40 digits; None for a folder.

    Raises:
        FileNotFoundError: for a folder without a model, or a name that is neither a folder nor OWNER/NAME.
        PermissionError: for a folder with a file that may not be read: transformers would say that it is missing.
        ValueError: for a revision of a folder.
        OSError: if the Hub does not give it, or does not answer and the cache of this machine has no copy.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ):
        self.name = f"{name_or_path}@{revision}" if revision else str(name_or_path)
        self.commit: str | None = None
        self._silence: str | None = None  # why the Hub is not asked
        self._trusted = trust_remote_code
        self._access: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        self._hub: dict[str, Any] = {}  # what every load from the Hub is told; nothing for a folder
        self._asked: dict[str, Path | None] = {}  # files of the commit, so that the Hub is asked for each of them once
        if Path(name_or_path).is_dir():
            if revision:
                raise ValueError(
                    f"{name_or_path} is a folder, which has no revision {revision}; leave the revision out."
                )
            self.source = str(Path(name_or_path) / subfolder)
            for path in sorted(Path(self.source).glob("*")):
                if path.is_file() and not os.access(path, os.R_OK):
                    raise PermissionError(f"{path}: permission denied; you may not read it, ask its owner.")
        elif re.fullmatch(_HUB_ID, str(name_or_path)):
            self.source = str(name_or_path)
            if not self._is_offline():
                self._silence = silence(self.source, CONFIG, token)
            if self._silence:  # huggingface_hub would ask for every file, seven times, and wait each time
                self._access["local_files_only"] = True
            self._hub = {**self._access, "revision": revision, "subfolder": subfolder}
        else:
            raise FileNotFoundError(f"{name_or_path}: there is no such folder, and a name on the Hub is OWNER/NAME.")
        first = self.file(CONFIG) or self.file(ADAPTER)
        if first is None:
            raise FileNotFoundError(f"{Path(self.name) / subfolder} holds no model ({CONFIG} is missing).")
        if self._hub:  # files lie in the cache at .../snapshots/COMMIT/[subfolder/]file
            self.commit = first.parents[len(Path(subfolder).parts)].name
            self._hub["revision"] = self.commit

    def __str__(self) -> str:
        return self.name

    def file(self, name: str) -> Path | None:
        """A file beside the model, downloaded if need be; None if there is none.

        Raises:
            OSError: if the Hub does not give it.
        """
        if not self._hub:
            path = Path(self.source) / name
            return path if path.is_file() else None
        if name not in self._asked:
            self._asked[name] = self._from_hub(name)
        return self._asked[name]

    def _from_hub(self, name: str) -> Path | None:
        hub = {**self._hub, "subfolder": self._hub["subfolder"] or None}
        try:
            return Path(hf_hub_download(self.source, name, **hub))
        except LocalEntryNotFoundError as error:  # the Hub was not asked, or did not answer
            if self.commit and (self._is_offline() or self._is_known_to_be_absent(name)):
                return None
            raise self._not_given(error) from error
        except EntryNotFoundError:
            return None
        except RevisionNotFoundError as error:
            raise OSError(
                f"{self.source} has no revision {self._hub['revision']} on the Hub; give a branch, a tag or a commit."
            ) from error
        except (OSError, HFValidationError, httpx2.HTTPError) as error:
            raise self._not_given(error) from error

    def _is_offline(self) -> bool:
        return bool(self._access["local_files_only"] or huggingface_hub.constants.HF_HUB_OFFLINE)

    def _is_known_to_be_absent(self, name: str) -> bool:
        path = str(Path(self._hub["subfolder"]) / name)
        found = try_to_load_from_cache(self.source, path, self._hub["cache_dir"], self.commit)
        return found is not None and not isinstance(found, str)  # a mark in the cache: this commit has no such file

    def _not_given(self, error: Exception) -> OSError:
        why = f"{self._silence}, and the cache has no copy." if self._silence else in_words(error)
        return OSError(f"{self.name}: there is no such folder, and the Hub did not give it: {why}")

    def config(self) -> PreTrainedConfig:
        """The configuration; of an adapter, that of the model that it belongs to.

        Raises:
            ValueError: if it is damaged or impossible, or cannot be that of the weights.
        """
        file = self.file(CONFIG)
        if file is None:
            return self._base().config()
        config = self._from_json(AutoConfig, file)
        layers, tensors = getattr(config, "num_hidden_layers", None), len(self._tensor_names())
        if isinstance(layers, int) and layers > tensors > 0:  # to make so many layers could take for ever
            raise ValueError(f"{file} says num_hidden_layers {layers:,}, but {self.weights()} has {tensors:,} tensors.")
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The item vocabulary; of an adapter without one, that of the model that it belongs to.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged.
        """
        settings, vocabulary = self.file(TOKENIZER), self.file(VOCABULARY)
        if settings is None and vocabulary is None and self.file(CONFIG) is None:
            return self._base().tokenizer()
        # Code that comes with a model may know a vocabulary of another kind.
        missing = TOKENIZER if settings is None else VOCABULARY if vocabulary is None and not self._trusted else None
        if missing or settings is None:
            raise FileNotFoundError(
                f"{self.name} has no {missing}, so no item vocabulary: copy {VOCABULARY} and {TOKENIZER} there."
            )
        self._refuse_changed(settings, vocabulary)
        if self.file(CONFIG) is not None:
            self.config()  # transformers reads it too, and errors in it are not the vocabulary's
        return self._from_json(AutoTokenizer, settings, vocabulary or settings)

    def _from_json(self, kind: Any, *files: Path) -> Any:
        """What an Auto class makes of files; the last one is its main one."""
        try:
            return kind.from_pretrained(self.source, **self._hub, trust_remote_code=self._trusted)
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # whatever a file can make the libraries stumble over
            for file in files:
                read_json(file)  # raises if that is what is wrong
            raise ValueError(f"{files[-1]} does not load: {in_words(error)}") from error

    def model(self, **kwargs: Any) -> PreTrainedModel:
        """The model with all its weights, on the accelerator if there is one and `device_map` says nothing else.

        Every weight is looked at for NaN and infinity, which takes as long as reading it from memory once more: about
        1 ms per million weights in float32 on one core.

        Args:
            kwargs: of `AutoModelForCausalLM.from_pretrained`.

        Raises:
            ValueError: for weights that are not whole; the message names the file and the tensors.
            FileNotFoundError: if there are no weights, or a part of them is missing.
        """
        model = self._whole_model(kwargs)
        refuse_no_numbers(model, self.weights())
        if torch.accelerator.is_available() and "device_map" not in kwargs:
            model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]
        return model

    def weights(self) -> str:
        """What messages call the file of the weights."""
        names = ADAPTER_WEIGHTS if self.file(ADAPTER) else (*_with_index(WEIGHTS), WEIGHTS[0])
        return str(next(filter(None, map(self.file, names)), f"{self.name}/{names[0]}"))

    def _whole_model(self, kwargs: dict[str, Any]) -> PreTrainedModel:
        if self.file(ADAPTER) is not None:
            return self._adapted_model(kwargs)
        self.config()
        generation = self.file(GENERATION)
        if generation is not None:  # transformers passes over one that it cannot read
            read_json(generation)
        if not self._weight_files():
            raise FileNotFoundError(f"{self.name} has no weights ({' or '.join(WEIGHTS)} is missing).")
        self._refuse_changed(self.file(CONFIG), generation, *self._weight_files())
        options = {**kwargs, **self._hub, "trust_remote_code": self._trusted, "output_loading_info": True}
        if self._hub:  # transformers looks for an adapter too, and forgets these
            options["adapter_kwargs"] = {key: self._hub[key] for key in ("cache_dir", "subfolder", "local_files_only")}
        try:
            with without_report():
                loaded: Any = AutoModelForCausalLM.from_pretrained(self.source, **options)
        except (MemoryError, ImportError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self._refuse_other_shapes(options)
            raise ValueError(f"{self.file(CONFIG)} and {self.weights()} do not load: {in_words(error)}") from error
        model, found = loaded
        self._refuse_what_does_not_fit(found)
        return model

    def _refuse_changed(self, *files: Path | None) -> None:
        """Raises ValueError for files of a checkpoint of a run that are not as they were written."""
        if not self._hub and (Path(self.source) / COMPLETE).is_file():
            refuse_changed(Path(self.source), AGAIN, {file.name for file in files if file is not None})

    def _refuse_other_shapes(self, options: dict[str, Any]) -> None:
        """transformers says that shapes differ, but logs which ones; this asks again, without memory for weights."""
        found: dict[str, Any] = {}
        without = {"device_map": "meta", "ignore_mismatched_sizes": True}
        with contextlib.suppress(Exception), without_report():
            loaded: Any = AutoModelForCausalLM.from_pretrained(self.source, **{**options, **without})
            found = loaded[1]
        if found:
            self._refuse_what_does_not_fit(found)

    def _refuse_what_does_not_fit(self, found: dict[str, Any]) -> None:
        """Raises ValueError for weights that transformers did not find, did not know, or found in other shapes."""
        settings = self.file(ADAPTER) or self.file(CONFIG)
        unknown, here = found["unexpected_keys"], self._tensor_names()
        adapted = {name: state for name in unknown if (state := _TRAINING_STATE.search(name))}
        merged = {name for name, state in adapted.items() if f"{name[: state.start()]}.weight" in here}
        advice = "It holds adapters that were never merged: load the finished run." if set(adapted) - merged else AGAIN
        if found["missing_keys"]:
            missing = some(found["missing_keys"])
            raise ValueError(f"{self.weights()} lacks weights that {settings} asks for: {missing}. {advice}")
        other = {f"{name} {list(here)} instead of {list(wanted)}" for name, here, wanted in found["mismatched_keys"]}
        if other:
            raise ValueError(f"{self.weights()} has other shapes than {settings} asks for: {some(other)}.")
        if set(unknown) - merged:
            raise ValueError(
                f"{self.weights()} has weights that {settings} does not know: {some(set(unknown) - merged)}. "
                + (advice if adapted else "The two are of different models.")
            )

    # The files of the weights

    def _weight_files(self) -> list[Path]:
        """What transformers would read."""
        for name in _with_index(WEIGHTS):
            first = self.file(name)
            if first is None or first.suffix != ".json":
                if first is not None:
                    return [first]
                continue
            parts = read_json(first).get("weight_map")
            if not isinstance(parts, dict):
                raise ValueError(f"{first} does not say which file holds which weight (weight_map). {AGAIN}")
            found = {part: self.file(part) for part in sorted(set(parts.values()))}
            missing = [part for part, file in found.items() if file is None]
            if missing:
                raise FileNotFoundError(f"{first} names files that are missing: {some(missing)}. {AGAIN}")
            return [file for file in found.values() if file is not None]
        return []

    def _tensor_names(self) -> set[str]:
        """Of all files of weights; files that are cut are refused."""
        return {name for file in self._weight_files() for name in tensor_names(file)}

    # Adapters

    def _base(self) -> "Checkpoint":
        """The model that an adapter belongs to, at the revision that the adapter names."""
        file = self.file(ADAPTER)
        assert file is not None
        settings = read_json(file)
        name = settings.get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{file} does not say which model the adapter belongs to (base_model_name_or_path).")
        try:
            base = Checkpoint(name, revision=settings.get("revision"), **self._access, trust_remote_code=self._trusted)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file}: the model that the adapter belongs to does not load. {in_words(error)}"
            ) from error
        if base.file(ADAPTER):
            raise ValueError(
                f"{file}: the adapter belongs to {name}, which is an adapter itself; merge that one first."
            )
        return base

    def _adapted_model(self, kwargs: dict[str, Any]) -> PreTrainedModel:
        """Not left to transformers: it asks the other repository for this one's revision, says nothing of weights that
        the other one lacks, and leaves adapters out where peft is not installed."""
        if self.file(CONFIG) is not None:
            raise ValueError(
                f"{self.name} holds both a whole model ({CONFIG}) and an adapter ({ADAPTER}); move the adapter to a "
                "folder of its own."
            )
        if not is_peft_available():
            raise ValueError(f"{self.name} is an adapter, which needs peft: pip install 'sr-transformers[lora]'.")
        file = next(filter(None, map(self.file, ADAPTER_WEIGHTS)), None)
        if file is None:
            raise FileNotFoundError(f"{self.name} has no weights ({' or '.join(ADAPTER_WEIGHTS)} is missing).")
        tensor_names(file)
        base = self._base()
        model = base._whole_model(kwargs)
        refuse_no_numbers(model, base.weights())
        try:
            with without_report():
                found = model.load_adapter(str(file.parent)).to_dict()
        except (MemoryError, ImportError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ValueError(f"{self.file(ADAPTER)} and {file} do not load: {in_words(error)}") from error
        self._refuse_what_does_not_fit(found)
        return model


def _with_index(names: tuple[str, ...]) -> list[str]:
    return [one for name in names for one in (name, f"{name}.index.json")]
