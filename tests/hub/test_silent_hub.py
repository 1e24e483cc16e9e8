"""A checkpoint from a Hub that accepts and never answers, that leads round in a circle, or that is not there."""

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import HfApi

from sr_transformers import prepare
from sr_transformers.evaluation.loading import Checkpoint
from sr_transformers.hub.publish import publish


@pytest.fixture
def impatient(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 1)
    return hub


def test_a_hub_that_never_answers_is_given_up(impatient):
    impatient.fail("HEAD", "/", times=1000, hang=True)
    impatient.fail("GET", "/", times=1000, hang=True)
    with pytest.raises(OSError, match=rf"org/sr: .*{impatient.url} did not answer within 1 seconds .* has no copy"):
        Checkpoint("org/sr").model()
    assert impatient.count("^HEAD") == 1


@pytest.mark.parametrize("name", ["org/log", "org/log/log.csv"])
def test_a_log_on_a_hub_that_never_answers_is_given_up_too(impatient, tmp_path, name):
    impatient.fail("HEAD", "/", times=1000, hang=True)
    impatient.fail("GET", "/", times=1000, hang=True)
    with pytest.raises(FileNotFoundError, match=rf"{name}: {impatient.url} did not answer within 1 seconds .*cache"):
        prepare(f"hf://datasets/{name}", tmp_path / "out")
    assert impatient.count("^HEAD") == 1


def test_what_the_cache_holds_needs_no_hub(impatient, finished_run):
    publish(finished_run, "org/sr")
    weights = Checkpoint("org/sr").model().state_dict()
    asked = impatient.count("^HEAD")
    impatient.fail("HEAD", "/", times=1000, hang=True)
    impatient.fail("GET", "/", times=1000, hang=True)
    again = Checkpoint("org/sr").model().state_dict()
    assert all(torch.equal(again[name], one) for name, one in weights.items())
    assert impatient.count("^HEAD") == asked + 1


def test_the_file_of_a_log_that_the_cache_holds_needs_no_hub(impatient, tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"u,i{n},{n}\n" for n in range(9)))
    HfApi().create_repo("org/log", repo_type="dataset")
    HfApi().upload_file(
        path_or_fileobj=tmp_path / "log.csv", path_in_repo="log.csv", repo_id="org/log", repo_type="dataset"
    )
    first = prepare("hf://datasets/org/log/log.csv", tmp_path / "first")
    impatient.fail("HEAD", "/", times=1000, hang=True)
    again = prepare("hf://datasets/org/log/log.csv", tmp_path / "again")
    assert again.items_fingerprint == first.items_fingerprint


def test_a_redirect_loop_is_said(hub):
    hub.fail("HEAD", "/", times=1000, status=302)
    with pytest.raises(OSError, match=rf"org/sr: .*{hub.url} sends requests round in a circle"):
        Checkpoint("org/sr").model()


def test_a_connection_that_is_refused_is_said(hub):
    hub.close()
    with pytest.raises(OSError, match=rf"org/sr: .*the connection to {hub.url} failed"):
        Checkpoint("org/sr").model()
