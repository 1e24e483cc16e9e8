"""History inside the softmax, against a reference that counts item by item and builds every score."""

import copy
import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from made_history import UNIT, V, make
from transformers import DynamicCache, StaticCache

from sr_transformers.data.past_inputs import Past, PastInputs
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm.configuration_lsrm import HISTORY_PARTS, NEEDS_TIMES, LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

TABLES = (("recency", 84), ("baskets", 84), ("bigrams", 3))


def pasts() -> list[Past]:
    rng = np.random.default_rng(0)
    made = [Past(rng.integers(2, 12, n), np.sort(rng.integers(0, 40, n))) for n in (5, 20, 40)]
    made[1].items[4] = 1  # unknown: it stands in its place and is no own item
    return made


def packed(config: LSRMConfig) -> tuple[dict, list]:
    """Three windows in two rows, and where each stands: (past, start, size, row, place)."""
    users, windows = pasts(), np.array([[0, 0, 4], [1, 8, 8], [2, 30, 8]])
    lines, places = np.array([0, 1, 0]), np.array([0, 0, 4])
    batch = {name: torch.zeros(2, 12, dtype=torch.long) for name in ("input_ids", "position_ids")}
    batch["shift_labels"] = torch.full((2, 12), -100)
    where = [(users[u], s, n, row, p) for (u, s, n), row, p in zip(windows.tolist(), lines, places, strict=True)]
    for past, s, n, row, p in where:
        batch["input_ids"][row, p : p + n] = torch.from_numpy(past.items[s : s + n])
        batch["position_ids"][row, p : p + n] = torch.arange(n)
        batch["shift_labels"][row, p : p + n] = torch.from_numpy(past.items[s + 1 : s + n + 1])
    ends = zip(users, (windows[:, 1] + windows[:, 2]).tolist(), strict=True)
    read = [Past(past.items[:end], past.times[: end + config.query_time]) for past, end in ends]
    read = read if config.needs_times else [Past(past.items) for past in read]
    return {**batch, **PastInputs(config)(windows[:, 2], read, lines, places, (2, 12))}, where


def count_class(count: int) -> int:
    return sum(count >= bound for bound in (2, 3, 4, 6, 9, 16))


def power(value: float, classes: int) -> int:
    return min(math.floor(math.log2(max(value, 1))), classes - 1)


def added(model: LSRMForCausalLM, past: Past, q: int, hidden: torch.Tensor) -> torch.Tensor:
    """`(V,)`: what is added to all scores after the interaction q, counted out of the lists; with `query_time` it is
    asked when the next one happens."""
    history, x, t = model.history, past.items.tolist(), past.times.tolist()
    now = t[q + 1] if model.config.query_time else t[q]
    scores = torch.zeros(V, dtype=hidden.dtype)
    worth = history.own_table(hidden) if history.own_parts else None
    for v in set(x[: q + 1]) - {0, 1}:
        occurrences = [k for k in range(q + 1) if x[k] == v]
        last, count = occurrences[-1], len(occurrences)
        moments = sorted({t[k] for k in occurrences})
        since = (now - t[last]) / UNIT
        cells = {"recency": count_class(count) * 12 + power(q - last + 1.25, 12)}
        cells["baskets"] = count_class(len(moments)) * 12 + (power(since * 16, 11) + 1 if since > 0 else 0)
        before = x[last - 1] if last else 0
        cells["bigrams"] = 0 if before < 2 else 1 if before == x[q] else 2 if q and before == x[q - 1] else 0
        begin = 0
        for name, size in TABLES:
            if name in history.parts:
                scores[v] += 2 * worth[begin + cells[name]]
                begin += size
        timed = model.config.needs_times
        if "items" in history.parts and (since > 0 or not timed):
            again, more = history.item_table.weight[v]
            scores[v] += 2 * (again + more * (count_class(len(moments) if timed else count) - 2))
    return scores


SELECTIONS = [HISTORY_PARTS, ("recency", "bigrams", "items"), ("baskets",), ("items", "clock")]


@pytest.mark.parametrize(
    ("parts", "query_time"),
    [(parts, asked) for parts in SELECTIONS for asked in (False, True) if not asked or set(parts) & set(NEEDS_TIMES)],
)
def test_scores_are_those_counted_item_by_item(parts, query_time):
    model = make(parts, query_time=query_time).double()
    batch, where = packed(model.config)
    base = {name: batch[name] for name in ("input_ids", "position_ids", "clock") if name in batch}
    hidden = model.model(**base).last_hidden_state
    plain, found, some = model.score_items(hidden), model(**batch).logits, False
    for past, start, size, row, place in where:
        for step in range(size):
            extra = added(model, past, start + step, hidden[row, place + step])
            some |= bool(extra.any())
            expected = plain[row, place + step] + extra
            torch.testing.assert_close(found[row, place + step, 2:], expected[2:], rtol=1e-6, atol=1e-6)
    assert some


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("sizes", [(1 << 26, 1024, 2048), (64, 32, 7)], ids=["whole", "in blocks"])
def test_loss_and_gradients_are_those_of_the_logits(dtype, bound, sizes, monkeypatch):
    monkeypatch.setattr("sr_transformers.lsrm.loss_lsrm._CPU_SIZES", sizes)
    model = make().to(dtype)
    batch, _ = packed(model.config)
    out = model(**batch)
    reference = torch.nn.functional.cross_entropy(
        out.logits[..., 2:].flatten(0, 1), batch["shift_labels"].flatten() - 2, ignore_index=-102
    )
    assert out.loss.item() == pytest.approx(reference.item(), rel=bound)
    ours = torch.autograd.grad(out.loss, list(model.parameters()), retain_graph=True)
    theirs = torch.autograd.grad(reference, list(model.parameters()))
    scale = max(one.abs().max() for one in theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=float(scale) * bound)
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(reference.item(), rel=bound)


def test_a_head_that_is_called_has_the_same_loss():
    model = make()
    batch, _ = packed(model.config)
    expected = model(**batch).loss
    model.lm_head.register_forward_hook(lambda *_: None)
    assert model(**batch).loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_history_nothing_is_there():
    model = make(())
    assert model.history is None
    assert model.model.clock is None
    assert not any("history" in name or "clock" in name for name in model.state_dict())


def test_a_fresh_model_with_history_is_the_model_without():
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
    with_history = LSRMForCausalLM(LSRMConfig(vocab_size=V, history=list(HISTORY_PARTS), **sizes)).eval()
    plain = LSRMForCausalLM(LSRMConfig(vocab_size=V, **sizes)).eval()
    plain.load_state_dict({k: v for k, v in with_history.state_dict().items() if k in plain.state_dict()})
    batch, _ = packed(with_history.config)
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    torch.testing.assert_close(with_history(**batch).logits, plain(**inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [HISTORY_PARTS, ("recency", "bigrams", "items")], ids="-".join)
def test_scorer_reads_the_whole_past(parts):
    """Ranking, by states and through the model's own forward, against the counted reference."""
    model = make(parts)
    users = pasts()
    known = [Past(p.items[p.items > 1], p.times[p.items > 1]) for p in users]
    times = [p.times for p in known] if model.config.needs_times else None
    scores = ModelScorer(model).score([p.items for p in known], times=times)

    class Called(LSRMForCausalLM):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    called = Called(model.config).eval()
    called.load_state_dict(model.state_dict())
    again = ModelScorer(called).score([p.items for p in known], times=times)
    torch.testing.assert_close(scores[:, 2:], again[:, 2:], rtol=1e-5, atol=1e-5)
    for row, past in enumerate(known):
        window = torch.from_numpy(past.items[-8:])[None]
        alone = ModelScorer(model).score([past.items], times=None if times is None else [past.times])
        torch.testing.assert_close(alone[0, 2:], scores[row, 2:], rtol=1e-5, atol=1e-5)
        if "clock" not in parts:
            state = model.model(window).last_hidden_state[0, -1]
            expected = model.score_items(state) + added(model, past, len(past.items) - 1, state)
            torch.testing.assert_close(scores[row, 2:], expected[2:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [("recency", "items", "baskets", "clock"), ("clock",)], ids="-".join)
def test_a_place_in_training_is_ranked_as_its_past_is(parts):
    """When the next interaction happens is the moment of the request in both."""
    model = make(parts, query_time=True)
    batch, where = packed(model.config)
    logits = model(**batch).logits
    past, _, size, row, place = where[0]  # its window begins where the history does
    for step in range(size):
        found = ModelScorer(model).score([past.items[: step + 1]], times=[past.times[: step + 2]])[0]
        torch.testing.assert_close(logits[row, place + step, 2:], found[2:], rtol=1e-5, atol=1e-5)
    late = np.append(past.times[:size], past.times[size - 1] + 10_000)
    moved = ModelScorer(model).score([past.items[:size]], times=[late])[0]
    assert not torch.allclose(moved[2:], found[2:], atol=1e-3)


def test_the_moment_of_the_request_is_wanted_and_needs_moments():
    model, past = make(("clock",), query_time=True), pasts()[0]
    with pytest.raises(
        ValueError, match=r"a moment for each item, and at last that of the request .*; 5 were given for 5"
    ):
        ModelScorer(model).score([past.items], times=[past.times])
    with pytest.raises(ValueError, match=r"told when it is asked .*pass the moment of the request too"):
        model(torch.tensor([[3, 4]]), clock=torch.zeros(1, 2, 2))
    with pytest.raises(StrictDataclassClassValidationError, match="query_time is true, and no part of history reads"):
        LSRMConfig(history=["recency"], query_time=True)
    with pytest.raises(
        StrictDataclassClassValidationError, match="times_in is 'h'; choose from s, ms, us, ns, or null"
    ):
        LSRMConfig(times_in="h")


def test_ids_alone_are_the_whole_history():
    """With input_ids and nothing else, padding on either side and without a mask, as with the same past given."""
    model = make(("recency", "bigrams", "items"))
    items = [p.items[:6] for p in pasts()[1:]]
    expected = ModelScorer(model).score(items)
    ids = torch.from_numpy(np.stack(items))
    torch.testing.assert_close(model(ids).logits[:, -1, 2:], expected[:, 2:], rtol=1e-5, atol=1e-5)
    left = torch.nn.functional.pad(ids, (2, 0))
    found = model(left, attention_mask=(left != 0).long(), logits_to_keep=1).logits[:, -1]
    torch.testing.assert_close(found[:, 2:], expected[:, 2:], rtol=1e-5, atol=1e-5)
    right = torch.nn.functional.pad(ids, (0, 2))
    found = model(right, attention_mask=(right != 0).long(), logits_to_keep=torch.tensor([5])).logits[:, 0]
    torch.testing.assert_close(found[:, 2:], expected[:, 2:], rtol=1e-5, atol=1e-5)


def test_generate_counts_what_it_has_generated():
    model = make(("recency", "bigrams", "items"))
    ids = torch.from_numpy(pasts()[2].items[:4])[None]
    cached = model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=True)  # beyond the window of 8
    history = ids[0].tolist()
    for _ in range(8):
        history.append(int(ModelScorer(model).score([np.array(history)])[0].argmax()))
    assert cached[0].tolist() == history


def test_what_cannot_be_is_refused():
    with pytest.raises(Exception, match=r"history is .'recent'.; choose from recency, bigrams"):
        LSRMConfig(history=["recent"])
    with pytest.raises(Exception, match="each once"):
        LSRMConfig(history=["recency", "recency"])
    model = make()
    with pytest.raises(ValueError, match="pass times, one moment for each"):
        model(torch.tensor([[4, 5]]))
    with pytest.raises(ValueError, match="give their times"):
        ModelScorer(model).score([np.array([4, 5])])
    counting = make(("recency",))
    for cache in (DynamicCache(config=counting.config), StaticCache(config=counting.config, max_cache_len=8)):
        counting(torch.tensor([[4, 5]]), past_key_values=cache, use_cache=True)  # nothing was in it
        with pytest.raises(ValueError, match="past_key_values do not hold that: pass history too"):
            counting(torch.tensor([[4]]), past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="cannot be resized"):
        make(("items",)).resize_token_embeddings(40)
    sampled = {"negative_ids": torch.tensor([3]), "negative_log_q": torch.tensor([-1.0])}
    with pytest.raises(ValueError, match="num_negatives 0"):
        make(("recency",))(torch.tensor([[4, 5]]), labels=torch.tensor([[4, 5]]), **sampled)


def test_save_and_load(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    loaded = LSRMForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    batch, _ = packed(model.config)
    assert torch.equal(copy.deepcopy(loaded).eval()(**batch).logits, model(**batch).logits)
