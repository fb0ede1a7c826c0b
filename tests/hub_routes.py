"""The loopback Hub's routes about repositories: users, creation, trees, refs and pull requests; `ROUTES` at the end.

The routes by which contents come in and go out are in `hub_files.py`; what is not imitated is in `hub_server.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import yaml  # type: ignore[import-untyped]

from tests import hub_files
from tests.hub_access import find_repository, repository_path, require_account, show_lfs
from tests.hub_http import Request, Response, give_json
from tests.hub_store import Commit, HubError, PullRequest, Repository

if TYPE_CHECKING:
    from tests.hub_server import HubServer

_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


def whoami(hub: HubServer, request: Request) -> Response:
    account = require_account(hub, request)
    token: dict[str, Any] = {"displayName": "test", "role": account.scope}
    if account.scope == "none":  # a fine-grained token that was given no right
        token |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": []}}
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
    shown = {"type": "user", "name": account.user, "fullname": account.user, "orgs": organizations}
    return give_json(shown | {"auth": {"type": "access_token", "accessToken": token}})


def create_repository(hub: HubServer, request: Request) -> Response:
    asked = request.read_json()
    account = require_account(hub, request)
    owner = asked.get("organization") or account.user
    kind = asked.get("type") or "model"
    name = f"{owner}/{asked['name']}"
    if account.scope != "write" or owner not in (account.user, *account.organizations):
        raise HubError(403, f"You don't have the rights to create a {kind} under the namespace {owner!r}")
    url = f"{hub.url}{repository_path(kind, name)}"
    with hub.lock:
        if (kind, name) in hub.store.repositories:
            return give_json({"error": f"You already created this {kind} repo", "url": url}, 409)
        private = asked.get("visibility") == "private"
        hub.store.create(kind, name, private=private, sdk=asked.get("sdk"), author=account.user)
    return give_json({"url": url, "name": name, "id": name})


def show_repository(hub: HubServer, request: Request, kind: str, name: str, revision: str = "main") -> Response:
    repository = find_repository(hub, request, kind, name)
    commit = repository.resolve(revision)
    siblings: list[dict[str, Any]] = []
    for path, file in sorted(commit.files.items()):
        siblings.append({"rfilename": path})
        if request.query.get("blobs"):
            siblings[-1] |= {"size": file.size, "blobId": file.oid}
            if file.sha256:
                siblings[-1]["lfs"] = show_lfs(file) | {"sha256": file.sha256}
    shown: dict[str, Any] = {
        "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
        "id": name,
        "author": repository.owner,
    }
    shown |= {"sha": commit.oid, "lastModified": commit.date, "private": repository.private, "gated": False}
    shown |= {"disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
    shown["createdAt"] = list(repository.list_history(commit))[-1].date
    match = _FRONT_MATTER.match((repository.read_file(commit, "README.md") or b"").decode(errors="replace"))
    with contextlib.suppress(yaml.YAMLError):
        if match and isinstance(card := yaml.safe_load(match.group(1)), dict):
            shown["cardData"] = json.loads(json.dumps(card, default=str))
    if repository.sdk:
        shown["sdk"] = repository.sdk
    return give_json(shown)


def validate_yaml(_: HubServer, request: Request) -> Response:
    match = _FRONT_MATTER.match(request.read_json()["content"])
    if match is None:
        return give_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        card = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        return give_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(card, dict):
        return give_json({"errors": [{"message": "the metadata must be a mapping"}], "warnings": []}, 400)
    errors = []
    for name in ("license", "language", "tags", "task_categories", "size_categories", "source_datasets"):
        values = card.get(name, [])
        if not all(isinstance(value, str) for value in (values if isinstance(values, list) else [values])):
            errors.append({"message": f'"{name}" must be a string or a list of strings'})
    return give_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def list_entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """All files and folders of a commit by path, as the tree route shows them."""
    entries: dict[str, dict[str, Any]] = {}
    below: dict[str, list[str]] = {}
    for path, file in commit.files.items():
        entries[path] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            entries[path]["lfs"] = show_lfs(file)
        for parent in list(PurePosixPath(path).parents)[:-1]:
            below.setdefault(str(parent), []).append(f"{path} {file.oid}")
    for path, lines in below.items():
        oid = hashlib.sha1("\n".join(sorted(lines)).encode()).hexdigest()
        entries[path] = {"type": "directory", "oid": oid, "size": 0, "path": path}
    return entries


def add_last_commits(repository: Repository, commit: Commit, entries: list[dict[str, Any]]) -> None:
    """Adds to files and folders the newest commit that changed them."""
    history = list(repository.list_history(commit))
    tables = [list_entries(commit) for commit in history]
    for entry in entries:
        path, last = entry["path"], history[-1]
        for newer, (table, older_table) in zip(history, pairwise(tables), strict=False):
            if table[path] != older_table.get(path):
                last = newer
                break
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}


def is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true")


def list_tree(hub: HubServer, request: Request, kind: str, name: str, revision: str, path: str = "") -> Response:
    """The entries under a folder, 1,000 a page (50 with `expand`), the next page in a `Link` header."""
    repository = find_repository(hub, request, kind, name)
    commit = repository.resolve(revision)
    query = request.query
    expand = is_true(query.get("expand"))
    prefix = f"{path}/" if path else ""
    entries = [
        entry
        for name, entry in sorted(list_entries(commit).items())
        if name.startswith(prefix) and (is_true(query.get("recursive")) or "/" not in name[len(prefix) :])
    ]
    headers = {"X-Repo-Commit": commit.oid}
    if path and not entries:
        raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound", headers)
    start = int(query.get("cursor", 0))
    stop = start + (min(50, hub.page_size) if expand else hub.page_size)
    if stop < len(entries):
        headers["Link"] = f'<{hub.url}{request.path}?{urlencode({**query, "cursor": stop})}>; rel="next"'
    if expand:
        add_last_commits(repository, commit, entries[start:stop])
    return give_json(entries[start:stop], headers=headers)


def show_paths(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Response:
    repository = find_repository(hub, request, kind, name)
    commit = repository.resolve(revision)
    form = parse_qs(request.body.read().decode())
    table = list_entries(commit)
    entries = [table[path.strip("/")] for path in form["paths"] if path.strip("/") in table]
    if is_true(form["expand"][0]):
        add_last_commits(repository, commit, entries)
    return give_json(entries)


def list_refs(hub: HubServer, request: Request, kind: str, name: str) -> Response:
    repository = find_repository(hub, request, kind, name)
    shown: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for branch, oid in list(repository.branches.items()):
        if branch.startswith("refs/pr/"):
            number = branch.removeprefix("refs/pr/")
            shown["pullRequests"].append({"name": number, "ref": branch, "targetCommit": oid})
        else:
            shown["branches"].append({"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid})
    for tag, oid in repository.tags.items():
        shown["tags"].append({"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid})
    if not request.query.get("include_prs"):
        del shown["pullRequests"]
    return give_json(shown)


def list_commits(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Response:
    repository = find_repository(hub, request, kind, name)
    history = repository.list_history(repository.resolve(revision))
    return give_json(
        [
            {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
            | {"authors": [{"user": commit.author}]}
            for commit in history
        ]
    )


def create_branch(hub: HubServer, request: Request, kind: str, name: str, branch: str) -> Response:
    repository = find_repository(hub, request, kind, name, "write")
    if branch in repository.branches:
        raise HubError(409, f"Reference already exists: {branch}")
    repository.branches[branch] = repository.resolve(request.read_json().get("startingPoint", "main")).oid
    repository.save()
    return give_json({})


def create_tag(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Response:
    repository = find_repository(hub, request, kind, name, "write")
    tag = request.read_json()["tag"]
    if tag in repository.tags:
        raise HubError(409, f"Reference already exists: {tag}")
    repository.tags[tag] = repository.resolve(revision).oid
    repository.save()
    return give_json({})


def show_pull(repository: Repository, pull: PullRequest) -> dict[str, Any]:
    shown = {"num": pull.num, "title": pull.title, "status": pull.status, "createdAt": pull.date}
    shown |= {"author": {"name": pull.author}, "isPullRequest": True}
    return shown | {"repo": {"name": repository.name, "type": repository.kind}}


def list_discussions(hub: HubServer, request: Request, kind: str, name: str) -> Response:
    repository = find_repository(hub, request, kind, name)
    shown = [show_pull(repository, pull) for pull in repository.pulls.values()]
    return give_json({"discussions": shown, "count": len(shown), "start": 0})


def find_pull(repository: Repository, num: str) -> PullRequest:
    if int(num) not in repository.pulls:
        raise HubError(404, f"Discussion {num} not found")
    return repository.pulls[int(num)]


def show_discussion(hub: HubServer, request: Request, kind: str, name: str, num: str) -> Response:
    repository = find_repository(hub, request, kind, name)
    pull = find_pull(repository, num)
    changes = {"base": pull.base} | ({"mergeCommitId": pull.merge_commit} if pull.merge_commit else {})
    shown = {"changes": changes, "filesWithConflicts": [], "events": [], "diff": ""}
    return give_json(show_pull(repository, pull) | shown)


def merge_discussion(hub: HubServer, request: Request, kind: str, name: str, num: str) -> Response:
    repository = find_repository(hub, request, kind, name, "write")
    with hub.lock:
        commit = repository.merge_pull(find_pull(repository, num), require_account(hub, request).user)
    return give_json({"mergeCommitId": commit.oid})


def compile_route(pattern: str) -> re.Pattern[str]:
    parts = {
        "KIND": "(?P<kind>model|dataset|space)s",
        "PLURAL": "(?:/(?P<plural>datasets|spaces))?",
        "NAME": "(?P<name>[^/]+/[^/]+?)",
        "REV": "(?P<revision>[^/]+)",
        "PATH": "(?P<path>.+)",
    }
    return re.compile(re.sub("|".join(parts), lambda match: parts[match.group()], pattern))


_ROUTES: list[tuple[str, str, str, Callable[..., Response]]] = [
    ("GET", "whoami", "/api/whoami-v2", whoami),
    ("POST", "create-repo", "/api/repos/create", create_repository),
    ("POST", "validate-yaml", "/api/validate-yaml", validate_yaml),
    ("POST", "preupload", "/api/KIND/NAME/preupload/REV", hub_files.preupload),
    ("POST", "lfs-batch", r"PLURAL/NAME\.git/info/lfs/objects/batch", hub_files.start_lfs),
    ("PUT", "lfs-upload", "/storage/KIND/NAME/(?P<oid>[0-9a-f]{64})", hub_files.put_object),
    ("GET", "lfs-download", "/storage/KIND/NAME/(?P<oid>[0-9a-f]{64})", hub_files.get_object),
    ("POST", "lfs-verify", "/api/KIND/NAME/lfs-verify", hub_files.verify_lfs),
    ("POST", "commit", "/api/KIND/NAME/commit/REV", hub_files.make_commit),
    ("GET", "tree", "/api/KIND/NAME/tree/REV(?:/PATH)?", list_tree),
    ("POST", "paths-info", "/api/KIND/NAME/paths-info/REV", show_paths),
    ("GET", "refs", "/api/KIND/NAME/refs", list_refs),
    ("GET", "commits", "/api/KIND/NAME/commits/REV", list_commits),
    ("POST", "create-branch", "/api/KIND/NAME/branch/(?P<branch>[^/]+)", create_branch),
    ("POST", "create-tag", "/api/KIND/NAME/tag/REV", create_tag),
    ("GET", "discussions", "/api/KIND/NAME/discussions", list_discussions),
    ("GET", "discussion", r"/api/KIND/NAME/discussions/(?P<num>\d+)", show_discussion),
    ("POST", "merge", r"/api/KIND/NAME/discussions/(?P<num>\d+)/merge", merge_discussion),
    ("GET", "repo-info", "/api/KIND/NAME(?:/revision/REV)?", show_repository),
    ("GET", "resolve", "PLURAL/NAME/resolve/REV/PATH", hub_files.resolve_file),
]
ROUTES = [(method, name, compile_route(pattern), function) for method, name, pattern, function in _ROUTES]
