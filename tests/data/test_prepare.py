import json

import datasets
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_transformers.data import splits, writing
from sr_transformers.data.logs import cleaning, synthetic
from sr_transformers.data.manifest import FORMAT
from sr_transformers.data.prepare import prepare
from sr_transformers.data.vocabulary import UNK_ID, decode_items

LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 7]  # of the readable log


def frame(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_the_readable_log_by_eye(prepared):
    assert prepared.lengths.tolist() == LENGTHS
    assert prepared.items(4, 5).tolist() == [2, 3, 4, 5, 6]  # u04: i0 .. i4
    assert prepared.items(11, 12).tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, UNK_ID, UNK_ID]  # u11: i10, i11 unknown
    assert decode_items(prepared.tokenizer, [2, 11]) == ["i0", "i9"]
    assert prepared.targets("test")[:3].tolist() == [[2, 2], [3, 3], [4, 4]]
    assert prepared.histories[5] == {
        "user_id": "u05",
        "item_ids": [2, 3, 4, 5, 6, 7],
        "timestamps": [0, 1, 2, 3, 4, 5],
        "train_length": 4,
    }


def test_the_manifest_counts_what_was_read_and_what_cannot_be_predicted(prepared):
    counts = prepared.manifest["counts"]
    assert counts["rows_read"] == counts["interactions"] == sum(LENGTHS)
    assert (counts["users"], counts["items"], counts["items_in_vocabulary"]) == (14, 12, 10)
    assert counts["train_interactions"] == prepared.num_train_interactions == sum(LENGTHS) - 2 * 12
    assert counts["validation_targets"] == counts["test_targets"] == 12
    assert counts["validation_targets_outside_vocabulary"] == 1  # i10 of u11
    assert counts["test_targets_outside_vocabulary"] == 2  # i11 of u11, i10 of u10
    assert (counts["repeat_share"], counts["tied_share"], counts["first"], counts["last"]) == (0, 0, 0, 11)
    assert counts["users_too_short_to_hold_out"] == 2
    assert prepared.manifest["leaks"].startswith("leave-one-out")


def test_repeats_and_ties_are_shares_of_the_interactions(tmp_path):
    rows = [("a", "x", 1), ("a", "y", 1), ("a", "x", 2), ("b", "x", 2)]
    counts = prepare(frame(rows), tmp_path / "data").manifest["counts"]
    assert (counts["repeat_share"], counts["tied_share"]) == (0.25, 0.25)


def test_the_vocabulary_holds_training_items_by_falling_count_and_then_id(tmp_path):
    # The last two of each user are held out: "v" and "w" are no training items, "z" counts once.
    rows = [("a", item, n) for n, item in enumerate(["z", "c", "b", "b", "z", "w"])]
    rows += [("b", item, n) for n, item in enumerate(["c", "a", "v", "z"])]
    data = prepare(frame(rows), tmp_path / "data")
    items = pl.read_parquet(tmp_path / "data" / "items.parquet")
    assert items.rows() == [("b", 2), ("c", 2), ("a", 1), ("z", 1)]
    assert decode_items(data.tokenizer, range(2, data.vocab_size)) == ["b", "c", "a", "z"]
    assert data.item_counts.tolist() == [0, 0, 2, 2, 1, 1]
    assert data.items(0, 6).tolist() == [5, 3, 2, 2, 5, UNK_ID]


def test_interleaving_the_rows_of_users_changes_nothing(readable_log, prepared, tmp_path):
    rng = np.random.default_rng(0)
    users = rng.permutation(readable_log["user_id"].to_numpy())  # whose turn it is
    own = {user: iter(rows) for user, rows in readable_log.rows_by_key("user_id", include_key=True).items()}
    shuffled = frame([next(own[user]) for user in users]).select("timestamp", "item_id", "user_id")
    assert shuffled["user_id"].to_list() != readable_log["user_id"].to_list()
    prepare(shuffled, tmp_path / "data")
    for file in prepared.path.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "data" / file.relative_to(prepared.path)).read_bytes()


def test_ties_keep_the_order_of_the_source(tmp_path):
    rows = [("a", item, 0) for item in ("q", "b", "z", "a", "b", "q", "q")]
    data = prepare(frame(rows), tmp_path / "data")
    assert decode_items(data.tokenizer, data.items(0, 7)[:4].tolist()) == ["q", "b", "z", "a"]


def test_temporal_trains_on_nothing_from_the_moment_of_validation_on(tmp_path):
    rng = np.random.default_rng(0)
    log = pl.DataFrame({column: rng.integers(0, top, 500) for column, top in
                        (("user_id", 40), ("item_id", 20), ("timestamp", 1000))})  # fmt: skip
    data = prepare(log, tmp_path / "data", split="temporal", validation_from=700, test_from=850)
    counts = data.manifest["counts"]
    assert (counts["validation_from"], counts["test_from"]) == (700, 850)
    assert data.num_train_interactions == log.filter(pl.col("timestamp") < 700).height
    for row, length in zip(data.histories, data.train_lengths, strict=True):
        assert max(row["timestamps"][:length], default=0) < 700 <= min(row["timestamps"][length:], default=700)
    for part, first, end in (("validation", 700, 850), ("test", 850, 1000)):
        times = [data.histories[history]["timestamps"][position] for history, position in data.targets(part).tolist()]
        assert times
        assert all(first <= time < end for time in times)


def test_min_interactions_is_a_k_core_and_is_counted(tmp_path):
    rows = [(user, item, n) for user in "abc" for n, item in enumerate("xyz")] + [("d", "x", 0), ("a", "rare", 9)]
    counts = prepare(frame(rows), tmp_path / "data", min_interactions=3).manifest["counts"]
    assert (counts["rows_read"], counts["rows_left_out_by_min_interactions"], counts["users"]) == (11, 2, 3)


def test_a_file_is_described_by_name_size_and_digest(tmp_path):
    (tmp_path / "log.csv").write_text("who,item_id,timestamp\n007,1,1\n007,2,2\n007,1,3\n")
    data = prepare(tmp_path / "log.csv", tmp_path / "data", columns={"user_id": "who"})
    source = data.manifest["source"]
    assert (source["name"], source["bytes"], len(source["sha256"])) == ("log.csv", 46, 64)
    assert data.manifest["columns"] == {"user_id": "who"}
    assert data.histories["user_id"][0] == "007"


def test_an_embedded_set_is_described_by_its_name(tmp_path, monkeypatch):
    log = frame([(1, 1, 1), (1, 2, 2), (1, 1, 3)])
    monkeypatch.setattr(synthetic, "generate", lambda: log)
    assert prepare("synthetic", tmp_path / "data").manifest["source"] == {"name": "synthetic"}


def test_a_frame_may_have_other_names_and_further_columns(tmp_path):
    log = frame([("a", "x", 1), ("a", "y", 2), ("a", "x", 3)])
    log = log.rename({"user_id": "who"}).with_columns(token=pl.lit("!"), len=pl.lit(99))
    data = prepare(log, tmp_path / "data", columns={"user_id": "who"})
    assert data.items(0, 3).tolist() == [2, UNK_ID, 2]
    with pytest.raises(ValueError, match=r"log: column user_id is missing; there are who"):
        prepare(log, tmp_path / "other")


def test_validation_without_targets_is_empty_not_an_error(tmp_path):
    log = frame([("a", "x", 1), ("a", "y", 2), ("a", "x", 30)])
    data = prepare(log, tmp_path / "data", split="temporal", validation_from=10, test_from=20)
    assert data.targets("validation").shape == (0, 2)
    assert data.targets("test").tolist() == [[0, 2]]


def test_an_empty_folder_is_a_fine_output_and_the_result_is_readable_for_others(readable_log, tmp_path):
    (tmp_path / "data").mkdir()
    assert len(prepare(readable_log, tmp_path / "data")) == 14
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o755
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize("failing", ["build_tokenizer", "write_stream"])
def test_a_failure_leaves_nothing_behind(readable_log, tmp_path, monkeypatch, failing):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, failing, fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(readable_log, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_an_output_with_something_in_it_is_refused_and_left_alone(readable_log, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    for output in (tmp_path / "data", tmp_path / "data" / "mine"):
        with pytest.raises(FileExistsError, match=f"{output} exists and is not an empty folder"):
            prepare(readable_log, output)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def test_an_unknown_split_names_those_that_exist(readable_log, tmp_path):
    with pytest.raises(ValueError, match="split 'random' is not known; choose from leave_one_out, temporal, paper"):
        prepare(readable_log, tmp_path / "data", split="random")


@pytest.mark.parametrize("moment", ["validation_from", "test_from"])
def test_moments_belong_to_the_temporal_split(readable_log, tmp_path, moment):
    with pytest.raises(ValueError, match=f"not for split 'leave_one_out', but for 'temporal': {moment}"):
        prepare(readable_log, tmp_path / "data", **{moment: 0})


def test_a_split_without_test_targets_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"log: the leave_one_out split leaves no test target \(1 users, 2 rows\)"):
        prepare(frame([("a", "x", 1), ("a", "y", 2)]), tmp_path / "data")
    with pytest.raises(ValueError, match="the temporal split leaves no test target"):
        prepare(frame([("a", "x", 1), ("a", "y", 2)]), tmp_path / "a", split="temporal", validation_from=5, test_from=9)
    assert list(tmp_path.iterdir()) == []


def test_an_unsound_row_is_named_with_its_file(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,x,1\na,,2\n")
    with pytest.raises(ValueError, match=r"log.csv: item_id is missing in row 2: None"):
        prepare(tmp_path / "log.csv", tmp_path / "data")


def test_the_tables_open_as_plain_datasets(prepared):
    table = datasets.Dataset.from_file(str(prepared.path / "test.arrow"))
    assert table.column_names == ["history", "position"]
    assert len(table) == 12


def test_domains_are_kept_beside_the_items_under_their_sorted_names(tmp_path):
    rows = [("a", "x", 2, "shoes"), ("a", "y", 1, "books"), ("a", "z", 3, "shoes"), ("b", "x", 1, "games")]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shelf"], orient="row")
    data = prepare(log, tmp_path / "data", columns={"domain": "shelf"})
    assert data.domain_names == data.manifest["domains"] == ["books", "games", "shoes"]
    assert data.domains(0, 3).tolist() == [0, 2, 2]
    assert data.domains(0, 3, 1).tolist() == [2, 2]
    assert data.domains(1, 1).tolist() == [1]
    assert data.domains(0, 3).dtype == np.int16
    named = prepare(log.rename({"shelf": "domain"}), tmp_path / "named")  # found under our name
    assert named.domains(0, 3).tolist() == [0, 2, 2]
    numbers = log.with_columns(domain=pl.Series([10, 9, 10, 11]))
    assert prepare(numbers, tmp_path / "numbers").domain_names == ["9", "10", "11"]


def test_a_log_without_domains_says_so(prepared):
    assert prepared.domain_names is None
    assert "domains" not in prepared.histories.column_names
    with pytest.raises(ValueError, match="has no domains; prepare its log with a domain column"):
        prepared.domains(0, 1)


def test_a_missing_domain_and_too_many_domains_are_refused(readable_log, tmp_path, monkeypatch):
    log = readable_log.with_columns(domain=pl.Series(["a", None] + ["a"] * (len(readable_log) - 2)))
    with pytest.raises(ValueError, match=r"log: domain is missing in row 2"):
        prepare(log, tmp_path / "data")
    monkeypatch.setattr(cleaning, "MAX_DOMAINS", 3)
    with pytest.raises(ValueError, match="log: 12 domains, at most 3; is domain the right column"):
        prepare(readable_log.with_columns(domain=pl.col("item_id")), tmp_path / "data")


def test_the_papers_split_keeps_a_pool_of_users_from_training_and_vocabulary(tmp_path):
    rows = [(f"u{user:03}", f"i{user}-{n}", n) for user in range(60) for n in range(20 if user % 2 else 5)]
    data = prepare(frame(rows), tmp_path / "data", split="paper")
    pool = data.unseen_users
    assert pool.dtype == np.int64
    assert 0 < len(pool) == data.manifest["counts"]["users_unseen"] < 60
    assert data.manifest["split_parameters"] == {"min_trajectory_length": 15, "unseen_share": 0.2, "seed": 0}
    assert data.manifest["leaks"].startswith("the paper's split")
    for history in pool.tolist():  # every item of this log has one user: an unseen one's are unknown
        assert (data.items(history, data.lengths[history]) == UNK_ID).all()
    for part in ("validation", "test"):
        targets = data.targets(part)
        assert not set(targets[:, 0].tolist()) & set(pool.tolist())
        assert len(targets) == 60 - len(pool)
    left = {data.lengths[history] - position - 1 for history, position in data.targets("test").tolist()}
    assert left == {0, 10}
    other = prepare(frame(rows), tmp_path / "other", split="paper", unseen_share=0.5, split_seed=3)
    assert other.manifest["split_parameters"] == {"min_trajectory_length": 15, "unseen_share": 0.5, "seed": 3}
    assert len(other.unseen_users) > len(pool)


def test_nobody_is_unseen_in_leave_one_out(prepared):
    assert prepared.unseen_users.tolist() == []


@pytest.mark.parametrize("option", [{"min_trajectory_length": 20}, {"unseen_share": 0.1}, {"split_seed": 1}])
def test_options_of_the_papers_split_belong_to_it(readable_log, tmp_path, option):
    with pytest.raises(ValueError, match=r"min_trajectory_length, unseen_share and split_seed belong to split='paper'"):
        prepare(readable_log, tmp_path / "data", **option)


def test_the_histories_may_lie_in_several_files(readable_log, prepared, tmp_path):
    data = prepare(readable_log, tmp_path / "data", shards=3)
    files = sorted(file.name for file in data.path.glob("histories*"))
    assert files == [f"histories-0000{n}-of-00003.arrow" for n in range(3)]
    assert data.lengths.tolist() == prepared.lengths.tolist()
    assert data.histories[:] == prepared.histories[:]
    assert (data.targets("test") == prepared.targets("test")).all()
    sizes = [sum(map(len, datasets.Dataset.from_file(str(data.path / file))["item_ids"])) for file in files]
    assert max(sizes) - min(sizes) <= 12
    with pytest.raises(ValueError, match="shards 0 must be at least 1"):
        prepare(readable_log, tmp_path / "none", shards=0)
    with pytest.raises(ValueError, match=r"shards 100000 is more than the 14 users of log; take fewer \(--shards\)"):
        prepare(readable_log, tmp_path / "none", shards=100_000)
    assert not (tmp_path / "none").exists()
    assert prepare(readable_log, tmp_path / "most", shards=14).histories[:] == prepared.histories[:]


def test_items_outside_the_vocabulary_keep_their_ids(prepared):
    table = datasets.Dataset.from_file(str(prepared.path / "unknown.arrow"))
    assert [tuple(row.values()) for row in table] == [(10, 10, "i10"), (11, 10, "i10"), (11, 11, "i11")]
    assert prepared.manifest["counts"]["interactions_outside_vocabulary"] == 3


def test_rows_that_repeat_everything_are_kept_and_counted(tmp_path):
    rows = [("a", "x", 1), ("a", "y", 1), ("a", "x", 1), ("a", "x", 1), ("b", "x", 1), ("a", "x", 2), ("b", "y", 2)]
    counts = prepare(frame(rows), tmp_path / "data").manifest["counts"]
    assert (counts["interactions"], counts["duplicate_rows"]) == (7, 2)
    counts = prepare(frame(rows), tmp_path / "distinct", repeats="distinct").manifest["counts"]
    assert (counts["interactions"], counts["duplicate_rows"], counts["rows_left_out_by_repeats"]) == (5, 0, 2)


def test_test_targets_that_tie_with_their_predecessor_are_counted(tmp_path):
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "x", 2), ("b", "x", 1), ("b", "x", 2), ("b", "x", 3)]
    assert prepare(frame(rows), tmp_path / "data").manifest["counts"]["test_targets_tied_with_predecessor"] == 1


def test_a_users_history_may_be_longer_than_a_block(tmp_path, monkeypatch):
    log = frame([(user, f"i{n % 7}", n) for user in range(5) for n in range(40 * (user == 2) + 5)])
    data = prepare(log, tmp_path / "data")
    monkeypatch.setattr(splits.blocks, "__defaults__", (10,))
    again = prepare(log, tmp_path / "again")
    assert len(again.histories.data.table.column("item_ids").chunks) > 1
    assert again.histories[:] == data.histories[:]
    assert again.manifest["counts"] == data.manifest["counts"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"engine": "abacus"}, "engine 'abacus' is not known; choose from duckdb"),
        ({"time_unit": "days"}, "time_unit 'days' is not known; choose s, ms or us"),
    ],
)
def test_options_that_are_not_known_are_refused(readable_log, tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        prepare(readable_log, tmp_path / "data", **option)


def test_moments_may_be_written_as_dates(tmp_path):
    rows = [("a", f"i{day}", f"2024-01-{day:02}") for day in range(1, 10)] + [("a", "i1", "2024-01-10")]
    data = prepare(
        frame(rows), tmp_path / "data", split="temporal", validation_from="2024-01-05", test_from="2024-01-10"
    )
    assert (data.train_lengths.tolist(), data.targets("test").tolist()) == ([4], [[0, 9]])
    assert data.manifest["split_parameters"] == {"validation_from": "2024-01-05", "test_from": "2024-01-10"}
    assert data.manifest["times"] == {"unit_given": None, "unit": "us", "millionths": False}


def test_moments_are_in_the_unit_of_the_log_also_where_times_have_fractions(tmp_path):
    log = frame([("a", f"i{n}", n + 0.5) for n in range(10)])
    data = prepare(log, tmp_path / "data", split="temporal", validation_from=5, test_from="7")
    assert (data.train_lengths.tolist(), data.targets("test").tolist()) == ([5], [[0, 7]])
    assert data.manifest["counts"]["test_from"] == 7_000_000


def test_huge_ids_long_histories_and_the_largest_times_are_handled(tmp_path):
    long = "x" * 10**6
    rows = [(long, f"{long}{n % 3}", 2**63 - 1 - n) for n in range(5)]
    write = "\n".join(["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in rows)])
    (tmp_path / "log.csv").write_text(write)
    data = prepare(tmp_path / "log.csv", tmp_path / "data")
    assert data.histories["user_id"][0] == long
    assert decode_items(data.tokenizer, [2])[0][:-1] == long
    assert data.manifest["counts"]["last"] == 2**63 - 1
    many = pl.DataFrame({"user_id": ["u"] * 10**5, "item_id": range(10**5), "timestamp": range(10**5)})
    assert prepare(many, tmp_path / "many").lengths.tolist() == [10**5]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i,1\nu,i,9223372036854775808\n")
    with pytest.raises(ValueError, match=r"log.csv: timestamp is no time .* in row 2: '9223372036854775808'"):
        prepare(tmp_path / "log.csv", tmp_path / "none")


def test_the_file_of_a_bad_row_is_named_among_several(tmp_path):
    for number, item in enumerate(("i", "j", "")):
        (tmp_path / f"{number}.csv").write_text(f"user_id,item_id,timestamp\nu,i,1\nu,{item},2\n")
    with pytest.raises(ValueError, match=r"/2.csv: item_id is missing in row 2: None \(1 such rows\)"):
        prepare(tmp_path / "*.csv", tmp_path / "data")
    frame([("u", "i", 1), ("u", None, 1)]).write_parquet(tmp_path / "b.parquet")
    frame([("u", "i", 1), ("u", "i", 1)]).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"/b.parquet: item_id is missing in row 2: None"):
        prepare(tmp_path / "*.parquet", tmp_path / "data")


def test_one_user_is_enough_for_leave_one_out(tmp_path):
    assert len(prepare(frame([("a", "x", n) for n in range(3)]), tmp_path / "data")) == 1


ids = st.one_of(
    st.text(min_size=1, max_size=8), st.sampled_from(["[PAD]", "[UNK]", "\t", "a,b", '"', "\r\n", "é", "é"])
)


users = st.one_of(st.sampled_from(["a", "\u00fc"]), ids)  # few: else nobody has a history
times = st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1))  # few: else nothing ties


@settings(max_examples=30)
@given(st.lists(st.tuples(users, ids, times), min_size=3, max_size=25), st.data())
def test_any_log_comes_back_as_it_was(tmp_path_factory, rows, data):
    """Ids round-trip, splits partition, training lies before validation before test, and files may come in pieces."""
    try:
        "".join(user + item for user, item, _ in rows).encode()
    except UnicodeEncodeError:
        return
    folder = tmp_path_factory.mktemp("any")
    truth: dict = {}
    for user, item, time in rows:
        truth.setdefault(user, []).append((time, item))
    truth = {user: sorted(events, key=lambda event: event[0]) for user, events in truth.items()}
    if max(map(len, truth.values())) < 3:
        return
    prepared = prepare(frame(rows), folder / "data")
    unknown = {
        (history, place): item for history, place, item in pl.read_ipc_stream(folder / "data/unknown.arrow").rows()
    }
    assert prepared.histories["user_id"][:] == sorted(truth, key=lambda user: user.encode())
    for history, row in enumerate(prepared.histories):
        events = truth[row["user_id"]]
        items = [
            unknown[history, place] if token == UNK_ID else decode_items(prepared.tokenizer, [token])[0]
            for place, token in enumerate(row["item_ids"])
        ]
        assert list(zip(row["timestamps"], items, strict=True)) == events
    validation, test = dict(prepared.targets("validation").tolist()), dict(prepared.targets("test").tolist())
    for history, (length, trained) in enumerate(zip(prepared.lengths, prepared.train_lengths, strict=True)):
        held = [split[history] for split in (validation, test) if history in split]
        assert list(range(trained)) + held == list(range(length))
    cut = data.draw(st.integers(1, len(rows) - 1))
    for number, part in enumerate((rows[:cut], rows[cut:])):
        frame(part).write_parquet(folder / f"{number}.parquet")
    in_pieces = prepare(folder / "*.parquet", folder / "pieces")
    assert in_pieces.histories[:] == prepared.histories[:]
    assert in_pieces.manifest["counts"] == prepared.manifest["counts"]
    if all(len({time for time, _ in events}) == len(events) for events in truth.values()):  # else ties follow the files
        (folder / "1.parquet").rename(folder / "-1.parquet")
        assert prepare(folder / "*.parquet", folder / "turned").histories[:] == prepared.histories[:]


ALIKE = (
    "a",
    " a",
    "a ",
    "A",
    "\u00e9",
    "e\u0301",
    "\u200b",
    "\t",
    "\r\n",
    "\x00",
    "007",
    "7",
    "7.0",
    "[PAD]",
    "null",
    "NaN",
)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_ids_that_look_alike_stay_apart(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    log = frame([(user, item, time) for user in ALIKE for time, item in enumerate((*ALIKE, "b", "c"))])
    {"csv": log.write_csv, "jsonl": log.write_ndjson, "parquet": log.write_parquet}[suffix](path)
    data = prepare(path, tmp_path / "data")
    assert data.histories["user_id"][:] == sorted(ALIKE, key=str.encode)
    for history in range(len(data)):
        assert decode_items(data.tokenizer, data.items(history, len(ALIKE)).tolist()) == list(ALIKE)
