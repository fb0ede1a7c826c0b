"""One commit to the Hub: what changed and nothing else, resumed after a cut, with errors that say what to do.

What is in the files is decided elsewhere; uploading, deduplication and storage are huggingface_hub's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

from vidground_hf.rendering import clean_text

RepoType = Literal["dataset", "model", "space"]
Result = TypeVar("Result")

_MAX_TRIES = 5
_CONFLICTS = (409, 412)  # somebody else committed meanwhile
_BUSY = (408, 429, 500, 502, 503, 504)
_TOKEN = re.compile(r"hf_\w{4,}|api_org_\w{4,}")
# The base of what the HTTP library raises; which library that is depends on the version of huggingface_hub.
_TransportError: type[Exception] = HfHubHTTPError.__bases__[0]


class HubError(RuntimeError):
    """A push or a read that the Hub did not let through; the message is one line without secrets."""


class Push(NamedTuple):
    """What a push did.

    Attributes:
        repo_id (`str`): where to.
        url (`str`): the commit, the pull request, or, where nothing had changed, the last commit.
        is_changed (`bool`): `False` when the repository held these files already; then there is no new commit.
        files (`dict[str, int]`): paths in the repository and their sizes in bytes.
    """

    repo_id: str
    url: str
    is_changed: bool
    files: dict[str, int]


def list_files(folder: Path) -> dict[str, int]:
    """Paths of the files in a folder, as they are named in a repository, and their sizes in bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def describe_plan(repo_id: str, files: dict[str, int]) -> str:
    """What a push would do, in one line."""
    return f"{len(files)} files, {sum(files.values()) / 1e6:,.1f} MB, to {repo_id} in one commit"


def push_folder(
    folder: Path,
    repo_id: str,
    repo_type: RepoType,
    *,
    message: str,
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
    replaced: Sequence[str] = (),
) -> Push:
    """Uploads a folder in one commit.

    The repository is made when it is not there. A file that is there already is not sent again, and where all are, no
    commit is made; so a push that was cut off goes on where it was. Busy servers and commits of somebody else are
    waited for.

    Args:
        folder (`Path`): whose files go to the root of the repository.
        repo_id (`str`): `user/name`.
        repo_type (`str`): `"dataset"`, `"model"` or `"space"`.
        message (`str`): of the commit.
        private (`bool`, *optional*): of a repository that is made.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request instead.
        revision (`str`, *optional*): a branch, made when it is not there; `main` when left out.
        token (`str`, *optional*): left out, `HF_TOKEN` or the Hub's own store.
        replaced (`Sequence[str]`, *optional*): patterns of files to delete where they are not in `folder`.

    Returns:
        `Push`: what was done.

    Raises:
        `ValueError`: for a branch together with a pull request.
        `HubError`: when it cannot be done, and offline.
    """
    if create_pr and revision not in (None, constants.DEFAULT_REVISION):
        raise ValueError(f"a pull request goes to main, got revision {revision!r} too; leave one of the two out")
    files = list_files(folder)
    if is_offline_mode():
        raise HubError(
            f"offline, nothing was sent: would push {describe_plan(repo_id, files)}. Unset HF_HUB_OFFLINE, or write "
            "the files with --dry-run DIR"
        )
    if token is None and get_token() is None:
        raise HubError(f"no token to push to {repo_id} with: run `hf auth login`, or set HF_TOKEN")
    api = HfApi(token=token, library_name="vidground-hf")

    def push() -> Push:
        _make_repo(api, repo_id, repo_type, private, revision)
        first_head = _retry(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha, _BUSY)

        def commit() -> Any:
            head = api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
            there = api.list_repo_files(repo_id, repo_type=repo_type, revision=head)
            stale = [path for path in there if path not in files and any(fnmatch(path, one) for one in replaced)]
            return api.create_commit(
                repo_id,
                [CommitOperationDelete(path) for path in stale]
                + [CommitOperationAdd(path, folder / path) for path in files],
                commit_message=message,
                repo_type=repo_type,
                revision=revision,
                create_pr=create_pr,
                parent_commit=head,
            )

        made = _retry(commit, (*_CONFLICTS, 429) if create_pr else _CONFLICTS + _BUSY)
        return Push(repo_id, made.pr_url or made.commit_url, made.oid != first_head, files)

    return ask_hub(push, repo_id, token)


def _make_repo(api: HfApi, repo_id: str, repo_type: RepoType, private: bool | None, revision: str | None) -> None:
    """Makes the repository and the branch where they are not there; one of somebody else's is only looked up."""
    try:
        _retry(lambda: api.repo_info(repo_id, repo_type=repo_type), _BUSY)
    except RepositoryNotFoundError:
        sdk = "gradio" if repo_type == "space" else None
        _retry(
            lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk), _BUSY
        )
    if revision is not None and not revision.startswith("refs/"):
        _retry(lambda: api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True), _BUSY)


def _retry(action: Callable[[], Result], statuses: Sequence[int]) -> Result:
    """Repeats what may be repeated: huggingface_hub does so for uploads and lists, not for commits and look-ups."""
    for attempt in range(_MAX_TRIES):
        try:
            return action()
        except HfHubHTTPError as error:
            if error.response.status_code not in statuses or attempt == _MAX_TRIES - 1:
                raise
            waited = error.response.headers.get("Retry-After", "")
        except _TransportError:
            if 500 not in statuses or attempt == _MAX_TRIES - 1:
                raise
            waited = ""
        time.sleep(float(waited) if waited.isdigit() else 2.0**attempt)
    raise AssertionError("the last try returns or raises")


def ask_hub(action: Callable[[], Result], repo_id: str, token: str | None = None) -> Result:
    """Runs what talks to the Hub, and says in one line what went wrong.

    The library's exception is dropped whole: it holds what the server sent, which may repeat a token.

    Raises:
        `HubError`: instead of whatever the library raised.
    """
    try:
        return action()
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, _TransportError) as error:
        problem = explain_error(error, repo_id, token)
    except RuntimeError as error:  # how an upload of a file fails
        if not isinstance(error.__cause__, _TransportError):
            raise
        problem = explain_error(error.__cause__, repo_id, token)
    raise HubError(problem)


def explain_error(error: Exception, repo_id: str, token: str | None = None) -> str:
    """What the Hub refused, and what to do about it, in one line without secrets."""
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id} is not on this machine and HF_HUB_OFFLINE is set; unset it"
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
    if status in _CONFLICTS:
        return f"{repo_id} kept changing while this was pushed ({status}); run it again"
    if status in _BUSY:
        return f"the Hub was too busy {_MAX_TRIES} times ({status}); run this again later, nothing is uploaded twice"
    said = getattr(error, "server_message", None) or "no reason given"
    return f"the Hub refused {repo_id} ({status}): {hide_token(clean_text(said), token)}"


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
