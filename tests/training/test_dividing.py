"""What is refused before an item table is divided; tests/integration/test_dividing.py trains divided ones."""

from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.training import dividing
from sr_transformers.training.dividing import DividedTrainer
from sr_transformers.training.vocabulary_parallel import mesh_of


def arguments(folder, **others):
    return LSRMTrainingArguments(str(folder), **{"precision": "fp32", "tp_size": 2, **others})


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"fsdp": True}, "fsdp left out"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "deepspeed left out"),
        ({"torch_compile": True}, "torch_compile false"),
        ({"fp16": True, "precision": "auto"}, "precision bf16 or fp32"),
        ({"table_updates": "lazy_adam", "num_negatives": 4, "switch_optimizer": False}, "table_updates dense"),
        ({"optim": "adafactor"}, "an optim of adamw_torch_fused, adamw_torch, sgd, adagrad"),
        ({"ddp_bucket_cap_mb": 5, "ddp_static_graph": True}, "ddp_bucket_cap_mb, ddp_static_graph left out"),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(tmp_path, others, says):
    with pytest.raises(ValueError, match=f"^tp_size 2 divides the item table; it needs {says}"):
        arguments(tmp_path, **others)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"torch_compile false .*; an optim of"):
        arguments(tmp_path, torch_compile=True, optim="adafactor")


def test_processes_must_be_some_whole_groups(tmp_path):
    with pytest.raises(ValueError, match="groups of 2 processes, and there is one process only"):
        mesh_of(arguments(tmp_path))
    with pytest.raises(ValueError, match="groups of 3 processes, and there are 4 processes: start a multiple of 3"):
        mesh_of(SimpleNamespace(tp_size=3, world_size=4))
    assert mesh_of(arguments(tmp_path, tp_size=1)) is None


@pytest.mark.parametrize(
    ("variable", "tp_size", "says"),
    [
        ("ACCELERATE_USE_FSDP", 2, "the launcher asks for FSDP or DeepSpeed: start with torchrun"),
        ("ACCELERATE_USE_DEEPSPEED", 2, "the launcher asks for FSDP or DeepSpeed: start with torchrun"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", 1, "give the argument tp_size instead of parallelism_config_tp_size"),
    ],
)
def test_launchers_that_divide_in_another_way_are_refused(
    variable, tp_size, says, markov_prepared, monkeypatch, tmp_path
):
    monkeypatch.setattr(DividedTrainer, "divided", lambda self, model: None)  # of one process there are no groups
    model = LSRMForCausalLM(LSRMConfig(vocab_size=markov_prepared.vocab_size, hidden_size=16, num_hidden_layers=1))
    given = arguments(tmp_path, tp_size=tp_size)
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=says):
        LSRMTrainer(model, given, train_dataset=markov_prepared.train_dataset())


def test_only_a_model_that_is_there_is_divided(markov_prepared, tmp_path):
    with pytest.raises(ValueError, match="give model, not model_init"):
        LSRMTrainer(model_init=lambda: None, args=arguments(tmp_path), train_dataset=markov_prepared.train_dataset())


def divided(tp_size=2, **more):
    trainer = object.__new__(DividedTrainer)
    trainer.prepared, trainer.args = True, SimpleNamespace(tp_size=tp_size, world_size=4, process_index=3, **more)
    trainer.is_fsdp_enabled = False
    return trainer


def test_models_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="item table of an LSRMForCausalLM, and this model is a Linear"):
        divided().divided(torch.nn.Linear(2, 2))


def test_a_model_that_is_divided_over_other_processes_is_refused(monkeypatch):
    groups = {"mine": [2, 3], "all": [0, 1, 2, 3]}
    mesh = {"tp": SimpleNamespace(get_group=lambda: "mine")}
    monkeypatch.setattr(DividedTrainer, "mesh", mesh)
    monkeypatch.setattr(dividing.dist, "get_process_group_ranks", groups.__getitem__)
    monkeypatch.setattr(dividing.dist, "get_world_size", lambda group: len(groups[group]))
    model = LSRMForCausalLM(LSRMConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1))
    monkeypatch.setattr(dividing, "head_division", lambda head: SimpleNamespace(group="mine"))
    divided().divided(model)
    monkeypatch.setattr(dividing, "head_division", lambda head: SimpleNamespace(group="all"))
    with pytest.raises(ValueError, match="tp_size is 2, and the model's item table is divided over 4 processes"):
        divided().divided(model)


def test_processes_of_a_group_read_the_same_part_and_one_of_them_counts():
    trainer, shards = divided(), []
    for trainer.args.process_index in range(4):
        shards.append((*trainer.data_shard, trainer.speaks_for_shard))
    assert shards == [(0, 2, True), (0, 2, False), (1, 2, True), (1, 2, False)]


@pytest.mark.parametrize(
    ("folder", "tp_size", "says"),
    [
        ("divided_model", 1, "written with a divided item table and this run has a whole one"),
        ("none", 2, "written with a whole item table and this run has a divided one"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(folder, tp_size, says, tmp_path):
    (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=says):
        divided(tp_size).check_kind(str(tmp_path))
    divided(3 - tp_size).check_kind(str(tmp_path))


def test_without_a_prepared_log_counts_are_transformers_own(tmp_path):
    """A model that transformers itself has divided says so in `_tp_size`."""
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], include_num_input_tokens_seen="all")
    model = LSRMForCausalLM(LSRMConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1))
    counts = []
    for kind in (Trainer, LSRMTrainer):
        trainer = kind(model, arguments)
        trainer.model._tp_size = 2
        trainer._track_num_input_tokens(inputs)
        counts.append((trainer.state.num_input_tokens_seen, trainer.floating_point_ops(inputs)))
        del trainer.model._tp_size
    assert counts[0] == counts[1]
    assert counts[0][0] == 6
    assert counts[0][1] > 0
