"""Who may do what on the loopback Hub, and how it shows repositories and LFS files.

It answers no request; `hub_routes.py` and `hub_files.py` do.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from tests.hub_http import Request
from tests.hub_store import File, HubError, Repository, make_pointer

if TYPE_CHECKING:
    from tests.hub_server import HubServer


@dataclasses.dataclass(frozen=True)
class Account:
    """Who a token stands for: the user, the scope of the token and where the user may write."""

    user: str
    scope: str
    organizations: tuple[str, ...] = ()

    def owns(self, repository: Repository) -> bool:
        return repository.owner in (self.user, *self.organizations)


def find_account(hub: HubServer, request: Request) -> Account | None:
    header = request.headers.get("authorization")
    if header is not None and header not in hub.accounts:
        raise HubError(401, "Invalid credentials in Authorization header")
    return hub.accounts[header] if header else None


def require_account(hub: HubServer, request: Request) -> Account:
    account = find_account(hub, request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    return account


def find_repository(
    hub: HubServer, request: Request, kind: str, name: str, need: Literal["read", "propose", "write"] = "read"
) -> Repository:
    """The repository if the token may read it, open pull requests there, or write to it."""
    repository = hub.store.repositories.get((kind, name))
    account = find_account(hub, request)
    scope = account.scope if account else "none"
    if repository is None or (repository.private and not (account and account.owns(repository) and scope != "none")):
        raise HubError(404, "Repository not found", "RepoNotFound")
    if need != "read":
        account = require_account(hub, request)
        if scope != "write":
            raise HubError(403, "This token has no write permission; use a token with the write role")
        if need == "write" and not account.owns(repository):
            raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    return repository


def find_branch(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Repository:
    """The repository if the token may commit to the branch: those who opened a pull request may commit to it."""
    repository = find_repository(hub, request, kind, name, "propose")
    pull = repository.pulls.get(int(revision.removeprefix("refs/pr/"))) if revision.startswith("refs/pr/") else None
    if pull is None or pull.author != require_account(hub, request).user:
        find_repository(hub, request, kind, name, "write")
    return repository


def repository_path(kind: str, name: str) -> str:
    return f"/{name}" if kind == "model" else f"/{kind}s/{name}"


def show_lfs(file: File) -> dict[str, Any]:
    return {
        "oid": file.sha256,
        "size": file.size,
        "pointerSize": len(make_pointer(str(file.sha256), file.size)),
    }
