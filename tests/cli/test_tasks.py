"""`sr-transformers tasks`."""

import json

import pytest
import torch

from sr_transformers.cli import main
from sr_transformers.cli.tasks import _TASKS
from sr_transformers.evaluation.tasks.runner import TASKS
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM


@pytest.fixture(scope="module")
def models(markov_prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, width in (("small-1", 8), ("small-2", 8), ("large", 16)):
        torch.manual_seed(width)
        config = LSRMConfig(
            vocab_size=markov_prepared.vocab_size,
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
        )
        LSRMForCausalLM(config).save_pretrained(folder / name)
    return folder


def test_the_commands_tasks_are_the_librarys():
    assert tuple(TASKS) == _TASKS


def test_sizes_and_seeds_side_by_side(models, markov_prepared, tmp_path, capsys):
    report = tmp_path / "report.json"
    command = ["tasks", "--model", f"small={models}/small-1,{models}/small-2", "--model", f"{models}/large"]
    command += [
        "--data",
        str(markov_prepared.path),
        "--task",
        "long_tail",
        "--task",
        "robustness",
        "--task",
        "trajectory",
    ]
    command += ["--perturbation-rate", "0.5", "--tail-groups", "2", "--k", "3", "--draws", "20", "--seed", "1"]
    assert main([*command, "--seen", "remove", "--json", str(report), "--figures", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    assert "relative gain in hr@3 over small" in out
    assert "Not run: no user has 10 interactions after the test target" in out
    found = json.loads(report.read_text())
    assert [one["name"] for one in found["models"]] == ["small", "large", "popularity", "markov", "mix"]
    assert found["models"][0]["num_checkpoints"] == 2
    protocol = found["protocol"]
    assert (protocol["perturbation_rate"], protocol["ks"], protocol["seed"]) == (0.5, [3], 1)
    assert (protocol["tail_groups"], protocol["draws"], protocol["filter_seen"]) == (2, 20, True)
    assert (tmp_path / "figures" / "long_tail.svg").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "nowhere"], "nowhere: there is no such folder"),
        (["--perturbation-rate", "3"], "perturbation_rate is 3.0; it is a probability"),
        (["--no-baselines"], "give at least one"),
        (["--json", "nowhere/report.json"], "nowhere/report.json: there is no such folder"),
    ],
)
def test_mistakes_are_one_line_and_code_2(more, message, markov_prepared, capsys):
    assert main(["tasks", "--data", str(markov_prepared.path), "--task", "overall", *more]) == 2
    assert message in capsys.readouterr().err
