"""Whether the Hub answers at all: one question with a short limit, before libraries ask for every file, again and
again, and wait each time."""

import httpx2
import huggingface_hub
from huggingface_hub import get_hf_file_metadata, hf_hub_url


def silence(repo_id: str, file: str, token: str | bool | None = None, repo_type: str | None = None) -> str | None:
    """Why the Hub cannot be asked for a file of a repository, in words without a full stop; None if it answers,
    whatever it says, or is not to be asked (HF_HUB_OFFLINE)."""
    hub, limit = huggingface_hub.constants.ENDPOINT, huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return None
    try:
        get_hf_file_metadata(hf_hub_url(repo_id, file, repo_type=repo_type), token, timeout=limit)
    except httpx2.TooManyRedirects:
        return f"{hub} sends requests round in a circle (redirects; check HF_ENDPOINT and your proxy)"
    except httpx2.TimeoutException:
        return f"{hub} did not answer within {limit} seconds (HF_HUB_ETAG_TIMEOUT)"
    except httpx2.RequestError as error:
        return f"the connection to {hub} failed ({error})"
    except (OSError, ValueError):  # an answer: no such repository or file, no right to see it, no such name
        return None
    return None
