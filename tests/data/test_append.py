import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.append import append
from sr_transformers.data.prepare import prepare
from sr_transformers.data.prepared import PreparedData
from sr_transformers.data.vocabulary import UNK_ID, item_counts
from sr_transformers.demo.answers import DemoSession
from sr_transformers.lsrm.identity_lsrm import items_fingerprint


def frame(rows: list[tuple], extra: tuple = ()) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", *extra], orient="row")


def content(data: PreparedData) -> dict:
    """All of a prepared set in raw ids, whatever the tokens."""
    table = pl.read_ipc_stream(data.path / "unknown.arrow")
    outside = {(history, place): item for history, place, item in table.rows()}
    names = data.item_ids.to_pylist()
    histories = {}
    for history, row in enumerate(data.histories):
        items = [
            outside[history, place] if token == UNK_ID else names[token - 2]
            for place, token in enumerate(row["item_ids"])
        ]
        known = [token != UNK_ID for token in row["item_ids"]]
        domains = [data.domain_names[code] for code in row["domains"]] if data.domain_names else None
        histories[row["user_id"]] = (items, known, row["timestamps"], row["train_length"], domains)
    return {
        "histories": histories,
        "order": list(histories),
        "targets": [data.targets(part).tolist() for part in ("validation", "test")],
        "counts": dict(zip(names, data.item_counts[2:].tolist(), strict=True)),
        "manifest": data.manifest["counts"],
    }


def random_log(rng: np.random.Generator, rows: int, users: int = 30, items: int = 25) -> list[tuple]:
    return [
        (f"u{rng.integers(users)}", f"i{rng.integers(items)}", int(rng.integers(50)), f"d{rng.integers(3)}")
        for _ in range(rows)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split": "temporal"},
        {"split": "temporal", "validation_from": 20, "test_from": 30},
        {"split": "paper", "min_trajectory_length": 12},
        {"since": 5, "until": 45, "shards": 2},
    ],
)
def test_appending_gives_what_preparing_the_whole_gives(tmp_path, options):
    rows = random_log(np.random.default_rng(3), 700)
    rows[450:] = [(user, item, time + 40, domain) for user, item, time, domain in rows[450:]]
    rows += [("u7", "late", 0, "d9"), ("a-new-user", "late", 60, "d0")]  # a straggler from before, a new user
    whole = prepare(frame(rows, ("domain",)), tmp_path / "whole", **options)
    first = prepare(frame(rows[:450], ("domain",)), tmp_path / "first", **options)
    both = append(first, frame(rows[450:], ("domain",)), tmp_path / "both")
    assert content(both) == content(whole)
    assert both.item_ids.to_pylist()[: len(first.item_ids)] == first.item_ids.to_pylist()
    assert both.manifest["appended_to"]["manifest_sha256"] == first.digest
    assert hashlib.sha256((first.path / "manifest.json").read_bytes()).hexdigest() == first.digest
    for key in ("split", "split_parameters", "filters", "times", "shards"):
        assert both.manifest.get(key) == whole.manifest.get(key)


def test_days_may_be_appended_one_after_the_other(tmp_path):
    rows = random_log(np.random.default_rng(5), 400)
    data = prepare(frame(rows[:100], ("domain",)), tmp_path / "0")
    for day in (1, 2, 3):
        before = data
        data = append(
            tmp_path / f"{day - 1}", frame(rows[day * 100 : (day + 1) * 100], ("domain",)), tmp_path / str(day)
        )
        known = len(before.item_ids)
        assert data.item_ids[:known].equals(before.item_ids)
        counts = data.item_counts[2 + known :]
        assert (counts[:-1] >= counts[1:]).all()  # new items by falling count
    assert content(data) == content(prepare(frame(rows, ("domain",)), tmp_path / "whole"))
    chain, depth = data.manifest, 0
    while "appended_to" in chain:
        chain, depth = chain["appended_to"], depth + 1
    assert depth == 3
    assert not list(tmp_path.glob(".*"))


users = st.sampled_from(["a", "b", "ü", "\U0001f600"])


@settings(max_examples=8)
@given(st.lists(st.tuples(users, st.integers(0, 6), st.integers(0, 9)), min_size=4, max_size=40), st.data())
def test_any_cut_of_any_log_may_be_appended(tmp_path_factory, rows, data):
    cut = data.draw(st.integers(3, len(rows) - 1))
    assume(max(sum(row[0] == user for row in rows[:cut]) for user in "abü\U0001f600") >= 3)
    folder = tmp_path_factory.mktemp("cut")
    whole = prepare(frame(rows), folder / "whole")
    first = prepare(frame(rows[:cut]), folder / "first")
    found, expected = content(append(first, frame(rows[cut:]), folder / "both")), content(whole)
    assert found["targets"] == expected["targets"]
    assert found["order"] == expected["order"]
    # A user of two interactions trains on both, of three on one: an item may leave the training data, not its token.
    kept = {item for item, count in found["counts"].items() if not count}
    assert {item: count for item, count in found["counts"].items() if count} == expected["counts"]
    for user, (items, known, *rest) in expected["histories"].items():
        known = [token or item in kept for item, token in zip(items, known, strict=True)]
        assert found["histories"][user] == (items, known, *rest)


def test_sets_whose_left_out_rows_are_gone_are_refused(readable_log, tmp_path):
    core = prepare(readable_log, tmp_path / "core", min_interactions=2)
    firsts = prepare(readable_log, tmp_path / "firsts", repeats="first")
    for data in (core, firsts):
        with pytest.raises(ValueError, match=r"rows that were left out could come back .* Prepare the whole log"):
            append(data, readable_log, tmp_path / "out")
    with pytest.raises(FileExistsError, match="core exists and is not an empty folder"):
        append(core, readable_log, core.path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"user_id": pl.int_range(pl.len())}, "user_id is int64 here and .*string"),
        ({"item_id": pl.int_range(pl.len())}, "item_id is int64 here and .*string"),
        ({"timestamp": pl.lit("2024-01-01")}, "unit of time is us here and None"),
        ({"timestamp": pl.lit(0.5)}, "fractions of time is True here and False"),
        ({"domain": pl.lit("d")}, "domain is True here and False"),
    ],
)
def test_rows_of_another_kind_are_refused(prepared, readable_log, tmp_path, change, what):
    with pytest.raises(ValueError, match=f"log: {what} in .*; write both the same way"):
        append(prepared, readable_log.with_columns(**change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fractions_of_time_stay_comparable(tmp_path):
    first = prepare(frame([("a", "x", 0.5), ("a", "y", 1.5), ("a", "x", 2.0)]), tmp_path / "first", time_unit="s")
    both = append(first, frame([("a", "z", 3.0), ("a", "z", 4.0)]), tmp_path / "both")
    assert both.histories[0]["timestamps"] == [500_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000]
    assert both.manifest["times"] == {"unit_given": "s", "unit": "us", "millionths": True}


def test_a_best_seller_that_comes_late_is_the_most_popular(tmp_path):
    first = prepare(frame([(f"u{u}", f"i{(u + n) % 9}", n) for u in range(10) for n in range(9)]), tmp_path / "first")
    late = [(f"v{u}", "hit", 100 + n) for u in range(90) for n in range(10)]
    both = append(first, frame(late), tmp_path / "both")
    assert both.item_ids.to_pylist()[-1] == "hit"  # known items keep their tokens
    vocabulary = AutoTokenizer.from_pretrained(both.path / "tokenizer")
    assert item_counts(vocabulary).tolist() == both.item_counts[2:].tolist()
    config = LSRMConfig(vocab_size=both.vocab_size, hidden_size=8, items_fingerprint=both.items_fingerprint)
    recommender = Recommender(LSRMForCausalLM(config), vocabulary)
    assert recommender.recommend([], k=1, fallback="popularity")[0].item == "hit"
    assert DemoSession("page", recommender, {}).choices()[0][1] == "hit"


def test_items_keep_their_fingerprint_and_new_ones_change_it(tmp_path):
    rows = [(f"u{u}", f"i{(u + n) % 9}", n) for u in range(10) for n in range(9)]
    first = prepare(frame(rows), tmp_path / "first")
    known = append(first, frame([("v", "i1", 100 + n) for n in range(5)]), tmp_path / "known")
    new = append(first, frame([("v", "new", 100 + n) for n in range(5)]), tmp_path / "new")
    assert first.items_fingerprint == items_fingerprint(first.item_ids.to_pylist()) == known.items_fingerprint
    assert new.items_fingerprint == items_fingerprint([*first.item_ids.to_pylist(), "new"])


def test_shuffled_items_are_refused_instead_of_renamed(tmp_path, readable_log):
    data = prepare(readable_log, tmp_path / "data")
    items = pl.read_parquet(data.path / "items.parquet")
    items.sample(fraction=1, shuffle=True, seed=1).write_parquet(data.path / "items.parquet")
    with pytest.raises(ValueError, match=r"items\.parquet"):
        append(data.path, frame([("new", "i1", 100 + n) for n in range(5)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"items\.parquet"):
        _ = PreparedData(data.path).item_counts  # the counts would be those of other items


@pytest.mark.parametrize("old", [["01", "1"], ["food", "toys"], [1, 2]])
def test_domains_stay_apart_whatever_their_kind(old, tmp_path):
    """Numbers after texts: `01` is not 1, and `toys` is no number."""
    first = prepare(frame([("a", "x", 1, old[0]), ("a", "y", 2, old[1])] * 3, ("domain",)), tmp_path / "first")
    both = append(first, frame([("b", "x", 9, 7), ("b", "y", 10, 1)], ("domain",)), tmp_path / "both")
    assert sorted(both.domain_names) == sorted({*map(str, old), "7", "1"})
    history = list(both.histories["user_id"]).index("a")
    names = [both.domain_names[code] for code in both.domains(history, int(both.lengths[history]))]
    assert set(names) == set(map(str, old))
