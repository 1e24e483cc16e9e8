"""What others see of a command, a path, a text: no secret, no place on this machine, no markup."""

import os

import pytest

from sr_transformers import public
from sr_transformers.public import (
    harmless_cell,
    last_part,
    plain,
    private_words,
    shown_command,
    shown_names,
    shown_path,
)

TOKEN = "hf_dummySECRETtoken01234"


@pytest.fixture(autouse=True)
def zaphod(monkeypatch, tmp_path):
    """A user with a name and a home of their own, working in a folder of it."""
    home = tmp_path / "home" / "zaphod"
    (home / "work" / "runs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "zaphod")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(home / "work")
    return home


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train", "r.yaml", "--hub_token", "abc", "--seed", "1"], "train r.yaml --hub_token '***' --seed 1"),
        (["train", "--hub-token=abc"], "train '--hub-token=***'"),
        (["train", "--push_to_hub_token", "abc", "--x"], "train --push_to_hub_token '***' --x"),
        (["train", "--include_num_input_tokens_seen", "all"], "train --include_num_input_tokens_seen all"),
        (["prepare", "https://me:pw@host/x.csv"], "prepare 'https://***@host/x.csv'"),
        (["publish", "runs/a", "org/name"], "publish runs/a org/name"),
        (["publish", "runs/a", "zaphod/name"], "publish runs/a zaphod/name"),
        (["x", TOKEN, f"--note={TOKEN}"], "x '***' '--note=***'"),
        (["x", "--data", "/srv/logs/ml-1m/"], "x --data ml-1m"),
        (["x", "--data=/srv/ml-1m", "[0.1,0.2]"], "x --data=ml-1m '[0.1,0.2]'"),
        (["x", "--fsdp", "[/srv/a.json, /srv/b.json]"], "x --fsdp '[a.json, b.json]'"),
        (["x", "small=/srv/s1,/srv/s2"], "x small=s1,s2"),
        (["x", "../../other/thing", "../runs"], "x thing runs"),
        (["x", "a=~/b", "~"], "x a=b '~'"),
    ],
)
def test_a_command_shows_no_secret_and_no_place(words, shown):
    assert shown_command(words) == shown


def test_paths_below_the_working_folder_stay_whole(zaphod, monkeypatch):
    assert shown_command(["--output", str(zaphod / "work" / "runs" / "a b")]) == "--output 'runs/a b'"
    assert shown_path("runs/new") == "runs/new"
    monkeypatch.chdir(zaphod.parent)  # here the user's name is part of every path
    assert shown_path(zaphod / "work") == "work"
    assert shown_command(["--output", "zaphod/work"]) == "--output work"
    assert shown_path(zaphod) == "~"


def test_a_part_that_is_the_users_name_is_hidden(tmp_path, monkeypatch):
    (tmp_path / "scratch" / "zaphod" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "scratch")
    assert shown_path("zaphod/x") == "~/x"
    assert last_part(tmp_path / "scratch" / "zaphod") == "~"


def test_the_home_folder_is_hidden_wherever_it_stands(zaphod):
    shown = shown_command([f"file://{zaphod}/x", f"{zaphod}2/x"])
    assert shown == "'file://~/x' x"


def test_the_token_of_the_environment_is_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "no-usual-token")
    assert shown_command(["x", "--note", "a no-usual-token b"]) == "x --note 'a *** b'"
    assert private_words(b"..no-usual-token..") == ["your token of the Hub"]


def test_a_working_folder_that_is_gone_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shown_command(["--data", "/srv/ml-1m"]) == "--data ml-1m"


def test_a_user_without_a_name_is_no_error(monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(public.getpass, "getuser", nameless)
    assert shown_path("/srv/ml-1m") == "ml-1m"


def test_models_are_named_apart(zaphod):
    runs = [str(zaphod / "work" / "runs"), "/srv/a/run", "/srv/b/run", "/srv/c/run", "/srv/x/s1,/srv/x/s2", "org/run"]
    assert shown_names(runs) == ["runs", "run", "run (2)", "run (3)", "s1,s2", "org/run"]


@pytest.mark.parametrize("name", ["org/sr-98k", "zaphod/sr-98k", "gpt2"])
def test_a_name_on_the_hub_stays(name):
    assert last_part(name) == name


def test_a_folder_is_its_last_part_from_wherever_it_is_named(zaphod, monkeypatch):
    names = {last_part(zaphod / "work" / "runs"), last_part("runs"), last_part("./runs/"), last_part("../work/runs")}
    monkeypatch.chdir("/")
    assert names | {last_part(zaphod / "work" / "runs")} == {"runs"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("nothing", []),
        (f"x {TOKEN} x", ["a token of the Hub"]),
        ("x {home}/runs x", ["the path of your home folder"]),
        ("x {home}2/runs x", []),
        ("secret-word", ["your token of the Hub"]),
    ],
)
def test_private_words_are_found_in_bytes(content, found, zaphod):
    assert private_words(b"\x00\xff" + content.format(home=zaphod).encode(), ["secret-word", None]) == found


def test_the_root_is_no_home(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert private_words(b"/srv/x") == []
    assert shown_path(os.getcwd()) == "."


def test_markdown_shows_a_text_as_it_is():
    assert plain("<img src=x onerror=alert(1)>\n# a") == "&lt;img src=x onerror=alert(1)&gt; # a"
    assert plain("0.5 [0.4, 0.6]") == "0.5 [0.4, 0.6]"
    assert plain("[a][b] [c]: http://d") == "[a&#93;[b] [c&#93;: http://d"
    assert plain("![a](http://b) | `c` & d_e") == "![a&#93;(http://b) &#124; &#96;c&#96; &amp; d_e"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_a_cell_is_no_formula(text):
    assert harmless_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["i1", "", "–", -1, 0.5, None])
def test_other_cells_stay(value):
    assert harmless_cell(value) == value
