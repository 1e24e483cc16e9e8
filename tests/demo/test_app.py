"""The page over HTTP with gradio's own client; test_browser looks at it in a browser."""

import sys

import pytest

from sr_transformers.demo.app import build_app

pytest.importorskip("gradio", reason="needs the extra demo")


@pytest.fixture(scope="module")
def client(checkpoints, titles):
    from gradio_client import Client

    app = build_app(checkpoints[0], compare=checkpoints[1], titles=titles)
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    app.close()


def test_both_models_answer(client):
    message, one, two = client.predict("item 3\nwhat\nitem 4", 5, True, api_name="/show_next")
    assert "one does not know what: skipped." in message
    assert "of 5 items in both lists" in message
    assert one["headers"] == ["place", "item", "title", "probability"]
    assert len(one["data"]) == len(two["data"]) == 5
    assert one["data"] != two["data"]


def test_steps_are_followed(client):
    _, one, _ = client.predict("item 3", 7, True, api_name="/show_steps")
    assert [row[0] for row in one["data"]] == list(range(1, 8))


def test_what_cannot_be_answered_is_said(client):
    message, one, _ = client.predict("  ", 5, True, api_name="/show_next")
    assert "history is empty" in message
    assert not any(any(row) for row in one["data"])
    message, one, _ = client.predict("what", 5, True, api_name="/show_next")
    assert "one knows no item of this history" in message
    assert one["data"][0][1] == "item 0"


def test_a_chosen_item_goes_to_the_end(client):
    assert client.predict("item 3\n", "item 5", api_name="/_append") == "item 3\nitem 5"
    assert client.predict("", "item 5", api_name="/_append") == "item 5"
    assert client.predict("item 3", None, api_name="/_append") == "item 3"


def test_without_gradio_it_says_what_to_install(checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'sr-transformers\[demo\]'"):
        build_app(checkpoints[0])
