"""The service of recipes/service.py: objects over HTTP, errors in words, the same answers under load."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from made_history import V, make
from scripts import script

from sr_transformers import LSRMConfig, LSRMForCausalLM, Recommender
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.marks import between

fastapi = pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
from fastapi.testclient import TestClient  # noqa: E402

ROOT = Path(__file__).parents[2]
ITEMS = [f"i{n}" for n in range(50)]


@pytest.fixture(scope="module")
def recommender():
    torch.manual_seed(0)
    config = LSRMConfig(vocab_size=52, hidden_size=16, max_position_embeddings=8, initializer_range=0.3)
    return Recommender(LSRMForCausalLM(config), build_tokenizer(ITEMS, np.arange(50)))


@pytest.fixture(scope="module")
def app(recommender):
    return script("recipes/service.py").build_app(recommender)


def test_it_is_short():
    assert len((ROOT / "recipes/service.py").read_text().splitlines()) <= 60


def test_answers_are_objects(app, recommender):
    client = TestClient(app)
    answer = client.post("/recommend", json={"history": ["i1", "i7"], "k": 3, "exclude": ["i9"]})
    expected = recommender.recommend(["i1", "i7"], 3, exclude=["i9"])
    assert answer.json() == [{"item": one.item, "probability": one.probability} for one in expected]
    assert "50 items" in client.get("/health").json()["model"]
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Recommendation"]
    assert set(schema["properties"]) == {"item", "probability"}


def test_an_unknown_visitor_gets_what_is_popular(app):
    answer = TestClient(app).post("/recommend", json={"history": [], "k": 2})
    assert answer.json() == [{"item": "i49", "probability": None}, {"item": "i48", "probability": None}]


def test_a_model_that_reads_moments_is_served():
    model = make(("items", "baskets", "clock"), query_time=True)
    recommender = Recommender(model, build_tokenizer(ITEMS[: V - 2], np.arange(V - 2)))
    client = TestClient(script("recipes/service.py").build_app(recommender))
    asked = {"history": ["i1", "i7"], "times": [1, 5], "query_time": 9}
    expected = recommender.recommend(["i1", "i7"], times=[1, 5], query_time=9)
    assert [one["item"] for one in client.post("/recommend", json=asked).json()] == [one.item for one in expected]
    assert len(client.post("/recommend", json={"history": [], "query_time": 9, "k": 2}).json()) == 2  # nobody known
    answer = client.post("/recommend", json={"history": ["i1"], "query_time": 9})
    assert answer.status_code == 422
    assert "pass times" in answer.text


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"history": ["i1"], "time": [3]}, "Extra inputs are not permitted"),
        ({"history": ["i1"], "k": 0}, "greater than or equal to 1"),
        ({"history": "i1"}, "valid list"),
        ({}, "Field required"),
        ({"history": ["i1"], "candidates": ["x"]}, "none of the candidates"),
        ({"history": [""]}, "an empty text"),
        ({"history": [True]}, "valid integer"),
        ({"history": [1.0]}, "valid integer"),
        ({"history": ["i1"], "k": True}, "valid integer"),
    ],
)
def test_what_cannot_be_is_said(app, asked, says):
    answer = TestClient(app).post("/recommend", json=asked)
    assert answer.status_code == 422
    assert says in answer.text


def test_under_load_every_answer_is_the_sequential_one(app):
    service = script("benchmarks/service.py")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        histories = [[f"i{(user * 7 + step) % 50}" for step in range(1 + user % 11)] for user in range(80)]
        found = service.load(f"http://127.0.0.1:{port}", histories)
    finally:
        server.should_exit = True
        thread.join()
    assert (found["equal_answers"], found["clients"]) == (80, 8)
    assert found["together"]["p99_ms"] >= found["together"]["p50_ms"] > 0


def test_the_page_shows_what_was_measured():
    service = script("benchmarks/service.py")
    found = json.loads(service.RESULT.read_text())
    assert found["equal_answers"] == found["requests"]
    assert between(service.PAGE, "service") == service.table(found)
