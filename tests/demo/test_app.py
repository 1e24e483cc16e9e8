"""The page over HTTP with gradio's own client; test_browser looks at it in a browser."""

import sys

import pytest
from transformers import AutoTokenizer

from sr_transformers import LSRMForCausalLM
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.app import _answer, build_app
from sr_transformers.demo.session import DemoSession

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
    assert one["data"][0][1] == "item 29"


def test_a_chosen_item_goes_to_the_end(client):
    assert client.predict("item 3\n", "item 5", api_name="/_append") == "item 3\nitem 5"
    assert client.predict("", "item 5", api_name="/_append") == "item 5"
    assert client.predict("item 3", None, api_name="/_append") == "item 3"


@pytest.mark.parametrize(("filter_seen", "ticked"), [(None, True), (True, True), (False, False)])
def test_seen_items_are_left_out_if_the_model_was_evaluated_so(checkpoints, tmp_path, filter_seen, ticked):
    model = LSRMForCausalLM.from_pretrained(checkpoints[0])
    model.config.filter_seen = filter_seen
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoints[0]).save_pretrained(tmp_path)
    (box,) = [one for one in build_app(tmp_path).blocks.values() if getattr(one, "elem_id", None) == "exclude-seen"]
    assert box.value is ticked


def test_without_training_counts_the_page_shows_nothing_as_popular(checkpoints, tmp_path):
    LSRMForCausalLM.from_pretrained(checkpoints[0]).save_pretrained(tmp_path)
    build_tokenizer([f"item {n}" for n in range(30)]).save_pretrained(tmp_path)
    session = DemoSession.load(tmp_path)
    message, table = _answer([session], "what", lambda one, items: one.next_items(items, 5, True), True)
    assert "its vocabulary keeps no training counts, so there is nothing to show instead" in message
    assert table == []
    texts = [getattr(one, "value", None) for one in build_app(tmp_path).blocks.values()]
    assert any("the first of the vocabulary are there" in text for text in texts if isinstance(text, str))


def test_without_gradio_it_says_what_to_install(checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'sr-transformers\[demo\]'"):
        build_app(checkpoints[0])
