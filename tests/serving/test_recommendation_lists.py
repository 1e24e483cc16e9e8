"""Lists for the users of a log: those of the recommender, whole or in pieces, of a run that was killed too."""

import numpy as np
import polars as pl
import pytest
import torch

import sr_transformers.serving.recommendation_lists as lists
from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, evaluate, recommend_all
from sr_transformers.cli import main
from sr_transformers.data.prepare import prepare
from sr_transformers.evaluation.model_scorer import ModelScorer


def model_of(data, seed=0):
    torch.manual_seed(seed)
    config = LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1, max_position_embeddings=8,
                        initializer_range=0.5, items_fingerprint=data.items_fingerprint, filter_seen=True)  # fmt: skip
    return LSRMForCausalLM(config).eval()


@pytest.fixture(scope="module")
def recommender(markov_prepared):
    return Recommender(model_of(markov_prepared), markov_prepared.tokenizer)


def history(data, row, stop=None):
    tokens = data.items(row, stop or data.lengths[row])
    return [data.item_ids[int(token) - 2].as_py() for token in tokens if token > 1]


@pytest.mark.parametrize("piece", [7, 4096])
def test_every_user_gets_the_recommenders_list(recommender, markov_prepared, tmp_path, piece):
    data = markov_prepared
    assert recommend_all(recommender, data, tmp_path / "recs.parquet", 5, piece=piece) == len(data)
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert found.columns == ["user_id", "item_id", "rank", "score"]
    assert found["user_id"].unique(maintain_order=True).to_list() == list(data.histories["user_id"])
    for row in (0, 8, len(data) - 1):
        own = found.filter(pl.col("user_id") == data.histories["user_id"][row])
        expected = recommender.recommend(history(data, row), 5)
        assert own["item_id"].to_list() == [one.item for one in expected]
        assert own["rank"].to_list() == [1, 2, 3, 4, 5]
        assert own["score"].to_list() == pytest.approx([one.probability for one in expected], abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["recs.parquet"]


def test_before_the_test_target_they_are_what_evaluation_ranks(recommender, markov_prepared, tmp_path):
    data = markov_prepared
    recommend_all(recommender, data, tmp_path / "recs.parquet", 10, before="test", exclude_seen=False)
    found = pl.read_parquet(tmp_path / "recs.parquet")
    rows = data.targets("test")
    wanted = {
        data.histories["user_id"][row]: data.item_ids[int(data.items(row, stop + 1, stop)[0]) - 2].as_py()
        for row, stop in rows.tolist()
    }
    hits = sum(
        found.filter((pl.col("user_id") == user) & (pl.col("item_id") == item)).height for user, item in wanted.items()
    )
    report = evaluate(ModelScorer(recommender.model), data, "test", (10,), False)
    assert hits / len(rows) == pytest.approx(report["metrics"]["hr@10"])


def test_a_killed_run_goes_on(recommender, markov_prepared, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole.parquet", tmp_path / "recs.parquet"
    recommend_all(recommender, markov_prepared, whole, 5, piece=50)
    real, done = lists._lists, []

    def killed_at_the_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    monkeypatch.setattr(lists, "_lists", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        recommend_all(recommender, markov_prepared, output, 5, piece=50)
    assert not output.exists()
    with pytest.raises(ValueError, match=r"pieces of another request \(k differ\)"):
        recommend_all(recommender, markov_prepared, output, 6, piece=50)
    other = Recommender(model_of(markov_prepared, seed=1), markov_prepared.tokenizer)
    with pytest.raises(ValueError, match=r"another request \(model differ\)"):
        recommend_all(other, markov_prepared, output, 5, piece=50)
    monkeypatch.setattr(lists, "_lists", real)
    monkeypatch.setattr(recommender.model.config, "mix_share", 0.5)  # of the same weights
    with pytest.raises(ValueError, match=r"another request \(model differ\)"):
        recommend_all(recommender, markov_prepared, output, 5, piece=50)
    monkeypatch.undo()
    recommend_all(recommender, markov_prepared, output, np.int64(5), piece=np.int64(50))
    assert pl.read_parquet(output).equals(pl.read_parquet(whole))
    assert sum(done) == 2


def test_all_pieces_are_asked_at_one_moment(markov_prepared, tmp_path, monkeypatch):
    config = LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=16, num_hidden_layers=1, history=["clock"],
                        query_time=True, time_unit=10.0, times_in="s", initializer_range=0.5)  # fmt: skip
    torch.manual_seed(0)
    recommender = Recommender(LSRMForCausalLM(config).eval(), markov_prepared.tokenizer)
    real, asked = lists._lists, []

    def watched(recommender, data, rows, k, options, of_targets):
        if len(asked) == 2:
            asked.append(None)
            raise KeyboardInterrupt
        asked.append(options["query_time"])
        return real(recommender, data, rows, k, options, of_targets)

    monkeypatch.setattr(lists, "_lists", watched)
    output = tmp_path / "recs.parquet"
    with pytest.raises(KeyboardInterrupt):
        recommend_all(recommender, markov_prepared, output, 5, piece=50)
    with pytest.raises(ValueError, match=r"another request \(query_time, now differ\)"):
        recommend_all(recommender, markov_prepared, output, 5, piece=50, query_time=asked[0] + 1)
    with monkeypatch.context() as later:
        later.setattr("sr_transformers.lsrm.requests_lsrm.time_ns", lambda: (asked[0] + 10**6) * 10**9)
        recommend_all(recommender, markov_prepared, output, 5, piece=50)
    assert len(set(asked) - {None}) == 1


def test_ids_of_all_64_bits_keep_their_type(tmp_path):
    """Users beyond 63 bits come in the second piece only."""
    big = (1 << 63) + 5
    rows = [(user, item, n) for user in (1, 2, big) for n, item in enumerate((3, big, 4, 3))]
    log = pl.DataFrame(rows, schema={"user_id": pl.UInt64, "item_id": pl.UInt64, "timestamp": pl.Int64}, orient="row")
    data = prepare(log, tmp_path / "data")
    recommender = Recommender(model_of(data), data.tokenizer)
    recommend_all(recommender, data, tmp_path / "a.parquet", 2, exclude_seen=False, piece=1)
    found = pl.read_parquet(tmp_path / "a.parquet")
    assert found.schema["user_id"] == found.schema["item_id"] == pl.UInt64
    assert set(found["user_id"]) == {1, 2, big}


def test_some_users_in_their_order(recommender, markov_prepared, tmp_path):
    users = list(markov_prepared.histories["user_id"])
    chosen = [users[5], users[2]]
    assert recommend_all(recommender, markov_prepared, tmp_path / "a.parquet", 3, chosen) == 2
    assert pl.read_parquet(tmp_path / "a.parquet")["user_id"].unique(maintain_order=True).to_list() == chosen


def test_a_model_of_other_items_is_read_by_raw_id(markov_prepared, recommender, tmp_path):
    log = pl.DataFrame({"user_id": ["a"] * 4 + ["b"], "item_id": [3, 999, 5, 3, 999], "timestamp": [1, 2, 3, 4, 5]})
    data = prepare(log, tmp_path / "data")
    with pytest.raises(ValueError, match="of 1 users the model knows no item, for example user 'b'"):
        recommend_all(recommender, data, tmp_path / "x.parquet", 3)
    recommend_all(recommender, data, tmp_path / "x.parquet", 3, users=["a"])
    found = pl.read_parquet(tmp_path / "x.parquet")["item_id"].to_list()
    assert found == [one.item for one in recommender.recommend([3, 5, 3], 3)]


@pytest.mark.parametrize("late", ["LATE", 99])
def test_items_that_the_logs_vocabulary_lacks_are_read_if_the_model_knows_them(tmp_path, late):
    """A temporal split: what came late has no place in the vocabulary, but the users have had it."""
    name = str if late == "LATE" else int
    rows = [(user, name((user + step) % 9), step) for user in range(12) for step in range(9)]
    rows += [(user, late, 20) for user in range(0, 12, 2)] + [(user, name(user % 9), 21) for user in range(12)]
    columns = ["user_id", "item_id", "timestamp"]
    log = pl.DataFrame(rows, schema=columns, orient="row")
    data = prepare(log, tmp_path / "data", split="temporal", validation_from="7", test_from="8")
    assert late not in data.item_ids.to_pylist()
    later = pl.DataFrame([(user, late, 30) for user in range(5)], schema=columns, orient="row")
    all_known = prepare(pl.concat([log, later]), tmp_path / "all")
    alone = Recommender(model_of(all_known), all_known.tokenizer)
    for before in (None, "test"):
        output = tmp_path / f"{before}.parquet"
        recommend_all(alone, data, output, k=9, before=before, exclude_seen=True)
        found = {user: part["item_id"].to_list() for (user,), part in pl.read_parquet(output).group_by("user_id")}
        read = dict(data.targets("test").tolist()) if before else dict(enumerate(data.lengths.tolist()))
        assert found
        for row, user in enumerate(data.histories["user_id"]):
            if row in read:
                history = [item for who, item, _ in rows if who == user][: read[row]]
                assert found.get(user, []) == [one.item for one in alone.recommend(history, 9, exclude_seen=True)]
                assert not set(found.get(user, [])) & set(history)


@pytest.mark.parametrize(
    ("output", "options", "error", "says"),
    [
        ("x.csv", {}, ValueError, "must end in .parquet"),
        ("there.parquet", {}, FileExistsError, "exists; choose another"),
        ("x.parquet", {"users": ["nobody", 10**9]}, ValueError, "does not have 2 of the users: .'nobody'"),
        ("x.parquet", {"users": [0, 0]}, ValueError, "asked for twice"),
        ("x.parquet", {"piece": 0}, ValueError, "piece is 0; it must be at least 1"),
        ("x.parquet", {"before": "tomorrow"}, ValueError, "choose validation or test"),
    ],
)
def test_what_cannot_be_is_refused(recommender, markov_prepared, tmp_path, output, options, error, says):
    (tmp_path / "there.parquet").touch()
    with pytest.raises(error, match=says):
        recommend_all(recommender, markov_prepared, tmp_path / output, 3, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["there.parquet"]


def test_users_without_the_target_are_refused(recommender, readable_log, tmp_path):
    data = prepare(readable_log, tmp_path / "data")
    alone = Recommender(model_of(data), data.tokenizer)
    with pytest.raises(ValueError, match=r"1 of the users have no test target: .'u00'"):
        recommend_all(alone, data, tmp_path / "x.parquet", 3, users=["u00", "u05"], before="test")


def test_the_command(markov_prepared, recommender, tmp_path, capsys):
    recommender.model.save_pretrained(tmp_path / "m")
    recommender.tokenizer.save_pretrained(tmp_path / "m")
    users = list(markov_prepared.histories["user_id"])[:3]
    pl.DataFrame({"user_id": users}).write_csv(tmp_path / "users.csv")
    command = ["recommend", "--model", str(tmp_path / "m"), "--data", str(markov_prepared.path), "-k", "4"]
    output = ["--output", str(tmp_path / "r.parquet")]
    assert main([*command, *output, "--users", str(tmp_path / "users.csv"), "--exclude", "3"]) == 0
    assert "lists of 3 users, 4 items each at most" in capsys.readouterr().out
    found = pl.read_parquet(tmp_path / "r.parquet")
    assert len(found) == 12
    assert 3 not in found["item_id"].to_list()
    for wrong, says in (
        (command, "--data and --output belong together"),
        ([*command, *output, "--users", str(tmp_path / "none.csv")], "no such file"),
        (["recommend", "--model", "m", "--history", "1", "--before", "test"], "leave them out with --history"),
    ):
        assert main(wrong) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("who\n1\n")
    assert main([*command, "--output", str(tmp_path / "q.parquet"), "--users", str(tmp_path / "bad.csv")]) == 2
    assert "has no column user_id; it has who" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("user_id,x\n1,1\n,2\n")
    assert main([*command, "--output", str(tmp_path / "q.parquet"), "--users", str(tmp_path / "bad.csv")]) == 2
    assert "row 2 has no user_id" in capsys.readouterr().err


def test_integer_and_text_users_are_matched(readable_log, tmp_path):
    ids = readable_log.with_columns(user_id=pl.col("user_id").str.slice(1).cast(pl.Int64))
    data = prepare(ids, tmp_path / "data")
    alone = Recommender(model_of(data), data.tokenizer)
    recommend_all(alone, data, tmp_path / "x.parquet", 2, users=["5", 7])
    assert np.array_equal(pl.read_parquet(tmp_path / "x.parquet")["user_id"].unique(maintain_order=True), [5, 7])
