"""What the plan counts against what torch really keeps, and against numbers worked out by hand."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts import script

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.planning.memory import (
    Shards,
    Work,
    kept_around_blocks,
    kept_by_block,
    loss_memory,
    peak,
    training_memory,
)
from sr_transformers.planning.weights import parameter_counts, popularity_bytes, successor_bytes
from sr_transformers.training.finish import count_parameters
from sr_transformers.training.optimizers import with_muon
from sr_transformers.training.row_updates import make_sparse, tables_of, with_row_updates

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "memory.py"


def config(**overrides):
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 301}
    return LSRMConfig(**{**shape, "max_position_embeddings": 20, **overrides})


def kept_by_autograd(model, work):
    """Bytes of all storages that autograd keeps after forward, weights and their compute copies not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(p.t().shape) for p in model.parameters()} | {tuple(p.shape) for p in model.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        alive.append(tensor)  # or its address would be given to the next one
        copy_of_weight = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if tensor.untyped_storage().data_ptr() not in own and not copy_of_weight:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    half = work.width // 2
    positions = torch.cat([torch.arange(half), torch.arange(work.width - half)]).repeat(work.rows, 1)
    ids, labels = (torch.randint(2, model.config.vocab_size, (work.rows, work.width)) for _ in range(2))
    labels[:, -1] = -100  # so that targets are selected, as nearly always
    negatives = {}
    if work.num_negatives:
        drawn = torch.randint(2, model.config.vocab_size, (work.num_negatives,))
        negatives = {"negative_ids": drawn, "negative_log_q": torch.full((work.num_negatives,), -5.0)}
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=work.precision == "bf16"),
    ):
        moments = {"moments": ids.cumsum(1)} if model.config.attention_time else {}
        model(input_ids=ids, position_ids=positions, shift_labels=labels, use_cache=False, **moments, **negatives)
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"residual_dropout": 0.0},
        {"embedding_dropout": 0.0, "intermediate_size": 48},
        {"num_hidden_layers": 1},
        {"position": "rotary", "norm": "rms"},
        {"position": "relative"},
        {"attention_time": True},
        {"attention": "pointwise"},
        {"attention": "pointwise", "position": "relative"},
        {"hidden_act": "swiglu", "residual": "gated"},
        {"head": "scaled"},
        {"head": "normalised"},
        {"position": "relative", "attention_time": True, "norm": "rms", "residual": "gated", "residual_dropout": 0.0},
    ],
    ids=[
        "plain",
        "no residual dropout",
        "narrow feed-forward, no embedding dropout",
        "one layer",
        "rotary, rms",
        "relative",
        "time",
        "pointwise",
        "pointwise, relative",
        "swiglu, gated",
        "scaled",
        "normalised",
        "many",
    ],
)
def test_activations_are_what_autograd_keeps(overrides, precision):
    one, work = config(**overrides), Work(rows=7, width=20, device="cpu", precision=precision)
    blocks = sum(kept_by_block(one, work, layer) for layer in range(one.num_hidden_layers))
    compute = 4 if precision == "fp32" else 2
    table = one.vocab_size * one.hidden_size * 4
    hidden_gradient = work.rows * (work.width - 1) * one.hidden_size * compute
    labels = work.positions * 8  # of the batch, which the planner counts and autograd does not keep
    planned = blocks + kept_around_blocks(one, work) + hidden_gradient + table - labels
    assert kept_by_autograd(LSRMForCausalLM(one).train(), work) == planned


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["plain", "normalised"])
def test_a_sampled_loss_keeps_its_logits(head, precision):
    """A few numbers for each target more or less, on thousands."""
    one = config(residual_dropout=0.0, embedding_dropout=0.0, num_hidden_layers=1, head=head)
    work = Work(rows=40, width=20, device="cpu", precision=precision, num_negatives=150)
    blocks = kept_by_block(one, work, 0)
    planned = blocks + kept_around_blocks(one, work) + loss_memory(one, work).logits_kept
    kept = kept_by_autograd(LSRMForCausalLM(one).train(), work)
    assert planned == pytest.approx(kept, rel=0.05)
    assert loss_memory(one, work).logits_kept > 0.2 * planned


@pytest.mark.parametrize(
    "parts",
    [
        ["clock"],
        ["items", "recency"],
        ["recency", "bigrams", "items", "baskets"],
        ["mix"],
        ["baskets", "mix"],
    ],
)
def test_history_is_counted(parts):
    one = config(history=parts, num_successors=7, successor_pairs=50, mix_stretches=5, mix_pairs=60)
    model = LSRMForCausalLM(one)
    assert parameter_counts(one) == count_parameters(model)
    buffers = sum(one.nbytes for one in model.buffers())
    assert successor_bytes(one) + popularity_bytes(one) == buffers
    always = training_memory(one, Work(rows=2))["optimizer"]
    assert always.get("successors", 0) + always.get("popularity", 0) == buffers
    before = config(history=parts, num_successors=7)  # seven of every item, until they are counted
    of_pairs = 8 * (3 * before.vocab_size * 7 - 50)
    assert successor_bytes(before) == successor_bytes(one) + (of_pairs if before.keeps_counts else 0)
    of_popularity = 8 * before.vocab_size * 256 + 16 * 256 - 8 * 60 - 16 * 5  # every item in every stretch of time
    timed = "mix" in parts and before.needs_times
    assert popularity_bytes(before) == popularity_bytes(one) + (of_popularity if timed else 0)


@pytest.mark.parametrize("updates", ["lazy_adam", "row_adagrad"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_optimizer_states_are_those_of_the_optimizers(updates, optimizer):
    """Steps of the real ones, and all numbers of their states."""
    one = config(vocab_size=40)
    model = LSRMForCausalLM(one).train()
    arguments = SimpleNamespace(table_updates=updates, adam_epsilon=1e-8, adam_beta1=0.9, adam_beta2=0.999)
    for by_rows in (False, True):
        make_sparse(model, by_rows)
        if optimizer == "sgd":
            table = tables_of(model)[0]
            others = [weight for weight in model.parameters() if weight is not table]
            groups = [{"params": others}, {"params": [table], "momentum": 0.0 if by_rows else 0.9}]
            opt = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        else:
            opt = torch.optim.AdamW(model.parameters())
            opt = with_row_updates(opt, tables_of(model), arguments) if by_rows else opt
            opt = with_muon(opt, model, 1e-3, 0.0) if optimizer == "muon" else opt
        ids = torch.arange(2, 18)[None]
        sampled = {"negative_ids": ids[0, :3], "negative_log_q": torch.zeros(3)}
        model(ids, labels=ids, **sampled).loss.backward()
        opt.step()
        model.zero_grad()
        states = [value for state in opt.state.values() for value in state.values() if torch.is_tensor(value)]
        held = 4 * sum(value.numel() for value in states if value.ndim)
        planned = training_memory(
            one,
            Work(optimizer=optimizer, num_negatives=3, table_updates=updates if by_rows else "dense"),
        )["optimizer"]["optimizer"]
        assert planned == pytest.approx(held, abs=1)


def test_row_updates_hold_no_gradient_of_the_table():
    one = config(vocab_size=100_001)
    sampled = {"rows": 2, "width": 20, "num_negatives": 50}
    dense = training_memory(one, Work(**sampled))["end of backward"]
    by_rows = training_memory(one, Work(**sampled, table_updates="lazy_adam"))["end of backward"]
    table = 100_001 * 32 * 4
    assert dense["gradients"] - by_rows["gradients"] == table
    assert dense["loss gradients"] == table
    assert by_rows["loss gradients"] == 2 * (2 * 40 + 50) * (32 * 4 + 8)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_a_built_model(tied):
    one = config(tie_word_embeddings=tied)
    assert parameter_counts(one) == count_parameters(LSRMForCausalLM(one))


def test_moments_by_hand():
    """d 32, 1 layer, V 300, 2 rows of 10, fp32, Adam: every part from the shapes."""
    one = config(num_hidden_layers=1, vocab_size=300, max_position_embeddings=10)
    moments = training_memory(one, Work(rows=2, width=10, precision="fp32", device="cpu"))
    parameters = 12 * 32**2 + 13 * 32 + 2 * 32 + 300 * 32 + 10 * 32
    table = 300 * 32 * 4
    # 18 tensors of d per position, 10 places of mask, 4 heads' softmax sums, 2 x 2 of norms; around: ids, positions,
    # labels and which of them count, dropout, the last norm.
    block = 20 * (18 * 32 * 4 + 10 * 4 + 4 * 4 + 4 * 4)
    around = 20 * (8 + 8 + 8 + 1 + 32 * 4 + 32 * 4 + 8)
    assert moments["loss"] == {
        "weights": parameters * 4,
        "optimizer": parameters * 8,
        "gradients": 0,
        "compute copies": 0,
        "activations": block + around + 20 * 32 * 4,
        "logits": 20 * 300 * 4,
        "loss gradients": table + 20 * 32 * 4,
    }
    assert moments["end of backward"]["gradients"] == parameters * 4
    assert moments["end of backward"]["loss gradients"] == table
    assert moments["optimizer"]["largest temporary"] == 0
    assert peak(moments) == ("end of backward", sum(moments["end of backward"].values()))  # few targets: tables rule
    many = training_memory(one, Work(rows=200, width=10, precision="fp32", device="cpu"))
    assert peak(many) == ("loss", sum(many["loss"].values()))


def test_checkpointing_keeps_inputs_of_blocks_and_one_block():
    one, work = config(num_hidden_layers=8), Work(rows=4, width=20)
    plain = training_memory(one, work)["blocks"]["activations"]
    again = training_memory(one, Work(rows=4, width=20, checkpointing=True))["blocks"]["activations"]
    block = kept_by_block(one, work, 0)
    inputs = 80 * 32 * 4
    mask = 80 * 20
    assert plain - again == 8 * block - (7 * inputs + mask + block)


def test_accumulation_holds_gradients_in_forward():
    work = {"rows": 2, "width": 20}
    plain = training_memory(config(), Work(**work))
    held = training_memory(config(), Work(**work, accumulating=True))
    gradients = 4 * sum(parameter_counts(config()).values())
    assert held["loss"]["gradients"] - plain["loss"]["gradients"] == gradients
    assert held["end of backward"]["loss gradients"] == 2 * 301 * 32 * 4


def test_shards_divide_what_is_kept():
    moments = training_memory(config(), Work(rows=2), Shards(1, 1, 2, copies=False, gathered=1000))
    total = sum(parameter_counts(config()).values())
    assert moments["loss"]["weights"] == total
    assert moments["loss"]["optimizer"] == 2 * total
    assert moments["loss"]["communication"] == 1000
    assert moments["loss"]["compute copies"] == 301 * 32 * 2  # the loss's own copy of the table
    # Two processes with half of the table's rows: half of its logits and of its gradient too.
    moments = training_memory(config(), Work(rows=2), Shards(4, 4, 8, (2, 2, 4), 2))
    table = 301 * 32
    assert moments["loss"]["weights"] == 4 * (total - table) + 2 * table
    assert moments["loss"]["optimizer"] == 8 * (total - table) + 4 * table
    assert moments["loss"]["loss gradients"] == 151 * 32 * 4 + 100 * 32 * 2
    assert moments["loss"]["logits"] == 100 * 151 * (2 + 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp8"}, "choose from fp32, bf16"),
        ({"optimizer": "lion"}, "choose from adam, sgd, muon"),
        ({"table_updates": "rows"}, "choose from dense, lazy_adam, row_adagrad"),
        ({"table_updates": "lazy_adam"}, "table_updates lazy_adam needs num_negatives"),
        ({"num_negatives": -1}, "num_negatives is -1"),
        ({"attention": "ring"}, "choose from sdpa, flash"),
        ({"device": "tpu"}, "choose from cpu, cuda"),
        ({"rows": 0}, "rows is 0"),
        ({"attention": "flash", "device": "cpu"}, "flash-attention runs on GPUs"),
        ({"attention": "flash", "precision": "fp32"}, "flash-attention runs on GPUs"),
    ],
)
def test_work_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Work(**settings)


def test_attention_dropout_on_a_cpu_is_not_planned():
    with pytest.raises(ValueError, match="attention dropout on a CPU"):
        training_memory(config(attention_dropout=0.1), Work(device="cpu"))
    assert training_memory(config(attention_dropout=0.1), Work(device="cuda"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads /proc")
def test_the_plan_is_what_a_process_takes():
    """One small case of benchmarks/memory.py, in a fresh process."""
    benchmark = script(BENCHMARK)
    case = {"size": "98k", "items": 60_000, "rows": 16}
    measured = benchmark.run(case, [], benchmark.LIVE)
    assert peak(training_memory(*benchmark.plan(case)))[1] == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("blocks", [{"position": "relative"}, {"attention_time": True}, {"attention": "pointwise"}])
def test_biases_are_not_planned_with_flash(blocks):
    with pytest.raises(ValueError, match="flash-attention takes no biases"):
        kept_by_block(config(**blocks), Work(attention="flash"), 0)
    assert kept_by_block(config(**blocks), Work(), 0) > kept_by_block(config(), Work(), 0)


def test_variable_length_kernels_fill_heads_up_to_a_multiple_of_8():
    """Heads of 50, as 800m has them, become 56 wide: 4 tensors of bf16 a position and block, of 24 heads."""
    work = {"rows": 1, "width": 1, "attention": "flash"}
    heads_of_50 = config(hidden_size=1200, num_attention_heads=24)
    heads_of_48 = config(hidden_size=1200, num_attention_heads=25)
    kept = [kept_by_block(one, Work(**work), 0) - 4 * one.num_attention_heads for one in (heads_of_50, heads_of_48)]
    assert kept[0] - kept[1] == 4 * 2 * 24 * (56 - 50)
