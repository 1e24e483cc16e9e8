import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender, Session
from sr_transformers.data.vocabulary import build_tokenizer

WINDOW = 6
ITEMS = [f"i{n}" for n in range(30)]


@pytest.fixture(scope="module", params=["lsrm", "llama"])
def recommender(request) -> Recommender:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["intermediate_size"] = 32
    if request.param == "lsrm":
        model = LSRMForCausalLM(LSRMConfig(**sizes, max_position_embeddings=WINDOW, initializer_range=0.5))
    else:
        config = LlamaConfig(**sizes, max_position_embeddings=WINDOW, initializer_range=0.5, pad_token_id=0)
        model = AutoModelForCausalLM.from_config(config)
    return Recommender(model.eval(), build_tokenizer(ITEMS))


def same(found, expected):
    assert [one.item for one in found] == [one.item for one in expected]
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected], abs=1e-5)


def test_every_step_of_a_visit_answers_as_the_whole_history_does(recommender):
    """From the second item, past the end of the window, with an unknown item in between."""
    visit = ["i3", "i9", "unheard of", "i4", "i4", "i20", "i7", "i11", "i0", "i5"]
    session = Session(recommender, visit[:1])
    for step, item in enumerate(visit[1:], 2):
        assert session.add(item) == (item != "unheard of")
        same(session.recommend(5), recommender.recommend(visit[:step], 5))
        same(session.recommend(3, exclude_seen=False), recommender.recommend(visit[:step], 3, exclude_seen=False))
    assert session.history == visit


def test_only_new_items_are_encoded(recommender, monkeypatch):
    session = Session(recommender, ["i1", "i2", "i3"])
    session.recommend()
    sizes = []
    original = recommender.model.forward

    def watched(input_ids, **kwargs):
        sizes.append(input_ids.shape[1])
        return original(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(recommender.model, "forward", watched)
    session.recommend()
    assert sizes == []
    session.add("i4", "i5")
    session.recommend(candidates=["i6", "i7"])
    assert sizes == [2]


def test_an_interrupted_request_leaves_no_trace(recommender, monkeypatch):
    """Stopped between two layers, the first of which has cached the new items already."""
    session, visit = Session(recommender, ["i1"]), ["i1", "i9", "i4"]
    session.recommend()
    for item in visit[1:]:
        session.add(item)
        layers = next(one for one in recommender.model.modules() if isinstance(one, torch.nn.ModuleList))

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(layers[1], "forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.recommend()
        same(session.recommend(5), recommender.recommend(session.history, 5))


def test_a_visit_is_answered_in_the_recommenders_precision(recommender):
    rounded = Recommender(recommender.model, recommender.tokenizer, bf16=True)
    found, expected = (
        {one.item: one.probability for one in Session(which, ["i1", "i2", "i3"]).recommend(99)}
        for which in (rounded, recommender)
    )
    assert found == pytest.approx(expected, rel=0.2)
    assert found != expected


@pytest.mark.parametrize("history", ["i1", b"i1", 1, None, iter(["i1"])])
def test_a_history_is_a_sequence_of_ids(recommender, history):
    with pytest.raises(TypeError, match="item ids are given as a sequence"):
        Session(recommender, history)


def test_what_cannot_be_answered_is_said(recommender):
    session = Session(recommender, ["never sold"])
    with pytest.raises(ValueError, match=r"no item that the model knows \(\['never sold'\]\); add one first"):
        session.recommend()
    session.add("i1")
    with pytest.raises(ValueError, match="k is 0"):
        session.recommend(0)
    with pytest.raises(ValueError, match="knows none of the candidates"):
        session.recommend(candidates=["nothing"])
