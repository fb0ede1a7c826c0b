"""The loopback Hub against the real clients: what they ask of the Hub works here, and fails here as it does there."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import evaluate
import httpx2
import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import Fault, HubServer

# The client's own way of sending a file; it says so at every LFS upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

METRICS = Path(__file__).parents[1] / "metrics"
UPLOADER = """
import huggingface_hub, pathlib, sys, time

def send():
    yield b"x" * 1000
    pathlib.Path(sys.argv[2]).touch()
    time.sleep(60)

huggingface_hub.get_session().put(sys.argv[1], content=send())
"""
CARD = """---
license: mit
configs:
- config_name: default
  data_files:
  - split: grounded
    path: data/grounded-*
---
# Questions
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server, server.connect(tmp_path / "cache", server.token("ada")):
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset's folder: a card, a Parquet shard and a clip."""
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "clip.mp4").write_bytes(bytes(range(256)) * 4000)
    rows = {"question": [f"Why {number}?" for number in range(100)], "answer": list(range(100))}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "data" / "grounded-00000-of-00001.parquet")
    return folder


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client meant to wait between tries; it does not wait."""
    waited: list[float] = []
    stub = SimpleNamespace(sleep=waited.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr("huggingface_hub.utils._http.time", stub)
    return waited


def push(hub: HubServer, folder: Path, *, create_pr: bool = False) -> str:
    api = HfApi(token=hub.token("ada"))
    api.create_repo("ada/toy", repo_type="dataset", exist_ok=True)
    return api.upload_folder(repo_id="ada/toy", folder_path=folder, repo_type="dataset", create_pr=create_pr).oid


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commit(api: HfApi, operations: dict[str, bytes | None], **more: Any) -> huggingface_hub.CommitInfo:
    """A commit to ada/toy that writes contents, and deletes where there is none."""
    listed = [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in operations.items()
    ]
    return api.create_commit("ada/toy", listed, commit_message="change", repo_type="dataset", **more)


class TestAccounts:
    @pytest.mark.parametrize(("scope", "role"), [("write", "write"), ("read", "read"), ("none", "fineGrained")])
    def test_whoami(self, hub: HubServer, scope: str, role: str) -> None:
        shown = huggingface_hub.whoami(token=hub.token("ada", scope))
        assert (shown["name"], shown["orgs"][0]["name"]) == ("ada", "lab")
        assert shown["auth"]["accessToken"]["role"] == role

    def test_wrong_token(self, hub: HubServer, folder: Path) -> None:
        with pytest.raises(HfHubHTTPError, match=re.escape("Invalid user token.")):
            huggingface_hub.whoami(token="hf_wrong")
        push(hub, folder)
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            HfApi(token="hf_wrong").dataset_info("ada/toy")
        assert caught.value.response.status_code == 401
        assert ("repo-info", "Bearer hf_wrong") in hub.authorizations

    def test_no_token(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_own")
        with HubServer(tmp_path / "hub") as hub, hub.connect(tmp_path / "cache"):
            with pytest.raises(HfHubHTTPError, match="Invalid username or password"):
                HfApi().create_repo("ada/toy")
            assert hub.authorizations == {("create-repo", None)}
        assert huggingface_hub.get_token() == "hf_own"
        assert hub.url != huggingface_hub.constants.ENDPOINT

    def test_creates(self, hub: HubServer) -> None:
        api = HfApi()
        assert api.create_repo("lab/toy", repo_type="dataset") == f"{hub.url}/datasets/lab/toy"
        api.create_repo("toy")
        api.create_repo("ada/app", repo_type="space", space_sdk="gradio")
        assert api.model_info("ada/toy").siblings[0].rfilename == ".gitattributes"  # type: ignore[index]
        assert api.space_info("ada/app").sdk == "gradio"
        assert hub.list_files("space", "ada/app") == [".gitattributes", "README.md"]
        with pytest.raises(HfHubHTTPError, match="You already created this dataset repo"):
            api.create_repo("lab/toy", repo_type="dataset")
        api.create_repo("lab/toy", repo_type="dataset", exist_ok=True)

    @pytest.mark.parametrize(("user", "scope"), [("bob", "write"), ("ada", "read"), ("ada", "none")])
    def test_may_not_create(self, hub: HubServer, user: str, scope: str) -> None:
        with pytest.raises(HfHubHTTPError, match=re.escape("under the namespace 'lab'")) as caught:
            HfApi(token=hub.token(user, scope)).create_repo("lab/toy", repo_type="dataset")
        assert caught.value.response.status_code == 403

    def test_private(self, hub: HubServer, folder: Path) -> None:
        HfApi().create_repo("ada/toy", repo_type="dataset", private=True)
        push(hub, folder)
        assert HfApi(token=hub.token("ada", "read")).dataset_info("ada/toy").private
        for token in (False, hub.token("bob"), hub.token("ada", "none")):
            api = HfApi(token=token)
            with pytest.raises(RepositoryNotFoundError) as caught:
                api.dataset_info("ada/toy")
            assert caught.value.response.status_code == 404
            with pytest.raises(RepositoryNotFoundError):
                api.hf_hub_download("ada/toy", "README.md", repo_type="dataset")
            with pytest.raises(RepositoryNotFoundError):
                commit(api, {"a.txt": b"a"})

    @pytest.mark.parametrize(
        ("token", "status", "message"),
        [
            (("bob", "write"), 403, "pass `create_pr=1`"),
            (("ada", "read"), 403, "the write role"),
            (None, 401, "Invalid username or password"),
        ],
    )
    def test_may_not_write(
        self, hub: HubServer, folder: Path, token: tuple[str, str] | None, status: int, message: str
    ) -> None:
        push(hub, folder)
        api = HfApi(token=hub.token(*token) if token else False)
        with pytest.raises(HfHubHTTPError, match=message) as caught:
            commit(api, {"a.txt": b"a"})
        assert caught.value.response.status_code == status
        assert len(hub.list_commits("dataset", "ada/toy")) == 2


class TestUploads:
    def test_folder(self, hub: HubServer, folder: Path) -> None:
        head = push(hub, folder)
        names = ["README.md", "clip.mp4", "data/grounded-00000-of-00001.parquet"]
        assert hub.list_files("dataset", "ada/toy") == [".gitattributes", *names]
        for name in names:
            assert hub.read_file("dataset", "ada/toy", name) == (folder / name).read_bytes()
        assert hub.bytes_uploaded == {sha256(folder / name): (folder / name).stat().st_size for name in names[1:]}
        info = HfApi().dataset_info("ada/toy", files_metadata=True)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        sizes = {name: (sibling.size, sibling.lfs and sibling.lfs.sha256) for name, sibling in siblings.items()}
        assert sizes["clip.mp4"] == (1024000, sha256(folder / "clip.mp4"))
        assert sizes["README.md"] == (len(CARD), None)
        assert (info.sha, info.card_data["license"]) == (head, "mit")  # type: ignore[index]

    def test_unchanged_folder_makes_no_commit(self, hub: HubServer, folder: Path) -> None:
        head = push(hub, folder)
        uploaded = hub.bytes_uploaded.copy()
        assert push(hub, folder) == head
        assert hub.requests["POST", "commit"] == 1
        assert hub.bytes_uploaded == uploaded

    def test_changed_file_makes_one_commit(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        (folder / "clip.mp4").write_bytes(b"other")
        second = push(hub, folder)
        assert hub.list_commits("dataset", "ada/toy")[:2] == [second, first]
        assert hub.requests["PUT", "lfs-upload"] == 3
        assert hub.read_file("dataset", "ada/toy", "clip.mp4") == b"other"
        assert len(hub.read_file("dataset", "ada/toy", "clip.mp4", first)) == 1024000

    def test_commit_without_change_is_made(self, hub: HubServer, folder: Path) -> None:
        push(hub, folder)
        line = '{"key": "header", "value": {"summary": "nothing"}}\n'
        url = f"{hub.url}/api/datasets/ada/toy/commit/main"
        headers = {"Authorization": f"Bearer {hub.token('ada')}"}
        chunks = iter([line[:9].encode(), line[9:].encode()])
        sent = get_session().post(url, content=chunks, headers=headers)
        assert sent.json()["commitOid"] == hub.list_commits("dataset", "ada/toy")[0]
        assert len(hub.list_commits("dataset", "ada/toy")) == 3

    def test_deletes(self, hub: HubServer, folder: Path) -> None:
        push(hub, folder)
        commit(HfApi(), {"data/": None, "clip.mp4": None})
        assert hub.list_files("dataset", "ada/toy") == [".gitattributes", "README.md"]
        with pytest.raises(EntryNotFoundError, match=re.escape("A file with this name doesn't exist: clip.mp4")):
            commit(HfApi(), {"clip.mp4": None})

    def test_ignored_files(self, hub: HubServer, folder: Path) -> None:
        (folder / ".gitignore").write_text("# left out\n*.mp4\ndata/\n")
        push(hub, folder)
        assert hub.list_files("dataset", "ada/toy") == [".gitattributes", ".gitignore", "README.md"]
        assert not hub.bytes_uploaded

    @pytest.mark.parametrize(
        ("matter", "message"),
        [("license: [", "while parsing"), ("- a", "must be a mapping"), ("license: 3", '"license" must be a string')],
    )
    def test_bad_front_matter(self, hub: HubServer, folder: Path, matter: str, message: str) -> None:
        (folder / "README.md").write_text(f"---\n{matter}\n---\n")
        with pytest.raises(ValueError, match=message):
            push(hub, folder)

    def test_no_front_matter(self, hub: HubServer, folder: Path) -> None:
        (folder / "README.md").write_text("# Title")
        with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
            push(hub, folder)

    def test_lfs_file_that_was_not_uploaded(self, hub: HubServer, folder: Path) -> None:
        push(hub, folder)
        operation = CommitOperationAdd("new.bin", b"new")
        operation._upload_mode, operation._is_uploaded = "lfs", True
        with pytest.raises(HfHubHTTPError, match="LFS pointer pointed to a file that does not exist"):
            HfApi().create_commit("ada/toy", [operation], commit_message="new", repo_type="dataset")


class TestRevisions:
    def test_stale_parent(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        second = commit(HfApi(), {"a.txt": b"a"}, parent_commit=first[:7]).oid
        with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
            commit(HfApi(), {"b.txt": b"b"}, parent_commit=first)
        assert caught.value.response.status_code == 412
        assert hub.list_commits("dataset", "ada/toy")[:2] == [second, first]

    def test_pull_request(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        bob, ada = HfApi(token=hub.token("bob")), HfApi(token=hub.token("ada"))
        made = commit(bob, {"new.bin": b"new", "clip.mp4": None}, create_pr=True)
        assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
        assert made.pr_url == f"{hub.url}/datasets/ada/toy/discussions/1"
        assert hub.list_commits("dataset", "ada/toy")[0] == first
        commit(bob, {"more.txt": b"more"}, revision="refs/pr/1")
        commit(ada, {"README.md": CARD.encode() + b"More"})
        path = bob.hf_hub_download("ada/toy", "more.txt", repo_type="dataset", revision="refs/pr/1")
        assert Path(path).read_bytes() == b"more"
        [listed] = ada.get_repo_discussions("ada/toy", repo_type="dataset")
        assert (listed.num, listed.author, listed.status, listed.is_pull_request) == (1, "bob", "open", True)
        with pytest.raises(HfHubHTTPError, match="403"):
            bob.merge_pull_request("ada/toy", 1, repo_type="dataset")
        ada.merge_pull_request("ada/toy", 1, repo_type="dataset")
        details = ada.get_discussion_details("ada/toy", 1, repo_type="dataset")
        head = hub.list_commits("dataset", "ada/toy")[0]
        assert (details.status, details.merge_commit_oid, details.target_branch) == ("merged", head, "main")
        assert hub.read_file("dataset", "ada/toy", "README.md").endswith(b"More")
        names = [".gitattributes", "README.md", "data/grounded-00000-of-00001.parquet", "more.txt", "new.bin"]
        assert hub.list_files("dataset", "ada/toy") == names

    def test_pull_request_of_another(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        assert push(hub, folder, create_pr=True) == first  # nothing changed, so no pull request either
        commit(HfApi(), {"a.txt": b"a"})
        commit(HfApi(), {"b.txt": b"b"}, create_pr=True, parent_commit=first)
        assert "a.txt" not in hub.list_files("dataset", "ada/toy", "refs/pr/1")
        with pytest.raises(HfHubHTTPError, match="403"):
            commit(HfApi(token=hub.token("bob")), {"c.txt": b"c"}, revision="refs/pr/1")
        with pytest.raises(HfHubHTTPError, match="Discussion 2 not found"):
            HfApi().get_discussion_details("ada/toy", 2, repo_type="dataset")

    def test_branches_and_tags(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        api = HfApi()
        api.create_branch("ada/toy", branch="next/step", repo_type="dataset")
        api.create_tag("ada/toy", tag="v1", repo_type="dataset")
        second = commit(api, {"a.txt": b"a"}, revision="next/step").oid
        commit(api, {"b.txt": b"b"}, create_pr=True)
        refs = api.list_repo_refs("ada/toy", repo_type="dataset", include_pull_requests=True)
        assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "next/step": second}
        assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1", first)]
        assert [ref.ref for ref in refs.pull_requests or ()] == ["refs/pr/1"]
        assert api.list_repo_refs("ada/toy", repo_type="dataset").pull_requests is None
        with pytest.raises(HfHubHTTPError, match="Reference already exists: next/step"):
            api.create_branch("ada/toy", branch="next/step", repo_type="dataset")
        api.create_branch("ada/toy", branch="next/step", repo_type="dataset", exist_ok=True)
        with pytest.raises(HfHubHTTPError, match="Reference already exists: v1"):
            api.create_tag("ada/toy", tag="v1", repo_type="dataset")
        api.create_tag("ada/toy", tag="v1", repo_type="dataset", exist_ok=True)
        with pytest.raises(RevisionNotFoundError, match="Invalid rev id: v1"):
            commit(api, {"c.txt": b"c"}, revision="v1")
        titles = [entry.title for entry in api.list_repo_commits("ada/toy", repo_type="dataset", revision="next/step")]
        assert titles == ["change", "Upload folder using huggingface_hub", "initial commit"]

    def test_snapshot(self, hub: HubServer, folder: Path) -> None:
        first = push(hub, folder)
        commit(HfApi(), {"README.md": None, "clip.mp4": b"other"})
        path = Path(huggingface_hub.snapshot_download("ada/toy", repo_type="dataset", revision=first))
        assert {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()} == {
            ".gitattributes": hub.read_file("dataset", "ada/toy", ".gitattributes")
        } | {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        with pytest.raises(RevisionNotFoundError):
            huggingface_hub.snapshot_download("ada/toy", repo_type="dataset", revision="missing")


class TestDownloads:
    def test_cache_by_etag(self, hub: HubServer, folder: Path) -> None:
        push(hub, folder)
        for name, storage in (("README.md", 0), ("clip.mp4", 1)):
            hub.requests.clear()
            for _ in range(2):
                path = huggingface_hub.hf_hub_download("ada/toy", name, repo_type="dataset")
                assert Path(path).read_bytes() == (folder / name).read_bytes()
            assert hub.requests["GET", "lfs-download"] == storage
            assert hub.requests["GET", "resolve"] == 1 - storage
            assert hub.requests["HEAD", "resolve"] == 2
        commit(HfApi(), {"clip.mp4": b"other"})
        path = huggingface_hub.hf_hub_download("ada/toy", "clip.mp4", repo_type="dataset")
        assert Path(path).read_bytes() == b"other"
        with pytest.raises(EntryNotFoundError):
            huggingface_hub.hf_hub_download("ada/toy", "missing", repo_type="dataset")

    @pytest.mark.parametrize("name", ["README.md", "clip.mp4"])
    def test_ranges(self, hub: HubServer, folder: Path, name: str) -> None:
        push(hub, folder)
        content = (folder / name).read_bytes()
        url = f"{hub.url}/datasets/ada/toy/resolve/main/{name}"
        for asked, part in (("2-5", slice(2, 6)), ("7-", slice(7, None)), ("-3", slice(-3, None))):
            response = get_session().get(url, headers={"Range": f"bytes={asked}"}, follow_redirects=True)
            assert (response.status_code, response.content) == (206, content[part])
            assert response.headers["Content-Range"].endswith(f"/{len(content)}")
        response = get_session().get(url, headers={"Range": "bytes=9999999-"}, follow_redirects=True)
        assert (response.status_code, response.headers["Content-Range"]) == (416, f"bytes */{len(content)}")

    def test_no_token_goes_to_storage(self, hub: HubServer, folder: Path) -> None:
        HfApi().create_repo("ada/toy", repo_type="dataset", private=True)
        push(hub, folder)
        huggingface_hub.hf_hub_download("ada/toy", "clip.mp4", repo_type="dataset")
        assert {header for name, header in hub.authorizations if name in ("lfs-upload", "lfs-download")} == {None}
        path = f"/storage/datasets/ada/toy/{sha256(folder / 'clip.mp4')}"
        assert get_session().get(f"{hub.url}{path}").status_code == 403
        headers = {"Authorization": f"Bearer {hub.token('ada')}"}
        assert get_session().get(hub.sign(path), headers=headers).status_code == 400
        assert get_session().put(hub.sign(path), content=b"something else").status_code == 400
        assert hub.read_file("dataset", "ada/toy", "clip.mp4") == (folder / "clip.mp4").read_bytes()

    def test_tree(self, hub: HubServer, folder: Path) -> None:
        hub.page_size = 2
        (folder / "data" / "weird #é%2F name.txt").write_text("x")
        first = push(hub, folder)
        second = commit(HfApi(), {"clip.mp4": b"other"}).oid
        api = HfApi()
        entries = list(api.list_repo_tree("ada/toy", repo_type="dataset", recursive=True, expand=True))
        last = {entry.path: entry.last_commit.oid for entry in entries if entry.last_commit}
        inside = ["data/grounded-00000-of-00001.parquet", "data/weird #é%2F name.txt"]
        initial = hub.list_commits("dataset", "ada/toy")[-1]
        expected = {".gitattributes": initial, "clip.mp4": second}
        assert last == dict.fromkeys(["README.md", "data", *inside], first) | expected
        assert hub.requests["GET", "tree"] == 3
        assert [entry.path for entry in api.list_repo_tree("ada/toy", "data", repo_type="dataset")] == inside
        path = api.hf_hub_download("ada/toy", inside[1], repo_type="dataset")
        assert Path(path).read_text() == "x"
        shown = api.get_paths_info("ada/toy", [inside[1], "data", "missing"], repo_type="dataset", expand=True)
        kinds = {entry.path: type(entry).__name__ for entry in shown}
        assert kinds == {inside[1]: "RepoFile", "data": "RepoFolder"}
        with pytest.raises(EntryNotFoundError, match="missing does not exist on 'main'"):
            list(api.list_repo_tree("ada/toy", "missing", repo_type="dataset"))
        with pytest.raises(EntryNotFoundError, match=re.escape("???: x does not exist")):
            list(api.list_repo_tree("ada/toy", "é\r\n: x", repo_type="dataset"))

    def test_load_dataset(self, hub: HubServer, folder: Path) -> None:
        HfApi().create_repo("ada/toy", repo_type="dataset", private=True)
        push(hub, folder)
        plain = datasets.load_dataset("ada/toy", split="grounded")
        expected = [{"question": f"Why {number}?", "answer": number} for number in range(100)]
        assert plain.to_list() == expected
        assert list(datasets.load_dataset("ada/toy", split="grounded", streaming=True)) == expected

    def test_push_dataset(self, hub: HubServer) -> None:
        rows = datasets.Dataset.from_dict({"a": [1, 2, 3]})
        rows.push_to_hub("ada/toy", split="grounded")
        assert datasets.load_dataset("ada/toy", split="grounded").to_list() == rows.to_list()
        assert len(hub.list_commits("dataset", "ada/toy")) == 2

    def test_load_metric(self, hub: HubServer, tmp_path: Path) -> None:
        name = "ada/temporal_grounding"
        HfApi().create_repo(name, repo_type="space", space_sdk="gradio")
        HfApi().upload_folder(repo_id=name, folder_path=METRICS / "temporal_grounding", repo_type="space")
        metric = evaluate.load(name)
        source = Path(sys.modules[type(metric).__module__].__file__ or "")
        assert source.is_relative_to(tmp_path / "cache")
        assert source.read_bytes() == (METRICS / "temporal_grounding" / "temporal_grounding.py").read_bytes()
        assert hub.requests["GET", "resolve"] == 1

    def test_environment_of_a_process(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        push(hub, folder)
        code = "import huggingface_hub as h; print(h.hf_hub_download('ada/toy', 'README.md', repo_type='dataset'))"
        env = hub.environment(tmp_path / "other", hub.token("bob", "read"))
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        path = Path(done.stdout.strip())
        assert path.is_relative_to(tmp_path / "other")
        assert path.read_text() == CARD
        assert ("resolve", f"Bearer {hub.token('bob', 'read')}") in hub.authorizations


class TestFaults:
    def test_cut_upload_goes_on(self, hub: HubServer, folder: Path, sleeps: list[float]) -> None:
        clip, shard = folder / "clip.mp4", folder / "data" / "grounded-00000-of-00001.parquet"
        hub.faults.append(Fault("PUT", sha256(clip), "cut", times=6))
        with pytest.raises(RuntimeError, match=re.escape("Error while uploading 'clip.mp4' to the Hub.")):
            push(hub, folder)
        assert len(sleeps) == 5
        assert hub.list_files("dataset", "ada/toy") == [".gitattributes"]
        uploaded = hub.bytes_uploaded[sha256(clip)]
        assert uploaded < 6 * clip.stat().st_size
        push(hub, folder)
        assert hub.bytes_uploaded[sha256(clip)] == uploaded + clip.stat().st_size
        assert hub.bytes_uploaded[sha256(shard)] == shard.stat().st_size
        assert not list((hub.store.folder).rglob("*.part"))

    def test_statuses(self, hub: HubServer, folder: Path, sleeps: list[float]) -> None:
        hub.faults.append(Fault("POST", "preupload", 429, retry_after=7))
        hub.faults.append(Fault("PUT", "storage", 500, call=2))
        push(hub, folder)
        assert sleeps == [8.0, 1]
        assert hub.requests["PUT", "lfs-upload"] == 3
        hub.faults.append(Fault("POST", "/commit/main$", 412))
        with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
            commit(HfApi(), {"a.txt": b"a"})
        commit(HfApi(), {"a.txt": b"a"})

    def test_faults_count_every_request(self, hub: HubServer, sleeps: list[float]) -> None:
        hub.faults += [Fault("GET", "/tree/", 500), Fault("GET", "/tree/", 503, call=2)]
        HfApi().create_repo("ada/toy", repo_type="dataset")
        assert HfApi().list_repo_files("ada/toy", repo_type="dataset") == [".gitattributes"]
        assert (sleeps, hub.requests["GET", "tree"]) == ([1, 2], 3)

    def test_lost_answer(self, hub: HubServer, folder: Path) -> None:
        push(hub, folder)
        hub.faults.append(Fault("POST", "/commit/", "lost"))
        with pytest.raises(httpx2.TransportError):
            commit(HfApi(), {"a.txt": b"a"})
        assert "a.txt" in hub.list_files("dataset", "ada/toy")

    def test_killed_client(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        push(hub, folder)
        reached = tmp_path / "reached"
        url = hub.sign(f"/storage/datasets/ada/toy/{'0' * 64}")
        process = subprocess.Popen([sys.executable, "-c", UPLOADER, url, str(reached)], env=hub.environment(tmp_path))
        while not reached.exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while list(hub.store.folder.rglob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list(hub.store.folder.rglob("0000*"))

    def test_unknown_route(self, hub: HubServer) -> None:
        response = get_session().get(f"{hub.url}/api/nothing")
        assert (response.status_code, hub.requests["GET", "unknown"]) == (404, 1)
        assert hub.paths == ["GET /api/nothing"]


def test_folder_served_again(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    push(hub, folder)
    commit(HfApi(), {"a.txt": b"a"}, create_pr=True)
    with HubServer(tmp_path / "hub") as again:
        assert again.store.repositories.keys() == hub.store.repositories.keys()
        for revision in ("main", "refs/pr/1"):
            before = hub.list_commits("dataset", "ada/toy", revision)
            assert again.list_commits("dataset", "ada/toy", revision) == before
        assert again.store.repositories["dataset", "ada/toy"].pulls[1].title == "change"
        path = HfApi(endpoint=again.url).hf_hub_download("ada/toy", "clip.mp4", repo_type="dataset")
        assert Path(path).read_bytes() == (folder / "clip.mp4").read_bytes()


@pytest.mark.slow
def test_many_files(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{number}.txt").write_text(str(number))
        (folder / f"{number}.mp4").write_bytes(os.urandom(20_000))
    for number in range(20):
        (folder / f"{number}.bin").write_bytes(os.urandom(10_000_000))
    push(hub, folder)
    assert sum(hub.bytes_uploaded.values()) == 220_000_000
    assert len(hub.list_commits("dataset", "ada/toy")) == 2
    files = huggingface_hub.list_repo_files("ada/toy", repo_type="dataset")
    assert sorted(files) == hub.list_files("dataset", "ada/toy")
    assert hub.requests["GET", "tree"] == 3
