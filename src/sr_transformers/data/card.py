"""The card of a prepared folder (README.md): what `datasets.load_dataset` goes by, and a word to whoever looks in.

It is no part of what was prepared: the manifest does not name it, and it may be changed or removed.
"""

from pathlib import Path
from typing import Any

import yaml

from sr_transformers.public import plain

CARD = "README.md"
_TEXT = """---
{metadata}---

# Prepared log

{users:,} users, {items:,} items, {interactions:,} interactions; split {split}. Made by `sr-transformers prepare`; the
manifest says from what, and what was left out.

```python
from datasets import load_dataset

histories = load_dataset(FOLDER, "histories", split="train")  # or "validation", "test": the targets' places
```

The `.arrow` files are Arrow streams: `polars.read_ipc_stream(FILE)`, `pyarrow.ipc.open_stream(FILE)`.
"""


def card_configs(files: list[str]) -> list[dict[str, Any]]:
    """The tables of a prepared folder by name, as the metadata of a data set's card lists them.

    Args:
        files: names of the folder's files.
    """
    histories = sorted(name for name in files if name.startswith("histories"))
    return [
        {"config_name": "histories", "data_files": histories, "default": True},
        *({"config_name": split, "data_files": [f"{split}.arrow"]} for split in ("validation", "test")),
    ]


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the card of a folder whose manifest is written."""
    counts = manifest["counts"]
    configs = card_configs([path.name for path in folder.glob("*.arrow")])
    text = _TEXT.format(
        metadata=yaml.safe_dump({"configs": configs}, sort_keys=False),
        split=plain(manifest["split"]),
        **{name: counts[name] for name in ("users", "items", "interactions")},
    )
    (folder / CARD).write_text(text, encoding="utf-8")
