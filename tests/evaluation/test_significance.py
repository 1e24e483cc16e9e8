"""Comparing models user by user."""

import json

import numpy as np
import pytest
import torch

from sr_transformers.cli import main
from sr_transformers.evaluation.evaluator import evaluate, target_tokens
from sr_transformers.evaluation.significance import _difference, compare, draw, table


class Knows:
    """Ranks the target first for a share of the users, and last for the others."""

    gives_log_probabilities = False

    def __init__(self, data, share, seed, name="knows"):
        rows = data.targets("test")
        self.width, self.name = data.vocab_size, name
        hit = np.random.default_rng(seed).random(len(rows)) < share
        targets = target_tokens(data, rows)
        self.answers = {
            tuple(data.items(u, p)): t if h else -t for (u, p), t, h in zip(rows.tolist(), targets, hit, strict=True)
        }

    def score(self, histories):
        scores = torch.arange(self.width).float().repeat(len(histories), 1)
        for row, history in enumerate(histories):
            answer = self.answers[tuple(history)]
            scores[row, abs(answer)] = 1e6 if answer > 0 else -1e6
        return scores


def test_values_and_differences_are_those_of_the_evaluation(markov_prepared):
    data = markov_prepared
    base, better = Knows(data, 0.3, 0), Knows(data, 0.6, 1)
    found = compare({"base": [base], "better": [better]}, data, k=10, filter_seen=False, samples=400)
    rates = []
    for one, scorer in zip(found["entries"], (base, better), strict=True):
        report = evaluate(scorer, data, ks=[10], filter_seen=False)
        rates.append(report["metrics"]["hr@10"])
        assert one["metrics"]["hr@10"]["value"] == pytest.approx(report["metrics"]["hr@10"])
        assert one["metrics"]["ndcg@10"]["value"] == pytest.approx(report["metrics"]["ndcg@10"])
    of_better = found["entries"][1]["metrics"]["hr@10"]
    assert of_better["difference"] == pytest.approx(rates[1] - rates[0])
    assert 0 < of_better["low"] < of_better["difference"] < of_better["high"]
    assert "low" not in found["entries"][0]["metrics"]["hr@10"]
    assert f"| better | 1 | {rates[1]:.4f} | {of_better['difference']:+.4f} (" in table(found)
    assert "Differences from base" in table(found)


class Likely(Knows):
    """Gives every target that it is asked for the same probability, and all others what is left."""

    gives_log_probabilities = True

    def __init__(self, data, logit, name="likely"):
        super().__init__(data, 1.0, 0, name)
        self.logit = logit

    def score(self, histories):
        scores = torch.zeros(len(histories), self.width)
        for row, history in enumerate(histories):
            scores[row, abs(self.answers[tuple(history)])] = self.logit
        return scores


def test_losses_are_compared_where_there_are_any(markov_prepared, tmp_path):
    data = markov_prepared
    entries = {
        "base": [Likely(data, 1.0)],
        "other": [Likely(data, 2.0), Likely(data, 3.0)],
        "mute": [Knows(data, 1, 0)],
    }
    found = compare(entries, data, filter_seen=False, samples=50)
    base, other, mute = (one["metrics"] for one in found["entries"])
    alone = [evaluate(one, data, filter_seen=False) for one in (*entries["base"], *entries["other"])]
    losses = [report["metrics"]["loss"] for report in alone]
    assert base["loss"] == {"value": pytest.approx(losses[0], rel=1e-6)}
    assert other["loss"]["value"] == pytest.approx(np.mean(losses[1:]), rel=1e-6)
    assert other["loss"]["difference"] == pytest.approx(np.mean(losses[1:]) - losses[0], rel=1e-6)
    apart = alone[0]["standard_errors"]["loss"] + alone[1]["standard_errors"]["loss"]
    assert 0 < other["loss"]["standard_error"] < apart
    assert "loss" not in mute
    lines = table(found).splitlines()
    assert lines[-5] == "| | runs | HR@10 | difference | NDCG@10 | difference | loss (nats) | difference |"
    assert lines[-1].endswith("| – | – |")
    assert [path.name for path in draw(found, tmp_path)] == ["comparison.png", "comparison.svg"]
    mute_first = compare(dict(reversed(entries.items())), data, filter_seen=False, samples=50)
    assert not any("loss" in one["metrics"] for one in mute_first["entries"])


def test_an_interval_covers_as_often_as_it_says():
    """Two models that are equally good: 0 lies in the interval in about 95 of 100 logs."""
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        users = rng.random(150)
        one, other = (rng.random((1, 150)) < users).astype(float), (rng.random((1, 150)) < users).astype(float)
        found = _difference(one, other, 300, trial)
        inside += found["low"] <= 0 <= found["high"]
    assert 180 <= inside <= 198


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.random((1, 500)), 3, 0)
    apart = same + np.array([[-0.2], [0.0], [0.2]])
    base = rng.random((1, 500))
    alike, varied = (_difference(values, base, 500, 0) for values in (same, apart))
    assert alike["difference"] == pytest.approx(varied["difference"])
    assert varied["high"] - varied["low"] > 2 * (alike["high"] - alike["low"])


def test_pairs_cancel_what_users_have_in_common():
    users = np.random.default_rng(0).random(1000)[None]
    found = _difference(users + 0.01, users, 200, 0)
    assert found["low"] == pytest.approx(0.01) == found["high"]
    assert found["standard_error"] == pytest.approx(0, abs=1e-12)


def test_one_alone_is_no_comparison(markov_prepared):
    with pytest.raises(ValueError, match="1 to compare; give two entries"):
        compare({"one": [Knows(markov_prepared, 0.5, 0)]}, markov_prepared)


@pytest.fixture
def runs(markov_prepared, tmp_path):
    """Three runs of a small model, the last with another seed than the second."""
    from sr_transformers import Recipe, train

    folders = []
    for name, width, seed in (("narrow", 8, 1), ("wide", 16, 1), ("wide-2", 16, 2)):
        model = {"hidden_size": width, "num_hidden_layers": 1, "max_position_embeddings": 6}
        train(Recipe(name, model, {"num_train_epochs": 1, "seed": seed}), markov_prepared, tmp_path / name)
        folders.append(str(tmp_path / name))
    return folders


def test_the_command(runs, markov_prepared, tmp_path, capsys):
    narrow, *wide = runs
    arguments = ["compare", f"narrow={narrow}", f"wide={','.join(wide)}", "--data", str(markov_prepared.path)]
    more = ["--json", str(tmp_path / "found.json"), "--figures", str(tmp_path / "figures"), "--baselines"]
    assert main([*arguments, *more]) == 0
    shown = capsys.readouterr().out
    assert "| narrow | 1 |" in shown
    assert "| wide | 2 |" in shown
    assert "| mix | 1 |" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in found["entries"]][:2] == ["narrow", "wide"]
    assert (tmp_path / "figures" / "comparison.png").stat().st_size > 1000


def test_runs_of_other_protocols_are_refused(runs, markov_prepared, tmp_path, capsys):
    narrow, wide, _ = runs
    arguments = ["compare", narrow, wide, "--data", str(markov_prepared.path)]
    assert main([*arguments, "--seen", "keep" if markov_prepared.filters_seen() else "remove"]) != 0
    assert "tested by another protocol than this comparison; there and here filter_seen is " in capsys.readouterr().err
    assert main(["compare", f"a={narrow}", f"a={wide}", "--data", str(markov_prepared.path)]) != 0
    assert "called alike" in capsys.readouterr().err
    assert main(["compare", "a=", wide, "--data", str(markov_prepared.path)]) != 0
    assert "names no run" in capsys.readouterr().err
    assert main(["compare", narrow, f"mix={wide}", "--data", str(markov_prepared.path), "--baselines"]) != 0
    assert "mix: a baseline has that name too" in capsys.readouterr().err
    assert main(["compare", narrow, f"w={wide},{wide}", "--data", str(markov_prepared.path)]) != 0
    assert "w names a run twice" in capsys.readouterr().err
