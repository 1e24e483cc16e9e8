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
from sr_transformers.demo.app import Page, build_app, serve
from sr_transformers.demo.opening import HeldOut, MadeUp

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


def names(html):
    """The large names in a part of the page, in order."""
    return re.findall(r'class="sr-title">([^<]*)<', html)


def test_both_models_answer(client, checkpoints):
    problem, _, _, cards, lists, paths = client.predict("item 3\nwhat\nitem 4", 5, 3, True, api_name="/answer")
    assert "one does not know what: skipped." in problem
    assert "two does not know what: skipped." in problem
    assert names(cards) == ["item 3", "what", "Title 4"]
    assert "of 5 items in both lists" in lists
    sessions = [DemoSession.load(folder) for folder in checkpoints]
    history = ["item 3", "what", "item 4"]
    for html, ask in ((lists, DemoSession.next_items), (paths, DemoSession.trajectory)):
        wanted = [ask(one, history, 5 if html == lists else 3, True) for one in sessions]
        percents = [f"{100 * one.probability:.2f} %" for found in wanted for one in found]
        assert re.findall(r'class="sr-percent">([^<]*)<', html) == percents


def test_it_opens_with_what_the_model_generates(client):
    text, problem, choice, cards, lists, paths = _opened(client)
    assert len(text.splitlines()) == 10
    assert problem == choice == ""
    assert "A history that one generated" in cards
    assert "came next" not in lists
    assert (len(names(lists)), len(names(paths))) == (20, 12)
    assert _opened(client)[0] != text


def _opened(client):
    text, choice, problem, count, length, *shown = client.predict(10, 6, True, api_name="/open")
    assert count == length == ""
    return text, problem, choice, *shown


def test_a_held_out_user_is_shown_with_what_came_next(with_history, users):
    session = DemoSession.load(with_history)
    page = Page([session], HeldOut(users, session, 0))
    text, opening, choice, problem, _, _, cards, lists, _ = page.open(30, 2, False)
    assert choice == problem == ""
    assert opening.words in cards
    target = opening.target
    (row,) = [one for one in lists.split("<li") if "✓ came next" in one]
    assert names(row) == [target]
    assert "1× in the history" in row
    place = names(lists).index(target) + 1
    assert f"What came next stands at place {place}: " in lists
    assert "striped part of a bar" in lists
    # Beyond the list it is told all the same, and left out it is said why.
    assert f"What came next stands at place {place}: " in page.answer(text, opening, 1, 1, False)[4]
    assert "an item of the history, and those are left out" in page.answer(text, opening, 5, 1, True)[4]
    # Of a history that was changed nobody knows what came next.
    assert "came next" not in page.answer(text + "\nitem 1", opening, 30, 1, False)[4]
    assert page.open(30, 2, False)[0] != text


def test_a_page_over_a_model_with_history_takes_moments_and_shows_reasons(checkpoints, with_history):
    sessions = [DemoSession.load(with_history), DemoSession.load(checkpoints[0])]
    page = Page(sessions, MadeUp(sessions[0]))
    problem, *_, lists, paths = page.answer("item 3 @ 10\nwhat\nitem 4 @ 50", None, 30, 3, False)
    assert "history does not know what: skipped." in problem
    wanted = [one.next_items(["item 3", "item 4"], 30, False, [10, 50]) for one in sessions]
    ours, plain = lists.split("<section")[1:]
    assert names(ours) == [one.item for one in wanted[0]]
    assert names(plain) == [one.item for one in wanted[1]]
    assert ours.count("because the user had it before") == 2
    assert "sr-reason" not in plain
    followed = sessions[0].trajectory(["item 3", "what", "item 4"], 3, False, [10, 10, 50])
    assert names(paths.split("<section")[1]) == [one.item for one in followed]
    problem, *nothing = page.answer("item 3 @ 10\nitem 4 @ 9", None, 3, 3, False)
    assert "stands below 10, a later one" in problem
    assert nothing == [""] * 5


def test_the_page_says_how_moments_are_written(checkpoints, with_history):
    assert "milk @ 1700000000" in str(build_app(with_history, compare=checkpoints[0]).get_config_file())
    assert "milk @ 1700000000" not in str(build_app(checkpoints[0]).get_config_file())


def test_what_cannot_be_answered_is_said_beside_the_field(client):
    problem, *nothing = client.predict("  ", 5, 3, True, api_name="/answer")
    assert 'role="alert">The history is empty' in problem
    assert nothing == [""] * 5
    problem, *_, lists, _ = client.predict("what", 5, 3, True, api_name="/answer")
    assert 'role="alert">one knows no item of this history; it shows the most popular items.' in problem
    assert names(lists)[0] == "item 29"


@pytest.mark.parametrize(("k", "steps", "wrong"), [(0, 3, [1]), (5, 51, [2]), (2.5, None, [1, 2]), (1, 50, [])])
def test_a_number_that_is_none_is_said_beside_its_field(checkpoints, k, steps, wrong):
    session = DemoSession.load(checkpoints[0])
    answer = Page([session], MadeUp(session)).answer("item 3", None, k, steps, True)
    assert [index for index in range(3) if "whole number from 1 to 50" in answer[index]] == wrong
    assert all(answer[3:]) == (not wrong)


def test_a_chosen_item_goes_to_the_end(client):
    assert client.predict("item 3\n", "item 5", api_name="/add") == ("item 3\nitem 5", "")
    assert client.predict("", "item 5", api_name="/add") == ("item 5", "")
    text, problem = client.predict("item 3", None, api_name="/add")
    assert text == "item 3"
    assert 'role="alert">Choose an item first' in problem


def test_markup_of_unknown_ids_is_shown_and_not_carried_out(strange):
    problem, *shown = strange.predict("a\n<img src=x onerror=alert(1)>", 3, 3, True, api_name="/answer")
    assert "&lt;b&gt;model does not know &lt;img src=x onerror=alert(1)&gt;: skipped." in problem
    assert "<img" not in problem + "".join(shown)
    assert "&lt;b&gt;model</h3>" in shown[3]


def test_no_name_is_a_formula(strange):
    *_, lists, paths = strange.predict("b", 6, 6, True, api_name="/answer")
    for html in (lists, paths):
        assert set(names(html)) == {"&#x27;=1+1", "&#x27;+2", "&#x27;-3", "&#x27;@x", "&#x27;=cmd"}


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


def test_users_are_not_put_into_a_space(checkpoints, users, tmp_path, capsys):
    arguments = [str(checkpoints[0]), "--data", str(users), "--space", str(tmp_path / "space")]
    assert main(["demo", *arguments]) == 2
    assert "--data shows histories of users, and a Space is for others to see" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


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
    page = Page([session], MadeUp(session))
    problem, _, _, cards, lists, paths = page.answer("what", None, 5, 3, True)
    assert "its vocabulary keeps no training counts, so there is nothing to show instead" in problem
    assert names(cards) == ["what"]
    assert names(lists) == names(paths) == []
    assert len(page.open(5, 3, True)[0].splitlines()) == 10
    texts = [getattr(one, "value", None) for one in build_app(tmp_path).blocks.values()]
    assert any("the first of the vocabulary are there" in text for text in texts if isinstance(text, str))


def test_without_gradio_it_says_what_to_install(checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'sr-transformers\[demo\]'"):
        build_app(checkpoints[0])
