"""huggingface_hub's real client against a real server on loopback: what arrives, what is repeated, what is said."""

import hashlib
import random
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from sr_transformers.hub.publish import OURS
from sr_transformers.hub.upload import TRIES, HubError, repo_name, upload

CARD = "---\nlicense: mit\n---\n# A card\n"


@pytest.fixture
def folder(tmp_path):
    """A small repository: two LFS objects and two plain files."""
    folder = tmp_path / "folder"
    (folder / "figures").mkdir(parents=True)
    generator = random.Random(0)
    (folder / "model-00001-of-00002.safetensors").write_bytes(generator.randbytes(300_000))
    (folder / "model-00002-of-00002.safetensors").write_bytes(generator.randbytes(5_000))
    (folder / "README.md").write_text(CARD)
    (folder / "figures" / "a.txt").write_text("plain")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def send(folder, repo="org/sr", private=False, branch="main"):
    return upload(folder, repo, "model", private, branch, OURS)


def test_everything_arrives(hub, folder):
    url = send(folder)
    repo = hub.model("org/sr")
    assert repo.files() == contents(folder)
    assert url == f"{hub.url}/org/sr/commit/{repo.refs['main']}"
    assert hub.count("PUT /lfs/") == 2
    assert hub.count("POST /lfs-verify") == 2


def test_a_second_upload_makes_no_commit(hub, folder):
    first = send(folder)
    assert send(folder) == first
    assert len(hub.model("org/sr").commits) == 2  # the empty one and ours
    assert hub.count("PUT /lfs/") == 2


def test_what_is_ours_and_gone_is_removed_and_the_rest_stays(hub, folder):
    send(folder)
    mine = huggingface_hub.HfApi()
    mine.upload_file(path_or_fileobj=b"by hand", path_in_repo="NOTES.md", repo_id="org/sr")
    (folder / "model-00002-of-00002.safetensors").unlink()
    (folder / "figures" / "a.txt").unlink()
    send(folder)
    assert set(hub.model("org/sr").files()) == {"README.md", "NOTES.md", "model-00001-of-00002.safetensors"}


def test_an_interrupted_upload_continues(hub, folder):
    large = hashlib.sha256((folder / "model-00001-of-00002.safetensors").read_bytes()).hexdigest()
    hub.fail("PUT", large, times=1000, status=500)
    with pytest.raises(HubError, match=r"error of its own \(500\). Run the same command again"):
        send(folder)
    assert hub.model("org/sr").files() == {}
    assert len(hub.objects) == 1  # the small one has arrived
    hub.faults.clear()
    sent = hub.count("PUT /lfs/")
    send(folder)
    assert hub.model("org/sr").files() == contents(folder)
    assert hub.count("PUT /lfs/") == sent + 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/repos/create"),
        ("POST", "/preupload/"),
        ("POST", "objects/batch"),
        ("PUT", "/lfs/"),
        ("POST", "/lfs-verify"),
        ("POST", "/commit/"),
    ],
)
@pytest.mark.parametrize("status", [429, 503, None], ids=["429", "503", "dropped"])
def test_a_passing_failure_is_repeated(hub, folder, method, path, status):
    hub.fail(method, path, times=2, status=status)
    send(folder)
    assert hub.model("org/sr").files() == contents(folder)
    assert len(hub.model("org/sr").commits) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "limits the rate of requests. Run the same command again"),
        (502, r"error of its own \(502\). Run the same command again"),
        (None, "the connection to .* failed: .* Run the same command again"),
    ],
    ids=["429", "502", "dropped"],
)
def test_a_lasting_failure_is_said_plainly(hub, folder, status, message):
    before = contents(folder)
    hub.fail("POST", "/commit/", times=1000, status=status)
    with pytest.raises(HubError, match=message):
        send(folder)
    assert hub.count("POST .*/commit/") == TRIES
    assert contents(folder) == before


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, folder):
    hub.fail("POST", "/commit/", times=1, after=0)  # carried out, then the connection drops
    send(folder)
    assert len(hub.model("org/sr").commits) == 2


def test_without_a_token_it_says_how_to_log_in(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(HubError, match="log in with `hf auth login`"):
        send(folder)
    assert not hub.repos


def test_a_wrong_token_is_no_token(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="log in with `hf auth login`"):
        send(folder)


def test_a_namespace_of_others_is_refused(hub, folder):
    with pytest.raises(HubError, match="may not write to other/sr"):
        send(folder, "other/sr")


def test_bad_metadata_is_refused_before_anything_is_sent(hub, folder):
    (folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
    with pytest.raises(HubError, match=r'(?s)refuses org/sr: Invalid metadata in README.md.*"license" must be one of'):
        send(folder)
    assert hub.count("PUT /lfs/") == 0


def test_offline_mode_is_named(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
        send(folder)


def test_nobody_there(hub, folder):
    hub.close()
    with pytest.raises(HubError, match=r"the connection to .* failed"):
        send(folder)


def test_other_errors_are_not_dressed_up(hub, folder, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", broken)
    with pytest.raises(ZeroDivisionError):
        send(folder)


def test_private_is_private(hub, folder, monkeypatch):
    send(folder, private=True)
    send(folder, private=True)
    assert hub.model("org/sr").private
    assert huggingface_hub.HfApi().model_info("org/sr").private
    for token in ("hf_reader", False):
        with pytest.raises(RepositoryNotFoundError):
            huggingface_hub.HfApi(token=token).model_info("org/sr")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(HubError, match="may not write to org/sr"):
        send(folder, private=True)


def test_a_public_repository_is_not_taken_for_a_private_one(hub, folder):
    send(folder)
    with pytest.raises(HubError, match="exists and is public"):
        send(folder, private=True)


def test_a_branch_of_its_own(hub, folder):
    send(folder, branch="v2")
    repo = hub.model("org/sr")
    assert repo.files("main") == {}
    assert repo.files("v2") == contents(folder)
    assert send(folder, branch="v2").endswith(repo.refs["v2"])


def test_revisions_and_downloads(hub, folder, tmp_path):
    send(folder)
    api = huggingface_hub.HfApi()
    api.create_tag("org/sr", tag="v1")
    (folder / "README.md").write_text(CARD + "changed")
    send(folder)
    texts = {
        revision: huggingface_hub.hf_hub_download("org/sr", "README.md", revision=revision)
        for revision in ("v1", "main", hub.model("org/sr").refs["v1"])
    }
    old, new, by_hash = (Path(path).read_text() for path in texts.values())
    assert [old, new, by_hash] == [CARD, CARD + "changed", CARD]
    snapshot = huggingface_hub.snapshot_download("org/sr", local_dir=tmp_path / "copy")
    assert {name: one for name, one in contents(tmp_path / "copy").items() if ".cache" not in name} == contents(folder)
    assert snapshot
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.hf_hub_download("org/sr", "README.md", revision="nowhere")
    with pytest.raises(EntryNotFoundError):
        huggingface_hub.hf_hub_download("org/sr", "nothing.txt")


def test_a_download_that_breaks_off_is_resumed(hub, folder):
    send(folder)
    name = "model-00001-of-00002.safetensors"
    hub.fail("GET", f"resolve/.*/{name}", times=1, after=100_000)
    path = huggingface_hub.hf_hub_download("org/sr", name)
    assert Path(path).read_bytes() == (folder / name).read_bytes()
    assert hub.count(f"GET .*/resolve/.*/{name}") == 2


@pytest.mark.parametrize(
    ("name", "message"), [("sr", "no namespace"), ("a/b/c", "is no name"), ("org/-x", "is no name")]
)
def test_a_name_must_be_one(name, message):
    with pytest.raises(ValueError, match=message):
        repo_name(name)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/repos/create"), ("POST", "/commit/")],
)
def test_a_hub_that_never_answers_is_given_up(hub, folder, monkeypatch, method, path):
    monkeypatch.setattr("sr_transformers.hub.upload.TIME_LIMIT", 0.5)
    hub.fail(method, path, times=1000, hang=True)
    with pytest.raises(
        HubError, match=rf"connection to {hub.url} is open, but org/sr got no answer within 0.5 seconds"
    ):
        send(folder)
    assert hub.count(f"{method} .*{path}") == 1


def test_the_users_own_time_limit_stays(hub, folder, monkeypatch):
    monkeypatch.setattr("sr_transformers.hub.upload.TIME_LIMIT", 0.5)
    huggingface_hub.get_session().timeout = 7.0
    send(folder)
    assert huggingface_hub.get_session().timeout.read == 7.0


@pytest.mark.parametrize("path", ["/api/repos/create", "/commit/"])
def test_a_redirect_loop_is_said(hub, folder, path):
    hub.fail("POST", path, times=1000, status=302)
    hub.fail("GET", path, times=1000, status=302)  # what a client makes of a POST that is redirected
    with pytest.raises(HubError, match=rf"{hub.url} sends requests for org/sr round in a circle"):
        send(folder)
