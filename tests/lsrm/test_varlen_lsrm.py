"""torch's variable-length kernel as an attention, on a CPU: what is handed to it, and that a stand-in with its
signature gives what attention user by user gives. The kernel itself needs a GPU (`benchmarks/gpu.py` tries it there).
"""

import inspect
import itertools

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from transformers import DataCollatorWithFlattening
from varlen_kernel import stand_in

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.lsrm import varlen_lsrm
from sr_transformers.lsrm.varlen_lsrm import TORCH_VARLEN, torch_varlen_attention

REAL = varlen.varlen_attn
LENGTHS = (5, 9, 2, 12, 1, 7)
WINDOW, V = 16, 40


@pytest.fixture
def calls(monkeypatch):
    """What a stand-in for the kernel was called with; CPUs and all types are let through to it."""
    found = []

    def varlen_attn(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
        enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
    ):  # fmt: skip
        assert window_size == (-1, 0)  # the kernel's causal
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        assert query.shape[-1] % 8 == 0
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert type(max_q) is type(max_k) is int
        bounds = cu_seq_q.tolist()
        assert cu_seq_k.tolist() == bounds
        assert max_q == max_k == max(stop - start for start, stop in itertools.pairwise(bounds))
        found.append({"shape": tuple(query.shape), "dtype": query.dtype, "bounds": bounds})
        return stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)

    def named(function):
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    assert named(varlen_attn) == named(REAL)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    monkeypatch.setattr(varlen_lsrm, "DEVICES", ("cpu",))
    monkeypatch.setattr(varlen_lsrm, "DTYPES", (torch.float64, torch.float32, torch.bfloat16))
    return found


def tiny(attention, **more):
    torch.manual_seed(0)
    settings = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
    dropout = {"embedding_dropout": 0.0, "residual_dropout": 0.0}
    config = LSRMConfig(vocab_size=V, max_position_embeddings=WINDOW, **{**settings, **dropout, **more})
    return LSRMForCausalLM._from_config(config, attn_implementation=attention)


def users():
    random = torch.Generator().manual_seed(1)
    return [torch.randint(2, V, (length + 1,), generator=random) for length in LENGTHS]


def flat_row():
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    longest = max(LENGTHS)
    return {
        "input_ids": torch.cat([one[:-1] for one in users()])[None],
        "shift_labels": torch.cat([one[1:] for one in users()])[None],
        "position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None],
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest},
    }


def loss_and_gradients(model, batches):
    losses = [model(**batch, num_items_in_batch=sum(LENGTHS), use_cache=False).loss for batch in batches]
    sum(losses).backward()
    return sum(losses).detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def one_by_one(**more):
    alone = [{"input_ids": one[None, :-1], "shift_labels": one[None, 1:]} for one in users()]
    return loss_and_gradients(tiny("sdpa", **more).double().train(), alone)


@pytest.mark.parametrize(
    "blocks",
    [
        {},  # heads of 10, which the kernel wants filled up to 16
        {"hidden_size": 16, "position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated"},
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_flat_row_is_the_loop_over_its_users(calls, blocks, checkpointing):
    expected, gradients = one_by_one(**blocks)
    model = tiny(TORCH_VARLEN, **blocks).double().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    loss, found = loss_and_gradients(model, [flat_row()])
    width = -(-model.config.hidden_size // 2 // 8) * 8
    bounds = [0, *itertools.accumulate(LENGTHS)]
    assert calls == (4 if checkpointing else 2) * [
        {"shape": (sum(LENGTHS), 2, width), "dtype": torch.float64, "bounds": bounds}
    ]
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-9, atol=1e-12, msg=name)


def test_under_autocast_it_is_as_near_as_bf16_allows(calls):
    expected, gradients = one_by_one()
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = loss_and_gradients(tiny(TORCH_VARLEN).train(), [flat_row()])
    assert {call["dtype"] for call in calls} == {torch.bfloat16}
    torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=0)
    for name, gradient in found.items():
        error = (gradient.double() - gradients[name]).norm()
        # Of softmax's own invariance: the gradient of what all keys share is zero.
        assert error < 0.05 * gradients[name].norm() or name.endswith("k_proj.bias"), name


def test_transformers_own_collator_says_all_that_it_needs(calls):
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    batch = dict(collator([{"input_ids": one.tolist()} for one in users()]))
    found = tiny(TORCH_VARLEN).train()(**batch, use_cache=False).loss
    assert len(calls) == 2
    packed = {name: batch[name] for name in ("input_ids", "position_ids", "labels")}
    torch.testing.assert_close(found, tiny("sdpa").train()(**packed, use_cache=False).loss)


def test_no_user_of_a_flat_row_moves_another(calls):
    model, batch = tiny(TORCH_VARLEN).train(), flat_row()
    before = model(**batch, use_cache=False, skip_logits=False).logits
    batch["input_ids"][0, :5] = 7
    after = model(**batch, use_cache=False, skip_logits=False).logits
    torch.testing.assert_close(before[:, 5:], after[:, 5:], rtol=0, atol=0)
    assert not torch.allclose(before[:, :5], after[:, :5])


class CapturedError(Exception):
    """Ends a compilation that has got as far as a graph."""


def test_the_compiler_sees_it_as_a_part_of_one_graph(monkeypatch):
    monkeypatch.setattr(varlen_lsrm, "DEVICES", ("cpu",))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        raise CapturedError

    model = torch.compile(tiny(TORCH_VARLEN).train().model, backend=backend, fullgraph=True)
    batch = {name: one for name, one in flat_row().items() if name != "shift_labels"}
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(Exception, match="CapturedError"):
        model(**batch, use_cache=False)
    kernels = [str(node.target) for node in graphs[0].graph.nodes if "varlen_attn" in str(node.target)]
    assert kernels == 2 * ["torch_attn._varlen_attn"]
    torch._dynamo.reset()


@pytest.mark.parametrize("head_size", [50, 64])
def test_torchs_own_operator_takes_what_it_is_given(head_size, monkeypatch):
    """With shapes and types alone, as the compiler runs it: schemas, the form of the result, and backward."""
    monkeypatch.setattr(varlen_lsrm, "DEVICES", ("cpu",))
    with FakeTensorMode():
        states = [torch.empty(1, 4, 30, head_size, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        bounds = torch.empty(5, dtype=torch.int64)
        lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 9, "max_length_k": 9}
        output, weights = torch_varlen_attention(nn.Module(), *states, None, 0.1, **lengths)
        assert weights is None
        assert (output.shape, output.dtype) == ((1, 30, 4, head_size), torch.bfloat16)
        gradients = torch.autograd.grad(output, states, torch.empty_like(output))
        assert [one.shape for one in gradients] == 3 * [states[0].shape]


ROW = {"cu_seq_lens_q": torch.tensor([0, 3]), "cu_seq_lens_k": torch.tensor([0, 3])}
ROW |= {"max_length_q": 3, "max_length_k": 3}


@pytest.mark.parametrize(
    ("shape", "dtype", "device", "more", "message"),
    [
        ((1, 2, 3, 8), torch.bfloat16, "cpu", {}, "runs on CUDA GPUs, not on cpu; use sdpa"),
        ((1, 2, 3, 8), torch.bfloat16, "cuda", {"cu_seq_lens_q": None}, "and cu_seq_lens_q did not come: use layout"),
        ((1, 2, 3, 8), torch.bfloat16, "cuda", {"max_length_k": None}, "and max_length_k did not come"),
        ((1, 2, 3, 8), torch.bfloat16, "cuda", {"dropout": 0.1}, "set attention_dropout to 0"),
        ((1, 2, 3, 8), torch.float32, "cuda", {}, "in bf16 or fp16, not in torch.float32; use precision bf16"),
        ((1, 2, 3, 8), torch.float64, "cuda", {}, "not in torch.float64"),
        ((1, 2, 3, 264), torch.bfloat16, "cuda", {}, "heads of width 256 at most, not 264"),
        ((2, 2, 3, 8), torch.bfloat16, "cuda", {}, "one flat row without padding"),
        ((1, 2, 3, 8), torch.bfloat16, "cuda", {"attention_mask": torch.ones(1, 3)}, "one flat row without padding"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(shape, dtype, device, more, message):
    with FakeTensorMode():
        states = [torch.empty(shape, dtype=dtype, device=device) for _ in range(3)]
    given = {"attention_mask": None, "scaling": 1.0, **ROW, **more}
    with pytest.raises(ValueError, match=message):
        torch_varlen_attention(nn.Module(), *states, **given)


def test_queries_of_a_cache_are_refused():
    query, key = torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 3, 8)
    with pytest.raises(ValueError, match="without padding, mask or cache"):
        torch_varlen_attention(nn.Module(), query, key, key, None, 1.0, **ROW)


def test_training_on_rows_is_refused():
    model = tiny(TORCH_VARLEN).train()
    with pytest.raises(ValueError, match="did not come: use layout flat"):
        model(users()[0][None], labels=users()[0][None])


def test_outside_of_training_the_model_answers_as_with_sdpa(calls):
    """Padding, last items alone, several users in a row, a cache, and `generate`."""
    ours, theirs = tiny(TORCH_VARLEN).eval(), tiny("sdpa").eval()
    assert ours.config._attn_implementation == TORCH_VARLEN
    ids = torch.stack([users()[1], users()[3][:10]])
    ids[0, :4] = 0
    mask = ids.ne(0).long()
    packed = {name: flat_row()[name] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        for inputs in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[1:]}, packed):
            torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits)
        last = [one.model(ids, attention_mask=mask, last_only=True).last_hidden_state for one in (ours, theirs)]
        torch.testing.assert_close(*last)
        made = [one.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False) for one in (ours, theirs)]
    assert made[0].tolist() == made[1].tolist()
    assert not calls
    assert ours.config._attn_implementation == TORCH_VARLEN
    with torch.no_grad():  # unless it is told where users begin
        torch.testing.assert_close(ours(**flat_row(), skip_logits=False).logits, theirs(**packed).logits)
    assert len(calls) == 2
