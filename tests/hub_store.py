"""Repositories of the loopback Hub on disk: commits, refs, pull requests and the contents of files.

It knows nothing of HTTP, tokens or faults; `hub_server.py` does. A store opened again on the same folder goes on
where it ended. Ids of files are git's own, because the clients compare them with what they compute themselves; ids
of commits and folders are only SHA-1 of something that differs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# What the Hub lists in the `.gitattributes` of a new dataset, shortened to what tests may push.
LFS_SUFFIXES = (
    *(".7z", ".arrow", ".avi", ".bin", ".bz2", ".ftz", ".gz", ".h5", ".jpeg", ".jpg", ".mkv", ".mov", ".mp3", ".mp4"),
    *(".npy", ".npz", ".onnx", ".parquet", ".pickle", ".pkl", ".png", ".pt", ".pth", ".rar", ".safetensors", ".tar"),
    *(".tgz", ".wav", ".webm", ".webp", ".zip", ".zst"),
)
LFS_BYTES = 10 * 1024 * 1024


class HubError(Exception):
    """A request that the Hub refuses: a status, a message, the code in `X-Error-Code` and other headers."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = (
            {"X-Error-Message": re.sub("[^ -~]", "?", message)}
            | ({"X-Error-Code": code} if code else {})
            | (headers or {})
        )


@dataclasses.dataclass(frozen=True)
class File:
    """A file in a commit: git's id of the blob (of the pointer for LFS), size in bytes, SHA-256 if it is LFS."""

    oid: str
    size: int
    sha256: str | None = None

    @classmethod
    def from_lfs(cls, sha256: str, size: int) -> File:
        return cls(hash_blob(make_pointer(sha256, size)), size, sha256)


@dataclasses.dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, File]


@dataclasses.dataclass
class PullRequest:
    num: int
    title: str
    author: str
    base: str
    date: str
    status: str = "open"
    merge_commit: str | None = None


class Repository:
    """One repository: `branches` (with `refs/pr/N`) and `tags` point to `commits`; contents lie under `folder`."""

    def __init__(self, folder: Path, kind: str, name: str) -> None:
        self.folder = folder
        self.kind = kind
        self.name = name
        self.private = False
        self.sdk: str | None = None
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pulls: dict[int, PullRequest] = {}
        self.commits: dict[str, Commit] = {}
        for part in ("lfs", "blobs", "commits"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def save(self) -> None:
        state = {name: getattr(self, name) for name in ("kind", "name", "private", "sdk", "branches", "tags")}
        state["pulls"] = [dataclasses.asdict(pull) for pull in self.pulls.values()]
        part = self.folder / "repository.part"
        part.write_text(json.dumps(state))
        part.replace(self.folder / "repository.json")

    @classmethod
    def load(cls, folder: Path) -> Repository:
        state = json.loads((folder / "repository.json").read_text())
        repository = cls(folder, state["kind"], state["name"])
        repository.pulls = {pull["num"]: PullRequest(**pull) for pull in state.pop("pulls")}
        vars(repository).update(state)
        for path in (folder / "commits").iterdir():
            commit = json.loads(path.read_text())
            files = {name: File(**file) for name, file in commit.pop("files").items()}
            repository.commits[path.stem] = Commit(files=files, **commit)
        return repository

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, tag, `refs/pr/N` or the first 7 characters or more of a commit's id."""
        for refs in (self.branches, self.tags):
            if revision in refs:
                return self.commits[refs[revision]]
        found = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        if len(found) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[found[0]]

    def file_path(self, file: File) -> Path:
        return self.folder / "lfs" / file.sha256 if file.sha256 else self.folder / "blobs" / file.oid

    def read_file(self, commit: Commit, path: str) -> bytes | None:
        return self.file_path(commit.files[path]).read_bytes() if path in commit.files else None

    def add_blob(self, content: bytes) -> File:
        file = File(hash_blob(content), len(content))
        path = self.file_path(file)
        if not path.exists():
            path.write_bytes(content)
        return file

    def add_commit(
        self, branch: str, parent: Commit | None, files: dict[str, File], *, title: str, message: str, author: str
    ) -> Commit:
        """Puts a commit on a branch. It is made even where no file changes, as the Hub does; clients prevent it."""
        now = datetime.now(UTC)
        if parent is not None:  # so that commits made within a millisecond keep their order
            now = max(now, datetime.fromisoformat(parent.date) + timedelta(milliseconds=1))
        commit = Commit("", parent.oid if parent else None, title, message, author, format_date(now), files)
        state = dataclasses.asdict(commit)
        state["oid"] = hashlib.sha1(f"{branch} {len(self.commits)} {json.dumps(state)}".encode()).hexdigest()
        (self.folder / "commits" / f"{state['oid']}.json").write_text(json.dumps(state))
        self.commits[state["oid"]] = commit = dataclasses.replace(commit, oid=state["oid"])
        self.branches[branch] = commit.oid
        self.save()
        return commit

    def list_history(self, commit: Commit) -> Iterable[Commit]:
        """The commit and those before it, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self.commits[current.parent] if current.parent else None

    def apply_operations(self, parent: Commit, operations: Iterable[dict[str, Any]]) -> dict[str, File]:
        """The files of a commit that is sent as lines with `key` and `value` after its header."""
        files = dict(parent.files)
        for operation in operations:
            value = operation["value"]
            path = value["path"]
            if operation["key"] == "file":
                files[path] = value["file"]
            elif operation["key"] == "lfsFile":
                stored = self.folder / "lfs" / value["oid"]
                if not stored.exists():
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                files[path] = File.from_lfs(value["oid"], stored.stat().st_size)
            elif operation["key"] in ("deletedFile", "deletedFolder"):
                gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
                if operation["key"] == "deletedFile":
                    gone = [path] if path in files else []
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for name in gone:
                    del files[name]
            else:
                raise HubError(400, f"Unknown operation {operation['key']!r}")
        return files

    def open_pull(self, base: str, *, title: str, author: str, start: Commit) -> PullRequest:
        num = len(self.pulls) + 1
        self.pulls[num] = PullRequest(num, title, author, base, format_date(datetime.now(UTC)))
        self.branches[f"refs/pr/{num}"] = start.oid
        return self.pulls[num]

    def merge_pull(self, pull: PullRequest, author: str) -> Commit:
        """Brings what a pull request changed since it was opened onto its base; the last writer of a file wins."""
        head = self.resolve(f"refs/pr/{pull.num}")
        base = self.resolve(pull.base)
        on_base = {commit.oid for commit in self.list_history(base)}
        opened_at = next(commit for commit in self.list_history(head) if commit.oid in on_base)
        files = {path: file for path, file in base.files.items() if path in head.files or path not in opened_at.files}
        files |= {path: file for path, file in head.files.items() if opened_at.files.get(path) != file}
        title = f"{pull.title} (#{pull.num})"
        commit = self.add_commit(pull.base, base, files, title=title, message="", author=author)
        pull.status, pull.merge_commit = "merged", commit.oid
        self.save()
        return commit


class Store:
    """All repositories under a folder, by kind (`model`, `dataset`, `space`) and name (`owner/name`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        loaded = [Repository.load(path.parent) for path in folder.glob("*s/*/*/repository.json")]
        self.repositories = {(repository.kind, repository.name): repository for repository in loaded}

    def create(self, kind: str, name: str, *, private: bool, sdk: str | None, author: str) -> Repository:
        repository = Repository(self.folder / f"{kind}s" / name, kind, name)
        repository.private, repository.sdk = private, sdk
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        files = {".gitattributes": repository.add_blob(attributes.encode())}
        if kind == "space":
            title = name.split("/")[1]
            files["README.md"] = repository.add_blob(f"---\ntitle: {title}\nsdk: {sdk}\n---\n".encode())
        repository.add_commit("main", None, files, title="initial commit", message="", author=author)
        self.repositories[kind, name] = repository
        return repository


def hash_blob(content: bytes) -> str:
    """Git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def make_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def format_date(date: datetime) -> str:
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
