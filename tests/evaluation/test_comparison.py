import numpy as np
import pytest

from sr_transformers.evaluation.baselines import Markov, Popularity
from sr_transformers.evaluation.comparison import evaluate_beside, paired_difference
from sr_transformers.evaluation.evaluator import evaluate, table
from sr_transformers.evaluation.metrics import MISSED
from sr_transformers.evaluation.mix import Mix
from sr_transformers.hub.card_tables import results_table


def test_differences_by_hand():
    found = paired_difference(np.array([1, 11, MISSED]), np.array([3, 2, MISSED]), k=10)
    gains = np.array([0.0, -1.0, 0.0])
    assert found["hr@10"] == {"difference": gains.mean(), "standard_error": gains.std(ddof=1) / 3**0.5}
    gains = np.array([1 - 0.5, -1 / np.log2(3), 0])
    assert found["ndcg@10"]["difference"] == pytest.approx(gains.mean())
    assert found["ndcg@10"]["standard_error"] == pytest.approx(gains.std(ddof=1) / 3**0.5)


def test_one_user_has_no_standard_error():
    assert np.isnan(paired_difference(np.array([1]), np.array([2]))["hr@10"]["standard_error"])


def test_ranks_of_other_targets_are_refused():
    with pytest.raises(ValueError, match="2 ranks beside 3: they are not of the same targets"):
        paired_difference(np.array([1, 2]), np.array([1, 2, 3]))


def test_models_are_compared_with_the_mix(markov_prepared):
    floors = [Markov(markov_prepared), Mix(markov_prepared)]
    reports = evaluate_beside([Popularity(markov_prepared)], floors, markov_prepared, ks=(10,))
    alone = [evaluate(one, markov_prepared, ks=(10,)) for one in (Popularity(markov_prepared), *floors)]
    for one, other in zip(reports, alone, strict=True):
        assert one["metrics"] == other["metrics"]
    assert ["against_mix" in one for one in reports] == [True, False, False]
    for metric in ("hr@10", "ndcg@10"):
        difference = reports[0]["metrics"][metric] - reports[2]["metrics"][metric]
        assert reports[0]["against_mix"][metric]["difference"] == pytest.approx(difference)
        assert reports[0]["against_mix"][metric]["standard_error"] > 0
    assert "|\n\npopularity less mix, paired, ± standard error over users: hr@10 " in results_table(reports)
    assert "\n\npopularity less mix, paired, ± standard error over users: hr@10 " in table(reports, ["hr@10"])


def test_without_the_mix_nothing_is_compared(markov_prepared):
    (one, _) = evaluate_beside([Markov(markov_prepared)], [Popularity(markov_prepared)], markov_prepared)
    assert "against_mix" not in one
