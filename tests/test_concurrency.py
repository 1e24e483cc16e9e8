"""Many requests at once, in threads and in processes, get the answers that they get one by one."""

import multiprocessing
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import pipeline

from sr_transformers import LSRMConfig, LSRMForCausalLM, ModelScorer, Recommender, Session
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.answers import DemoSession
from sr_transformers.evaluation.request_state import ScoreMemory, evaluation_mode
from sr_transformers.serving.onnx import NextItems

ITEMS = [f"i{n}" for n in range(3000)]  # so many that requests overlap while scores are written
WINDOW = 8
THREADS, REQUESTS = 8, 50
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
KINDS = [
    "plain",
    "bf16",
    "bf16 weights",
    "in training",
    pytest.param("compiled", marks=[needs_compiler, pytest.mark.slow]),
    pytest.param("compiled bf16", marks=[needs_compiler, pytest.mark.slow]),
]


def model_of(dtype=torch.float32):
    torch.manual_seed(0)
    config = LSRMConfig(
        vocab_size=len(ITEMS) + 2, hidden_size=16, max_position_embeddings=WINDOW, initializer_range=0.5
    )
    return LSRMForCausalLM(config).to(dtype).eval()


def recommender_of(kind):
    model = model_of(torch.bfloat16 if kind == "bf16 weights" else torch.float32)
    model.train(kind == "in training")
    return Recommender(model, build_tokenizer(ITEMS), bf16=kind in ("bf16", "compiled bf16"), compile="comp" in kind)


def histories():
    rng = np.random.default_rng(0)
    return [[ITEMS[n] for n in rng.integers(0, len(ITEMS), rng.integers(1, 12))] for _ in range(REQUESTS)]


def asked_at_once(ask):
    """Answers to all histories, by each of `THREADS` threads, which begin together and each somewhere else."""
    wanted, start = histories(), threading.Barrier(THREADS)

    def one(thread):
        start.wait()
        order = [(place + thread * REQUESTS // THREADS) % REQUESTS for place in range(REQUESTS)]
        return {place: ask(wanted[place]) for place in order}

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(one, range(THREADS)))


def answered_alike(ask):
    expected = dict(enumerate(map(ask, histories())))
    return sum(answers[place] != expected[place] for answers in asked_at_once(ask) for place in expected) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_recommender_and_its_visits(kind):
    recommender = recommender_of(kind)

    def visit(history):
        session = Session(recommender, history[:-1])
        if len(history) > 1:
            session.recommend(1)
        session.add(history[-1])
        return session.recommend(5)

    assert answered_alike(lambda history: recommender.recommend(history, 5))
    assert answered_alike(visit)
    assert answered_alike(lambda history: recommender.recommend_batch([history, history[:1]], 5))
    assert recommender.model.training == (kind == "in training")


def test_a_pipeline_the_graphs_function_and_the_page():
    recommender = recommender_of("plain")
    pipe = pipeline("next-item", model=recommender.model, tokenizer=recommender.tokenizer, device="cpu")
    graph, page = NextItems(recommender.model, 5), DemoSession("model", recommender, {})

    def exported(history):
        with torch.no_grad():
            found = graph(torch.from_numpy(recommender.encode(history))[None], torch.tensor([True]))
        return found["items"].tolist(), found["probabilities"].tolist()

    assert answered_alike(lambda history: pipe(history, top_k=5))
    assert answered_alike(exported)
    assert answered_alike(lambda history: (page.next_items(history, 5, True), page.trajectory(history, 2, True)))


def test_a_scorer_that_uses_its_memory_again():
    scorer = ModelScorer(model_of(), reuse_memory=True)
    recommender = recommender_of("plain")
    assert answered_alike(lambda history: scorer.score([recommender.encode(history)]).tolist())


def test_one_visit_asked_by_several_threads_loses_nothing():
    recommender, added = recommender_of("plain"), ITEMS[:80]
    session = Session(recommender)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda item: (session.add(item), session.recommend(3)), added))
    assert sorted(session.history) == sorted(added)
    assert session.recommend(5) == recommender.recommend(session.history, 5)


def answers(recommender_and_history):
    torch.set_num_threads(1)
    recommender, history = recommender_and_history
    return recommender.recommend(history, 5)


@pytest.fixture(scope="module")
def spawned():
    """Two fresh processes, for all kinds of models: what one leaves there must not answer for another."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


@pytest.mark.parametrize("kind", KINDS)
def test_a_recommender_sent_to_processes(kind, request):
    recommender = recommender_of(kind)
    requests = [(recommender, history) for history in histories()[:24]]
    expected = [recommender.recommend(history, 5) for _, history in requests]
    with multiprocessing.get_context("fork").Pool(2) as forked:
        assert forked.map(answers, requests, chunksize=6) == expected
    assert request.getfixturevalue("spawned").map(answers, requests, chunksize=6) == expected


def test_scratch_memory_is_never_pickled():
    recommender = recommender_of("plain")
    recommender.recommend(ITEMS[:3])
    session = Session(recommender, ITEMS[:3])
    expected = session.recommend(5)
    scorer = ModelScorer(recommender.model, reuse_memory=True)
    before = len(pickle.dumps(scorer))
    scorer.score([np.arange(2, 5)] * 500)
    assert len(pickle.dumps(scorer)) == before
    again = pickle.loads(pickle.dumps(session))
    assert again.history == session.history
    assert again.recommend(5) == expected


@pytest.mark.parametrize("reuse_memory", [True, False])
def test_first_used_in_inference_mode_then_outside(reuse_memory):
    recommender = recommender_of("plain")
    scorer = ModelScorer(recommender.model, reuse_memory=reuse_memory)
    session = Session(recommender, ITEMS[:3])
    tokens = [recommender.encode(ITEMS[:3])]
    with torch.inference_mode():
        inside = recommender.recommend(ITEMS[:3]), session.recommend(), scorer.score(tokens).tolist()
    session.add(ITEMS[3])
    assert recommender.recommend(ITEMS[:3]) == inside[0]
    assert scorer.score(tokens).tolist() == inside[2]
    outside = session.recommend(5)
    assert [one.item for one in outside] == [one.item for one in recommender.recommend(ITEMS[:4], 5)]
    scores = scorer.score(tokens)
    scores += 1  # its own, and of use outside
    assert not scores.is_inference()


def test_a_model_goes_back_to_training_when_the_last_request_is_done():
    model = torch.nn.Dropout()
    first, second = evaluation_mode(model), evaluation_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training
    second.__exit__(None, None, None)
    assert model.training
    with evaluation_mode(model.eval()):
        assert not model.training
    assert not model.training


def test_memory_is_written_again_only_by_its_request():
    memory, cpu = ScoreMemory(), torch.device("cpu")
    first = memory.room(3, 20, cpu)
    assert memory.room(2, 20, cpu).data_ptr() == first.data_ptr()
    assert memory.room(4, 20, cpu).shape == (4, 20)
    assert ScoreMemory().room(3, 20, cpu).data_ptr() != first.data_ptr()
