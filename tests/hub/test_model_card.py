"""Cards say what the records say, in words that the Hub takes."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from scripts import script

from sr_transformers import CardOptions, RunRecord
from sr_transformers.evaluation.tasks import markdown
from sr_transformers.evaluation.tasks.runner import baseline_contestants, run_tasks
from sr_transformers.evaluation.tasks.task import TaskOptions
from sr_transformers.hub.card_tables import number
from sr_transformers.hub.model_card import TEMPLATE, Evidence, find_fits, model_card

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "recipes" / "results" / "ml-1m-seed42.json"


@pytest.fixture(scope="module")
def record():
    return RunRecord.load(RECORD)


@pytest.fixture(scope="module")
def card(record):
    return model_card(record, "org/sr-98k", CardOptions(), Evidence())


def numbers(text):
    """Every number in a text: 1,234 and 1e-3 and 0.5 and 42."""
    return re.findall(r"(?<![\w.])\d[\d,]*\.?\d*(?:e[+-]?\d+)?(?!\w)", text)


def leaves(content):
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from leaves(value)
    elif isinstance(content, list):
        for value in content:
            yield from leaves(value)
    else:
        yield content


def test_a_number_that_no_record_holds_never_appears(record, card):
    held = json.loads(RECORD.read_text())
    allowed = set(numbers(TEMPLATE.read_text())) | {"6"}  # the formulas 6 N and 6 V d
    for value in [*leaves(held), sum(held["parameters"].values())]:
        if isinstance(value, str):
            allowed |= set(numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            allowed |= {number(value), f"{value:.4f}", f"{value:,}", number(float(value)), repr(value)}
    items = held["recipe"]["model"]["vocab_size"] - 2
    allowed |= {f"{items:,}", "2"}
    text = card.text + "\n".join(line for line in card.data.to_yaml().splitlines() if "value:" in line)
    text = re.sub(r"sha256 `[0-9a-f]+`", "", text)
    strangers = [one for one in numbers(text) if one.rstrip(",.") not in allowed and one not in allowed]
    assert not strangers


def test_five_metrics_are_in_the_metadata_with_their_protocol(record, card):
    report = record.reports[0]
    results = ModelCard(str(card)).data.eval_results
    found = {one.metric_type.replace("_at_", "@"): one.metric_value for one in results}
    assert found == {name: report["metrics"][name] for name in ("hr@10", "ndcg@10", "mrr", "coverage@10", "loss")}
    for one in results:
        assert one.metric_args is None
        assert "full ranking, seen items removed" in one.metric_name
        assert (one.dataset_config, one.dataset_split) == ("leave_one_out", "test")
    assert str(card).index("# sr-98k") < 4000
    assert str(card)[: str(card).index("# sr-98k")].count("\n") < 80


def test_metadata(card):
    data = ModelCard(str(card)).data
    assert data.model_name == "sr-98k"
    assert [data.license, data.library_name, data.pipeline_tag, data.datasets] == [
        "apache-2.0",
        "transformers",
        "other",
        ["ml-1m"],
    ]
    assert {"sr_transformers", "sequential-recommendation", "lsrm"} <= set(data.tags)


def test_the_hub_takes_the_card(hub, card, record):
    card.validate()
    model_card(record, "org/sr", CardOptions("other", "terms", "https://example.org"), Evidence()).validate()
    assert hub.count("POST /api/validate-yaml") == 2


def test_it_shows_results_beside_the_baselines(card, record):
    assert "| metric | lsrm dense | popularity | user frequency | markov |" in card.text
    ours = f"{record.reports[0]['metrics']['hr@10']:.4f}"
    assert f"| HR@10 | {ours} | 0.0369 | 0.0369 | 0.2391 |" in card.text
    assert "full ranking over 3,416 items, seen items removed, ties against the model" in card.text


def test_every_optimizer_and_what_it_decays_is_told(record, card):
    assert "| optimizer of the matrices of the blocks | muon |" in card.text
    assert "learning rate of the item table" not in card.text  # as that of all else
    training = {**record.recipe["training"], "decay_epochs": 7.0, "table_lr_multiplier": 3.0, "optimizer": None}
    changed = dataclasses.replace(record, recipe={**record.recipe, "training": training})
    told = model_card(changed, "org/sr-98k", CardOptions(), Evidence()).text
    assert "| weights decay within (epochs) | 7 |" in told
    assert "| learning rate of the item table, times | 3 |" in told
    assert "muon" not in told


def test_it_is_the_same_every_time(record, card):
    assert str(model_card(RunRecord.load(RECORD), "org/sr-98k", CardOptions(), Evidence())) == str(card)


def test_what_was_not_measured_is_not_there(record, card):
    assert "energy" not in card.text
    assert "Scaling law\n" not in card.text.replace("Scaling Law of", "")
    assert "paper's tasks" not in card.text
    measured = RunRecord.load(RECORD)
    measured.commit = None
    assert "not recorded" in model_card(measured, "org/sr-98k", CardOptions(), Evidence()).text
    measured.hardware["energy_kwh"] = 0.125
    measured.commit = "0123abc"
    text = model_card(measured, "org/sr-98k", CardOptions(), Evidence()).text
    assert "| energy | 0.125 kWh |" in text
    assert "| commit | `0123abc` |" in text


def test_other_seeds_are_shown(record):
    siblings = [RunRecord.load(RECORD.with_name(f"ml-1m-seed{seed}.json")) for seed in (43, 44)]
    text = model_card(record, "org/sr-98k", CardOptions(), Evidence(siblings=siblings)).text
    assert f"| 43 | {siblings[0].reports[0]['metrics']['hr@10']:.4f} |" in text


def test_licenses(record):
    unknown = model_card(record, "org/sr", CardOptions("unknown"), Evidence()).text
    assert "license of the weights is unknown" in unknown
    other = model_card(record, "org/sr", CardOptions("other", "terms", "https://example.org/terms"), Evidence())
    assert other.data.license_link == "https://example.org/terms"
    assert "Weights: terms (https://example.org/terms)." in other.text
    for bad in ({"license": "other"}, {"license": "mit", "license_name": "mine"}):
        with pytest.raises(ValueError, match="'other' needs a license name"):
            CardOptions(**bad)


def test_a_fine_tuned_model_names_its_base(record):
    card = model_card(record, "org/sr", CardOptions(base_model="org/base", dataset="org/log"), Evidence())
    assert card.data.base_model == "org/base"
    assert card.data.datasets == ["org/log"]
    assert "fine-tuned from org/base on" in card.text


def test_the_origin_of_a_fine_tuned_run_is_told():
    tuned = RunRecord.load(RECORD)
    tuned.recipe["origin"] = {"model": "runs/base", "weights_sha256": "abc"}
    card = model_card(tuned, "org/sr", CardOptions(), Evidence())
    assert "fine-tuned from runs/base on" in card.text
    assert "| started from | runs/base, weights with sha256 `abc` |" in card.text
    assert card.data.base_model is None  # a folder is no name on the Hub
    tuned.recipe["origin"] = {"model": "org/base", "commit": "0123abcd", "weights_sha256": "abc"}
    assert model_card(tuned, "org/sr", CardOptions(), Evidence()).data.base_model == "org/base"
    assert model_card(tuned, "org/sr", CardOptions(base_model="org/other"), Evidence()).data.base_model == "org/other"


def test_tasks_are_shown_with_their_intervals(record, markov_prepared):
    contestants = baseline_contestants(markov_prepared, TaskOptions(draws=20))
    tasks = run_tasks(contestants, markov_prepared, ["long_tail", "multi_domain"], TaskOptions(draws=20))
    text = model_card(record, "org/sr", CardOptions(), Evidence(tasks=json.loads(json.dumps(tasks)))).text
    assert "## The paper's tasks\n\n" in text
    assert markdown.markdown(tasks) in text
    assert "### Long-tail items" in text
    assert "### Multi-domain transfer\n\nNot run: " in text


def test_fits_are_found(tmp_path):
    one = {"law": "n", "params": {"E": 1.0}, "status": "converged"}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(json.dumps([one, {"law": "no fit"}]))
    (tmp_path / "b.json").write_text(json.dumps({"E": 1}))
    assert find_fits(tmp_path) == [one]


def test_the_cards_in_the_repository_are_what_the_records_say():
    made = script("docs/tables/cards.py").cards()
    assert len(made) >= 7
    stored = {path.name: path.read_text() for path in (ROOT / "model_cards").glob("*.md") if path.name != "README.md"}
    assert stored == made, "run python docs/tables/cards.py"
    listed = (ROOT / "model_cards" / "README.md").read_text()
    assert all(name in listed for name in made)


def test_markup_of_a_record_is_shown_and_not_carried_out(record):
    evil = "<img src=x onerror=alert(1)>\n\n[click](javascript:alert(1)) | `x` ![p](http://t/p.png)"
    held = dataclasses.asdict(record)

    def spoiled(value):
        if isinstance(value, dict):
            return {key: spoiled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        return value + evil if isinstance(value, str) else value

    held = spoiled(held)
    tasks = {"models": [{"name": evil}], "tasks": {"overall": {"not_run": evil}},
             "protocol": {**run_protocol(), "split": evil}}  # fmt: skip
    reports = [{**held["reports"][0], "model": evil}]
    evidence = Evidence(tasks, reports, [{"law": evil, "params": {"E": 1.0}, "status": evil}])
    card = model_card(RunRecord(**held), "org/sr-98k", CardOptions(), evidence)
    text = card.text
    for raw in ("<img", "](javascript", "![p](", "\n[click]"):
        assert raw not in text, raw
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 20
    assert all(line.count("|") == 3 for line in text.splitlines() if line.startswith("| command"))
    # The metadata is YAML, whose writer quotes: the text comes back as it was, but for empty lines.
    name = ModelCard(str(card)).data.eval_results[0].dataset_name
    assert name.split() == held["reports"][0]["protocol"]["data"].split()


def run_protocol():
    """What a task report says of itself."""
    return {
        "data": {"name": "log"},
        "filter_seen": True,
        "num_items_ranked": 3,
        "confidence": 0.95,
        "fingerprint": "0123456789ab",
        "draws": 2,
        "seed": 1,
    }


def test_a_run_on_a_part_says_so(record):
    part = {"of": "users", "fraction": 0.3, "seed": 0, "validation_targets": 50}
    text = card_of(dataclasses.replace(record, data={**record.data, "fraction": part}))
    assert "| trained on a part | 0.3 of the users |" in text
    assert f"| training interactions of it (D) | {record.num_train_interactions:,} |" in text
    assert "| validated on | 50 of the validation targets, drawn at random |" in text


def test_weights_that_nothing_chose_are_not_called_chosen(record):
    assert f"those of step {record.best_step:,}, chosen on validation targets" in card_of(record)
    training = {**record.recipe["training"], "load_best_model_at_end": False}
    last = dataclasses.replace(record, recipe={**record.recipe, "training": training})
    assert f"those of step {record.best_step:,} on validation targets" in card_of(last)


def card_of(record):
    return model_card(record, "o/n", CardOptions(), Evidence()).content
