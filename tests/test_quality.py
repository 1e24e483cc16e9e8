"""The comparison with other libraries: what a peer is given, how its vectors are ranked, when its training ends."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from test_benchmarks import module

from sr_transformers import prepare
from sr_transformers.data.vocabulary import NUM_SPECIAL
from sr_transformers.evaluation.evaluator import evaluate, target_tokens
from sr_transformers.marks import between

plateau = module("peers/plateau")
quality = module("quality")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """60 users with 12 to 20 of 50 items, drawn by popularity: no two histories are alike."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 51)
    rows = [
        {"user_id": user, "item_id": int(item), "timestamp": place}
        for user in range(60)
        for place, item in enumerate(rng.choice(50, rng.integers(12, 21), p=weights / weights.sum()))
    ]
    return prepare(pl.DataFrame(rows), tmp_path_factory.mktemp("log") / "data", split="leave_one_out")


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("peer")
    quality.write_histories(prepared, path)
    return path


def test_a_peer_sees_the_training_part_and_what_is_known_of_every_target(prepared, folder):
    found = plateau.Histories(str(folder))
    assert found.num_items == prepared.vocab_size - NUM_SPECIAL
    for row, stop in enumerate(prepared.train_lengths.tolist()):
        assert (found.train[row] + NUM_SPECIAL == prepared.items(row, stop)).all()
    for part in ("validation", "test"):
        for known, (row, position) in zip(getattr(found, part), prepared.targets(part).tolist(), strict=True):
            items = prepared.items(row, position)
            assert (known + NUM_SPECIAL == items[items >= NUM_SPECIAL]).all()
    tokens = target_tokens(prepared, prepared.targets("validation"))
    assert (found.targets[found.targets >= 0] + NUM_SPECIAL == tokens[tokens >= NUM_SPECIAL]).all()
    assert ((found.targets == -1) == (tokens < NUM_SPECIAL)).all()


def test_no_test_target_is_given_away(prepared, folder):
    with np.load(folder / "histories.npz") as arrays:
        assert set(arrays) == {
            *("num_items", "targets", "train_items", "train_ends", "validation_items", "validation_ends"),
            *("test_items", "test_ends"),
        }
        assert len(arrays["test_items"]) == prepared.targets("test")[:, 1].sum() - sum(
            int((prepared.items(row, stop) < NUM_SPECIAL).sum()) for row, stop in prepared.targets("test").tolist()
        )


def vectors_that_know_the_target(prepared, part):
    """Orthogonal vectors of items, and of users that of their target."""
    items = np.eye(prepared.vocab_size - NUM_SPECIAL, dtype=np.float32)
    tokens = target_tokens(prepared, prepared.targets(part))
    return items[np.maximum(tokens - NUM_SPECIAL, 0)] * (tokens >= NUM_SPECIAL)[:, None], items


def test_vectors_are_ranked_as_any_scorer_and_unknown_items_are_last(prepared):
    users, items = vectors_that_know_the_target(prepared, "test")
    known = quality.known_histories(prepared, "test")
    report = evaluate(quality.Vectors("peer", known, users, items), prepared, "test", (10,), False)
    missed = report["num_targets_outside_vocabulary"] / report["num_targets"]
    assert report["metrics"]["hr@10"] == pytest.approx(1 - missed)
    assert report["metrics"]["ndcg@10"] == pytest.approx(1 - missed)
    items[:] = np.nan
    report = evaluate(quality.Vectors("peer", known, users, items), prepared, "test", (10,), False)
    assert report["metrics"]["hr@10"] == 0


def test_the_less_popular_are_counted_in_the_first_ten_places(prepared):
    counts = prepared.item_counts[NUM_SPECIAL:]
    known = quality.known_histories(prepared, "test")
    users = np.ones((len(known), 1), np.float32)
    for sign, share in ((1, 0.0), (-1, 1.0)):  # the ten most popular of 50 items, then the ten least popular
        scorer = quality.Vectors("peer", known, users, sign * counts[:, None].astype(np.float32))
        assert quality.less_popular_share(scorer, prepared, False) == pytest.approx(share, abs=0.11)  # of ties


class Peer(torch.nn.Module):
    """A model whose validation vectors are right after a given number of epochs, and wrong again after one more."""

    def __init__(self):
        super().__init__()
        self.right = torch.nn.Parameter(torch.zeros(()))


def train(prepared, folder, tmp_path, **more):
    peer, (users, items) = Peer(), vectors_that_know_the_target(prepared, "validation")
    histories = plateau.Histories(str(folder))
    places = {history.tobytes(): place for place, history in enumerate(histories.validation)}

    def encode(rows):
        found = users[[places.get(row.tobytes(), 0) for row in rows]]
        return found if peer.right > 0 else np.zeros_like(found)

    settings = {"folder": str(folder), "output": str(tmp_path), "minutes": 60, "patience": 2, "filter_seen": False}
    watch = plateau.Plateau(settings | more, peer, encode, lambda: items)
    while True:
        with torch.no_grad():
            peer.right.fill_(1.0 if len(watch.curve) == 2 else 0.0)
        if watch.epoch():
            return watch, watch.result()


def test_training_ends_when_patience_is_over_and_hands_over_the_best_epoch(prepared, folder, tmp_path):
    watch, result = train(prepared, folder, tmp_path)
    assert [one["ndcg@10"] > 0.5 for one in result["curve"]] == [False, False, True, False, False]
    assert not result["still_improving"]
    assert watch.module.right.item() == 1.0
    with np.load(tmp_path / "vectors.npz") as arrays:
        assert (arrays["validation"].sum(axis=1) > 0).mean() > 0.5
        assert len(arrays["test"]) == prepared.num_targets("test")


def test_a_training_whose_time_is_over_is_marked(prepared, folder, tmp_path):
    _, result = train(prepared, folder, tmp_path, minutes=0)
    assert len(result["curve"]) == 1
    assert result["still_improving"]


def test_the_table_has_a_row_for_each_model_and_when_ours_was_as_good(tmp_path):
    def run(name, ndcg, minutes):
        metrics = {"hr@10": 0.2, "ndcg@10": ndcg, "coverage@10": 0.5, "less_popular@10": 0.1}
        curve = [{"ndcg@10": ndcg / 2, "cpu_minutes": minutes / 2}, {"ndcg@10": ndcg, "cpu_minutes": minutes}]
        return {"metrics": metrics, "curve": curve, "still_improving": name == "peer"}

    models = {
        "RecTools SASRec": [run("peer", 0.1, 8.0)],
        "RecTools fast": [{"skipped": "no"}],
        quality.AUTO: [run("ours", 0.12, 4.0), run("ours", 0.2, 2.0)],
    }
    (tmp_path / "ml-100k.json").write_text(json.dumps({"models": models}))
    lines = quality.table(tmp_path).splitlines()[2:]
    assert lines == [
        "| ml-100k | RecTools SASRec | 0.2000 | 0.1000 | 0.500 | 0.100 | 8.0* | 2.5 |",
        "| ml-100k | ours, auto (2 seeds) | 0.2000 | 0.1600 | 0.500 | 0.100 | 3.0 |  |",
    ]


def test_the_page_shows_what_was_measured():
    assert between(quality.PAGE, "peers") in ("", quality.table(quality.harness.RESULTS / "quality").strip("\n"))
