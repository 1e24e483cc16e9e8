"""A prepared log as a data set on the Hub: the folder as it is, and a card that viewer and `load_dataset` go by."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from sr_transformers.data.card import CARD, card_configs
from sr_transformers.data.manifest import MANIFEST
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.staging import check_output, staged
from sr_transformers.hub import card_tables as tables
from sr_transformers.hub.model_card import TAGS, CardOptions
from sr_transformers.hub.outgoing import refuse_private
from sr_transformers.hub.upload import repo_name, upload
from sr_transformers.public import plain

_STALE = ("*.arrow", "items.parquet", MANIFEST, "tokenizer/*")  # what an earlier publish may have left
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
_TEMPLATE = Path(__file__).with_name("data_template.md")


def data_card(data: PreparedData, repo_id: str, options: CardOptions) -> DatasetCard:
    """The card of a prepared log; the same log gives the same card."""
    counts, source = data.manifest["counts"], data.manifest["source"]["name"]
    size = max(len(str(max(len(data), 1))) - 3, 0)
    metadata = DatasetCardData(
        license=options.license,
        license_name=options.license_name,
        license_link=options.license_link,
        task_categories=["other"],
        size_categories=[_SIZES[min(size, len(_SIZES) - 1)]],
        tags=TAGS,
        pretty_name=repo_id.split("/")[-1],
        configs=card_configs(list(data.files)),
    )
    rows = [(label, tables.number(counts[key])) for key, label in tables.COUNTS.items() if key in counts]
    text = _TEMPLATE.read_text(encoding="utf-8").format(
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        source=plain(source),
        users=f"{counts['users']:,}",
        items=f"{counts['items']:,}",
        interactions=f"{counts['interactions']:,}",
        domains=", `domains` (places in the manifest's list of names)" if data.domain_names else "",
        counts="\n".join(f"| {label} | {value} |" for label, value in rows),
        split=plain(data.manifest["split"].replace("_", "-")),
        leaks=plain(data.manifest["leaks"]),
    )
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")


def build_data(
    data: PreparedData, folder: str | Path, repo_id: str, options: CardOptions, token: str | None = None
) -> Path:
    """Writes the exact folder that `publish_data` uploads: all of it or, if something is wrong, nothing.

    Raises:
        FileExistsError: if `folder` has something in it.
        ValueError: if a file of the log is not what was made, or holds a token or the path of the home folder, or the
            name is none.
    """
    name, folder = repo_name(repo_id), Path(folder)
    check_output(folder)
    with staged(folder) as staging:
        for file in (MANIFEST, *data.verified().files):
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            _link(data.path / file, staging / file)
        (staging / CARD).write_text(str(data_card(data, name, options)), encoding="utf-8")
        refuse_private(staging, token)
    return folder


def publish_data(
    data: PreparedData | str | Path,
    repo_id: str,
    options: CardOptions,
    private: bool = False,
    branch: str = "main",
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Publishes a prepared log, whose histories hold the ids of its users, as a data set with a viewer.

    Args:
        options: license of the data; there is no default, for nobody but its owner knows it.
        private, branch, dry_run, token: as `sr_transformers.publish`.

    Returns:
        Address of the commit, or the folder of a dry run.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `build_data`; nothing has been sent then.
        HubError: if the Hub refuses or cannot be reached.
    """
    data = data if isinstance(data, PreparedData) else PreparedData(data)
    if dry_run is not None:
        return str(build_data(data, dry_run, repo_id, options, token))
    with tempfile.TemporaryDirectory(prefix="sr-publish-") as temporary:
        folder = build_data(data, Path(temporary) / "data", repo_id, options, token)
        return upload(folder, repo_id, "dataset", private, branch, _STALE, token)


def _link(source: Path, target: Path) -> Any:
    """A second name for a file where the disk allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
