"""A prepared log on the Hub: read by name, opened as a prepared log, sent once."""

import datasets
import huggingface_hub
import polars as pl
import pytest
import yaml

from sr_transformers import CardOptions, PreparedData, prepare
from sr_transformers.cli import main
from sr_transformers.columns import DOMAIN, ITEM, TIMESTAMP, USER
from sr_transformers.hub.data_set import build_data, data_card, publish_data

MIT = CardOptions(license="mit")


def test_subsets_are_read_by_name(prepared, tmp_path, monkeypatch):
    folder = build_data(prepared, tmp_path / "out", "org/readable", MIT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    histories = datasets.load_dataset(str(folder), "histories", split="train")
    assert histories["user_id"][:] == prepared.histories["user_id"][:]
    assert histories[5]["item_ids"] == prepared.items(5, int(prepared.lengths[5])).tolist()
    for split in ("validation", "test"):
        found = datasets.load_dataset(str(folder), split, split="train")
        assert [[row["history"], row["position"]] for row in found] == prepared.targets(split).tolist()
    default = datasets.load_dataset(str(folder))
    assert default["train"].column_names == histories.column_names


def test_the_folder_is_a_prepared_log(prepared, tmp_path):
    data = PreparedData(build_data(prepared, tmp_path / "out", "org/readable", MIT)).verified()
    assert data.manifest == prepared.manifest
    assert data.tokenizer.get_vocab() == prepared.tokenizer.get_vocab()


@pytest.mark.parametrize("shards", [1, 3])
def test_it_is_sent_once_and_comes_back(readable_log, shards, hub, elsewhere, tmp_path):
    data = prepare(readable_log.with_columns(pl.lit("shop").alias(DOMAIN)), tmp_path / "data", shards=shards)
    publish_data(data, "org/readable", MIT, private=True)
    commits = len(hub.repos["dataset", "org/readable"].commits)
    publish_data(data.path, "org/readable", MIT)
    assert len(hub.repos["dataset", "org/readable"].commits) == commits
    assert hub.repos["dataset", "org/readable"].private
    local = huggingface_hub.snapshot_download("org/readable", repo_type="dataset")
    assert PreparedData(local).verified().domain_names == ["shop"]
    assert "`domains`" in huggingface_hub.DatasetCard.load(f"{local}/README.md").text
    code = "import datasets; print(datasets.load_dataset('org/readable', 'histories', split='train')['user_id'][:])"
    assert elsewhere(code, bare=True).strip() == str(data.histories["user_id"][:])


def test_the_card_says_what_the_manifest_says(prepared):
    card = data_card(prepared, "org/readable", CardOptions("other", "own", "https://example.org/terms"))
    metadata = yaml.safe_load(str(card).split("---")[1])
    assert [metadata[name] for name in ("license", "license_name", "license_link")] == [
        "other", "own", "https://example.org/terms",
    ]  # fmt: skip
    assert metadata["size_categories"] == ["n<1K"]
    counts = prepared.manifest["counts"]
    assert f"| interactions | {counts['interactions']:,} |" in card.text
    assert prepared.manifest["leaks"] in card.text
    assert "`domains`" not in card.text
    assert str(card) == str(
        data_card(prepared, "org/readable", CardOptions("other", "own", "https://example.org/terms"))
    )


@pytest.mark.parametrize(("users", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (123456, "100K<n<1M")])
def test_sizes_are_those_of_the_hub(prepared, users, size, monkeypatch):
    monkeypatch.setattr(PreparedData, "__len__", lambda self: users)
    assert yaml.safe_load(str(data_card(prepared, "org/a", MIT)).split("---")[1])["size_categories"] == [size]


def test_from_the_command_line(prepared, tmp_path, capsys):
    out = tmp_path / "dry"
    main(["data", "publish", str(prepared.path), "org/readable", "--license", "mit", "--dry-run", str(out)])
    assert "nothing was sent" in capsys.readouterr().out
    assert (out / "README.md").read_text() == str(data_card(prepared, "org/readable", MIT))


def test_what_must_not_leave_or_was_changed_is_refused(tmp_path):
    rows = [("hf_dummySECRETtoken01234", f"i{n}", n) for n in range(5)]
    log = pl.DataFrame(rows, schema=[USER, ITEM, TIMESTAMP], orient="row")
    data = prepare(log, tmp_path / "data")
    with pytest.raises(ValueError, match=r"histories.arrow would show a token of the Hub to everybody"):
        build_data(data, tmp_path / "out", "org/a", MIT)
    assert not (tmp_path / "out").exists()
    data = prepare(log.with_columns(pl.lit("u").alias(USER)), tmp_path / "other")
    content = bytearray((tmp_path / "other" / "test.arrow").read_bytes())
    content[-9] ^= 1
    (tmp_path / "other" / "test.arrow").write_bytes(content)
    with pytest.raises(ValueError, match=r"test\.arrow"):
        publish_data(tmp_path / "other", "org/a", MIT, dry_run=tmp_path / "out")
    with pytest.raises(ValueError, match="has no namespace"):
        build_data(data, tmp_path / "out", "name", MIT)
