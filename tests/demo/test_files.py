import polars as pl
import pytest

from sr_transformers.demo.files import find_figures, read_titles


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_titles_are_read(tmp_path, suffix):
    frame, path = pl.DataFrame({"item_id": [1, 2], "title": ["A, B", None]}), tmp_path / f"titles.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    assert read_titles(path) == {"1": ("A, B", ""), "2": ("", "")}


def test_titles_may_have_departments(tmp_path):
    (tmp_path / "titles.csv").write_text("domain,item_id,title\nDairy,7,Milk\n,8,\n")
    assert read_titles(tmp_path / "titles.csv") == {"7": ("Milk", "Dairy"), "8": ("", "")}


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.csv", None, FileNotFoundError, "no such file of titles"),
        ("titles.json", "{}", ValueError, "titles are read from .csv, .tsv or .parquet"),
        ("titles.csv", "item_id,name\n1,a\n", ValueError, "column title is missing"),
        ("twice.csv", "item_id,title\n7,a\n7,b\n", ValueError, "item '7' has more than one title"),
    ],
)
def test_bad_titles_are_refused(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_titles(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("quote.csv", b'item_id,title\n1,"a\n2,b\n'),
        ("latin.csv", "item_id,title\n1,\u00e9t\u00e9\n".encode("latin1")),
        ("binary.csv", bytes(range(256)) * 40),
        ("text.parquet", b"item_id,title\n1,a\n"),
        ("empty.tsv", b""),
    ],
)
def test_titles_that_are_no_table_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}"):
        read_titles(tmp_path / name)


def test_figures_that_are_links_are_refused(tmp_path):
    (tmp_path / "real.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [caption for _, caption in find_figures(tmp_path)] == ["real"]
    for name in ("x.png", "y.svg"):
        (tmp_path / name).symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match=r"x\.png \(and 1 more\) is a link; the page follows none"):
        find_figures(tmp_path)


def test_figures_are_found_below_the_folder(study, tmp_path):
    assert find_figures(study) == [(str(study / "fits" / "law.svg"), "fits/law")]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_figures(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no figure"):
        find_figures(tmp_path)
