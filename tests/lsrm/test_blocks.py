"""What every choice of a block keeps: packing, padding, cache, generation, gradients, saving, counts."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, StaticCache

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.lsrm.attention_lsrm import pointwise_attention
from sr_transformers.lsrm.biases_lsrm import distance_class, time_class
from sr_transformers.planning.weights import parameter_counts
from sr_transformers.training.finish import count_parameters

V, WINDOW = 60, 16
BLOCKS = {
    "rotary": {"position": "rotary"},
    "relative": {"position": "relative"},
    "pointwise": {"attention": "pointwise"},
    "rms": {"norm": "rms"},
    "swiglu": {"hidden_act": "swiglu"},
    "gated": {"residual": "gated"},
    "time": {"attention_time": True},
    "scaled": {"head": "scaled"},
    "normalised": {"head": "normalised"},
    "pointwise with biases": {"position": "relative", "attention_time": True, "attention": "pointwise"},
    "rotary with all": {"position": "rotary", "norm": "rms", "hidden_act": "swiglu", "residual": "gated",
                        "attention_time": True, "head": "scaled"},
    "relative with all": {"position": "relative", "norm": "rms", "hidden_act": "swiglu", "residual": "gated",
                          "attention_time": True, "head": "normalised"},
}  # fmt: skip
every = pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
both = pytest.mark.parametrize("attn", ["eager", "sdpa"])


def tiny(blocks, attn="sdpa", **overrides):
    """A model of which every parameter matters: what begins as zero has other values."""
    settings = {
        "vocab_size": V,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": WINDOW,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "initializer_range": 0.3,
        "time_unit": 50.0,
    }
    torch.manual_seed(0)
    model = LSRMForCausalLM._from_config(LSRMConfig(**{**settings, **blocks, **overrides}), attn_implementation=attn)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.5)
        model.model.embed_tokens.weight[0] = 0.0
    return model


def items(*shape, seed=1):
    return torch.randint(2, V, shape, generator=torch.Generator().manual_seed(seed))


def moments(*shape, seed=1):
    """Unix seconds that rise along the last dimension, some of them equal."""
    gaps = torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(seed)) ** 4
    return 1_700_000_000 + gaps.cumsum(-1)


def timed(model, given):
    """Moments as an argument, for a model that reads them."""
    return {"moments": given} if model.config.attention_time else {}


# Packing

LENGTHS = (5, 9, 2, 12, 1, 7)
ROWS = [[1, 2], [3], [0, 5, 4]]


def one_by_one(model):
    total = 0
    for member, length in enumerate(LENGTHS):
        ids = items(length + 1, seed=10 + member)
        total = (
            total
            + model(
                input_ids=ids[None, :-1],
                shift_labels=ids[None, 1:],
                num_items_in_batch=1,
                use_cache=False,
                **timed(model, moments(1, length, seed=10 + member)),
            ).loss
        )
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def packed():
    batch = {key: torch.zeros(3, 13, dtype=torch.long) for key in ("input_ids", "position_ids", "labels", "moments")}
    batch["labels"] -= 100
    for row, members in enumerate(ROWS):
        place = 0
        for member in members:
            length = LENGTHS[member]
            ids, stop = items(length + 1, seed=10 + member), place + LENGTHS[member]
            batch["input_ids"][row, place:stop] = ids[:-1]
            batch["labels"][row, place:stop] = ids[1:]
            batch["position_ids"][row, place:stop] = torch.arange(length)
            batch["moments"][row, place:stop] = moments(length, seed=10 + member)
            place = stop
    return batch


@every
@both
def test_packed_equals_one_by_one_in_loss_and_gradient(blocks, attn):
    expected, gradients = one_by_one(tiny(blocks, attn).double().train())
    model, batch = tiny(blocks, attn).double().train(), packed()
    given, labels = timed(model, batch.pop("moments")), batch.pop("labels")
    loss = model(**batch, **given, shift_labels=labels, num_items_in_batch=1, use_cache=False).loss
    loss.backward()
    # Eager attention takes its softmax in float32, whatever the model's type is.
    close = {"rtol": 1e-6, "atol": 1e-5} if attn == "eager" else {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-8 if attn == "eager" else 1e-9, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], **close, msg=name)
        assert parameter.grad.any(), f"{name} learns nothing"


@every
@both
@pytest.mark.parametrize("use_cache", [False, True])
def test_no_user_in_a_row_moves_another_and_nothing_looks_ahead(blocks, attn, use_cache):
    model, batch = tiny(blocks, attn).eval(), packed()
    del batch["labels"]
    changed = copy.deepcopy(batch)
    changed["input_ids"][0, 3:9] = items(6, seed=77)  # of the first user of the first row, from the fourth item on
    changed["moments"][0, 3:9] += 10_000
    for one in (batch, changed):
        one.update(timed(model, one.pop("moments")))
    before, after = (model(**one, use_cache=use_cache).logits for one in (batch, changed))
    torch.testing.assert_close(before[0, 9:], after[0, 9:], rtol=0, atol=0)
    torch.testing.assert_close(before[0, :3], after[0, :3], rtol=0, atol=0)
    torch.testing.assert_close(before[1:], after[1:], rtol=0, atol=0)
    assert not torch.allclose(before[0, 3:9], after[0, 3:9])


@pytest.mark.parametrize("blocks", ["rotary", "rms", "swiglu", "gated", "scaled", "normalised"])
def test_one_flat_row_without_a_mask_of_numbers(blocks):
    """As kernels of variable length read it: users are told apart by their positions alone."""
    whole, alone = tiny(BLOCKS[blocks], "flex_attention").eval(), tiny(BLOCKS[blocks]).eval()
    rows = [items(length, seed=10 + member) for member, length in enumerate(LENGTHS)]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        found = whole(torch.cat(rows)[None], position_ids=positions, use_cache=False).logits[0]
    expected = torch.cat([alone(ids[None]).logits[0] for ids in rows])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# Padding, cache, generation


@every
@both
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_moves_nothing(blocks, attn, side):
    model, ids, at = tiny(blocks, attn).eval(), items(1, 6), moments(1, 6)
    padding = torch.zeros(1, 4, dtype=torch.long)
    cat = (lambda one: torch.cat([padding, one], 1)) if side == "left" else (lambda one: torch.cat([one, padding], 1))
    mask = cat(torch.ones_like(ids))
    logits = model(cat(ids), attention_mask=mask, **timed(model, cat(at))).logits[mask.bool()]
    torch.testing.assert_close(logits, model(ids, **timed(model, at)).logits[0], rtol=1e-5, atol=1e-5)


@every
@both
def test_the_cache_gives_the_same_logits(blocks, attn):
    """Three items, then one by one, then two."""
    model, ids, at = tiny(blocks, attn).eval(), items(2, 8), moments(2, 8)
    whole = model(ids, **timed(model, at)).logits
    for cache in (None, StaticCache(config=model.config, max_cache_len=WINDOW)):
        steps = []
        for begin, end in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 8)):
            output = model(ids[:, begin:end], past_key_values=cache, use_cache=True, **timed(model, at[:, :end]))
            cache = output.past_key_values
            steps.append(output.logits)
        torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)


@every
@both
def test_the_last_position_alone_is_the_last_of_all(blocks, attn):
    model, ids, at = tiny(blocks, attn).eval(), items(3, 9), moments(3, 9)
    whole = model.model(ids, use_cache=False, **timed(model, at)).last_hidden_state[:, -1:]
    alone = model.model(ids, use_cache=False, last_only=True, **timed(model, at)).last_hidden_state
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)


@every
def test_generate_equals_choosing_the_best_item_by_hand(blocks):
    """Up to the window and beyond it; what comes has the moment of the last item."""
    model = tiny(blocks).eval()
    prompt, at = items(2, 11), moments(2, 11)
    prompt[1, :3], mask = 0, torch.ones(2, 11, dtype=torch.long)
    mask[1, :3] = 0
    settings = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": [0, 1], "pad_token_id": 0}
    expected = []
    for row in range(2):
        ids, when = prompt[row][mask[row].bool()], at[row][mask[row].bool()]
        for _ in range(8):
            logits = model(ids[None, -WINDOW:], **timed(model, when[None, -WINDOW:])).logits[0, -1]
            ids, when = torch.cat([ids, logits.argmax()[None]]), torch.cat([when, when[-1:]])
        expected.append(ids[-8:])
    for cache in ({"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"}):
        when = {"times": at} if model.config.attention_time else {}
        found = model.generate(prompt, attention_mask=mask, **when, **settings, **cache)
        assert torch.equal(found[:, -8:], torch.stack(expected)), cache


# Loss, logits, weights


@every
def test_the_chunked_loss_is_that_of_the_logits(blocks):
    model, ids = tiny(blocks).double().eval(), items(3, 9)
    output = model(ids, labels=ids, **timed(model, moments(3, 9)))
    plain = nn.functional.cross_entropy(output.logits[:, :-1, 2:].flatten(0, 1), ids[:, 1:].flatten() - 2)
    assert output.loss.item() == pytest.approx(plain.item(), abs=1e-10)


@every
def test_activation_checkpointing_changes_no_gradient(blocks):
    ids, at = items(2, 9), moments(2, 9)
    plain, saving = tiny(blocks).train(), tiny(blocks).train()
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model(ids, labels=ids, use_cache=False, **timed(model, at)).loss.backward()
    for (name, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


@every
def test_saved_and_loaded_it_is_the_same(blocks, tmp_path):
    model, ids, at = tiny(blocks).eval(), items(2, 9), moments(2, 9)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for key, value in blocks.items():
        assert getattr(again.config, key) == value
    assert set(again.state_dict()) == set(model.state_dict())
    assert torch.equal(again(ids, **timed(model, at)).logits, model(ids, **timed(model, at)).logits)


@every
@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_counted_before_they_exist(blocks, tie):
    model = LSRMForCausalLM(LSRMConfig(vocab_size=V, num_hidden_layers=3, tie_word_embeddings=tie, **blocks))
    counted = count_parameters(model)
    assert counted == parameter_counts(model.config)
    assert counted["blocks"] == model.config.num_non_embedding_parameters
    assert sum(counted.values()) == sum(one.numel() for one in model.parameters())


def test_swiglu_and_gates_have_equal_n():
    plain = LSRMConfig(hidden_size=96)
    assert LSRMConfig(hidden_size=96, hidden_act="swiglu").inner_size == 256
    for blocks in ({"hidden_act": "swiglu"}, {"residual": "gated", "intermediate_size": 3 * 96}):
        assert LSRMConfig(hidden_size=96, **blocks).num_non_embedding_parameters == plain.num_non_embedding_parameters
    n = LSRMConfig(hidden_size=64, hidden_act="swiglu").num_non_embedding_parameters
    assert n == pytest.approx(LSRMConfig(hidden_size=64).num_non_embedding_parameters, rel=0.011)
    assert LSRMConfig(hidden_size=4, num_attention_heads=1, intermediate_size=2, hidden_act="swiglu").inner_size == 8


def test_a_model_begins_as_one_without_what_begins_at_zero():
    """Biases and the temperature of a scaled head change nothing at first."""
    ids, at = items(2, 9), moments(2, 9)
    torch.manual_seed(0)
    plain = LSRMForCausalLM(LSRMConfig(vocab_size=V)).eval()
    for blocks in ({"head": "scaled"}, {"attention_time": True}):
        torch.manual_seed(0)
        other = LSRMForCausalLM(LSRMConfig(vocab_size=V, **blocks)).eval()
        other.load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(other(ids, **timed(other, at)).logits, plain(ids).logits)


def test_the_default_is_the_model_of_the_paper():
    """Neither more weights than GPT-2 has, nor others; a checkpoint that knows nothing of the keys loads."""
    known = LSRMConfig(vocab_size=V).to_dict()
    for key in ("position", "attention", "norm", "residual", "attention_time", "head"):
        del known[key]
    model = LSRMForCausalLM(LSRMConfig.from_dict(known))
    layer = {name.split(".", 3)[3].rsplit(".", 1)[0] for name in model.state_dict() if ".layers.0." in name}
    assert layer == {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj",
        "input_layernorm", "post_attention_layernorm",
    }  # fmt: skip
    assert {name for name in model.state_dict() if ".layers." not in name} == {
        "model.embed_tokens.weight", "model.embed_positions.weight", "model.norm.weight", "model.norm.bias",
        "lm_head.weight",
    }  # fmt: skip


# The arithmetic, written out in float64


def test_a_block_is_what_its_papers_say():
    """RMSNorm, SwiGLU, gated residuals and rotary positions of one layer, number by number."""
    model = tiny({"norm": "rms", "hidden_act": "swiglu", "residual": "gated", "position": "rotary"},
                 num_hidden_layers=1).double().eval()  # fmt: skip
    layer, ids = model.model.layers[0], items(1, 7)

    def rms(norm, x):
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight

    x = model.model.embed_tokens(ids)[0]
    normed, attention = rms(layer.input_layernorm, x), layer.self_attn
    heads = []
    for head in range(2):
        part = slice(head * 8, head * 8 + 8)
        q, k, v = (getattr(attention, f"{name}_proj")(normed)[:, part] for name in "qkv")
        angles = torch.arange(7.0)[:, None].double() * torch.tensor([10_000.0 ** (-pair / 4) for pair in range(4)])
        turn = torch.polar(torch.ones_like(angles), angles)
        q, k = (torch.complex(one[:, :4], one[:, 4:]) * turn for one in (q, k))
        scores = (q @ k.conj().T).real / math.sqrt(8)
        heads.append(scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf).softmax(-1) @ v)
    x = x + layer.attention_gate(x).sigmoid() * attention.o_proj(torch.cat(heads, 1))
    normed = rms(layer.post_attention_layernorm, x)
    gate = layer.mlp.gate_proj(normed)
    inner = gate * gate.sigmoid() * layer.mlp.up_proj(normed)
    x = x + layer.mlp_gate(x).sigmoid() * layer.mlp.down_proj(inner)
    expected = rms(model.model.norm, x) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids).logits[0, :, 2:], expected[:, 2:], rtol=1e-5, atol=1e-5)


def test_heads_are_cosines_and_products_over_a_temperature():
    ids = items(2, 5)
    for blocks in ({"head": "scaled"}, {"head": "normalised"}):
        model = tiny(blocks).double().eval()
        states, table = [], model.model.embed_tokens.weight
        model.model.norm.register_forward_hook(lambda module, inputs, output, states=states: states.append(output))
        logits, (state,) = model(ids).logits, states
        scale = model.model.temperature.log_scale.exp()
        if blocks["head"] == "normalised":
            state, table = state / state.norm(dim=-1, keepdim=True), table / table.norm(dim=-1, keepdim=True)
            scale = scale / 0.07
        torch.testing.assert_close(logits[..., 2:], (state @ table.T * scale)[..., 2:])


@pytest.mark.parametrize("blocks", [BLOCKS["relative"], BLOCKS["time"], {**BLOCKS["relative"], **BLOCKS["time"]}])
def test_biases_are_those_of_distance_and_time(blocks):
    """The weights of attention, pair by pair."""
    model, ids, at = tiny(blocks, "eager").double().eval(), items(2, 9), moments(2, 9)
    weights = model(ids, output_attentions=True, **timed(model, at)).attentions
    bias = model.model.attention_bias
    without = tiny({"position": model.config.position}, "eager").double().eval()
    without.load_state_dict(model.state_dict(), strict=False)
    if without.model.attention_bias is not None:
        without.model.attention_bias.by_distance.weight.data.zero_()
    plain = without(ids, output_attentions=True).attentions[0]  # the first layer's input is the same
    for row in range(2):
        for head in range(2):
            for query in range(9):
                added = torch.zeros(query + 1, dtype=torch.float64)
                for key in range(query + 1):
                    if bias.by_distance is not None:
                        added[key] += bias.by_distance.weight[distance_class(torch.tensor(query - key)), head]
                    if bias.by_time is not None:
                        gap = at[row, query] - at[row, key]
                        added[key] += bias.by_time.weight[time_class(gap, 50.0), head]
                expected = plain[row, head, query, : query + 1] * added.exp()
                torch.testing.assert_close(weights[0][row, head, query, : query + 1], expected / expected.sum())


def test_pointwise_attention_is_a_mean_over_what_is_seen():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    mask[1, 0, 2:, :2] = False  # another user
    bias = torch.randn(1, 2, 5, 5, dtype=torch.float64).masked_fill(~mask, torch.finfo(torch.float64).min / 2)
    for given in (mask, bias):
        found = pointwise_attention(nn.Module(), query, key, value, given, 0.5)[0]
        for row, head, place in itertools.product(range(2), range(2), range(5)):
            seen = mask[row, 0, place].nonzero()[:, 0].tolist()
            scores = [0.5 * (query[row, head, place] @ key[row, head, one]) for one in seen]
            if given is bias:
                scores = [score + bias[row, head, place, one] for score, one in zip(scores, seen, strict=True)]
            parts = [s * s.sigmoid() * value[row, head, one] for s, one in zip(scores, seen, strict=True)]
            torch.testing.assert_close(found[row, place, head], sum(parts) / len(seen))


def test_classes_widen():
    distances = distance_class(torch.arange(200)).tolist()
    assert distances[:16] == list(range(16))
    assert distances[16:] == sorted(distances[16:])
    assert [distances[at] for at in (16, 31, 32, 127, 128, 199)] == [16, 21, 21, 31, 31, 31]
    times = time_class(torch.tensor([0, 1, 12, 13, 25, 50, 100, 10**12]), 100.0).tolist()
    assert times == [0, 1, 1, 2, 3, 4, 5, 23]


# What cannot be done is refused


@pytest.mark.parametrize("blocks", [BLOCKS["relative"], BLOCKS["time"]], ids=["position relative", "attention_time"])
def test_biases_are_refused_by_attention_without_them(blocks, request):
    model = tiny(blocks, "flex_attention").eval()
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"{name} works with eager and sdpa attention, not flex_attention"):
        model(items(1, 5), **timed(model, moments(1, 5)))


def test_pointwise_attention_is_refused_by_other_backends():
    with pytest.raises(ValueError, match="attention pointwise works with eager and sdpa, not flex_attention"):
        tiny(BLOCKS["pointwise"], "flex_attention")(items(1, 5))


@pytest.mark.parametrize("number", [4, 6])
def test_as_many_moments_as_items(number):
    with pytest.raises(ValueError, match="pass moments, one for each item that attention sees"):
        tiny(BLOCKS["time"])(items(1, 5), moments=moments(1, number))
    with pytest.raises(ValueError, match=rf"times has the shape \(1, {number}\); it must be \(1, 5\)"):
        tiny(BLOCKS["time"])(items(1, 5), times=moments(1, number))


def test_an_untied_cosine_head_is_not_resized():
    with pytest.raises(ValueError, match="cannot be resized"):
        tiny(BLOCKS["normalised"], tie_word_embeddings=False).resize_token_embeddings(V + 5)
    model = tiny(BLOCKS["normalised"])
    model.resize_token_embeddings(V + 5)
    assert type(model.lm_head).__name__ == "CosineHead"
    assert model.lm_head.weight is model.model.embed_tokens.weight
