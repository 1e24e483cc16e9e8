import pytest
import torch
from torch.nn.attention import varlen
from varlen_kernel import stand_in

from sr_transformers import LSRMConfig, LSRMTrainingArguments, Recipe
from sr_transformers.lsrm import varlen_lsrm
from sr_transformers.training import attention
from sr_transformers.training.attention import choose_attention, fault_of_kernel
from sr_transformers.training.train import fitted


def test_a_kernel_that_computes_attention_has_no_fault(kernel):
    for head_size in (8, 50):
        assert fault_of_kernel(head_size, torch.bfloat16, torch.device("cpu")) is None


def test_a_wrong_kernel_is_found_out(kernel, monkeypatch):
    device = torch.device("cpu")
    monkeypatch.setattr(varlen, "varlen_attn", lambda *args, **more: stand_in(*args, **more, causal=False))
    assert fault_of_kernel(16, torch.bfloat16, device).startswith("output is off by ")

    def no_gradient_of_values(query, key, value, *args, **more):
        return stand_in(query, key, value.detach() + 0 * value, *args, **more)

    monkeypatch.setattr(varlen, "varlen_attn", no_gradient_of_values)
    assert fault_of_kernel(16, torch.bfloat16, device).startswith("value's gradient is off by ")
    monkeypatch.setattr(varlen, "varlen_attn", lambda *args, **more: torch.nan * stand_in(*args, **more))
    assert fault_of_kernel(16, torch.bfloat16, device) == "output is off by nan of its norm"


def test_a_kernel_that_does_not_run_is_a_fault():
    assert "runs on CUDA GPUs" in fault_of_kernel(16, torch.bfloat16, torch.device("cpu"))


@pytest.mark.parametrize(
    ("blocks", "arguments", "machine", "expected"),
    [
        ({}, {}, {}, "torch_varlen"),
        ({"attention_dropout": 0.1}, {}, {"flash": True}, "flash_attention_2"),
        ({}, {"layout": "flat"}, {}, "torch_varlen"),
        ({}, {}, {"gpu": False}, None),
        ({}, {"use_cpu": True}, {}, None),
        ({}, {"precision": "fp32"}, {"flash": True}, None),
        ({}, {"layout": "rows"}, {"flash": True}, None),
        ({"attention_dropout": 0.1}, {}, {}, None),
        ({"attention_time": True}, {}, {"flash": True}, None),
        ({"position": "relative"}, {}, {}, None),
        ({"attention": "pointwise"}, {}, {"flash": True}, None),
        ({}, {}, {"fault": "it burns"}, None),
    ],
)
def test_the_fastest_that_can_do_it_is_chosen(tmp_path, monkeypatch, caplog, blocks, arguments, machine, expected):
    asked = LSRMTrainingArguments(output_dir=str(tmp_path), **{"precision": "bf16", **arguments})
    asked.use_cpu = arguments.get("use_cpu", False)  # there is no GPU, and the arguments know
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.get("gpu", True))
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: machine.get("flash", False))
    monkeypatch.setattr(attention, "fault_of_kernel", lambda *args: machine.get("fault"))
    assert choose_attention(LSRMConfig(vocab_size=20, **blocks), asked) == expected
    assert ("attention torch_varlen is not used on this GPU: it burns" in caplog.text) == ("fault" in machine)


def test_a_model_of_another_kind_is_left_alone(tmp_path, monkeypatch):
    from transformers import GPT2Config

    asked = LSRMTrainingArguments(output_dir=str(tmp_path), precision="bf16")
    asked.use_cpu = False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_attention(GPT2Config(), asked) is None


@pytest.mark.parametrize(("asked", "history"), [(None, []), ("torch_varlen", ["recency", "bigrams", "items"])])
def test_a_run_on_the_kernel_equals_one_on_rows(kernel, markov_prepared, tmp_path, monkeypatch, asked, history):
    """Trained on flat rows, validated and tested as any model; in float32, which the stand-in can."""
    monkeypatch.setattr(varlen_lsrm, "DTYPES", (torch.float32,))
    model = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
    dropout = {"embedding_dropout": 0.0, "residual_dropout": 0.0}
    training = {"num_train_epochs": 2, "switch_optimizer": False, "precision": "fp32", "disable_tqdm": True}
    recipe = Recipe("tiny", {**model, **dropout, "history": history}, {**training, "per_device_train_batch_size": 8})
    found = {}
    for name in ("sdpa", asked):
        if name is None:
            monkeypatch.setattr("sr_transformers.training.train.choose_attention", lambda *args: "torch_varlen")
        with fitted(recipe, markov_prepared, tmp_path / str(name), attn_implementation=name) as run:
            assert run.trainer.data_collator.layout == ("rows" if name == "sdpa" else "flat")
            assert run.settings["training"]["layout"] == "auto"
            record = run.finish(with_baselines=False)
        found[name] = record.reports[0]["metrics"]
    assert found[asked] == pytest.approx(found["sdpa"], rel=1e-3)
