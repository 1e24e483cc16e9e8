"""No link is followed, and no token and no way home is sent."""

import os

import pytest

from sr_transformers.hub.outgoing import refuse_links, refuse_private


@pytest.fixture
def folder(tmp_path, monkeypatch):
    home = tmp_path / "home" / "zaphod"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", "a-secret-token")
    folder = tmp_path / "folder"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_text("# A card\n")
    (folder / "figures" / "a.png").write_bytes(b"\x89PNG")
    return folder


def test_a_folder_with_nothing_private_passes(folder):
    refuse_links(folder, ["README.md", "figures", "not there"])
    refuse_private(folder)


@pytest.mark.parametrize("place", ["link.json", "figures/link.png", "linked"])
def test_a_link_is_named(folder, place):
    (folder / place).symlink_to("/etc" if place == "linked" else "/etc/hostname")
    with pytest.raises(ValueError, match=rf"{place}: publishing follows no links"):
        refuse_links(folder, ["link.json", "figures", "linked"])


def test_links_are_counted(folder):
    for name in "bcd":
        (folder / "figures" / f"{name}.png").symlink_to("a.png")
    with pytest.raises(ValueError, match=r"b\.png and 2 more links"):
        refuse_links(folder, ["figures"])


def test_a_pipe_is_refused(folder):
    os.mkfifo(folder / "tasks.json")
    with pytest.raises(ValueError, match=r"tasks\.json is neither a file nor a folder"):
        refuse_links(folder, ["tasks.json"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a-secret-token", "your token of the Hub"),
        ("given-token", "your token of the Hub"),
        ("hf_otherSECRETtoken01234", "a token of the Hub"),
        ("--data {home}/x", "the path of your home folder"),
    ],
)
def test_what_is_private_is_named(folder, content, message):
    text = content.format(home=os.environ["HOME"])
    (folder / "README.md").write_text(text)
    (folder / "run.json").write_bytes(b"\x00" + text.encode() + b"\x00")
    with pytest.raises(ValueError, match=rf"run\.json would show {message} to everybody"):
        refuse_private(folder, "given-token")


def test_a_token_across_two_blocks_is_found(folder, monkeypatch):
    monkeypatch.setattr("sr_transformers.hub.outgoing._BLOCK", 5000)
    (folder / "run.json").write_bytes(b"x" * 4995 + b"a-secret-token" + b"x" * 100)
    with pytest.raises(ValueError, match="your token"):
        refuse_private(folder)


def test_weights_are_numbers(folder):
    (folder / "model.safetensors").write_text("a-secret-token")
    refuse_private(folder)
