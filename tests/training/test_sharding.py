"""What is refused before weights are divided; tests/integration/test_sharding.py divides them."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMTrainer, LSRMTrainingArguments
from sr_transformers.training.sharding import ShardedTrainer, _check_plugin, zero_momentum


@pytest.mark.parametrize("way", ["environment", "argument"])
def test_one_process_has_nobody_to_share_with(way, markov_prepared, tmp_path, monkeypatch):
    data = markov_prepared
    if way == "environment":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    arguments = LSRMTrainingArguments(str(tmp_path), fsdp=True if way == "argument" else None)
    model = LSRMForCausalLM(LSRMConfig(vocab_size=data.vocab_size, hidden_size=16, num_hidden_layers=1))
    who = "the argument fsdp" if way == "argument" else r"the launcher \(ACCELERATE_USE_FSDP\)"
    with pytest.raises(ValueError, match=rf"{who} asks for sharded weights, and there is one process only.*fsdp2.yaml"):
        LSRMTrainer(model, arguments, train_dataset=data.train_dataset())


def arguments(**others):
    return SimpleNamespace(
        **{
            "deepspeed": None,
            "switch_optimizer": False,
            "optimizer": None,
            "fp16": False,
            "torch_compile": False,
            **others,
        }
    )


def trainer(args, plugin=None, deepspeed=0, kind=DistributedType.FSDP, parallelism_config=None):
    state = SimpleNamespace(fsdp_plugin=plugin, deepspeed_plugin=SimpleNamespace(zero_stage=deepspeed))
    accelerator = SimpleNamespace(parallelism_config=parallelism_config, distributed_type=kind, state=state)
    return SimpleNamespace(
        accelerator=accelerator, args=args, is_deepspeed_enabled=deepspeed > 0, is_fsdp_enabled=plugin is not None
    )


@pytest.mark.parametrize(
    ("made", "asked", "says"),
    [
        (trainer(arguments(), kind=DistributedType.MULTI_CPU), "x", "x asks for .* would train whole .*MULTI_CPU"),
        (trainer(arguments(), parallelism_config="tp"), "", "parallelism_config is not supported"),
        (trainer(arguments(deepspeed="zero.json")), "", "has not taken it up"),
        (trainer(arguments(switch_optimizer=True), deepspeed=2), "", "cannot change its optimizer"),
        (trainer(arguments(), deepspeed=3), "", "ZeRO stage 3 is not supported.*fsdp2.yaml"),
        (trainer(arguments(optimizer="muon"), deepspeed=2), "", "muon needs whole matrices"),
    ],
)  # fmt: skip
def test_what_accelerate_made_of_it_is_looked_at(made, asked, says):
    with pytest.raises(ValueError, match=says):
        ShardedTrainer._check_accelerator(made, asked)


def plugin(**others):
    settings = {
        "fsdp_version": 2,
        "state_dict_type": StateDictType.SHARDED_STATE_DICT,
        "activation_checkpointing": False,
        "cpu_ram_efficient_loading": False,
        "cpu_offload": None,
        "ignored_modules": None,
    }
    return SimpleNamespace(**{**settings, **others})


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"fsdp_version": 1}, "fsdp_version 1"),
        ({"state_dict_type": StateDictType.FULL_STATE_DICT}, "fsdp_state_dict_type other than SHARDED_STATE_DICT"),
        ({"activation_checkpointing": True}, "fsdp_activation_checkpointing.*argument activation_checkpointing"),
        ({"cpu_ram_efficient_loading": True}, "fsdp_cpu_ram_efficient_loading"),
        ({"cpu_offload": CPUOffloadPolicy()}, "fsdp_offload_params"),
        ({"ignored_modules": "lm_head"}, "fsdp_ignored_modules"),
    ],
)
def test_settings_that_are_not_honoured_are_refused_by_name(others, says):
    _check_plugin(plugin(), arguments())
    with pytest.raises(ValueError, match=says):
        _check_plugin(plugin(**others), arguments())


@pytest.mark.parametrize(("name", "value"), [("fp16", True), ("torch_compile", True)])
def test_arguments_that_do_not_go_with_it_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is not supported with sharded weights"):
        _check_plugin(plugin(), arguments(**{name: value}))


def test_momentum_begins_at_zero_whatever_the_weight_decay():
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for momentum in (0.9, 0.0):
        plain, begun = (torch.optim.SGD([one], lr=0.1, momentum=momentum, weight_decay=0.5) for one in weights)
        zero_momentum(begun)
        for _ in range(3):
            for one, optimizer in zip(weights, (plain, begun), strict=True):
                one.grad = torch.arange(3.0)
                optimizer.step()
        assert torch.equal(*weights)
