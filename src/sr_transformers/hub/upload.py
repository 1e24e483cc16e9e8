"""Putting a folder on the Hub. Transfers are huggingface_hub's; here are the steps around them, the time that a request
may take (huggingface_hub would wait for ever), and plain errors."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

TRIES = 3  # of a whole upload; each continues the one before, and huggingface_hub repeats single requests itself
PAUSE = 2.0  # seconds before the second try, doubled before the third
TIME_LIMIT = 60.0  # seconds without a byte from the Hub, after which a request is given up


class HubError(OSError):
    """The Hub refused or could not be reached; the message says what to do."""


def repo_name(repo_id: str) -> str:
    """The name itself, if it is "namespace/name" as the Hub allows it.

    Raises:
        ValueError: if not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name on the Hub: {error}") from error
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} has no namespace; write organization/{repo_id} or user/{repo_id}.")
    return repo_id


def upload(
    folder: Path,
    repo_id: str,
    kind: str,
    private: bool,
    branch: str,
    stale: Sequence[str],
    token: str | None = None,
) -> str:
    """Makes a repository, and a branch of it, equal to a folder.

    Files that are there already with the same content are not sent again, so an upload that was cut off continues, and
    one of an unchanged folder makes no commit.

    Args:
        kind: "model" or "dataset".
        private: make it private if it is new.
        stale: patterns of files to remove where the folder does not have them; all others stay.

    Returns:
        Address of the commit.

    Raises:
        HubError: if the Hub refuses (no token, no right, no such repository, metadata that it does not take), limits
            the rate, fails, or cannot be reached.
    """
    api = HfApi(token=token)
    return _asked(lambda: _upload(api, folder, repo_id, kind, private, branch, stale), repo_id, api.endpoint)


def make_repo(repo_id: str, private: bool, token: str | None = None) -> None:
    """Makes a repository for a model unless it is there, so that who may not write to it hears of it at once.

    Raises:
        HubError: as `upload`.
    """
    api = HfApi(token=token)
    _asked(lambda: str(api.create_repo(repo_id, private=private or None, exist_ok=True)), repo_id, api.endpoint)


def _asked(ask: Callable[[], str], repo_id: str, endpoint: str) -> str:
    """What the Hub says, asked `TRIES` times; an error that is the Hub's or the network's in plain words."""
    for attempt in range(1, TRIES + 1):
        try:
            session = get_session()  # shared, and made anew after a failed connection
            if session.timeout == httpx2.Timeout(None):
                session.timeout = httpx2.Timeout(TIME_LIMIT)
            return ask()
        except Exception as error:
            cause = _cause(error)
            if not _passing(cause) or attempt == TRIES:
                explained = _explain(cause, repo_id, endpoint)
                if explained is None:
                    raise
                raise HubError(explained) from error
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _upload(api: HfApi, folder: Path, repo_id: str, kind: str, private: bool, branch: str, stale: Sequence[str]) -> str:
    api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise HubError(f"{repo_id} exists and is public; make it private on the Hub first, or leave out --private.")
    if branch != "main":
        api.create_branch(repo_id, repo_type=kind, branch=branch, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        repo_type=kind,
        revision=branch,
        commit_message="Publish with sr_transformers",
        delete_patterns=list(stale) or None,
    )
    return str(commit.commit_url)


def _cause(error: BaseException) -> BaseException:
    """The error of the request inside those that threads wrap around it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError | httpx2.HTTPStatusError) else None


def _passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    status = _status(error)
    if isinstance(error, httpx2.TimeoutException):  # asking again would take as long
        return False
    return isinstance(error, httpx2.TransportError) or status == 429 or (status is not None and status >= 500)


def _explain(error: BaseException, repo_id: str, endpoint: str) -> str | None:
    """What happened and what to do, for errors that are the Hub's or the network's."""
    again = "Run the same command again later: what has arrived is not sent again."
    status = _status(error)
    if isinstance(error, HubError):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "huggingface_hub is in offline mode; unset HF_HUB_OFFLINE to publish."
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"{endpoint} does not know who you are; log in with `hf auth login`, or check HF_TOKEN."
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo_id} does not exist on {endpoint}, or is private and your token may not see it."
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such branch or revision: {error}"
    if status == 403:
        return f"your token may not write to {repo_id}; it needs write permission there."
    if status == 429:
        return f"{endpoint} limits the rate of requests. {again}"
    if status is not None and status >= 500:
        return f"{endpoint} answers with an error of its own ({status}). {again}"
    if isinstance(error, httpx2.TooManyRedirects):
        return f"{endpoint} sends requests for {repo_id} round in a circle: {error} Check HF_ENDPOINT and your proxy."
    if isinstance(error, httpx2.TimeoutException):
        return f"the connection to {endpoint} is open, but {repo_id} got no answer within {_limit(error)}. {again}"
    if isinstance(error, httpx2.RequestError):
        return f"the connection to {endpoint} failed: {error or type(error).__name__}. {again}"
    if status is not None or isinstance(error, ValueError):
        return f"{endpoint} refuses {repo_id}: {error}"
    return None


def _limit(error: httpx2.TimeoutException) -> str:
    """The time that the request was given."""
    seconds = error.request.extensions.get("timeout", {}).get("read")
    return f"{seconds or TIME_LIMIT:g} seconds"
