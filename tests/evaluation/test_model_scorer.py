import numpy as np
import pytest
import torch

from sr_transformers.data.vocabulary import PAD_ID
from sr_transformers.evaluation.evaluator import evaluate
from sr_transformers.evaluation.model_scorer import ModelScorer
from sr_transformers.lsrm.configuration_lsrm import LSRMConfig
from sr_transformers.lsrm.modeling_lsrm import LSRMForCausalLM

WINDOW, V = 6, 20
HISTORIES = [np.array(h, np.int32) for h in ([3, 4, 5], [7], [], [9, 8, 7, 6, 5, 4], [2, 3, 4, 5, 6, 7, 8, 9])]


def model_of(vocab_size: int) -> LSRMForCausalLM:
    torch.manual_seed(0)
    return LSRMForCausalLM(
        LSRMConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=WINDOW,
            initializer_range=0.5,  # far from uniform
        )
    )


@pytest.fixture(scope="module")
def model() -> LSRMForCausalLM:
    return model_of(V)


def test_a_batch_scores_as_its_users_do_one_by_one(model):
    scorer = ModelScorer(model)
    together = scorer.score(HISTORIES)
    assert together.shape == (5, V)
    assert together.dtype == torch.float32
    for row, history in enumerate(HISTORIES):
        assert torch.allclose(together[row], scorer.score([history])[0], atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_scores_are_the_logits_at_the_last_item(model):
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.tensor([[3, 4, 5]])).logits[0, -1]
    assert torch.allclose(ModelScorer(model).score([HISTORIES[0]])[0], expected, atol=1e-5)


def test_an_empty_history_is_read_as_one_padding_token(model):
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.tensor([[PAD_ID]])).logits[0, -1]
    assert torch.allclose(ModelScorer(model).score(HISTORIES)[2], expected, atol=1e-5)
    assert torch.allclose(ModelScorer(model).score([HISTORIES[2]])[0], expected, atol=1e-5)


def test_longer_histories_are_read_by_their_most_recent_items(model):
    scorer, long = ModelScorer(model), HISTORIES[4]
    assert torch.equal(scorer.score([long]), scorer.score([long[-WINDOW:]]))
    assert not torch.allclose(scorer.score([long]), scorer.score([long[:WINDOW]]))
    assert torch.equal(ModelScorer(model, window=2).score([long]), scorer.score([long[-2:]]))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored_and_dropout_is_off(model, training):
    model.train(training)
    scorer = ModelScorer(model)
    assert torch.equal(scorer.score(HISTORIES), scorer.score(HISTORIES))
    assert model.training is training
    with pytest.raises(IndexError):
        scorer.score([np.array([V + 5])])
    assert model.training is training


def test_scores_carry_no_gradient(model):
    assert not ModelScorer(model).score(HISTORIES).requires_grad


def test_an_untrained_model_is_about_as_good_as_chance(markov_prepared):
    scorer = ModelScorer(model_of(markov_prepared.vocab_size), name="untrained")
    report = evaluate(scorer, markov_prepared, ks=(10,))
    assert report["model"] == "untrained"
    assert 0.1 < report["metrics"]["hr@10"] < 0.6  # 10 of 30 items
    assert report["metrics"]["loss"] > np.log(3)  # the entropy of the chain is below


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_what_ranking_leaves_out_changes_no_score(attention):
    """The last layer for the last position alone, scores in blocks of items: equal to the whole forward pass."""
    model = model_of(5000)
    model.set_attn_implementation(attention)
    scorer = ModelScorer(model)
    scores = scorer.score(HISTORIES)
    scorer._last_only = False
    torch.testing.assert_close(scores, scorer.score(HISTORIES), atol=1e-5, rtol=1e-5)
    scorer._last_only = True
    full = [np.array([3, 4, 5]), np.array([6, 7, 8])] * 20  # nothing to pad, items in blocks
    whole = model.eval()(input_ids=torch.tensor(np.stack(full))).logits[:, -1].detach()
    torch.testing.assert_close(scorer.score(full), whole, atol=1e-5, rtol=1e-5)


def test_other_attention_refuses_the_last_position_alone(model):
    config = LSRMConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    other = LSRMForCausalLM._from_config(config, attn_implementation="flex_attention")
    with pytest.raises(ValueError, match="last_only works with eager and sdpa, not flex_attention"):
        other.model(input_ids=torch.tensor([[3, 4]]), last_only=True)


def test_memory_is_shared_between_calls_only_on_request(model):
    scorer = ModelScorer(model)
    first = scorer.score(HISTORIES)
    before = first.clone()
    scorer.score(HISTORIES[::-1])
    assert torch.equal(first, before)
    reusing = ModelScorer(model, reuse_memory=True)
    first = reusing.score(HISTORIES)
    assert torch.equal(first, before)
    assert reusing.score(HISTORIES[:2]).data_ptr() == first.data_ptr()


def test_a_model_in_bf16_ranks_without_the_ties_of_rounded_scores():
    model = model_of(5000).to(torch.bfloat16)
    scores = ModelScorer(model).score(HISTORIES)
    assert scores.dtype == torch.float32
    assert min(len(row.unique()) for row in scores) > 4900  # bfloat16 has 256 values between two powers of 2
    weight = model.lm_head.weight.double()
    state = model.eval().model(input_ids=torch.tensor([[3, 4, 5]])).last_hidden_state[0, -1].double()
    # Alone: several rows are attended to by another kernel than one, and each rounds in its own way.
    (alone,) = ModelScorer(model).score(HISTORIES[:1])
    torch.testing.assert_close(alone.double()[2:], (weight @ state)[2:], atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_layers_in_bf16_change_scores_by_no_more_than_its_rounding(attention):
    model = model_of(5000)
    model.set_attn_implementation(attention)
    exact, rounded = ModelScorer(model).score(HISTORIES), ModelScorer(model, bf16=True).score(HISTORIES)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.02 * exact.abs().max()
    assert min(len(row.unique()) for row in rounded) > 4900
    assert model.dtype == torch.float32
