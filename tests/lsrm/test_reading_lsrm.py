"""Models that read the past, called as any other: ids, moments, `generate`."""

import numpy as np
import pytest
import torch
from made_history import make

from sr_transformers.evaluation.model_scorer import ModelScorer

DAY = 86_400
KINDS = {
    "ids": (("recency", "bigrams", "items"), {}),
    "moments": (("bigrams", "items", "baskets", "clock"), {}),
    "clock": (("clock",), {}),
    "attention": (("items",), {"attention_time": True}),
    "request": (("items", "baskets", "clock"), {"query_time": True}),
}


@pytest.fixture(params=KINDS)
def model(request):
    parts, more = KINDS[request.param]
    return make(parts, **more)


def rows(model, lengths):
    """Histories, left-padded, and their moments and those of the request as far as the model takes them."""
    rng = np.random.default_rng(3)
    ids, mask, times = (torch.zeros(len(lengths), max(lengths), dtype=torch.long) for _ in range(3))
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.from_numpy(rng.integers(2, 9, length))
        mask[row, -length:] = 1
        times[row, -length:] = torch.from_numpy(1_500_000_000 + np.sort(rng.integers(0, 6, length)))
    more = {"times": times} if model.config.needs_times else {}
    if model.config.query_time:
        more["query_times"] = times[:, -1] + torch.arange(len(lengths))
    return ids, mask, more


def expected(model, ids, mask, more, row):
    """Scores after a row's last item, as they are served."""
    kept = mask[row] == 1
    asked = [more["query_times"][row : row + 1]] if model.config.query_time else []
    times = torch.cat([more["times"][row][kept], *asked]).numpy() if "times" in more else None
    return ModelScorer(model).score([ids[row][kept].numpy()], times=None if times is None else [times])[0]


def close(found, wanted):
    torch.testing.assert_close(found[2:], wanted[2:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward_reads_ids_and_moments(model):
    ids, mask, more = rows(model, [4, 8, 1, 1])
    mask[3] = 0  # nothing is known of somebody
    logits = model(ids, attention_mask=mask, **more).logits
    last = model(ids, attention_mask=mask, **more, logits_to_keep=3).logits  # the history of the last places alone
    torch.testing.assert_close(last, logits[:, -3:])
    for row in range(3):
        close(logits[row, -1], expected(model, ids, mask, more, row))


@torch.no_grad()
def test_histories_may_be_longer_than_the_window(model):
    ids, mask, more = rows(model, [30, 5, 12])
    inputs = model.last_window(ids, mask, **more)
    assert inputs["input_ids"].shape == (3, 8)
    for keep in (0, 1):
        logits = model(**inputs, logits_to_keep=keep).logits
        for row in range(3):
            close(logits[row, -1], expected(model, ids, mask, more, row))


@pytest.mark.parametrize("length", [3, 12])
def test_what_is_generated_counts(model, length):
    """Within the window and beyond it, what is generated happens at the request, or at the prompt's last moment."""
    ids, mask, more = rows(model, [length, length - 1])
    found = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, **more)
    for row in range(2):
        history, real, timed = ids[row : row + 1], mask[row : row + 1], {k: v[row : row + 1] for k, v in more.items()}
        for _ in range(6):
            best = expected(model, history, real, timed, 0).argmax()
            history, real = torch.cat([history, best.view(1, 1)], 1), torch.cat([real, torch.ones(1, 1)], 1).long()
            if "times" in timed:
                now = timed["query_times"] if "query_times" in timed else timed["times"][:, -1]
                timed["times"] = torch.cat([timed["times"], now[:, None]], 1)
        assert found[row].tolist() == history[0].tolist()


def test_assisted_decoding_changes_nothing():
    """Several candidates are scored at once: each with the counts of its own place."""
    for parts in (("recency",), ("items",), ("bigrams",), ("baskets", "clock")):
        model = make(parts, max_position_embeddings=30)
        more = {"times": torch.arange(7)[None] // 3} if model.config.needs_times else {}
        given = {"max_new_tokens": 12, "do_sample": False, **more}
        ids = torch.tensor([[5, 6, 7, 5, 6, 7, 5]])
        plain = model.generate(ids, **given)
        assert torch.equal(plain, model.generate(ids, **given, prompt_lookup_num_tokens=2)), parts
        assert torch.equal(plain, model.generate(ids, **given, assistant_model=model)), parts
        assert torch.equal(plain, model.generate(ids, **given, use_cache=False)), parts


@torch.no_grad()
def test_a_second_apart_after_years_is_apart():
    """Moments are compared as integers: float32 would put all of these into one basket."""
    model = make(("baskets", "items"))
    ids, times = torch.tensor([[5, 6, 7, 5, 6]]), torch.tensor([[0, 1, 2, 10**9, 10**9 + 1]])
    logits = model(ids, times=times).logits[0]
    for n in range(1, 6):
        close(logits[n - 1], ModelScorer(model).score([ids[0, :n].numpy()], times=[times[0, :n].numpy()])[0])


def test_what_is_missing_or_not_read_is_said():
    ids = torch.tensor([[4, 5, 6]])
    timed, told, plain = make(("baskets",)), make(("baskets",), query_time=True), make(("recency",))
    for call in (timed, timed.generate, timed.last_window):
        with pytest.raises(ValueError, match="pass times, one moment for each of input_ids"):
            call(ids)
        with pytest.raises(ValueError, match=r"times has the shape \(1, 2\); it must be \(1, 3\)"):
            call(ids, times=ids[:, :2])
        with pytest.raises(ValueError, match=r"times is of torch.float32; moments are integers"):
            call(ids, times=ids.float())
    with pytest.raises(ValueError, match="pass query_times, one moment for each row"):
        told(ids, times=ids)
    with pytest.raises(ValueError, match="a row has several users"):
        told(ids, times=ids, query_times=ids[:, -1], position_ids=torch.tensor([[0, 1, 0]]))
    with pytest.raises(ValueError, match="times: this model reads no moments"):
        plain(ids, times=ids)
    with pytest.raises(ValueError, match="query_times: this model is not told"):
        timed(ids, times=ids, query_times=ids[:, 0])
    inputs = plain.last_window(ids)
    with pytest.raises(
        ValueError, match="counts by itself: leave out history, and give the whole history as input_ids"
    ):
        plain.generate(**inputs, max_new_tokens=1)
    with pytest.raises(ValueError, match="inputs_embeds do not say that: pass history too"):
        plain(inputs_embeds=plain.get_input_embeddings()(ids))
