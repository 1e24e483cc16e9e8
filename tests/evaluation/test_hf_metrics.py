import ast
import math
from pathlib import Path

import evaluate
import pytest

import sr_transformers
from sr_transformers.evaluation.hf_metrics import METRICS, metric_path

RANKS = [1, 3, 11]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`evaluate.load` of one of our metrics, its caches in a folder of the tests."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(cache / "modules"))
        yield lambda name: evaluate.load(metric_path(name), cache_dir=str(cache / "metrics"))


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("hit_rate", {}, 2 / 3),
        ("hit_rate", {"k": 1}, 1 / 3),
        ("ndcg", {}, (1 + 1 / 2) / 3),
        ("ndcg", {"k": 2}, 1 / 3),
        ("mrr", {}, (1 + 1 / 3 + 1 / 11) / 3),
        ("mrr", {"k": 10}, (1 + 1 / 3) / 3),
    ],
)
def test_metrics_by_hand(load, name, arguments, expected):
    assert load(name).compute(predictions=RANKS, **arguments) == {name: pytest.approx(expected)}


def test_they_combine(load):
    together = evaluate.combine([load("hit_rate"), load("ndcg"), load("mrr")])
    expected = {"hit_rate": 2 / 3, "ndcg": (1 + 1 / 2) / 3, "mrr": (1 + 1 / 3) / 3}
    assert together.compute(predictions=RANKS, k=10) == pytest.approx(expected)


def test_batches_add_up(load):
    metric = load("mrr")
    metric.add_batch(predictions=RANKS[:2])
    metric.add(prediction=RANKS[2])
    assert metric.compute() == {"mrr": pytest.approx((1 + 1 / 3 + 1 / 11) / 3)}


@pytest.mark.parametrize(("name", "arguments"), [("hit_rate", {"k": 10**6}), ("mrr", {}), ("ndcg", {"k": 10**6})])
def test_a_target_that_nothing_could_name_counts_as_nothing(load, name, arguments):
    assert load(name).compute(predictions=[1, -1], **arguments) == {name: 1 / 2}


@pytest.mark.parametrize("name", ["hit_rate", "mrr", "ndcg"])
def test_ranks_below_one_are_refused(load, name):
    with pytest.raises(ValueError, match="ranks are integers from 1"):
        load(name).compute(predictions=[0, 1])


def test_coverage_and_cross_entropy_by_hand(load):
    lists = [[5, 6, 7], [5, 8, 9]]
    assert load("coverage").compute(predictions=lists, num_items=20, k=2) == {"coverage": pytest.approx(3 / 20)}
    log_probabilities = [math.log(0.5), math.log(0.125)]
    assert load("cross_entropy").compute(predictions=log_probabilities) == {
        "cross_entropy": pytest.approx(2 * math.log(2))
    }
    with pytest.raises(ValueError, match="at most 0"):
        load("cross_entropy").compute(predictions=[0.5])


def test_every_folder_holds_a_metric_and_its_module(load):
    here = Path(metric_path("ndcg")).parent
    assert tuple(sorted(path.parent.name for path in here.glob("*/*.py"))) == METRICS
    assert all((here / name / f"{name}.py").is_file() for name in METRICS)


def test_an_unknown_metric_names_those_that_exist():
    with pytest.raises(
        ValueError, match="metric 'auc' is not known; choose from coverage, cross_entropy, hit_rate, mrr, ndcg"
    ):
        metric_path("auc")


def test_nothing_else_imports_evaluate():
    package = Path(sr_transformers.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name in METRICS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] == "evaluate" for name in names), path
