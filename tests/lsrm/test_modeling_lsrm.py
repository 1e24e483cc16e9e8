"""LSRM against its invariants: GPT-2's arithmetic, packing, padding, cache, backends."""

import copy
import itertools
import os
import re

import pytest
import torch
import torch.nn.attention.flex_attention
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.masking_utils import flash_attention_mask

from sr_transformers import LSRMConfig, LSRMForCausalLM, LSRMModel
from sr_transformers.lsrm.scoring_lsrm import only_items

V, WINDOW = 60, 16


def tiny(attn="sdpa", seed=0, **overrides):
    settings = {
        "vocab_size": V,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": WINDOW,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    return LSRMForCausalLM._from_config(LSRMConfig(**{**settings, **overrides}), attn_implementation=attn)


def items(*shape, seed=1):
    return torch.randint(2, V, shape, generator=torch.Generator().manual_seed(seed))


def as_gpt2(model):
    """transformers' GPT-2 with the weights of an LSRM."""
    config = model.config
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=V,
            n_positions=WINDOW,
            n_embd=config.hidden_size,
            n_layer=config.num_hidden_layers,
            n_head=config.num_attention_heads,
            activation_function="gelu",
            layer_norm_epsilon=config.layer_norm_eps,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    state = model.model.state_dict()
    gpt2.transformer.wte.weight.data = state["embed_tokens.weight"]
    gpt2.transformer.wpe.weight.data = state["embed_positions.weight"]
    gpt2.transformer.ln_f.load_state_dict(model.model.norm.state_dict())
    for block, layer in zip(gpt2.transformer.h, model.model.layers, strict=True):
        block.ln_1.load_state_dict(layer.input_layernorm.state_dict())
        block.ln_2.load_state_dict(layer.post_attention_layernorm.state_dict())
        attention = layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.c_attn.weight.data = torch.cat([p.weight for p in projections]).t()
        block.attn.c_attn.bias.data = torch.cat([p.bias for p in projections])
        for theirs, ours in (
            (block.attn.c_proj, attention.o_proj),
            (block.mlp.c_fc, layer.mlp.up_proj),
            (block.mlp.c_proj, layer.mlp.down_proj),
        ):
            theirs.weight.data, theirs.bias.data = ours.weight.t(), ours.bias
    gpt2.lm_head.weight = gpt2.transformer.wte.weight
    return gpt2.eval()


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_logits_and_loss_equal_gpt2(attn):
    model, ids = tiny(attn).eval(), items(4, WINDOW)
    theirs = only_items(as_gpt2(model)(ids).logits, (2, V))
    ours = model(ids, labels=ids)
    torch.testing.assert_close(ours.logits, theirs, rtol=0, atol=1e-5)
    loss = torch.nn.functional.cross_entropy(theirs[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(ours.loss, loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", ["98k", "1.5m"])
def test_the_papers_sizes_equal_gpt2(size):
    config = LSRMConfig.from_size(size, vocab_size=V, max_position_embeddings=WINDOW)
    model = LSRMForCausalLM(config).eval()
    theirs = only_items(as_gpt2(model)(items(2, 9)).logits, (2, V))
    torch.testing.assert_close(model(items(2, 9)).logits, theirs, rtol=0, atol=1e-5)


def test_no_position_sees_what_comes_later():
    model, ids = tiny().eval(), items(1, 10)
    changed = ids.clone()
    changed[0, 6:] = items(1, 4, seed=9)
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=0)
    assert not torch.allclose(before[:, 6:], after[:, 6:])


# Packing


def variable_length_attention(module, query, key, value, attention_mask, **kwargs):
    """Stands in for a flash kernel: one causal attention per sequence, told apart by cu_seq_lens alone."""
    assert attention_mask is None
    bounds = kwargs["cu_seq_lens_q"].tolist()
    assert kwargs["cu_seq_lens_k"].tolist() == bounds
    assert kwargs["max_length_q"] == max(b - a for a, b in itertools.pairwise(bounds))
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=kwargs["scaling"]
        )
        for a, b in itertools.pairwise(bounds)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register("variable_length_stub", variable_length_attention)
AttentionMaskInterface.register("variable_length_stub", flash_attention_mask)

LENGTHS = (5, 9, 2, 12, 1, 7)


def sequences():
    return [items(length + 1, seed=10 + n) for n, length in enumerate(LENGTHS)]


def one_by_one(model):
    """Summed loss over sequences, each alone in its batch, and the gradients."""
    model.zero_grad()
    total = sum(
        model(input_ids=s[None, :-1], shift_labels=s[None, 1:], num_items_in_batch=1, use_cache=False).loss
        for s in sequences()
    )
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def packed_rows():
    """The sequences in three rows of 12 places; -1 marks a place left over."""
    rows = [[1, 2, 4], [3], [0, 5]]
    batch = {key: torch.zeros(3, 12, dtype=torch.long) for key in ("input_ids", "position_ids", "shift_labels")}
    batch["shift_labels"] -= 100
    for row, members in enumerate(rows):
        place = 0
        for member in members:
            s = sequences()[member]
            stop = place + len(s) - 1
            batch["input_ids"][row, place:stop] = s[:-1]
            batch["shift_labels"][row, place:stop] = s[1:]
            batch["position_ids"][row, place:stop] = torch.arange(len(s) - 1)
            place = stop
    return batch


def flat_row():
    lengths = torch.tensor([0, *LENGTHS])
    bounds = lengths.cumsum(0).int()
    return {
        "input_ids": torch.cat([s[:-1] for s in sequences()])[None],
        "shift_labels": torch.cat([s[1:] for s in sequences()])[None],
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(LENGTHS),
        "max_length_k": max(LENGTHS),
    }


@pytest.mark.parametrize(
    ("attn", "layout"),
    [
        ("eager", packed_rows),
        ("sdpa", packed_rows),
        ("sdpa", flat_row),
        ("flex_attention", packed_rows),
        ("flex_attention", flat_row),
        ("variable_length_stub", flat_row),
    ],
)
def test_packed_equals_one_by_one_in_loss_and_gradient(attn, layout, monkeypatch):
    expected, gradients = one_by_one(tiny("eager").train())
    model = tiny(attn).train()
    # On a CPU torch refuses to differentiate flex-attention, because the compiled kernel cannot; the eager form can.
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *tensors: None)
    with torch.compiler.set_stance("force_eager"):
        loss = model(**layout(), num_items_in_batch=1, use_cache=False).loss
        loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_no_user_in_a_row_moves_another(attn, use_cache):
    model, batch = tiny(attn).eval(), packed_rows()
    changed = copy.deepcopy(batch)
    changed["input_ids"][0, :9] = items(9, seed=77)  # the first user of the first row
    before, after = (model(**b, use_cache=use_cache, skip_logits=False).logits for b in (batch, changed))
    torch.testing.assert_close(before[0, 9:], after[0, 9:], rtol=0, atol=0)
    torch.testing.assert_close(before[1:], after[1:], rtol=0, atol=0)


# Padding, window, cache


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_padding_on_either_side_moves_nothing(side, attn):
    model, ids = tiny(attn).eval(), items(1, 6)
    padding = torch.zeros(1, 4, dtype=torch.long)
    parts = [padding, ids] if side == "left" else [ids, padding]
    padded, mask = torch.cat(parts, 1), torch.cat([p.ne(0).long() for p in parts], 1)
    logits = model(padded, attention_mask=mask).logits[mask.bool()]
    torch.testing.assert_close(logits, model(ids).logits[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("labelled", ["by collators", "everywhere"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_and_gradient_do_not_depend_on_the_side_of_padding(side, labelled):
    """Histories of 2 and 9 items: 9 targets, each as if its history stood alone."""
    histories = [items(2), items(9, seed=2)]
    alone, padded = tiny().double(), tiny().double()
    losses = [alone(ids[None], labels=ids[None]).loss * (len(ids) - 1) for ids in histories]
    (sum(losses) / 9).backward()
    ids, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    for row, history in enumerate(histories):
        place = slice(9 - len(history), 9) if side == "left" else slice(0, len(history))
        ids[row, place], mask[row, place] = history, 1
    labels = ids.masked_fill(mask == 0, -100) if labelled == "by collators" else ids
    loss = padded(ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert loss.item() == pytest.approx(sum(losses).item() / 9, abs=1e-12)
    for one, two in zip(alone.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-12)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    if labelled == "by collators":
        assert padded(ids, attention_mask=mask, shift_labels=shifted).loss.item() == pytest.approx(loss.item())


def test_weights_may_be_read_by_whoever_may_read_the_configuration(tmp_path):
    for name, umask in (("ours", 0o077), ("the group's", 0o002), ("everybody's", 0o022)):
        before = os.umask(umask)
        try:
            tiny().save_pretrained(tmp_path / name, max_shard_size="10KB")
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / name).glob("*.safetensors")}
        assert len(modes) > 1
        assert set(modes.values()) == {0o666 & ~umask}


def test_a_sequence_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match=f"17 items but the model's window is {WINDOW}"):
        tiny()(items(1, WINDOW + 1))
    ids = items(1, WINDOW + 1)
    with pytest.raises(ValueError, match=f"17 items but the model's window is {WINDOW}"):
        tiny()(ids, attention_mask=torch.ones_like(ids))


def test_ids_and_embeddings_exclude_each_other():
    model = tiny()
    with pytest.raises(ValueError, match="exactly one"):
        model(items(1, 3), inputs_embeds=torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_the_cache_gives_the_same_logits_item_by_item():
    model, ids = tiny().eval(), items(2, 8)
    cache, steps = None, []
    for step in range(8):
        output = model(ids[:, step : step + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), model(ids).logits, rtol=1e-5, atol=1e-5)


def test_generate_equals_choosing_the_best_item_by_hand():
    model, ids = tiny().eval(), items(2, 5)
    expected = ids
    for _ in range(6):
        logits = model(expected).logits[:, -1]
        logits[:, :2] = -torch.inf
        expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], 1)
    settings = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [0, 1], "pad_token_id": 0}
    for cache in ({"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"}):
        mask = torch.ones_like(ids)
        assert torch.equal(model.generate(ids, attention_mask=mask, **settings, **cache), expected), cache


def test_generate_ignores_left_padding():
    model, ids = tiny().eval(), items(1, 5)
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, 5:]
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    beside = model.generate(padded, attention_mask=padded.ne(0).long(), **settings)[0, 8:]
    assert torch.equal(alone, beside)


def test_beam_search_finds_a_continuation_at_least_as_likely_as_greedy():
    model, ids = tiny().eval(), items(1, 4)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}

    def log_probability(sequence):
        return model(sequence[:, :-1]).logits.log_softmax(-1).gather(2, sequence[:, 1:, None])[0, 3:].sum()

    greedy, beam = model.generate(ids, **settings), model.generate(ids, num_beams=4, **settings)
    assert log_probability(beam) >= log_probability(greedy) - 1e-5


# What training and the ecosystem rely on


def test_training_skips_the_logits_and_evaluation_does_not():
    model, ids = tiny(), items(2, 5)
    assert model.train()(ids, labels=ids).logits is None
    assert model.train()(ids, labels=ids, skip_logits=False).logits.shape == (2, 5, V)
    assert model.eval()(ids, labels=ids).logits.shape == (2, 5, V)


def test_sampled_softmax_is_reached_through_forward():
    model, ids = tiny().eval(), items(2, 5)
    everything, log_q = torch.arange(2, V), torch.full((V - 2,), 1 / (V - 2)).log()
    full = model(ids, labels=ids).loss
    sampled = model(ids, labels=ids, negative_ids=everything, negative_log_q=log_q).loss
    torch.testing.assert_close(full, sampled)


def test_gradient_checkpointing_changes_no_gradient():
    ids = items(2, 9)
    plain, saving = tiny().train(), tiny().train()
    saving.activation_checkpointing_enable()
    for model in (plain, saving):
        model(ids, labels=ids, use_cache=False).loss.backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("blocks", [{}, {"position": "relative"}, {"attention_time": True}])
def test_neither_does_it_with_biases(blocks, reentrant):
    ids, models = items(2, 9), []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(LSRMForCausalLM(LSRMConfig(vocab_size=V, hidden_size=16, num_hidden_layers=2, **blocks)).train())
        models[-1].config.residual_dropout = models[-1].config.embedding_dropout = 0.0
    models[1].activation_checkpointing_enable({"use_reentrant": reentrant})
    times = {"times": torch.arange(9).expand(2, -1)} if blocks.get("attention_time") else {}
    for model in models:
        torch.manual_seed(1)
        model(ids, labels=ids, use_cache=False, **times).loss.backward()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_hidden_states_and_attentions_are_returned():
    output = tiny("eager").eval()(items(2, 5), output_hidden_states=True, output_attentions=True)
    assert [h.shape for h in output.hidden_states] == [(2, 5, 16)] * 4
    assert [a.shape for a in output.attentions] == [(2, 2, 5, 5)] * 3
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 2, 5))


def test_dropout_acts_in_training_only():
    model, ids = tiny(residual_dropout=(0.5, 0.1), attention_dropout=(0.3, 0.3)), items(1, 8)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_the_head_is_tied_and_stays_tied(tmp_path):
    model = tiny()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is LSRMForCausalLM
    assert again.lm_head.weight is again.model.embed_tokens.weight
    ids = items(1, 7)
    assert torch.equal(again.eval()(ids).logits, model.eval()(ids).logits)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is LSRMModel
    assert torch.equal(base.eval()(ids).last_hidden_state, model.model.eval()(ids).last_hidden_state)


def test_initial_weights_follow_the_config():
    model = LSRMForCausalLM(LSRMConfig(vocab_size=3000, initializer_range=0.02))
    assert model.model.embed_tokens.weight[2:].std().item() == pytest.approx(0.02, rel=0.05)
    assert model.model.embed_tokens.weight[0].abs().sum() == 0  # padding
    assert all(p.abs().sum() == 0 for name, p in model.named_parameters() if name.endswith("bias"))


def test_the_tensor_parallel_plan_names_every_matrix_of_a_block():
    model = tiny()
    patterns = [re.escape(name).replace(r"\*", r"\d+") for name in model.config.base_model_tp_plan]
    matrices = [
        n.removesuffix(".weight") for n, p in model.model.named_parameters() if n.startswith("layers") and p.ndim == 2
    ]
    assert matrices
    for matrix in matrices:
        assert sum(bool(re.fullmatch(pattern, matrix)) for pattern in patterns) == 1, matrix


def test_every_backend_can_be_chosen_later():
    model, ids = tiny("eager").eval(), items(1, 6)
    expected = model(ids).logits
    model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_it_compiles_to_one_graph():
    model, ids = tiny().eval(), items(1, 6)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, use_cache=False).logits, model(ids).logits)
