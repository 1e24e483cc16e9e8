import dataclasses

import pytest
from made_studies import add_run, record

from sr_transformers.scaling.laws.forms import LAWS
from sr_transformers.scaling.laws.records_table import points_of, read_records


def test_a_record_is_a_point():
    points = points_of([record("3k", 0.3), record("98k")], metric="hr@10")
    assert points.columns["N"].tolist() == [3072, 98304]
    assert points.columns["D"].tolist() == [120_000, 400_000]
    assert points.columns["loss"][0] == record("3k", 0.3).reports[0]["metrics"]["loss"]
    assert points.columns["metric"][1] == record("98k").reports[0]["metrics"]["hr@10"]


def test_data_seen_count_up_to_the_weights_that_were_kept():
    whole = record("3k", epochs=10.0)
    early = record("3k", epochs=10.0, best_step=30)
    points = points_of([whole, early], seen=True)
    assert points.columns["D"].tolist() == [4_000_000, 1_200_000]
    assert points.columns["unique"].tolist() == [400_000, 400_000]
    begun = points_of([record("3k", epochs=1.0, best_step=50)], seen=True)
    assert begun.columns["D"].tolist() == begun.columns["unique"].tolist() == [200_000]


def test_epochs_are_whole_however_short_the_histories_are():
    """A history of four interactions has three targets: `num_interactions_seen` is 3/4 of what was read."""
    runs = [record("3k", epochs=epochs, num_interactions_seen=round(300_000 * epochs)) for epochs in (1.0, 2.0, 8.0)]
    points = points_of(runs, seen=True)
    assert (points.columns["D"] / points.columns["unique"]).tolist() == [1.0, 2.0, 8.0]


def test_seeds_of_a_configuration_are_a_group():
    points = points_of([record("3k", seed=1), record("3k", seed=2), record("3k", 0.3), record("12k")])
    assert points.groups[0] == points.groups[1]
    assert len(set(points.groups)) == 3


def test_files_and_folders_of_records_are_read(tmp_path):
    for size in ("3k", "12k"):
        (tmp_path / "runs" / size).mkdir(parents=True)
        record(size).save(tmp_path / "runs" / size)
    assert len(read_records([tmp_path], LAWS["n"])) == 2
    assert len(read_records([tmp_path / "runs" / "3k" / "run.json"], LAWS["n"])) == 1
    with pytest.raises(FileNotFoundError, match="no run record"):
        read_records([tmp_path / "nowhere"], LAWS["n"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no run record"):
        read_records([tmp_path / "empty"], LAWS["n"])


def test_records_of_different_logs_are_not_mixed():
    other = record("12k")
    report = {**other.reports[0], "protocol": {"data": "other.csv", "filter_seen": True}}
    with pytest.raises(ValueError, match=r"record 2 .* different protocols.*: data is 'shop.csv' and 'other.csv'"):
        points_of([record("3k"), dataclasses.replace(other, reports=[report])])


def test_records_without_what_is_asked_for_are_named():
    with pytest.raises(ValueError, match="has no ndcg@7 on the test targets; it has loss, ndcg@10, hr@10"):
        points_of([record("3k")], metric="ndcg@7")
    with pytest.raises(ValueError, match="has no loss"):
        points_of([dataclasses.replace(record("3k"), reports=[])])
    with pytest.raises(ValueError, match="there are no run records"):
        points_of([])


def test_runs_that_each_converged_in_their_own_time_make_up_one_law(tmp_path):
    for size, epochs in (("3k", 40.0), ("12k", 20.0), ("49k", 10.0)):
        add_run(tmp_path, size, epochs=epochs, own_epochs=True)
    for size in ("3k", "12k"):
        add_run(tmp_path, size, epochs=20.0, block="longer")
    points = read_records([tmp_path], LAWS["n"])
    assert points.columns["N"].tolist() == [3072, 12288, 49152]
    assert points.dropped == {"other epochs": 2}


def test_of_a_study_only_the_points_of_the_law_are_read(tmp_path):
    for size in ("3k", "12k", "49k"):
        add_run(tmp_path, size, 0.3)
    for fraction in (0.1, 1.0):
        add_run(tmp_path, "3k", fraction)
    add_run(tmp_path, "12k", 1.0)
    add_run(tmp_path, "3k", 0.1, epochs=10.0, block="repetition")
    add_run(tmp_path, "3k", 0.3, block="dry", settings={"residual_dropout": 0.0}, in_law=False)
    size_law = read_records([tmp_path], LAWS["n"])
    assert size_law.columns["N"].tolist() == [3072, 12288, 49152]
    assert set(size_law.columns["D"]) == {120_000}
    left = {"not a point of the law": 1, "other epochs": 1, "other fractions of the data": 3}
    assert size_law.dropped == left
    assert len(read_records([tmp_path], LAWS["joint"])) == 6
    assert sorted(read_records([tmp_path], LAWS["d"]).columns["D"]) == [40_000, 120_000, 400_000]
    repeated = read_records([tmp_path], LAWS["repeated"])
    assert len(repeated) == 7
    assert max(repeated.columns["D"] / repeated.columns["unique"]) == 10
    assert "metric" in read_records([tmp_path], LAWS["saturating"]).columns


@pytest.mark.parametrize("content", ["{}", "[]", '{"constants": [1.0], "runs": 3}'])
def test_a_study_that_plans_no_runs_yet_is_named(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json plans no runs: the study was stopped before it had begun"):
        read_records([tmp_path], LAWS["n"])
