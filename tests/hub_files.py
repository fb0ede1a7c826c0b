"""The loopback Hub's routes by which files come in and go out: preupload, LFS, commits and files at a revision.

What repositories look like is in `hub_routes.py`.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.hub_access import find_branch, find_repository, repository_path, require_account
from tests.hub_http import CHUNK_BYTES, Request, Response, give_file, give_json
from tests.hub_store import LFS_BYTES, LFS_SUFFIXES, HubError, Repository

if TYPE_CHECKING:
    from tests.hub_server import HubServer

ALREADY_CHANGED = "A commit has happened since. Please refresh and try again."


def preupload(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Response:
    asked = request.read_json()
    if request.query.get("create_pr") == "1":
        repository = find_repository(hub, request, kind, name, "propose")
    else:
        repository = find_branch(hub, request, kind, name, revision)
    commit = repository.resolve(revision)
    ignored = asked.get("gitIgnore") or (repository.read_file(commit, ".gitignore") or b"").decode(errors="replace")
    patterns = [line.strip().rstrip("/") for line in ignored.splitlines() if line.strip() and line[0] != "#"]
    files = []
    for file in asked["files"]:
        path = file["path"]
        is_lfs = path.lower().endswith(LFS_SUFFIXES) or file["size"] > LFS_BYTES
        parts = [path, *path.split("/")]
        shown = {"path": path, "uploadMode": "lfs" if is_lfs else "regular"}
        shown["shouldIgnore"] = any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in patterns)
        if there := commit.files.get(path):
            shown["oid"] = there.sha256 or there.oid
        files.append(shown)
    return give_json({"files": files, "commitOid": commit.oid})


def start_lfs(hub: HubServer, request: Request, name: str, plural: str = "models") -> Response:
    asked = request.read_json()
    kind = plural.removesuffix("s")
    branch = asked.get("ref", {}).get("name")
    if branch is None:  # the client leaves it out where the commit is to open a pull request
        repository = find_repository(hub, request, kind, name, "propose")
    else:
        repository = find_branch(hub, request, kind, name, branch)
    objects = []
    for item in asked["objects"]:
        shown = {"oid": item["oid"], "size": item["size"], "authenticated": True}
        if not (repository.folder / "lfs" / item["oid"]).exists():
            verify = f"{hub.url}/api/{kind}s/{name}/lfs-verify"
            shown["actions"] = {
                "upload": {"href": hub.sign(f"/storage/{kind}s/{name}/{item['oid']}"), "header": {}},
                "verify": {"href": verify},
            }
        objects.append(shown)
    return give_json({"transfer": "basic", "objects": objects})


def verify_lfs(hub: HubServer, request: Request, kind: str, name: str) -> Response:
    asked = request.read_json()
    path = find_repository(hub, request, kind, name, "propose").folder / "lfs" / asked["oid"]
    if not path.exists() or path.stat().st_size != asked["size"]:
        raise HubError(404, f"The object {asked['oid']} of {asked['size']} bytes was not uploaded")
    return give_json({})


def put_object(hub: HubServer, request: Request, kind: str, name: str, oid: str) -> Response:
    """Stores an object under its SHA-256 once it came in whole."""
    hub.check_signature(request)
    folder = hub.store.repositories[kind, name].folder / "lfs"
    part = folder / f"{oid}.{uuid.uuid4().hex}.part"
    digest = hashlib.sha256()
    try:
        with part.open("wb") as file:
            while chunk := request.body.read(CHUNK_BYTES):
                hub.count_bytes(oid, len(chunk))
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != oid:
            raise HubError(400, f"The content has SHA-256 {digest.hexdigest()}, not {oid}")
        part.replace(folder / oid)
    finally:
        part.unlink(missing_ok=True)
    return Response(200, {"ETag": f'"{oid}"'})


def get_object(hub: HubServer, request: Request, kind: str, name: str, oid: str) -> Response:
    hub.check_signature(request)
    return give_file(request, hub.store.repositories[kind, name].folder / "lfs" / oid, {"ETag": f'"{oid}"'})


def resolve_file(
    hub: HubServer, request: Request, name: str, revision: str, path: str, plural: str = "models"
) -> Response:
    kind = plural.removesuffix("s")
    repository = find_repository(hub, request, kind, name)
    commit = repository.resolve(revision)
    headers = {"X-Repo-Commit": commit.oid}
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    if file.sha256 is None:
        return give_file(request, repository.file_path(file), headers | {"ETag": f'"{file.oid}"'})
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"', "Accept-Ranges": "bytes"}
    return Response(302, headers | {"Location": hub.sign(f"/storage/{kind}s/{name}/{file.sha256}")})


def read_operations(request: Request, repository: Repository) -> Iterator[dict[str, Any]]:
    """The lines of a commit; contents of regular files go to disk as they come in."""
    for line in request.body:
        operation = json.loads(line)
        if operation["key"] == "file":
            value = operation["value"]
            file = repository.add_blob(base64.b64decode(value["content"]))
            operation["value"] = {"path": value["path"], "file": file}
        yield operation


def make_commit(hub: HubServer, request: Request, kind: str, name: str, revision: str) -> Response:
    propose = request.query.get("create_pr") == "1"
    if propose:
        repository = find_repository(hub, request, kind, name, "propose")
    else:
        repository = find_branch(hub, request, kind, name, revision)
    operations = read_operations(request, repository)
    header = next(operations)["value"]
    if revision not in repository.branches:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    asked_parent = header.get("parentCommit")
    sent = list(operations)  # outside the lock: the body may come in slowly
    author = require_account(hub, request).user
    with hub.lock:
        parent = repository.resolve(revision)
        if asked_parent and propose:
            parent = repository.resolve(asked_parent)
        elif asked_parent and not parent.oid.startswith(asked_parent):
            raise HubError(412, ALREADY_CHANGED)
        files = repository.apply_operations(parent, sent)
        page, pull_url = f"{hub.url}{repository_path(kind, name)}", None
        if propose:
            pull = repository.open_pull(revision, title=header["summary"], author=author, start=parent)
            revision, pull_url = f"refs/pr/{pull.num}", f"{page}/discussions/{pull.num}"
        title, message = header["summary"], header.get("description", "")
        commit = repository.add_commit(revision, parent, files, title=title, message=message, author=author)
    shown = {"success": True, "commitOid": commit.oid, "commitUrl": f"{page}/commit/{commit.oid}"}
    return give_json(shown | {"pullRequestUrl": pull_url})
