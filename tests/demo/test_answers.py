import polars as pl
import pytest

from sr_transformers import Recommender
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.answers import DemoSession, agreement, find_figures, parse_history, read_titles, split_moments


@pytest.fixture(scope="module")
def session(checkpoints, titles):
    return DemoSession.load(checkpoints[0], read_titles(titles))


def test_it_shows_what_the_recommender_says(session, checkpoints):
    rows = session.next_items(["item 3", "item 4"], 5, True)
    wanted = Recommender.from_pretrained(checkpoints[0]).recommend(["item 3", "item 4"], 5)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert [row[1] for row in rows] == [one.item for one in wanted]
    assert [row[3] for row in rows] == [f"{100 * one.probability:.2f} %" for one in wanted]
    for row in rows:
        number = int(row[1].split()[1])
        assert row[2] == ("" if number % 2 else f"Title {number}")


def test_seen_items_can_be_shown(session):
    history = [f"item {n}" for n in range(6)]
    assert not {row[1] for row in session.next_items(history, 30, True)} & set(history)
    assert {row[1] for row in session.next_items(history, 30, False)} >= set(history)


def test_without_titles_there_is_no_column_for_them(checkpoints):
    session = DemoSession.load(checkpoints[0])
    assert all(len(row) == 3 for row in session.next_items(["item 1"], 3, True))
    assert session.label("item 1") == "item 1"
    assert session.name == "one"


def test_a_trajectory_follows_the_first_item_each_time(session):
    rows = session.trajectory(["item 3"], 4, True)
    history = ["item 3"]
    for step, row in enumerate(rows, 1):
        assert row == [step, *session.next_items(history, 1, True)[0][1:]]
        history.append(row[1])
    assert len(set(history)) == 5


def test_a_trajectory_ends_when_no_item_is_left(session):
    assert len(session.trajectory([f"item {n}" for n in range(28)], 10, True)) == 2


def test_choices_are_the_most_popular_with_titles(session):
    assert session.choices()[:3] == [
        ("item 29", "item 29"),
        ("Title 28 (item 28)", "item 28"),
        ("item 27", "item 27"),
    ]
    assert len(session.choices()) == 30


def test_unknown_items_are_told_and_popularity_steps_in(session):
    assert session.unknown(["item 1", "[UNK]", "nothing"]) == ["[UNK]", "nothing"]
    assert session.next_items(["nothing"], 2, True) == [[1, "item 29", "", "–"], [2, "item 28", "Title 28", "–"]]


def test_without_training_counts_nothing_is_called_popular(session):
    plain = build_tokenizer([f"item {n}" for n in range(30)])
    silent = DemoSession("silent", Recommender(session.recommender.model, plain), {})
    assert [item for _, item in silent.choices()[:2]] == ["item 0", "item 1"]
    assert silent.next_items(["nothing"], 2, True) == []
    assert silent.trajectory(["nothing"], 2, True) == []
    assert len(silent.next_items(["nothing", "item 3"], 2, True)) == 2


def test_a_history_is_one_item_a_line():
    assert parse_history(" a b \n\n c, d\n") == ["a b", "c, d"]
    with pytest.raises(ValueError, match="history is empty"):
        parse_history(" \n ")


def test_agreement_is_counted():
    one = [[1, "a", "1 %"], [2, "b", "1 %"], [3, "c", "1 %"]]
    assert (
        agreement(one, [[1, "a", ""], [2, "c", ""], [3, "x", ""]]) == "2 of 3 items in both lists; the same first item."
    )
    assert agreement(one, [[1, "b", ""]]) == "1 of 3 items in both lists; different first item."


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_titles_are_read(tmp_path, suffix):
    frame, path = pl.DataFrame({"item_id": [1, 2], "title": ["A, B", None]}), tmp_path / f"titles.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    assert read_titles(path) == {"1": "A, B", "2": ""}


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


def test_a_model_with_history_reads_moments_and_gives_reasons(with_history):
    session, recommender = DemoSession.load(with_history), Recommender.from_pretrained(with_history)
    history, times = ["item 3", "item 4", "item 3"], [10, 10, 40]
    assert session.explains
    rows = session.next_items(history, 30, False, times)
    wanted = recommender.recommend(history, 30, False, times=times, explain=True)
    assert [row[1:] for row in rows] == [[one.item, f"{100 * one.probability:.2f} %", one.reason] for one in wanted]
    assert rows != session.next_items(history, 30, False, [10, 40, 40])
    followed = session.trajectory(history, 3, False, times)
    for step in range(3):
        so_far = [*history, *(row[1] for row in followed[:step])]
        best = recommender.recommend(so_far, 1, False, times=[*times, *[40] * step], explain=True)[0]
        assert followed[step][1:] == [best.item, f"{100 * best.probability:.2f} %", best.reason]


def test_moments_of_lines():
    assert split_moments(["a @ 3", "b", "c d @ 4", "@ 5 @7"]) == (["a", "b", "c d", "@ 5"], [3, 3, 4, 7])
    assert split_moments(["a", "b @ -4"]) == (["a", "b"], [-4, -4])
    assert split_moments(["a", "b@3", "c @ x"]) == (["a", "b@3", "c @ x"], [0, 0, 0])
    with pytest.raises(ValueError, match="The moment 3 stands below 4"):
        split_moments(["a @ 4", "b @ 3"])
    with pytest.raises(ValueError, match="at most 64 bits"):
        split_moments(["a @ 99999999999999999999"])
