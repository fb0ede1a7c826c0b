"""One commit to the Hub: what changed and nothing else, resumed after a cut.

What is in the files is decided elsewhere; uploading, deduplication and storage are huggingface_hub's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from vidground_hf.hub_errors import BUSY, CONFLICTS, ConnectionProblem, HubError, ask_hub, retry

RepoType = Literal["dataset", "model", "space"]


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
        replaced (`Sequence[str]`, *optional*): regular expressions of paths to delete where they are not in `folder`
            and the repository holds an earlier `report.json`.

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
        _make_repo(api, repo_id, repo_type, private, revision, must_exist=create_pr)
        first_head = retry(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha, BUSY)

        def commit() -> Any:
            head = api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
            there = api.list_repo_files(repo_id, repo_type=repo_type, revision=head)
            deleted = [CommitOperationDelete(path) for path in _list_stale(there, files, replaced)]
            return api.create_commit(
                repo_id,
                [*deleted, *(CommitOperationAdd(path, folder / path) for path in files)],
                commit_message=message,
                repo_type=repo_type,
                revision=revision,
                create_pr=create_pr,
                parent_commit=head,
            )

        try:
            made = retry(commit, (*CONFLICTS, 429) if create_pr else CONFLICTS + BUSY)
        except ConnectionProblem as error:
            is_unsure = not isinstance(error, HfHubHTTPError) or error.response.status_code in BUSY
            if create_pr and is_unsure:
                raise HubError(
                    f"the Hub did not say whether it opened the pull request on {repo_id}; look at its discussions "
                    "before running this again, or there may be two"
                ) from None
            raise
        return Push(repo_id, made.pr_url or made.commit_url, made.oid != first_head, files)

    return ask_hub(push, repo_id, token)


def _list_stale(there: Sequence[str], files: Mapping[str, int], replaced: Sequence[str]) -> list[str]:
    """Files of an earlier push that are not written again; none where there was no push of ours."""
    if "report.json" not in there:
        return []
    return [path for path in there if path not in files and any(re.fullmatch(one, path) for one in replaced)]


def _make_repo(
    api: HfApi, repo_id: str, repo_type: RepoType, private: bool | None, revision: str | None, *, must_exist: bool
) -> None:
    """Makes the repository and the branch where they are not there; one of somebody else's is only looked up."""
    try:
        retry(lambda: api.repo_info(repo_id, repo_type=repo_type), BUSY)
    except RepositoryNotFoundError:
        if must_exist:  # a pull request goes to what is there; a typing error must not make a repository
            raise
        sdk = "gradio" if repo_type == "space" else None
        retry(
            lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk), BUSY
        )
    if revision is not None and not revision.startswith("refs/"):
        retry(lambda: api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True), BUSY)
