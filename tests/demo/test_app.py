"""The page over HTTP with gradio's own client; test_browser looks at it in a browser."""

import base64
import re
import socket
import sys

import httpx2
import pytest
from transformers import AutoTokenizer

from sr_transformers import LSRMConfig, LSRMForCausalLM
from sr_transformers.cli import main
from sr_transformers.data.vocabulary import build_tokenizer
from sr_transformers.demo.answers import DemoSession
from sr_transformers.demo.app import _answer, build_app, serve

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
pytest.importorskip("gradio", reason="needs the extra demo")


@pytest.fixture(scope="module")
def client(checkpoints, titles):
    from gradio_client import Client

    app = build_app(checkpoints[0], compare=checkpoints[1], titles=titles)
    _, url, _ = serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    app.close()


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A page over a model whose items have the names of formulas."""
    from gradio_client import Client

    folder = tmp_path_factory.mktemp("strange") / "<b>model"
    items = ["=1+1", "+2", "-3", "@x", "a", "b"]
    config = LSRMConfig(vocab_size=len(items) + 2, hidden_size=8, max_position_embeddings=6)
    LSRMForCausalLM(config).save_pretrained(folder)
    build_tokenizer(items).save_pretrained(folder)
    titles = folder / "titles.csv"
    titles.write_text("item_id,title\na,=cmd\nb,B\n")
    app = build_app(folder, titles=titles)
    _, url, _ = serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    app.close()


def test_both_models_answer(client):
    message, one, two = client.predict("item 3\nwhat\nitem 4", 5, True, api_name="/show_next")
    assert "one does not know what: skipped." in message
    assert "of 5 items in both lists" in message
    assert one["headers"] == ["place", "item", "title", "probability"]
    assert len(one["data"]) == len(two["data"]) == 5
    assert one["data"] != two["data"]


def test_a_page_over_a_model_with_history_takes_moments_and_shows_reasons(checkpoints, with_history):
    from gradio_client import Client

    app = build_app(with_history, compare=checkpoints[0])
    assert "milk @ 1700000000" in str(app.get_config_file())
    _, url, _ = serve(app, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        asked = Client(url, verbose=False)
        message, ours, plain = asked.predict("item 3 @ 10\nwhat\nitem 4 @ 50", 30, False, api_name="/show_next")
        assert "history does not know what: skipped." in message
        assert ours["headers"] == ["place", "item", "probability", "own past"]
        assert plain["headers"] == ["place", "item", "probability"]
        wanted = DemoSession.load(with_history).next_items(["item 3", "item 4"], 30, False, [10, 50])
        assert ours["data"] == wanted
        assert plain["data"] == DemoSession.load(checkpoints[0]).next_items(["item 3", "item 4"], 30, False)
        assert sum("because the user had it before" in row[3] for row in ours["data"]) == 2
        _, steps, _ = asked.predict("item 3 @ 10", 3, False, api_name="/show_steps")
        assert steps["data"] == DemoSession.load(with_history).trajectory(["item 3"], 3, False, [10])
        message, none, _ = asked.predict("item 3 @ 10\nitem 4 @ 9", 3, False, api_name="/show_next")
        assert "stands below 10, a later one" in message
        assert not any(any(row) for row in none["data"])
    finally:
        app.close()


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


def test_markup_of_unknown_ids_is_shown_and_not_carried_out(strange):
    message, _ = strange.predict("a\n<img src=x onerror=alert(1)>\n[x](javascript:y)", 3, True, api_name="/show_next")
    assert "&lt;b&gt;model does not know &lt;img src=x onerror=alert(1)&gt;, [x&#93;(javascript:y): skipped." in message


def test_a_long_history_of_unknown_ids_is_not_repeated(strange):
    history = "a\n" + "\n".join(f"new{n % 700}" for n in range(1000))
    message, _ = strange.predict(history, 3, True, api_name="/show_next")
    assert message.endswith("does not know new0, new1, new2, new3, new4 and 695 more: skipped.")


@pytest.mark.parametrize("ask", ["/show_next", "/show_steps"])
def test_no_cell_is_a_formula(strange, ask):
    _, table = strange.predict("b", 6, True, api_name=ask)
    assert {row[1] for row in table["data"]} == {"'=1+1", "'+2", "'-3", "'@x", "a"}
    assert {row[2] for row in table["data"]} == {"", "'=cmd"}


def test_nothing_is_taken(strange):
    answer = httpx2.post(f"{strange.src.rstrip('/')}/gradio_api/upload", files={"files": ("x.bin", b"x" * 100_000)})
    assert answer.status_code in (400, 413)


def test_of_a_study_only_the_figures_are_served(checkpoints, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    (folder / "fits").mkdir(parents=True)
    (folder / "fits" / "law.png").write_bytes(PNG)
    for name in (".env", "secret.txt", "fits/secret.txt"):
        (folder / name).write_text("SECRET")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))  # what lies there gradio trusts
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    app = build_app(checkpoints[0], study=folder)
    _, url, _ = serve(app, folder, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        shown = httpx2.get(f"{url}gradio_api/file={folder}/fits/law.png")
        assert shown.status_code == 200
        assert shown.content == PNG
        for name in (".env", "secret.txt", "fits/secret.txt", "fits/../.env", "../study/.env"):
            for start in (f"{folder}/", "study/", "../study/"):
                answer = httpx2.get(f"{url}gradio_api/file={start}{name}")
                assert answer.status_code >= 400, (start, name)
                assert "SECRET" not in answer.text
    finally:
        app.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999999"], "--port 99999999: ports are numbers from 1 to 65535"),
        (["--port", "-1"], "--port -1: ports are numbers"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 7860"),
        (["--host", "203.0.113.7"], "--host 203.0.113.7 --port 7860: .* must be an address of this machine"),
    ],
)
def test_an_address_that_is_none_is_refused_before_the_model_is_loaded(arguments, message, capsys):
    assert main(["demo", "no/model", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_port_that_is_taken_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "no/model", "--port", str(port)]) == 2
    assert f"--host 127.0.0.1 --port {port}: Address already in use" in capsys.readouterr().err


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
    message, table = _answer([session], "what", lambda one, items, times: one.next_items(items, 5, True, times), True)
    assert "its vocabulary keeps no training counts, so there is nothing to show instead" in message
    assert table == []
    texts = [getattr(one, "value", None) for one in build_app(tmp_path).blocks.values()]
    assert any("the first of the vocabulary are there" in text for text in texts if isinstance(text, str))


def test_without_gradio_it_says_what_to_install(checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'sr-transformers\[demo\]'"):
        build_app(checkpoints[0])
