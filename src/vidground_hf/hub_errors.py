"""What may go wrong between here and the Hub: what is tried again, and what is said in one line.

Sends nothing itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from vidground_hf.rendering import clean_text

Result = TypeVar("Result")

_MAX_TRIES = 5
CONFLICTS = (409, 412)  # somebody else committed meanwhile
BUSY = (408, 429, 500, 502, 503, 504)
_TOKEN = re.compile(r"hf_\w{4,}|api_org_\w{4,}")
# The base of what the HTTP library raises; which library that is depends on the version of huggingface_hub.
ConnectionProblem: type[Exception] = HfHubHTTPError.__bases__[0]


class HubError(RuntimeError):
    """A push or a read that the Hub did not let through; the message is one line without secrets."""


def retry(action: Callable[[], Result], statuses: Sequence[int]) -> Result:
    """Repeats what may be repeated: huggingface_hub does so for uploads and lists, not for commits and look-ups.

    Args:
        action (`Callable`): talks to the Hub, and may do so again.
        statuses (`Sequence[int]`): HTTP statuses after which it is repeated; with 503, after a broken connection, too.

    Returns:
        What `action` returned.

    Raises:
        What the last try raised.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except ConnectionProblem as error:
            response = error.response if isinstance(error, HfHubHTTPError) else None
            status = response.status_code if response is not None else 503  # a broken connection passes, too
            if status not in statuses or attempt == _MAX_TRIES:
                raise
            asked = response.headers.get("Retry-After", "") if response is not None else ""
        time.sleep(float(asked) if asked.isdigit() else 2.0 ** (attempt - 1))


def ask_hub(action: Callable[[], Result], repo_id: str, token: str | None = None) -> Result:
    """Runs what talks to the Hub, and says in one line what went wrong.

    The library's exception is dropped whole: it holds what the server sent, which may repeat a token.

    Raises:
        `HubError`: instead of whatever the library raised.
    """
    try:
        return action()
    except (ConnectionProblem, HFValidationError, EntryNotFoundError, OfflineModeIsEnabled) as error:
        problem = explain_error(error, repo_id, token)
    except RuntimeError as error:  # how an upload of a file fails
        if not isinstance(error.__cause__, ConnectionProblem):
            raise
        problem = explain_error(error.__cause__, repo_id, token)
    raise HubError(problem)


def explain_error(error: Exception, repo_id: str, token: str | None = None) -> str:
    """What the Hub refused, and what to do about it, in one line without secrets."""
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return f"{repo_id} is not here and {constants.ENDPOINT} is not reached; go online, or unset HF_HUB_OFFLINE"
    if isinstance(error, EntryNotFoundError):
        return f"{repo_id} has no report.json, so it is no curated dataset; open it with datasets.load_dataset"
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is no name of a repository; it reads user/name"
    if not isinstance(error, HfHubHTTPError):
        return f"cannot reach {constants.ENDPOINT} ({type(error).__name__}); what was uploaded is kept, run this again"
    status = error.response.status_code
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return f"the Hub does not accept the token ({status}); run `hf auth login` again, or set HF_TOKEN anew"
    if status in (401, 404):
        return (
            f"no repository or revision {repo_id}, or the token may not see it ({status}); check the name, and that "
            "the token belongs to an account with access"
        )
    if status == 403:
        return (
            f"the token may not write to {repo_id} ({status}); use one with write access to it, or open a pull "
            "request with --create-pr (in Python create_pr=True)"
        )
    if status in CONFLICTS:
        return f"{repo_id} kept changing while this was pushed ({status}); run it again"
    if status in BUSY:
        return f"the Hub was too busy {_MAX_TRIES} times ({status}); run this again later, nothing is uploaded twice"
    said = getattr(error, "server_message", None) or "no reason given"
    return f"the Hub refused {repo_id} ({status}): {clean_text(hide_token(said, token))}"


def hide_token(text: str, token: str | None = None) -> str:
    """Takes tokens out of a text.

    Example:
        >>> hide_token("bad token hf_abcdefgh, sorry")
        'bad token [token], sorry'
    """
    for known in (token, get_token()):
        if known:
            text = text.replace(known, "[token]")
    return _TOKEN.sub("[token]", text)
