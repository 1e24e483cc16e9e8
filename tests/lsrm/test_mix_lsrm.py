"""A model mixed with what counting says, against a reference that counts interaction by interaction."""

import math

import numpy as np
import pytest
import torch
from made_mix import WINDOW, fill_mix, made_weights

from sr_transformers.data.past_inputs import Past
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm.configuration_lsrm import LAGS, NUM_SPECIAL, LSRMConfig
from sr_transformers.lsrm.mix_lsrm import HALF_LIVES
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

V = 30
ENDS, LAST = [5, 12, 20, 31], torch.iinfo(torch.int64).max
TIMED, PLAIN = ("recency", "baskets", "mix"), ("recency", "mix")


def make(parts=TIMED, weights=True, **more) -> LSRMForCausalLM:
    """A small model whose tables and counts are filled."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
    model = LSRMForCausalLM(LSRMConfig(vocab_size=V, history=list(parts), time_unit=3.0, **sizes, **more)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    fill_mix(model, ENDS)
    if not weights:
        model.config.mix_share = 0.0
    return model


def pasts() -> list[Past]:
    rng = np.random.default_rng(0)
    made = [Past(rng.integers(2, 12, n), np.sort(rng.integers(0, 40, n))) for n in (5, 20, 40, 0)]
    made[1].items[4] = 1  # unknown: it takes a step and has no mass
    return made


def counted(model: LSRMForCausalLM, past: Past) -> list[np.ndarray]:
    """`(V,)` masses of every expert beside the model, after the last interaction."""
    x, t, mix = past.items.tolist(), past.times.tolist(), model.history.mix
    own = [np.zeros(V) for _ in range(len(HALF_LIVES) + 1)]
    outside = [np.zeros(V) for _ in own]
    for k, item in enumerate(x):
        for number, life in enumerate((*HALF_LIVES, math.inf)):
            own[number][item] += 2.0 ** (-(len(x) - 1 - k) / life) * (item >= NUM_SPECIAL)
    now = {item for item, moment in zip(x, t, strict=True) if moment == t[-1]}
    for number, mass in enumerate(own):
        outside[number] = np.where(np.isin(np.arange(V), list(now)), 0.0, mass)
    chains = [np.zeros(V) for _ in range(LAGS)]
    for lag in range(LAGS):
        item = x[-1 - lag] if len(x) > lag else 0
        if item >= NUM_SPECIAL:
            begin, end = mix.successor_starts[lag, item : item + 2].tolist()
            chains[lag][mix.successor_tokens[begin:end].numpy()] = mix.successor_counts[begin:end].numpy()
    popular = mix.popularity.numpy().astype(float)
    if not model.config.needs_times:
        return [*own, *chains, popular]
    over = sum(end <= (t[-1] if t else LAST) for end in ENDS)
    recent = np.zeros(V)
    for stretch in range(max(over - WINDOW, 0), over):
        begin, end = mix.recent_starts[stretch : stretch + 2].tolist()
        recent[mix.recent_tokens[begin:end].numpy()] += mix.recent_counts[begin:end].numpy()
    return [*own, *outside, *chains, recent, popular]


def expected(model: LSRMForCausalLM, past: Past) -> np.ndarray:
    """`(V,)` probabilities, in float64."""
    timed, share = model.config.needs_times, model.config.mix_share
    model.config.mix_share = 0.0
    scores = ModelScorer(model).score([past.items], times=[past.times] if timed else None)[0].double()
    model.config.mix_share = share
    masses = counted(model, past)
    spoken = [weight * (mass.sum() > 0) for weight, mass in zip(made_weights(timed).values(), masses, strict=True)]
    shares = [mass / max(mass.sum(), 1e-300) for mass in masses]
    mixed = sum(weight / sum(spoken) * of_expert for weight, of_expert in zip(spoken, shares, strict=True))
    together = scores[NUM_SPECIAL:].softmax(0).numpy() ** (1 - share) * mixed[NUM_SPECIAL:] ** share
    return np.concatenate([np.zeros(NUM_SPECIAL), together / together.sum()])


def score(model: LSRMForCausalLM, some: list[Past], scorer=None, **more) -> torch.Tensor:
    times = [past.times for past in some] if model.config.needs_times else None
    return (scorer or ModelScorer(model)).score([past.items for past in some], times=times, **more)


@pytest.mark.parametrize("parts", [TIMED, PLAIN, ("mix",), ("clock", "mix")])
def test_probabilities_are_those_of_a_count_by_hand(parts):
    model = make(parts)
    found = score(model, pasts())
    assert found[:, :NUM_SPECIAL].max() == torch.finfo(torch.float32).min
    for row, past in zip(found, pasts(), strict=True):
        torch.testing.assert_close(
            row.double().softmax(0), torch.from_numpy(expected(model, past)), atol=1e-7, rtol=1e-4
        )
        assert abs(float(row[NUM_SPECIAL:].double().logsumexp(0))) < 1e-5


def test_logits_of_every_position_are_those_after_each_prefix():
    model = make(PLAIN)
    ids = torch.from_numpy(pasts()[1].items[6:14])[None]
    logits = model(ids).logits[0]
    for place in range(8):
        torch.testing.assert_close(logits[place], score(model, [Past(ids[0, : place + 1].numpy())])[0])
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits[0], logits[-2:])


def test_the_loss_is_that_of_the_logits_and_training_hears_the_model_alone():
    model, alone = make(PLAIN), make(PLAIN, weights=False)
    ids = torch.from_numpy(pasts()[1].items[6:14])[None]
    found = model(ids, labels=ids)
    wanted = torch.nn.functional.cross_entropy(found.logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(found.loss, wanted)
    assert abs(found.loss - alone(ids, labels=ids).loss) > 1e-3
    plain = {"embedding_dropout": 0.0, "residual_dropout": 0.0}
    trained, other = (make(PLAIN, weights, **plain).train()(ids, labels=ids).loss for weights in (True, False))
    assert torch.equal(trained, other)
    with pytest.raises(ValueError, match="no item"):
        model(ids, labels=torch.zeros_like(ids))


def test_without_weights_nothing_changes():
    model, alone = make(weights=False), make(("recency", "baskets", "mix"), weights=False)
    del alone.history.mix
    alone.history.mix = None
    assert torch.equal(score(model, pasts()), score(alone, pasts()))


def test_without_the_own_past_its_experts_are_silent():
    model, past = make(), pasts()[2]
    of_others = score(model, [past], own_past=False)[0].softmax(0)
    model.config.mix_weights = {
        name: 0.0 if name.startswith("own") else weight for name, weight in made_weights(True).items()
    }
    without = score(model, [past], own_past=False)[0].softmax(0)
    torch.testing.assert_close(of_others, without)


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    again = LSRMForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(score(again, pasts()), score(model, pasts()))


@pytest.mark.parametrize("change", [{"popularity": -0.1}, {"popularity": math.nan}, {"somebody": 0.2}])
def test_weights_that_are_none_are_refused(change):
    with pytest.raises(ValueError, match="mix_weights needs a number"):
        make(mix_weights={**made_weights(True), **change})


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_a_share_is_between_nothing_and_all(share):
    with pytest.raises(ValueError, match=r"it lies in \[0, 1\]"):
        make(mix_share=share)


def test_requests_of_many_users_are_those_of_one():
    model = make()
    together = score(model, pasts())
    for row, past in zip(together, pasts(), strict=True):
        torch.testing.assert_close(row, score(model, [past])[0])
