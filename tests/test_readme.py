"""What the README shows is run, parsed or compared: examples, commands, the results table."""

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
from scripts import script

from sr_transformers.cli import build_parser
from sr_transformers.data.logs import synthetic
from sr_transformers.marks import between

ROOT = Path(__file__).parent.parent
PAGE, RESULTS, BENCHMARKS = (ROOT / folder / "README.md" for folder in ("", "recipes/results", "benchmarks"))
README = PAGE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_the_python_examples_run(tmp_path, monkeypatch):
    log = synthetic.generate(num_users=60, num_items=12, num_successors=2, mean_length=10)
    names = {"user_id": "customer", "item_id": "sku", "timestamp": "time"}
    log.with_columns(pl.format("sku-{}", "item_id").alias("item_id")).rename(names).write_csv(tmp_path / "events.csv")
    monkeypatch.chdir(tmp_path)
    first, second = blocks("python")
    space: dict = {}
    exec(first, space)
    assert len(first.strip().splitlines()) <= 20
    assert space["record"].reports[0]["metrics"]["hr@10"] > 0.5
    exec(second, space)
    assert space["next_items"].shape == (1, 7)


def test_every_command_of_ours_is_one():
    parser, seen = build_parser(), 0
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "sr-transformers":
                options, rest = parser.parse_known_args(words[1:])
                assert not rest or options.command in ("train", "finetune"), line
                seen += 1
    assert seen >= 6


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (demo|test|install|check)\b", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_path_in_the_readme_exists():
    for page in (PAGE, RESULTS, BENCHMARKS):
        text = page.read_text()
        for path in re.findall(r"`((?:src|recipes|tests|benchmarks|docs)/[\w/.\-]*)`", text):
            assert (ROOT / path).exists(), path
        for target in re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), target


def test_the_readme_can_be_read():
    assert len(README.splitlines()) <= 250
    assert between(PAGE, "quality") == script("docs/tables/models.py").quality_table()
    for name in ("quality", "speed"):
        assert len(between(PAGE, name).splitlines()) <= 2 + 8


def test_the_results_table_is_what_the_records_say():
    results = script("docs/tables/models.py")
    assert between(RESULTS, "results") == results.table()
    assert between(RESULTS, "request-time") == results.table(results.REQUEST_TIME)


def test_the_table_of_last_baskets_is_what_the_record_says():
    baskets = script("recipes/experiments/last_baskets.py")
    found = json.loads(baskets.RESULT.read_text())
    assert between(baskets.PAGE, "last-baskets") == baskets.table(found)
    assert {row["group"] for row in found["rows"]} == set(baskets.GROUPS)


def test_the_tables_of_arms_of_studies_are_what_the_records_say():
    arms = script("recipes/experiments/arms.py")
    records = sorted(arms.RESULTS.glob("*.json"))
    logs = ("complete-journey", "online-retail")
    assert {path.stem for path in records} >= {f"{study}-{log}" for study in ("history", "ids") for log in logs}
    for path in records:
        found = json.loads(path.read_text())
        assert between(arms.page_of(path.stem), path.stem) == arms.table(found)
        assert all(len(row["seeds"]) == 3 for row in found["rows"])


def test_baselines_of_later_are_of_the_logs_of_the_records():
    """Hit rates, NDCG and MRR of what both have are the same, but for rounding."""
    results = script("docs/tables/models.py")
    for path in results.RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        later = results._later_baselines(path.stem.rsplit("-seed", 1)[0], record["reports"][0])
        found = {one["model"]: one for one in later}
        for one in record["reports"][1:]:
            both = found[one["model"]]["metrics"].keys() & one["metrics"].keys()
            assert {"hr@10", "ndcg@10", "mrr"} <= both
            for metric in [name for name in both if not name.startswith("coverage")]:  # equal items are listed anew
                assert found[one["model"]]["metrics"][metric] == pytest.approx(one["metrics"][metric], abs=1e-4), path
            assert found[one["model"]]["num_targets"] == one["num_targets"]


def test_the_baselines_tables_are_what_the_reports_say():
    written = script("docs/tables/baselines.py")
    for split in written.FOLDERS:
        assert between(written.PAGE, split) == written.tables(split)
        assert {path.stem for path in written.FOLDERS[split].glob("*.json")} == set(written.LOGS)


def test_baselines_of_another_protocol_are_refused(tmp_path, monkeypatch):
    results = script("docs/tables/models.py")
    monkeypatch.setattr(results, "BASELINES", tmp_path)
    (tmp_path / "shop.json").write_text('[{"protocol": {"part": "validation"}}]')
    with pytest.raises(ValueError, match=r"'shop' and '.*shop\.json' have different protocols.* part is 'test' and"):
        results._later_baselines("shop", {"protocol": {"part": "test"}})
    assert results._later_baselines("other", {"protocol": {}}) == []


def test_the_tasks_tables_are_what_the_reports_say():
    pytest.importorskip("matplotlib", reason="needs the extra figures")
    assert between(RESULTS, "tasks") == script("docs/tables/tasks.py").tables()


def test_the_transfer_tables_are_what_the_records_say():
    transfer = script("recipes/experiments/transfer.py")
    for name in transfer.EXPERIMENTS:
        between(RESULTS, name)  # is there
    for path in transfer.RESULTS.glob("*.json"):
        assert between(RESULTS, path.stem) == transfer.table(path.stem)


def test_the_quantization_table_is_what_was_measured():
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    quantization = script("benchmarks/quantization.py")
    assert between(BENCHMARKS, "quantization") == quantization.table()


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
