"""Whether a run may be published. It refuses what would mislead a reader: no metrics, broken weights, a vocabulary
that is not the model's, numbers that were measured on another model."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.hub.outgoing import refuse_links
from sr_transformers.lsrm.identity_lsrm import check_same_items, tokenizer_fingerprint
from sr_transformers.lsrm.scoring_lsrm import item_range
from sr_transformers.records import RUN_FILE, RunRecord

NEEDED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
# Files of a run beside its model that are published if they are there, and where they lie in the repository.
EXTRAS = ("tasks.json", "evaluation.json", "report.md", "figures", "scaling")


@dataclass
class FinishedRun:
    """A run that was found complete."""

    folder: Path
    record: RunRecord
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def check_run(folder: str | Path) -> FinishedRun:
    """Opens a run folder and makes sure that it can be published.

    Raises:
        FileNotFoundError: if there is no such folder, or no weights in it.
        PermissionError: for a file that may not be read.
        ValueError: for anything else that is missing, a link, damaged, or does not fit together; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the output folder of a training run.")
    # All that is read, and so could end up in the repository; weights that are no weights do not load.
    files = [path.name for path in folder.iterdir() if not path.is_dir() and path.suffix != ".safetensors"]
    refuse_links(folder, sorted({*files, *EXTRAS}))
    record = _record(folder)
    for name in NEEDED:
        if not (folder / name).exists():
            raise ValueError(f"{folder} has no {name}; it is not what a finished run leaves behind.")
    checkpoint = Checkpoint(folder)
    model, tokenizer = checkpoint.model(device_map="cpu"), checkpoint.tokenizer()
    size = item_range(model.config)[1]
    if len(tokenizer) != size:
        raise ValueError(f"{folder}: the vocabulary has {len(tokenizer)} tokens, the model {size}.")
    try:
        check_same_items(model.config, tokenizer_fingerprint(tokenizer), "its vocabulary")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    with whole(folder / RUN_FILE):
        ranked = record.reports[0]["protocol"]["num_items_ranked"]
    if ranked + NUM_SPECIAL != size:
        raise ValueError(
            f"{folder}: the metrics are of a model with {ranked} items, this one has {size - NUM_SPECIAL}."
        )
    if sum(record.parameters.values()) != model.num_parameters():
        raise ValueError(
            f"{folder}: {RUN_FILE} counts {sum(record.parameters.values()):,} parameters, the weights have "
            f"{model.num_parameters():,}: they are of different models."
        )
    return FinishedRun(folder, record, model, tokenizer)


def _record(folder: Path) -> RunRecord:
    if not (folder / RUN_FILE).exists():
        raise ValueError(
            f"{folder} has no {RUN_FILE}, so there are no metrics to publish: the run has not finished. Start it again "
            "with the same settings and it goes on."
        )
    record = RunRecord.load(folder)
    with whole(folder / RUN_FILE):
        if not record.reports or not record.reports[0].get("metrics"):
            raise ValueError(f"{folder / RUN_FILE} holds no metrics on test targets.")
        for of, metrics in (
            ("validation", record.validation),
            *((one["model"], one["metrics"]) for one in record.reports),
        ):
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise ValueError(f"{folder / RUN_FILE}: {name} of {of} is {value}; the run diverged.")
    return record


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turns what goes wrong when a record lacks something, or holds it in another form, into a message.

    Raises:
        ValueError: naming the file and what is missing.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what a run of this version writes: {type(error).__name__} {error}. Write it again, or take "
            "it from a copy of the run."
        ) from error
