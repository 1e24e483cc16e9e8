"""The kept studies can be analysed again, and the pages say what they say."""

import json
from pathlib import Path

import advice
import polars as pl
import pytest
from made_studies import add_run
from scripts import script

from sr_transformers.marks import between
from sr_transformers.scaling.studies.analysis import analyse
from sr_transformers.scaling.studies.summary import summary

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "recipes" / "results" / "scaling"
README = ROOT / "recipes" / "results" / "README.md"
PAGE = README.read_text()
KEPT = sorted(RESULTS.glob("*/plan.json"))


@pytest.fixture(scope="module")
def tables():
    return script("docs/tables/scaling.py")


def _numbers_apart(entries: object) -> tuple[object, list[float]]:
    """What entries say, with "#" for fractional numbers, and those numbers: their last digits depend on the BLAS.

    Parameters that the runs do not determine are left out, and what a degenerate law predicts: any value fits, and
    which one comes out depends on it too.
    """
    numbers: list[float] = []

    def without(value: object) -> object:
        if isinstance(value, dict):
            left_out = {"params"} if value.get("status") in ("degenerate", "under_determined") else set()
            left_out |= {"held_out"} if value.get("status") == "degenerate" else set()
            return {key: without(inner) for key, inner in value.items() if key not in left_out}
        if isinstance(value, list | tuple):
            return [without(inner) for inner in value]
        if isinstance(value, float):
            numbers.append(value)
            return "#"
        return value

    return without(entries), numbers


@pytest.mark.slow
def test_the_page_says_what_the_kept_studies_say(tables):
    kept = tables.studies()
    assert between(README, "scaling") == tables.text(kept).strip("\n")
    entries = [entry for name, one in kept.items() for entry in summary(name, one)]
    kept_words, kept_numbers = _numbers_apart(json.loads((RESULTS / "summary.json").read_text()))
    words, numbers = _numbers_apart(entries)
    assert kept_words == words
    assert kept_numbers == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    points = pl.read_parquet(RESULTS / "points.parquet")
    assert points.group_by("study").len().sort("study").rows() == [
        (name, len(kept[name].runs)) for name in sorted(kept)
    ]


def test_heads_say_what_the_law_of_ml_1m_predicts_where_it_is_a_law(tables, tmp_path):
    for path in tables.SIZES.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    tables.write_heads(json.loads((RESULTS / "summary.json").read_text()), tmp_path)
    for path in tables.SIZES.glob("*.yaml"):
        assert (tmp_path / path.name).read_text() == path.read_text()
    entry = {"study": "ml-1m", "law": "n", "quantity": "loss", "reservations": [], "predicted": [
        {"size": "75m", "N": 75_497_472, "value": 5.0512, "low": 5.0, "high": 5.1, "times_largest": 8.0}]}  # fmt: skip
    tables.write_heads([entry], tmp_path)
    said = "# Predicted, not measured: 5.051 nats [5.000, 5.100] on ml-1m."
    lines = (tmp_path / "75m.yaml").read_text().split("\n")
    (at,) = [index for index, line in enumerate(lines) if line == said]
    assert lines[at + 1].endswith("if trained as its runs are; N is 8 times that of the largest.")
    assert lines[at + 2].startswith("# Verified")
    tables.write_heads([{**entry, "reservations": [{"kind": "improving"}]}], tmp_path)
    assert (tmp_path / "75m.yaml").read_text() == (tables.SIZES / "75m.yaml").read_text()


@pytest.mark.slow
def test_the_figures_of_a_study_are_drawn_once_its_laws_are_final(tables, tmp_path):
    folder = tmp_path / "study"
    for size in ("3k", "12k", "49k", "98k", "786k"):
        for fraction in (0.05, 0.3, 1.0):
            for seed in (1, 2):
                add_run(folder, size, fraction, seed=seed)
    kept = {tables.DRAWN: analyse(folder, draws=2)}
    tables.draw(kept, tmp_path / "images")
    names = {f"{tables.DRAWN}-{label}.{kind}" for label in tables.SLIDES for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "images").iterdir()} == names
    (tmp_path / tables.DRAWN).mkdir()
    (tmp_path / tables.DRAWN / "plan.json").write_text((folder / "plan.json").read_text())
    assert all(f"(../../docs/images/{name})" in tables.text(kept, tmp_path) for name in names if name.endswith("png"))
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"]["3.1m-e3-s1"] = {**next(iter(plan["runs"].values())), "size": "3.1m"}
    (folder / "plan.json").write_text(json.dumps(plan))
    kept = {tables.DRAWN: analyse(folder, draws=2)}
    tables.draw(kept, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / tables.DRAWN / "plan.json").write_text(json.dumps(plan))
    assert "docs/images" not in tables.text(kept, tmp_path)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_kept_records_are_small_and_whole(path):
    plan = json.loads(path.read_text())
    records = sorted((path.parent / "runs").glob("*/run.json"))
    assert records or any((path.parent / "tuning").glob("*/run.json"))
    assert {record.parent.name for record in records} <= set(plan["runs"])
    assert sum(record.stat().st_size for record in path.parent.rglob("run.json")) < 2e6


def test_the_page_says_what_size_is_worth_on_ml_1m():
    report = json.loads((ROOT / "recipes" / "results" / "tasks" / "ml-1m.json").read_text())
    rows = {row["model"]: row["metrics"] for row in report["tasks"]["overall"]["results"]}
    loss, hits = ([rows[size][name]["value"] for size in ("6k", "98k", "786k")] for name in ("loss", "hr@10"))
    text = " ".join(PAGE.split())
    assert "from {:.2f} nats at 6 k parameters to {:.2f} at 98 k and {:.2f} at 786 k".format(*loss) in text
    assert "HR@10 rises from {:.3f} to {:.3f} and {:.3f}".format(*hits).replace("0.", ".") in text


def test_the_page_says_how_often_intervals_hold_the_truth():
    found = json.loads((ROOT / "benchmarks" / "results" / "scaling_coverage.json").read_text())["cases"]
    assert {(one["seeds"], one["draws"], one["refits"]) for one in found.values()} == {(3, 200, 200)}
    text = " ".join((ROOT / "benchmarks" / "README.md").read_text().split())
    for names, said in (
        (("n, 8 sizes x 3 seeds",), "the truth in {:g} to {:g} % (L(N),"),
        (("n, 5 sizes x 3 seeds",), "{:g} to {:g} % with 5 sizes"),
        (("joint, 5 sizes x 5 amounts", "joint, 8 sizes x 8 amounts"), "and in {:g} to {:g} % of them (joint law,"),
    ):
        shares = [round(100 * share, 1) for name in names for share in found[name]["coverage"].values()]
        assert said.format(min(shares), max(shares)) in text
    single = [share for one in found.values() for seed in one["coverage_by_seed"] for share in seed.values()]
    assert f"of single 200 draws in {100 * min(single):g} to {100 * max(single):g} %" in text
    smallest = found["n, 5 sizes x 3 seeds"]
    assert f"{smallest['without_interval']} of its draws have no interval" in text


def test_the_page_says_what_the_kept_advice_said():
    assert between(README, "advice") == advice.text()


def test_a_study_is_kept_without_its_histories(tables, tmp_path):
    study = tmp_path / "study"
    (study / "runs" / "a").mkdir(parents=True)
    (study / "plan.json").write_text("{}")
    (study / "study.yaml").write_text("name: x\n")
    source = json.loads((KEPT[0].parent / "runs" / sorted(json.loads(KEPT[0].read_text())["runs"])[0] / "run.json")
                        .read_text()) if KEPT else None  # fmt: skip
    if source is None:
        pytest.skip("no study is kept yet")
    source["history"] = [{"loss": 1.0, "step": 5}, {"eval_loss": 2.0, "step": 9, "epoch": 1.0, "eval_hr@10": 0.5}]
    (study / "runs" / "a" / "run.json").write_text(json.dumps(source))
    kept = tables.keep(study, "x", tmp_path / "results")
    stored = json.loads((kept / "runs" / "a" / "run.json").read_text())
    assert stored["history"] == [{"step": 9, "epoch": 1.0, "eval_loss": 2.0}]
    assert stored["reports"] == source["reports"]
    assert tables.keep(study, "x", tmp_path / "results") == kept  # nothing new
    (study / "runs" / "b").mkdir()
    (study / "runs" / "b" / "run.json").write_text(json.dumps(source))
    tables.keep(study, "x", tmp_path / "results")
    assert {path.parent.name for path in kept.glob("runs/*/run.json")} == {"a", "b"}
    (study / "runs" / "a" / "run.json").write_text(json.dumps({**source, "seed": 99}))
    with pytest.raises(FileExistsError, match="holds another run; remove"):
        tables.keep(study, "x", tmp_path / "results")
