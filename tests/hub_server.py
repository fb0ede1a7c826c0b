"""A Hub on the loopback address, with faults on request, for tests that run the real clients over real HTTP.

It answers `huggingface_hub`, `datasets` and `evaluate` for a few users; it serves no pages, search or viewer.

Imitated, after what the client of huggingface_hub 2.4 sends and reads:
    whoami and the scopes of tokens (write, read, none); models, datasets and Spaces of users and organisations,
    public and private; repository information; validation of front matter; preupload (regular or LFS, ignored
    files); LFS batch, upload and verification, where objects that are there already get no upload; commits with a
    parent check and as a pull request, committing to a pull request, merging it; branches and tags; trees with
    pages, path information, lists of commits; files at a revision with ETag, ranges, and a redirect to a signed
    address on another host name (`localhost`) that refuses tokens; errors with the headers that the clients read.
    A commit that changes nothing is made, as on the Hub: not to send it is the client's work.

Not imitated:
    Xet storage (clients need `HF_HUB_DISABLE_XET=1`, which `environment` and `connect` set); uploads of more than
    5 GB in parts; `.gitattributes` (what is LFS goes by a fixed list of suffixes and by 10 MiB); gated
    repositories; discussions other than pull requests, and what is said in them; conflicts in a merge; moving and
    deleting repositories; copies of LFS files between repositories; running Spaces; the dataset viewer; rate limit
    headers other than `Retry-After`; renamed repositories. A request without a token for what is missing or private
    gets 404 here and 401 on the Hub; the client makes `RepositoryNotFoundError` of both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import re
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock
from urllib.parse import unquote

import datasets
import evaluate
import huggingface_hub

from tests.hub_access import Account
from tests.hub_files import ALREADY_CHANGED
from tests.hub_http import CutError, Request, Response, Server, cut_body, give_json
from tests.hub_routes import ROUTES
from tests.hub_store import HubError, Store

MESSAGES = {429: "Too many requests", 412: ALREADY_CHANGED} | dict.fromkeys((500, 502, 503, 504), "Server error")


@dataclasses.dataclass
class Fault:
    """What goes wrong from the `call`-th request with this method and path (searched as a pattern) on.

    Args:
        method (`str`): such as `"PUT"`.
        pattern (`str`): a regular expression found in the path, unquoted and without its query.
        kind (`int` or `str`): a status (500; 412 for a stale parent; 429 with `Retry-After`) that is given before
            anything is done, `"cut"` for a connection that breaks after half of the body came in, or `"lost"` for one
            that breaks after everything was done and before the answer.
        call (`int`, *optional*, defaults to 1): the first request that fails, counted from when the fault is added.
        times (`int`, *optional*, defaults to 1): how many requests fail.
        retry_after (`int`, *optional*, defaults to 0): seconds, for 429.
    """

    method: str
    pattern: str
    kind: Literal[500, 502, 503, 504, 429, 412, "cut", "lost"]
    call: int = 1
    times: int = 1
    retry_after: int = 0
    seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path):
            return False
        self.seen += 1
        return self.call <= self.seen < self.call + self.times


class HubServer:
    """Serves a Hub whose repositories lie under a folder, as a context manager.

    Args:
        folder (`Path`): where repositories are kept; those that are there already are served.
        users (`Mapping[str, Sequence[str]]`, *optional*): the users and the organisations each may write to.

    Attributes:
        url (`str`): for `HF_ENDPOINT`.
        faults (`list[Fault]`): to add to.
        requests (`Counter[tuple[str, str]]`): requests by method and name of the route, such as `("POST", "commit")`.
        paths (`list[str]`): `"METHOD path"` of every request.
        authorizations (`set[tuple[str, str | None]]`): name of the route and `Authorization` header of every request.
        bytes_uploaded (`Counter[str]`): bytes of bodies by the SHA-256 of the LFS object, broken uploads included.
        page_size (`int`): entries on a page of a tree.
    """

    def __init__(self, folder: Path, users: Mapping[str, Sequence[str]] | None = None) -> None:
        self.store = Store(folder)
        self.users = {"ada": ("lab",), "bob": ()} if users is None else users
        self.accounts = {
            f"Bearer {self.token(user, scope)}": Account(user, scope, tuple(organizations))
            for user, organizations in self.users.items()
            for scope in ("write", "read", "none")
        }
        self.faults: list[Fault] = []
        self.requests: Counter[tuple[str, str]] = Counter()
        self.paths: list[str] = []
        self.authorizations: set[tuple[str, str | None]] = set()
        self.bytes_uploaded: Counter[str] = Counter()
        self.page_size = 1000
        self.lock = threading.RLock()
        self._secret = uuid.uuid4().hex

    @staticmethod
    def token(user: str, scope: str = "write") -> str:
        """The token of a user with a scope; anything else is a wrong token."""
        return "hf_" + hashlib.sha256(f"{user} {scope}".encode()).hexdigest()[:34]

    def __enter__(self) -> HubServer:
        self._server = Server(self.answer)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def list_commits(self, kind: str, name: str, revision: str = "main") -> list[str]:
        """Ids of the commits of a repository, newest first, the one that created it included."""
        repository = self.store.repositories[kind, name]
        return [commit.oid for commit in repository.list_history(repository.resolve(revision))]

    def read_file(self, kind: str, name: str, path: str, revision: str = "main") -> bytes:
        """The content of a file at a revision, an LFS file's own and not its pointer."""
        repository = self.store.repositories[kind, name]
        return repository.file_path(repository.resolve(revision).files[path]).read_bytes()

    def list_files(self, kind: str, name: str, revision: str = "main") -> list[str]:
        """Paths of the files at a revision, sorted."""
        return sorted(self.store.repositories[kind, name].resolve(revision).files)

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process whose clients talk to this server, with all caches under a folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept |= {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        kept |= {"HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return kept | ({"HF_TOKEN": token} if token else {})

    @contextlib.contextmanager
    def connect(self, cache: Path, token: str | None = None) -> Iterator[None]:
        """Has the clients in this process talk to this server, with all caches under a folder.

        Without a token they are anonymous. Tests under `-W error` need the filter that `test_hub_server.py` has: the
        client itself is warned by httpx2 at every LFS upload.
        """
        hub, home = huggingface_hub.constants, str(cache)
        changes: list[tuple[Any, dict[str, Any]]] = [
            (hub, {"ENDPOINT": self.url, "HF_HUB_CACHE": f"{home}/hub", "HF_TOKEN_PATH": f"{home}/token"}),
            (hub, {"HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}"}),
            (hub, {"HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}),
            (huggingface_hub.hf_api.api, {"endpoint": self.url}),
            (datasets.config, {"HF_ENDPOINT": self.url, "HF_DATASETS_CACHE": f"{home}/datasets"}),
            (datasets.config, {"HUB_DATASETS_URL": self.url + "/datasets/{repo_id}/resolve/{revision}/{path}"}),
            (evaluate.config, {"HF_ENDPOINT": self.url, "HF_MODULES_CACHE": f"{home}/modules"}),
            (evaluate.config, {"HUB_EVALUATE_URL": self.url + "/spaces/{path}/resolve/{revision}/{name}"}),
            (evaluate.config, {"HF_EVALUATE_CACHE": f"{home}/evaluate", "HF_METRICS_CACHE": f"{home}/metrics"}),
            (evaluate.config, {"DOWNLOADED_EVALUATE_PATH": f"{home}/evaluate/downloads"}),
        ]
        if importlib.util.find_spec("transformers"):
            # Its client is made once a process, for the Hub that is meant at that time.
            changes.append((importlib.import_module("transformers.utils.hub"), {"_hf_api": None}))
        path = [entry for entry in sys.path if entry != str(evaluate.config.HF_MODULES_CACHE)]
        with contextlib.ExitStack() as stack:
            for target, values in changes:
                stack.enter_context(mock.patch.multiple(target, **values))
            stack.enter_context(mock.patch.dict(os.environ, {"HF_TOKEN": token or "", "HUGGING_FACE_HUB_TOKEN": ""}))
            stack.enter_context(mock.patch.object(sys, "path", path))
            _forget_clients()
            stack.callback(_forget_clients)
            yield

    def sign(self, path: str) -> str:
        """An address of storage that works without a token, on a host name that clients must not send one to."""
        return f"http://localhost:{self.port}{path}?signature={self._make_signature(path)}"

    def check_signature(self, request: Request) -> None:
        """Refuses a request to storage that was not signed here, or that brings a token along, as storage does."""
        if "authorization" in request.headers:
            raise HubError(400, "Only one auth mechanism allowed")
        if request.query.get("signature") != self._make_signature(request.path):
            raise HubError(403, "The signature does not match")

    def _make_signature(self, path: str) -> str:
        return hashlib.sha256(f"{self._secret}{path}".encode()).hexdigest()[:32]

    def count_bytes(self, oid: str, number: int) -> None:
        with self.lock:
            self.bytes_uploaded[oid] += number

    def answer(self, request: Request) -> Response:
        """The response to a request, or `CutError` where the connection is to break."""
        name, function, arguments = _find_route(request)
        path = unquote(request.path)
        with self.lock:
            self.requests[request.method, name] += 1
            self.paths.append(f"{request.method} {path}")
            self.authorizations.add((name, request.headers.get("authorization")))
            struck = [fault for fault in self.faults if fault.strikes(request.method, path)]  # all of them count
        fault = struck[0] if struck else None
        try:
            if fault is not None and isinstance(fault.kind, int):
                headers = {"Retry-After": str(fault.retry_after)} if fault.kind == 429 else {}
                raise HubError(fault.kind, MESSAGES[fault.kind], headers=headers)
            if fault is not None and fault.kind == "cut":
                cut_body(request)
            response = function(self, request, **arguments)
        except HubError as error:
            response = give_json({"error": error.message}, error.status, error.headers)
        if fault is not None and fault.kind == "lost":
            raise CutError
        return response


def _forget_clients() -> None:
    """Drops what clients keep between calls: connections, listings, and metrics imported from another cache."""
    huggingface_hub.close_session()
    huggingface_hub.HfFileSystem.clear_instance_cache()
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def _find_route(request: Request) -> tuple[str, Callable[..., Response], dict[str, str]]:
    method = "GET" if request.method == "HEAD" else request.method
    for verb, name, pattern, function in ROUTES:
        if verb == method and (match := pattern.fullmatch(request.path)):
            return name, function, {key: unquote(value) for key, value in match.groupdict().items() if value}
    return "unknown", _refuse, {}


def _refuse(*_: object) -> Response:
    raise HubError(404, "Sorry, we can't find the page you are looking for.")
