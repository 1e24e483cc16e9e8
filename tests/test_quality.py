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


def run(ndcg, minutes, places="10", still=False, **more):
    metrics = {"hr@10": 0.2, "ndcg@10": ndcg, "coverage@10": 0.5, "less_popular@10": 0.1}
    curve = [{"ndcg@10": ndcg / 2, "cpu_minutes": minutes / 2}, {"ndcg@10": ndcg, "cpu_minutes": minutes}]
    return {"metrics": metrics, "curve": curve, "still_improving": still, "places": places, "cpu_minutes": 60.0, **more}


MODELS = {
    "RecTools SASRec": [run(0.1, 8.0, "1000", still=True)],
    "RecTools fast": [run(0.05, 2.0, "0000")],
    quality.AUTO: [run(0.12, 4.0, "1a00"), run(0.2, 2.0, "1100")],
    quality.TUNE: [run(0.2, 5.0, "1111", busy=0.5)],
}


def test_the_table_has_a_row_for_each_model_and_when_ours_was_as_good(tmp_path):
    (tmp_path / "ml-100k.json").write_text(json.dumps({"models": MODELS}))
    assert quality.table(tmp_path).splitlines()[2:] == [
        "| ml-100k | RecTools SASRec | 0.2000 | 0.1000 | 0.500 | 0.100 | 8.0* | 2.5 |",
        "| ml-100k | RecTools fast | 0.2000 | 0.0500 | 0.500 | 0.100 | 2.0 | 1.5 |",
        "| ml-100k | ours, auto (2 seeds) | 0.2000 | 0.1600 | 0.500 | 0.100 | 3.0 |  |",
        "| ml-100k | ours, tune | 0.2000 | 0.2000 | 0.500 | 0.100 | 60.0† |  |",
    ]


def test_the_verdict_is_paired_with_the_best_peer(tmp_path):
    (tmp_path / "ml-100k.json").write_text(json.dumps({"models": MODELS}))
    auto, tune = quality.verdict(tmp_path).splitlines()[2:]
    tenth = (1 + 1 / np.log2(11)) / 2  # of the second user: first by one seed, tenth by the other
    assert auto.startswith("| ml-100k | RecTools SASRec | ours, auto | +0.2500 ± 0.2500 |")
    assert f"| {tenth / 4:+.4f} ± {tenth / 4:.4f} | 1.25 |" in auto  # 2.5 minutes to .1, and the fast peer ended at 2
    assert tune.startswith("| ml-100k | RecTools SASRec | ours, tune | +0.7500 ± 0.2500 |")


def test_a_result_is_kept_at_once_and_a_failure_replaces_none(tmp_path):
    path, calls = tmp_path / "results" / "ml-100k.json", []

    def train(ndcg):
        def now(output):
            calls.append(output)
            if ndcg is None:
                raise RuntimeError("exit 2: too short a budget")
            return run(ndcg, 1.0)

        return now

    def done(name, seed, ndcg, **more):
        return quality.done(path, name, {"log": "x", "seed": seed, **more}, tmp_path / "work", train(ndcg))

    done(quality.AUTO, 2, 0.2)
    done(quality.AUTO, 1, 0.1)
    done("RecTools fast", 1, 0.05)
    models = json.loads(path.read_text())["models"]
    assert list(models) == ["RecTools fast", quality.AUTO]
    assert [one["metrics"]["ndcg@10"] for one in models[quality.AUTO]] == [0.1, 0.2]
    assert done(quality.AUTO, 1, 0.9)["metrics"]["ndcg@10"] == 0.1  # asked for before
    assert len(calls) == 3
    assert done(quality.AUTO, 1, None, budget="1m") == {"skipped": "exit 2: too short a budget"}
    assert json.loads(path.read_text())["models"] == models
    assert len(set(calls)) == 4  # what is asked otherwise has a folder of its own
    done(quality.AUTO, 1, 0.3, budget="1h")  # another question takes the place of the seed's earlier answer
    assert [one["metrics"]["ndcg@10"] for one in quality.known_models(path, "x")[quality.AUTO]] == [0.3, 0.2]
    assert quality.known_models(path, "another log") == {}


def test_a_log_has_its_peers_and_their_settings(monkeypatch):
    assert set(quality.peers_of("ml-1m")) == set(quality.PEERS)
    assert set(quality.PEERS) - set(quality.peers_of("abxi-afk")) == {"RePlay SasRec"}
    assert quality.settings_of("RecTools fast", "abxi-afk")["layers"] == 1
    assert quality.settings_of("RePlay SasRec", "ml-1m")["heads"] == 2
    monkeypatch.setattr("sys.argv", ["/x/quality.py", "--log", "ml-1m=/data/a.parquet", "--work", "/tmp/w"])
    assert quality.command() == "python benchmarks/quality.py --log ml-1m=a.parquet"


def test_ours_is_trained_and_ranked(prepared, tmp_path):
    options = quality.argparse.Namespace(work=tmp_path, tune=None)
    output = tmp_path / "auto"
    output.mkdir()
    found = quality.train_ours(quality.AUTO, 1, prepared, output, options)
    places = found["places"]
    assert len(places) == prepared.num_targets("test")
    assert quality.hit_rate(quality.ranks_of(places), 10).mean() == pytest.approx(found["metrics"]["hr@10"])
    assert quality.ndcg(quality.ranks_of(places), 10).mean() == pytest.approx(found["metrics"]["ndcg@10"])
    assert found["busy"] > 0
    assert found["curve"][-1]["cpu_minutes"] > 0


def test_the_page_shows_what_was_measured():
    for name, made in (("peers", quality.table), ("peers-verdict", quality.verdict)):
        assert between(quality.PAGE, name) in ("", made(quality.RESULTS).strip("\n"))
