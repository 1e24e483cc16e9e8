import hashlib
import json
import resource
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from sr_transformers import CardOptions, RunRecord
from sr_transformers.cli import main
from sr_transformers.hub.publish import build, publish, publish_study
from sr_transformers.hub.upload import HubError

ROOT = Path(__file__).parents[2]
PARTS = (
    "attention",
    "biases",
    "configuration",
    "divided",
    "divided_files",
    "dropout",
    "folders",
    "generation",
    "head",
    "identity",
    "history",
    "item_scores",
    "layers",
    "loss",
    "mix",
    "modeling",
    "own_items",
    "pipeline",
    "requests",
    "reading",
    "rotary",
    "scoring",
    "targets",
    "varlen",
)
CODE = {f"{part}_lsrm.py" for part in PARTS}
PLAIN = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "run.json", "README.md"}
REPORT = {"report.md", "figures/beside_baselines.png", "figures/beside_baselines.svg"}
FIT = {
    "law": "n",
    "params": {"E": 1.25, "alpha": 0.5},
    "intervals": {"E": [1.125, 1.5], "alpha": None},
    "status": "converged",
}


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "my-study"
    (folder / "fits").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntags:\n- scaling\n---\n# A study\n")
    (folder / "fits" / "n.json").write_text(json.dumps(FIT))
    (folder / "records.jsonl").write_text("{}\n")
    return folder


def test_the_folder_is_complete_and_nothing_else(finished_run, tmp_path):
    before = digest(finished_run)
    folder = build(finished_run, tmp_path / "out", "org/sr")
    assert set(digest(folder)) == CODE | PLAIN | REPORT | {"model.safetensors"}
    assert digest(finished_run) == before
    config = json.loads((folder / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert (folder / "run.json").read_bytes() == (finished_run / "run.json").read_bytes()


def test_building_twice_gives_the_same_bytes(finished_run, tmp_path):
    first = build(finished_run, tmp_path / "one", "org/sr", max_shard_size="5KB")
    assert digest(build(finished_run, tmp_path / "two", "org/sr", max_shard_size="5KB")) == digest(first)
    assert (first / "model.safetensors.index.json").exists()


def test_extras_travel(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "figures" / "loss_curve.svg").write_text("<svg/>")
    for ending in ("png", "svg"):
        (run / "figures" / f"long_tail.{ending}").write_text("not looked at")
    (run / "scaling").mkdir()
    (run / "scaling" / "n.json").write_text(json.dumps(FIT))
    reports = json.loads((run / "run.json").read_text())["reports"][:2]
    for report in reports:
        report["protocol"]["filter_seen"] = not report["protocol"]["filter_seen"]
        report["metrics"]["hr@10"] = 0.0625
    (run / "evaluation.json").write_text(json.dumps(reports))
    folder = build(run, tmp_path / "out", "org/sr")
    names = set(digest(folder))
    assert {"figures/loss_curve.svg", "scaling/n.json", "evaluation.json"} <= names
    assert not any("checkpoint" in name or name.endswith(".bin") for name in names)
    card = (folder / "README.md").read_text()
    assert "![loss curve](figures/loss_curve.svg)" in card
    assert "![long tail](figures/long_tail.png)" in card
    assert "long_tail.svg" not in card
    assert "| n | E | 1.25 | 1.125 to 1.5 | converged |" in card
    assert "| n | alpha | 0.5 | none | converged |" in card
    assert card.count("| HR@10 | ") == 2
    (only,) = [one for one in ModelCard(card).data.eval_results if one.metric_type == "hr_at_10"]
    assert only.metric_value == RunRecord.load(run).reports[0]["metrics"]["hr@10"] != 0.0625


def test_a_folder_with_something_in_it_is_left_alone(finished_run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        build(finished_run, tmp_path, "org/sr")
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.txt"]


@pytest.fixture
def copy(finished_run, tmp_path):
    """A copy of the run that a test may damage."""
    shutil.copytree(finished_run, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("limit", [3_000, 30_000])
def test_a_full_disk_leaves_no_half_folder(finished_run, tmp_path, limit):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(Exception, match=r"(?i)file too large|grow further"):
            build(finished_run, tmp_path / "out", "org/sr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    build(finished_run, tmp_path / "out", "org/sr")  # nothing stands in its way


def damaged(copy, change):
    record = json.loads((copy / "run.json").read_text())
    change(record)
    (copy / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["reports"][0].pop("protocol"),
        lambda record: record["reports"][0]["protocol"].pop("split"),
        lambda record: record["reports"].__setitem__(0, "text"),
        lambda record: record["data"].pop("counts"),
        lambda record: record["recipe"].pop("model"),
        lambda record: record.update(hardware=None),
    ],
    ids=["protocol", "split", "report", "counts", "model", "hardware"],
)
def test_a_record_that_lacks_something_is_named(copy, tmp_path, change):
    damaged(copy, change)
    with pytest.raises(ValueError, match=r"copy/run\.json is not what a run of this version writes"):
        build(copy, tmp_path / "out", "org/sr")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["run.json", "tasks.json", "evaluation.json"])
def test_a_record_that_was_cut_off_is_named(copy, tmp_path, name):
    text = (copy / "run.json").read_text()
    (copy / name).write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=rf"copy/{name} is no JSON"):
        build(copy, tmp_path / "out", "org/sr")
    assert not (tmp_path / "out").exists()


def test_further_records_that_lack_something_are_told_from_the_run(copy, tmp_path):
    (copy / "tasks.json").write_text('{"tasks": {"overall": {}}}')
    with pytest.raises(ValueError, match=r"copy/tasks\.json or evaluation\.json is not what"):
        build(copy, tmp_path / "out", "org/sr")


@pytest.mark.parametrize("place", ["figures/x.png", "figures", "tasks.json", "chat_template.jinja", "run.json"])
def test_no_link_is_followed(copy, tmp_path, place):
    (tmp_path / "secret").write_text("root:x:0:0")
    (copy / place).parent.mkdir(exist_ok=True)
    shutil.rmtree(copy / place) if (copy / place).is_dir() else (copy / place).unlink(missing_ok=True)
    (copy / place).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=rf"copy/{place}: publishing follows no links"):
        build(copy, tmp_path / "out", "org/sr")
    assert not (tmp_path / "out").exists()


def test_what_is_private_is_never_sent(hub, copy, study, tmp_path, monkeypatch):
    home = tmp_path / "home" / "zaphod"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    damaged(copy, lambda record: record.update(command=f"sr-transformers train --data {home}/log"))
    with pytest.raises(ValueError, match=r"run\.json would show the path of your home folder"):
        publish(copy, "org/sr")
    damaged(copy, lambda record: record.update(command="sr-transformers train --hub_token mysecrettoken"))
    with pytest.raises(ValueError, match=r"run\.json would show your token of the Hub"):
        publish(copy, "org/sr", token="mysecrettoken")
    (study / "study.yaml").write_text(f"data: {home}/log\n")
    with pytest.raises(ValueError, match=r"study\.yaml would show the path of your home folder"):
        publish_study(study, "org/study")
    (study / "study.yaml").unlink()
    (study / "fits" / "x.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match=r"fits/x\.json: publishing follows no links"):
        publish_study(study, "org/study")
    assert not hub.requests


def test_a_file_that_may_not_be_read_is_named(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("model.safetensors"))
    with pytest.raises(PermissionError, match=r"model\.safetensors: permission denied; you may not read it"):
        build(finished_run, tmp_path / "out", "org/sr")


def test_publish_once_twice_and_changed(hub, finished_run):
    url = publish(finished_run, "org/sr")
    repo = hub.model("org/sr")
    assert set(repo.files()) == CODE | PLAIN | REPORT | {"model.safetensors"}
    assert publish(finished_run, "org/sr") == url
    assert len(repo.commits) == 2
    assert publish(finished_run, "org/sr", CardOptions(license="mit")) != url
    assert len(repo.commits) == 3
    assert hub.count("PUT /lfs/") == 2  # the weights and a picture, once each


def test_shards_of_an_earlier_publish_go(hub, finished_run):
    publish(finished_run, "org/sr", max_shard_size="5KB")
    assert sum(name.endswith(".safetensors") for name in hub.model("org/sr").files()) > 1
    publish(finished_run, "org/sr")
    names = hub.model("org/sr").files()
    assert [name for name in names if "safetensors" in name] == ["model.safetensors"]


def test_a_failed_publish_touches_nothing_and_continues(hub, finished_run):
    before = digest(finished_run)
    hub.fail("POST", "/commit/", times=3, status=503)
    with pytest.raises(HubError, match="Run the same command again"):
        publish(finished_run, "org/sr")
    assert digest(finished_run) == before
    assert hub.model("org/sr").files() == {}
    publish(finished_run, "org/sr")
    assert hub.count("PUT /lfs/") == 2  # the weights and a picture, once each
    assert "model.safetensors" in hub.model("org/sr").files()


def test_a_run_that_is_not_finished_sends_nothing(hub, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(ValueError, match="no metrics to publish"):
        publish(tmp_path / "run", "org/sr")
    assert not hub.requests


def test_a_study_is_published_and_linked(hub, finished_run, study):
    publish(finished_run, "org/sr", scaling=study, private=True)
    assert set(hub.repos["dataset", "org/my-study"].files()) == set(digest(study))
    assert hub.repos["dataset", "org/my-study"].private
    card = hub.model("org/sr").files()["README.md"].decode()
    assert "https://huggingface.co/datasets/org/my-study" in card
    assert "| n | E | 1.25 | 1.125 to 1.5 | converged |" in card
    url = publish_study(study, "org/my-study")
    assert len(hub.repos["dataset", "org/my-study"].commits) == 2
    assert url.startswith(f"{hub.url}/datasets/org/my-study/commit/")


def test_a_study_needs_its_card(finished_run, study, tmp_path):
    (study / "README.md").write_text("# No metadata\n")
    with pytest.raises(ValueError, match="no metadata block"):
        publish(finished_run, "org/sr", scaling=study, dry_run=tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="scaling report"):
        publish_study(tmp_path / "nowhere", "org/study")


def test_the_command(hub, finished_run, study, tmp_path, capsys):
    arguments = ["publish", str(finished_run), "org/sr", "--scaling", str(study), "--scaling-repo", "org/fits"]
    dry = [*arguments, "--dry-run", "--output", str(tmp_path / "dry")]
    assert main(dry) == 0
    assert f"nothing was sent; {tmp_path / 'dry'}" in capsys.readouterr().out
    assert not hub.requests
    assert main([*arguments, "--branch", "v1"]) == 0
    sent = hub.model("org/sr").files("v1")
    assert {name: path.read_bytes() for name in digest(tmp_path / "dry") if (path := tmp_path / "dry" / name)} == sent
    assert ("dataset", "org/fits") in hub.repos
    assert main(dry) == 2
    assert "choose another output" in capsys.readouterr().err


def test_a_dry_run_has_a_folder_of_its_own(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    assert main(["publish", f"{tmp_path / 'run'}/", "org/sr", "--dry-run"]) == 0
    assert (tmp_path / "run-hub" / "README.md").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output", "x"], "add --dry-run"),
        (["--license", "other"], "'other' needs a license name"),
        (["--license-name", "mine"], "'other' needs a license name"),
    ],
)
def test_options_that_do_not_fit(finished_run, more, message, capsys):
    assert main(["publish", str(finished_run), "org/sr", *more]) == 2
    assert message in capsys.readouterr().err


def test_a_hub_that_refuses_is_one_line(hub, finished_run, capsys):
    assert main(["publish", str(finished_run), "other/sr"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("your token may not write to other/sr; it needs write permission there.")
