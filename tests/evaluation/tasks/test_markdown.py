import re
import sys

import pytest

from sr_transformers.evaluation.baselines import Markov, Popularity
from sr_transformers.evaluation.tasks.figures import draw
from sr_transformers.evaluation.tasks.markdown import TITLES, markdown
from sr_transformers.evaluation.tasks.runner import TASKS, Contestant, run_tasks
from sr_transformers.evaluation.tasks.task import TaskOptions


@pytest.fixture(scope="module")
def report(log_of, letters):
    domains = {letter: "first" if letter < "N" else "second" for letter in letters}
    histories = {f"user {n}": (letters * 4)[n % 26 : n % 26 + 14 + n % 50] for n in range(60)}
    data = log_of(histories, domains, split="paper", unseen_share=0.3)
    contestants = [
        Contestant("small", [lambda: Popularity(data)], {"num_non_embedding_parameters": 1}),
        Contestant("large", [lambda: Markov(data)], {"num_non_embedding_parameters": 2}),
        Contestant("popularity", [lambda: Popularity(data)]),
    ]
    options = TaskOptions(draws=50, filter_seen=False, cold_user_lengths=(20, 5), horizon=4, domain_history=3)
    return run_tasks(contestants, data, options=options)


def test_every_task_has_a_title():
    assert list(TITLES) == list(TASKS)


def test_the_tables_say_what_the_report_says(report):
    text = markdown(report)
    for title in TITLES.values():
        assert f"### {title}" in text
    assert "frame, split paper: full ranking over 26 items, seen items kept, ties against the model" in text
    assert "95 % intervals from 50 bootstrap draws over users (seed 0)" in text
    assert "Not run: the split paper has no moment" in text
    row = next(
        row for row in report["tasks"]["robustness"]["results"] if (row["group"], row["model"]) == ("deleted", "large")
    )
    numbers = row["metrics"]["hr@10"]
    assert f"{numbers['value']:.4f} [{numbers['low']:.4f}, {numbers['high']:.4f}]" in text
    change = row["relative_change"]["hr@10"]
    assert f"{100 * change['value']:+.1f} % [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]" in text
    assert "relative gain in hr@10 over small" in text
    assert "recall, large" in text
    assert "| the relative gain is larger on tail items than on head items | G4 tail | hr@10 |" in text
    assert not re.search(r"\bnan\b|\binf\b", text)


def test_another_metric_can_be_shown(report):
    text = markdown(report, "mrr")
    assert "| mrr, small |" in text
    assert "| hr@10, small |" not in text


def test_tables_are_well_formed(report):
    for block in markdown(report).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


@pytest.mark.slow
def test_a_figure_for_every_task_with_groups(report, tmp_path):
    pytest.importorskip("matplotlib")
    paths = draw(report, tmp_path / "new" / "figures")
    names = ["long_tail", "cold_start", "multi_domain", "robustness", "trajectory", "cold_items"]
    assert [path.name for path in paths] == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    for path in paths:
        assert path.read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_a_figure_shows_every_value(report, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: drawn.append(self))
    draw({**report, "tasks": {"robustness": report["tasks"]["robustness"]}}, tmp_path)
    first, second = drawn[0].axes
    shown = next(line for line in first.containers if line.get_label() == "large").lines[0].get_ydata()
    rows = [row for row in report["tasks"]["robustness"]["results"] if row["model"] == "large"]
    assert list(shown) == pytest.approx([row["metrics"]["hr@10"]["value"] for row in rows])
    shown = second.containers[1].lines[0].get_ydata()
    assert list(shown) == pytest.approx([100 * row["relative_change"]["hr@10"]["value"] for row in rows[1:]])
    assert "%" in second.get_ylabel()


def test_without_matplotlib_the_extra_is_named(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'sr-transformers\[figures\]'"):
        draw(report, tmp_path)
