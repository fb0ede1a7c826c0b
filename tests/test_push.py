"""Pushing curated datasets and metrics: the right files in one commit, and one clear line when that cannot be."""

from __future__ import annotations

import json
import logging
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import huggingface_hub
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value, Video, load_dataset
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi

from tests.hub_http import Request, Response, give_json
from tests.hub_server import Fault, HubServer
from tests.questions import make_rows
from vidground_hf.cli import main
from vidground_hf.curation import Curation, curate
from vidground_hf.folders import read_splits
from vidground_hf.hub import push_folder
from vidground_hf.hub_errors import HubError, hide_token
from vidground_hf.loading import DataError
from vidground_hf.publishing import strip_report
from vidground_hf.set_rules import calibrated
from vidground_hf.sharing import choose_ids_only, find_terms

# huggingface_hub's own way to upload a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LFS_FILES = 6  # two shards and four figures
UNDECODED = Video(decode=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips under a folder whose name must not be seen anywhere."""
    return tmp_path_factory.mktemp("secret-place")


@pytest.fixture(scope="module")
def videos(clips: Path) -> Dataset:
    rows = make_rows(80)
    for number, row in enumerate(rows):
        path = clips / row["video"]
        path.write_bytes(f"clip of {row['video']} ".encode() * 100)
        row["video"] = str(path) if number != 5 else None
    return Dataset.from_list(rows).cast_column("video", UNDECODED)


@pytest.fixture(scope="module")
def curation(videos: Dataset) -> Curation:
    return curate(videos, rule=calibrated(0.1), source={"id": "toy/clips"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server") as server:
        yield server


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.utils.tqdm, "__init__", _quiet(huggingface_hub.utils.tqdm.__init__))
    with server.connect(tmp_path / "cache", server.token("ada")):
        yield server


def _quiet(make: Any) -> Any:
    return lambda self, *arguments, **settings: make(self, *arguments, **{**settings, "disable": True})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def read_rows(rows: Dataset) -> list[dict[str, Any]]:
    return rows.cast_column("video", UNDECODED).to_list()


def embed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rows are on the Hub: clips by name and content."""
    return [
        row
        if row["video"] is None
        else {**row, "video": {"bytes": (path := Path(row["video"]["path"])).read_bytes(), "path": path.name}}
        for row in rows
    ]


def read_card(hub: HubServer, name: str) -> Any:
    return DatasetCard(hub.read_file("dataset", name, "README.md").decode())


# --- what arrives


def test_pushed_rows_are_equal_to_the_last_byte_plain_and_streamed(hub: HubServer, curation: Curation) -> None:
    done = curation.push_to_hub("ada/toy")
    assert done.is_changed
    for name, rows in curation.splits.items():
        expected = embed(read_rows(rows))
        plain = load_dataset("ada/toy", split=name)
        assert plain.features == rows.cast_column("video", Video()).features or plain.features == rows.features
        assert read_rows(plain) == expected
        streamed = load_dataset("ada/toy", split=name, streaming=True).cast_column("video", UNDECODED)
        assert list(streamed) == expected
    assert len(hub.list_commits("dataset", "ada/toy")) == 2  # with the one that made the repository
    assert hub.requests["POST", "commit"] == 1


def test_a_first_push_deletes_nothing_of_a_repository_that_was_not_ours(hub: HubServer, curation: Curation) -> None:
    HfApi().create_repo("ada/toy", repo_type="dataset")
    path = "data/undecided-00007-of-00008.parquet"
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="ada/toy", repo_type="dataset")
    curation.push_to_hub("ada/toy")
    assert path in hub.list_files("dataset", "ada/toy")


def test_a_pull_request_on_what_is_not_there_makes_no_repository(hub: HubServer, curation: Curation) -> None:
    with pytest.raises(HubError, match="no repository or revision ada/typo"):
        curation.push_to_hub("ada/typo", create_pr=True)
    assert ("dataset", "ada/typo") not in hub.store.repositories


def test_no_address_of_a_server_is_pushed(hub: HubServer, curation: Curation) -> None:
    served = {"id": "endpoint:qwen@http://10.0.0.1:8000/v1", "blind_accuracy": None}
    report = {**curation.report, "answerers": [served, {"id": "constant:A", "blind_accuracy": None}]}
    Curation(curation.splits, report).push_to_hub("ada/toy")
    for path in ("README.md", "report.json", "report.html"):
        assert b"10.0.0.1" not in hub.read_file("dataset", "ada/toy", path)
    pushed = json.loads(hub.read_file("dataset", "ada/toy", "report.json"))
    assert pushed["answerer"] == "endpoint:qwen@URL, constant:A"


def test_unchanged_content_makes_no_commit(hub: HubServer, curation: Curation) -> None:
    first = curation.push_to_hub("ada/toy")
    again = curation.push_to_hub("ada/toy")
    assert (first.is_changed, again.is_changed) == (True, False)
    assert again.url == first.url
    assert hub.requests["POST", "commit"] == 1
    assert hub.requests["PUT", "lfs-upload"] == LFS_FILES


def test_files_that_are_no_longer_written_are_deleted_in_the_same_commit(hub: HubServer, curation: Curation) -> None:
    api = HfApi()
    api.create_repo("ada/toy", repo_type="dataset")
    curation.push_to_hub("ada/toy")
    for path in ("data/undecided-00007-of-00008.parquet", "figures/old.png", "notes.md", "data/other.parquet"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id="ada/toy", repo_type="dataset")
    before = len(hub.list_commits("dataset", "ada/toy"))
    done = curation.push_to_hub("ada/toy")
    assert len(hub.list_commits("dataset", "ada/toy")) == before + 1
    kept = {"notes.md", "data/other.parquet", "figures/old.png", ".gitattributes"}
    assert set(hub.list_files("dataset", "ada/toy")) | {".gitattributes"} == {*done.files, *kept}


def test_shards_have_row_groups_and_a_page_index(hub: HubServer, curation: Curation, tmp_path: Path) -> None:
    curation.push_to_hub("ada/toy")
    path = tmp_path / "shard.parquet"
    path.write_bytes(hub.read_file("dataset", "ada/toy", "data/grounded-00000-of-00001.parquet"))
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert column.has_offset_index
    assert column.has_column_index


def test_the_front_matter_says_what_load_dataset_and_the_hub_need(hub: HubServer, curation: Curation) -> None:
    curation.push_to_hub("ada/toy")
    card = read_card(hub, "ada/toy")
    info = DatasetInfosDict.from_dataset_card_data(card.data)["default"]
    assert info.features == load_dataset("ada/toy", split="grounded").features
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        name: len(rows) for name, rows in curation.splits.items()
    }
    assert info.download_size == sum(
        size for path, size in curation.push_to_hub("ada/toy").files.items() if path.startswith("data/")
    )
    assert info.dataset_size == sum(split.num_bytes for split in info.splits.values())
    assert info.dataset_size > sum(len(b"clip of clip_0.mp4 ") * 100 for _ in range(79))
    assert card.data.size_categories == "n<1K"
    assert 'load_dataset("ada/toy", split="grounded")' in card.text


def test_no_folder_of_this_machine_is_pushed(hub: HubServer, videos: Dataset, clips: Path, tmp_path: Path) -> None:
    # Without a column of ids, they are made of the path and the question.
    curation = curate(videos.remove_columns("id"), rule=calibrated(0.1), source={"id": str(clips / "clip_1.mp4")})
    assert clips.name in curation.report["samples"]["grounded"][0]["id"]
    assert curation.report["source"]["id"] == f"{clips.name}/clip_1.mp4"
    curation.report["source"]["id"] = "clip_1.mp4"
    done = curation.push_to_hub("ada/toy")
    for path in done.files:
        content = hub.read_file("dataset", "ada/toy", path)
        if path.endswith(".parquet"):
            (tmp_path / "shard.parquet").write_bytes(content)
            content = str(pq.read_table(tmp_path / "shard.parquet").to_pylist()).encode()
        assert clips.name.encode() not in content, path


def test_licence_languages_and_revision_come_from_the_source(hub: HubServer) -> None:
    api = HfApi()
    api.create_repo("ada/source", repo_type="dataset")
    Dataset.from_list(make_rows(40)).push_to_hub("ada/source")
    card = "---\nlicense: cc-by-4.0\nlanguage:\n- en\n- 'no'\n---\n"
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="ada/source", repo_type="dataset")
    pinned = api.dataset_info("ada/source").sha
    curation = curate(load_dataset("ada/source", split="train").select(range(30)), rule=calibrated(0.2))
    assert curation.report["source"]["id"] == "ada/source"
    assert curation.report["source"]["revision"] == pinned
    curation.push_to_hub("ada/curated")
    data = read_card(hub, "ada/curated").data
    assert (data.license, data.language, data.source_datasets) == ("cc-by-4.0", ["en", "no"], ["ada/source"])


def test_branches_pull_requests_and_private_repositories(hub: HubServer, curation: Curation) -> None:
    curation.push_to_hub("ada/toy", private=True, revision="draft")
    assert "report.json" in hub.list_files("dataset", "ada/toy", "draft")
    assert "report.json" not in hub.list_files("dataset", "ada/toy")
    assert HfApi().dataset_info("ada/toy").private
    HfApi(token=hub.token("bob")).create_repo("bob/theirs", repo_type="dataset")
    done = curation.push_to_hub("bob/theirs", create_pr=True)
    assert done.is_changed
    assert re.search(r"/datasets/bob/theirs/discussions/1$", done.url)
    assert "report.json" in hub.list_files("dataset", "bob/theirs", "refs/pr/1")
    assert "report.json" not in hub.list_files("dataset", "bob/theirs")
    with pytest.raises(ValueError, match=re.escape("a pull request goes to main, got revision 'draft' too")):
        curation.push_to_hub("ada/toy", create_pr=True, revision="draft")


def test_a_missing_clip_is_named_without_its_folder(hub: HubServer, videos: Dataset) -> None:
    rows = videos.to_list()
    rows[0]["video"] = {"bytes": None, "path": "/nowhere/at/all/gone.mp4"}
    curation = curate(Dataset.from_list(rows, features=videos.features), rule=calibrated(0.1))
    with pytest.raises(DataError, match=r"a media file that split '\w+' names is not there: 'gone.mp4'. Media"):
        curation.push_to_hub("ada/toy")
    assert hub.requests == {}


# --- ids only


@pytest.mark.parametrize(
    ("source", "adapter", "name"),
    [
        ("lmms-lab/Video-MME", "generic", "Video-MME"),
        ("data/video_mme.json", "generic", "Video-MME"),
        ("longvideobench/LongVideoBench", "generic", "LongVideoBench"),
        ("mine/data", "mlvu", "MLVU"),
        ("Lin-Chen/MMStar", "generic", "MMStar"),
        (None, "generic", None),
        ("dataset/nextqa", "nextqa", None),
    ],
)
def test_sources_that_restrict_copies_are_known(source: str | None, adapter: str, name: str | None) -> None:
    terms = find_terms({"source": {"id": source}, "adapter": adapter})
    assert (terms.name if terms else None) == name


def test_only_ids_are_the_default_where_copies_are_restricted() -> None:
    report = {"source": {"id": "lmms-lab/Video-MME"}, "adapter": "generic"}
    assert choose_ids_only(report, None) == choose_ids_only(report, True) == "Video-MME forbids redistribution"
    with pytest.raises(ValueError, match=r"^whole rows were asked for, but Video-MME forbids redistribution;"):
        choose_ids_only(report, False)
    mlvu = {"source": {"id": None}, "adapter": "mlvu"}
    assert choose_ids_only(mlvu, None) == "MLVU is CC BY-NC-SA 4.0, for research and non-commercial use only"
    assert choose_ids_only(mlvu, False) is None
    toy = {"source": {"id": "toy"}, "adapter": "generic"}
    assert choose_ids_only(toy, None) is None
    assert choose_ids_only(toy, True) == "this was asked for"


def test_ids_only_pushes_no_text_of_the_source(hub: HubServer, curation: Curation, tmp_path: Path) -> None:
    done = curation.push_to_hub("ada/ids", ids_only=True)
    pushed = load_dataset("ada/ids")
    assert pushed["grounded"].column_names == [
        "id", "row_key", "blind_answer_keys", "blind_scores", "bias_score", "is_visually_grounded", "drop_reason"
    ]  # fmt: skip
    texts = {row["question"] for rows in curation.splits.values() for row in read_rows(rows)}
    texts |= {option for rows in curation.splits.values() for row in read_rows(rows) for option in row["options"]}
    for path in done.files:
        content = hub.read_file("dataset", "ada/ids", path)
        if path.endswith(".parquet"):
            (tmp_path / "shard.parquet").write_bytes(content)
            content = str(pq.read_table(tmp_path / "shard.parquet").to_pylist()).encode()
        assert [text for text in texts if text.encode() in content] == [], path
    card = hub.read_file("dataset", "ada/ids", "README.md").decode()
    assert 'load_curated("ada/ids", split="grounded", source="path/to/the/source")' in card
    assert "Questions, options and answers are not here: this was asked for." in card
    report = json.loads(hub.read_file("dataset", "ada/ids", "report.json"))
    assert report["ids_only"]["columns"] == ["id", "video", "question", "options", "answer", "needs"]
    assert report["ids_only"]["key_columns"] == report["ids_only"]["columns"]
    assert report["ids_only"]["media_columns"] == ["video"]
    assert report["ids_only"]["num_groups_left_out"] == {}
    assert report["num_rows"] == 80


@pytest.mark.parametrize(
    ("num_rows", "num_groups", "is_kept"),
    [(100, 50, True), (100, 51, False), (30, 30, False), (30, 15, True), (600, 60, True), (600, 61, False)],
)
def test_only_ids_leave_out_groups_that_are_many(num_rows: int, num_groups: int, is_kept: bool) -> None:
    groups = {f"caption {k}": {"num_rows": 1} for k in range(num_groups)}
    types = {"multiple_choice": {"num_rows": num_rows}}
    report = {
        "num_rows": num_rows,
        "groups": {"problem_type": types, "category": groups},
        "samples": {"kept": [{}]},
        "leaks": {"examples": ["x"]},
    }
    stripped = strip_report(report)
    assert stripped["groups"] == {"problem_type": types, "category": groups if is_kept else {}}
    assert stripped["ids_only"] == {"num_groups_left_out": {} if is_kept else {"category": num_groups}}


# --- what goes wrong on the way


@pytest.mark.parametrize(
    ("method", "pattern", "kind"),
    [
        ("GET", "^/api/datasets/ada/toy$", 502),
        ("POST", "/api/repos/create", 503),
        ("POST", "/preupload/", 500),
        ("PUT", "", 500),
        ("PUT", "", "cut"),
        ("PUT", "", "lost"),
        ("POST", "/commit/", 500),
        ("POST", "/commit/", 412),
        ("POST", "/commit/", "cut"),
        ("POST", "/commit/", "lost"),
        ("GET", "/tree/", 504),
    ],
)
def test_faults_are_outlived_and_nothing_is_done_twice(
    hub: HubServer, curation: Curation, waits: list[float], method: str, pattern: str, kind: Any
) -> None:
    hub.faults.append(Fault(method, pattern, kind))
    done = curation.push_to_hub("ada/toy")
    assert hub.faults[0].seen >= 1
    assert done.is_changed
    assert len(hub.list_commits("dataset", "ada/toy")) == 2
    assert set(done.files) <= set(hub.list_files("dataset", "ada/toy"))


def test_a_rate_limit_is_waited_for_as_long_as_it_says(hub: HubServer, curation: Curation, waits: list[float]) -> None:
    hub.faults.append(Fault("POST", "/commit/", 429, retry_after=17))
    assert curation.push_to_hub("ada/toy").is_changed
    assert 17.0 in waits


def test_a_commit_of_somebody_else_in_between_is_kept(hub: HubServer, curation: Curation, waits: list[float]) -> None:
    real = hub.answer
    done: list[bool] = []

    def answer(request: Request) -> Response:
        if "/preupload/" in request.path and not done:
            done.append(True)
            HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="n.md", repo_id="ada/toy", repo_type="dataset")
        return real(request)

    hub._server.answer = answer
    curation.push_to_hub("ada/toy")
    assert {"n.md", "report.json"} <= set(hub.list_files("dataset", "ada/toy"))
    assert len(hub.list_commits("dataset", "ada/toy")) == 3


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(
    hub: HubServer, curation: Curation, waits: list[float]
) -> None:
    HfApi().create_repo("ada/toy", repo_type="dataset")
    hub.faults.append(Fault("POST", "/commit/", "lost", times=9))
    with pytest.raises(HubError, match="the Hub did not say whether it opened the pull request on ada/toy; look"):
        curation.push_to_hub("ada/toy", create_pr=True)
    assert hub.requests["POST", "commit"] == 1


def test_a_hub_that_stays_busy_is_one_line(hub: HubServer, curation: Curation, waits: list[float]) -> None:
    hub.faults.append(Fault("POST", "/commit/", 503, times=99))
    message = "the Hub was too busy 5 times (503); run this again later, nothing is uploaded twice"
    with pytest.raises(HubError, match=f"^{re.escape(message)}$"):
        curation.push_to_hub("ada/toy")
    hub.faults.clear()
    curation.push_to_hub("ada/toy")
    assert hub.requests["PUT", "lfs-upload"] == LFS_FILES


def test_errors_say_what_to_do(server: HubServer, curation: Curation, tmp_path: Path, waits: list[float]) -> None:
    api = HfApi
    cases = [
        ("bob/toy", server.token("ada"), "the token may not write to bob/toy (403); use one with write access to it"),
        ("ada/toy", server.token("ada", "read"), "the token may not write to ada/toy (403); use one with"),
        ("ada/toy", "hf_wrongwrongwrong", "the Hub does not accept the token (401); run `hf auth login` again"),
        ("a/b/c", server.token("ada"), "'a/b/c' is no name of a repository; it reads user/name"),
    ]
    with server.connect(tmp_path / "cache"):
        for repo_id, token, message in cases:
            with pytest.raises(HubError, match=f"^{re.escape(message)}") as caught:
                curation.push_to_hub(repo_id, token=token)
            assert "\n" not in str(caught.value)
            assert token not in str(caught.value)
            assert caught.value.__context__ is None
        with pytest.raises(HubError, match=re.escape("no token to push to ada/toy with: run `hf auth login`, or set")):
            curation.push_to_hub("ada/toy")
        assert api(token=server.token("ada")).repo_exists("ada/toy", repo_type="dataset") is False


def test_a_hub_that_is_not_there_is_one_line(curation: Curation, tmp_path: Path, waits: list[float]) -> None:
    with HubServer(tmp_path / "server") as server:
        pass
    with (
        server.connect(tmp_path / "cache", "hf_something"),
        pytest.raises(HubError, match=r"^cannot reach http://127.0.0.1:\d+ \(ConnectError\); what was uploaded is"),
    ):
        curation.push_to_hub("ada/toy")


@pytest.mark.parametrize("status", [400, 403, 413, 500])
def test_a_token_that_the_server_repeats_is_never_shown(
    hub: HubServer, curation: Curation, waits: list[float], caplog: Any, tmp_path: Path, status: int
) -> None:
    token = hub.token("ada")
    real = hub.answer

    def answer(request: Request) -> Response:
        if "/commit/" in request.path:
            message = f"refused, you sent {token}"
            return give_json({"error": message}, status, {"X-Error-Message": message})
        return real(request)

    hub._server.answer = answer
    caplog.set_level(logging.INFO)  # below, the HTTP library writes out whatever comes over the wire
    caplog.set_level(logging.DEBUG, logger="huggingface_hub")
    with pytest.raises(HubError) as caught:
        curation.push_to_hub("ada/toy", token=token)
    shown = [str(caught.value), repr(caught.value.args), *(record.getMessage() for record in caplog.records)]
    assert not any(token in text for text in shown)
    assert caught.value.__context__ is caught.value.__cause__ is None
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(token.encode() in path.read_bytes() for path in kept)


def test_tokens_are_taken_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "odd-token")
    assert hide_token("odd-token hf_abcdefgh other", "other") == "[token] [token] [token]"


# --- dry runs and offline


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vidground", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture
def folder(curation: Curation, tmp_path: Path) -> Path:
    return curation.save(tmp_path / "curated")


def test_a_dry_run_writes_the_files_that_a_push_sends(
    hub: HubServer, folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    status, out, _ = run(capsys, monkeypatch, "push", folder, "ada/toy", "--dry-run", tmp_path / "dry")
    assert status == 0
    assert hub.requests == {}
    assert out.splitlines()[-1].startswith("nothing was sent; a push would send 9 files, 0.")
    status, out, _ = run(capsys, monkeypatch, "push", folder, "ada/toy", "--json")
    done = json.loads(out)
    assert status == 0
    assert done["is_changed"] is True
    for path in done["files"]:
        assert hub.read_file("dataset", "ada/toy", path) == (tmp_path / "dry" / path).read_bytes(), path
    assert len(done["files"]) == sum(path.is_file() for path in (tmp_path / "dry").rglob("*"))
    status, out, _ = run(capsys, monkeypatch, "push", folder, "ada/toy")
    assert out == f"nothing has changed, no commit was made: {done['url']}\n"


def test_a_dry_run_does_not_write_over_what_it_would_push(
    curation: Curation, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    folder = curation.save(tmp_path / "out")
    for target in (folder, folder / "inside"):
        status, _, err = run(capsys, monkeypatch, "push", folder, "ada/toy", "--ids-only", "--dry-run", target)
        assert (status, "would write into the dataset itself" in err) == (2, True)
    assert "question" in Curation(read_splits(folder), {}).splits["grounded"].column_names


def test_offline_says_what_it_would_do(curation: Curation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"^offline, nothing was sent: would push 9 files, 0.\d MB, to ada/toy in one"):
        curation.push_to_hub("ada/toy")


def test_the_command_says_why_only_ids_are_pushed(
    hub: HubServer, curation: Curation, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    report = {**curation.report, "source": {**curation.report["source"], "id": "me/Video-MME"}}
    folder = Curation(curation.splits, report).save(tmp_path / "curated")
    status, _, err = run(capsys, monkeypatch, "push", folder, "ada/ids")
    assert status == 0
    assert "note: only ids, verdicts and scores, no texts: Video-MME forbids redistribution\n" in err
    assert "row_key" in load_dataset("ada/ids", split="grounded").column_names
    status, _, err = run(capsys, monkeypatch, "push", folder, "ada/full", "--full")
    assert status == 2
    assert "error: whole rows were asked for, but Video-MME forbids redistribution; push ids" in err


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    status, _, err = run(capsys, monkeypatch, "push", tmp_path, "ada/toy")
    assert status == 2
    assert "no curated dataset in" in err
    with pytest.raises(DataError, match=re.escape("it has report.json and data/SPLIT-*.parquet, as vidground curate")):
        read_splits(tmp_path)


def test_no_option_takes_a_token(capsys: Any, monkeypatch: Any) -> None:
    for command in ("push", "push-metric"):
        _, out, _ = run(capsys, monkeypatch, command, "--help")
        assert "--token" not in out


# --- the command that is recorded


def test_the_card_holds_the_command_that_made_it(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    data = tmp_path / "secret-place" / "toy" / "questions.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in make_rows(60)), encoding="utf-8")
    out = tmp_path / "secret-place" / "out"
    status, _, _ = run(
        capsys, monkeypatch, "curate", data, "--output", out, "--alpha", "0.1", "--map", "question=question", "--json"
    )
    assert status == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    command = "vidground curate toy/questions.jsonl --alpha 0.1 --map question=question --output OUT"
    assert report["command"] == command
    assert report["columns"] == {"question": "question"}
    assert f"\n    {command}\n" in (out / "README.md").read_text(encoding="utf-8")
    for path in (out / "README.md", out / "report.json", out / "report.html"):
        assert "secret-place" not in path.read_text(encoding="utf-8")


def test_the_recorded_command_pins_the_revision_and_hides_addresses(
    hub: HubServer, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    Dataset.from_list(make_rows(40)).push_to_hub("ada/source")
    pinned = HfApi().dataset_info("ada/source").sha
    status, _, err = run(capsys, monkeypatch, "curate", "ada/source", "--split", "train", "--output", tmp_path / "out")
    assert status == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["command"] == f"vidground curate ada/source --split train --revision {pinned} --output OUT"
    assert report["source"] | {"fingerprint": None} == {
        "id": "ada/source",
        "revision": pinned,
        "config": None,
        "split": "train",
        "data_files": None,
        "fingerprint": None,
    }


# --- metrics


def test_a_pushed_metric_is_a_space_that_evaluate_loads(
    hub: HubServer, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    status, out, _ = run(capsys, monkeypatch, "push-metric", "blind_visual_gap", "ada/blind_visual_gap")
    assert status == 0, out
    assert re.match(r"pushed 5 files, 0.0 MB: http://127.0.0.1:\d+/spaces/ada/blind_visual_gap/commit/", out)
    assert "tests.py" in hub.list_files("space", "ada/blind_visual_gap")
    assert b"sdk: gradio" in hub.read_file("space", "ada/blind_visual_gap", "README.md")
    metric = evaluate.load("ada/blind_visual_gap")
    answers = ["A", "B", "C"]
    result = metric.compute(predictions=answers, blind_predictions=["A", "C", "A"], references=answers, num_options=4)
    assert result["gap"] == pytest.approx(2 / 3)
    cases: dict[str, Any] = {}
    exec(hub.read_file("space", "ada/blind_visual_gap", "tests.py"), cases)  # noqa: S102 - our own, as it was pushed
    assert len(cases["test_cases"]) == 3
    for case in cases["test_cases"]:
        scores = metric.compute(**case["inputs"])
        assert {key: scores[key] for key in case["result"]} == case["result"]
    _, out, _ = run(capsys, monkeypatch, "push-metric", "blind_visual_gap", "ada/blind_visual_gap")
    assert out.startswith("nothing has changed, no commit was made: ")
    status, out, _ = run(
        capsys, monkeypatch, "push-metric", "grounded_qa", "ada/grounded_qa", "--dry-run", tmp_path / "d", "--json"
    )
    assert sorted(json.loads(out)["files"]) == sorted(path.name for path in (tmp_path / "d").iterdir())
    assert ("space", "ada/grounded_qa") not in hub.store.repositories


def test_an_unknown_metric_is_bad_usage(capsys: Any, monkeypatch: Any) -> None:
    status, _, err = run(capsys, monkeypatch, "push-metric", "nothing", "ada/nothing")
    assert status == 2
    assert "error: no metric 'nothing'; allowed are blind_visual_gap, " in err


def test_compiled_files_of_a_folder_are_left_out(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "f" / "__pycache__").mkdir(parents=True)
    (tmp_path / "f" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (tmp_path / "f" / "a.txt").write_text("a", encoding="utf-8")
    assert push_folder(tmp_path / "f", "ada/m", "model", message="Add a").files == {"a.txt": 1}


# --- killed

NUM_KILLS = 10
NUM_OBJECTS = 7  # three shards and four figures
NUM_ROWS, NUM_CLIPS = 50_000, 1_000


def make_big_folder(folder: Path, curation: Curation) -> Path:
    """50,000 rows in three splits that name 1,000 clips, with the report of a small set."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    rng = random.Random(0)
    for number in range(NUM_CLIPS):
        (clips / f"{number}.mp4").write_bytes(rng.randbytes(rng.randrange(1000, 3000)))
    verdicts = {"grounded": True, "text_answerable": False, "undecided": None}
    splits = {}
    for start, (name, verdict) in enumerate(verdicts.items()):
        numbers = range(start, NUM_ROWS, len(verdicts))
        columns = {
            "id": [f"q{number}" for number in numbers],
            "video": [str(clips / f"{number % NUM_CLIPS}.mp4") for number in numbers],
            "question": [f"what happens in clip {number % NUM_CLIPS}, the {number}th time?" for number in numbers],
            "is_visually_grounded": [verdict] * len(numbers),
        }
        features = Features({name: Value("string") for name in columns} | {"is_visually_grounded": Value("bool")})
        splits[name] = Dataset.from_dict(columns, features=features).cast_column("video", UNDECODED)
    counts = {f"num_{name}": len(rows) for name, rows in splits.items()} | {"num_rows": NUM_ROWS}
    return Curation(DatasetDict(splits), curation.report | counts).save(folder / "curated")


@pytest.mark.slow
def test_a_push_that_is_killed_ten_times_ends_as_one_commit_and_sends_nothing_twice(
    server: HubServer, curation: Curation, tmp_path: Path
) -> None:
    folder = make_big_folder(tmp_path / "big", curation)
    real, finished = server.answer, Counter[str]()
    reached = threading.Event()
    state = {"left": 0}

    def answer(request: Request) -> Response:
        with server.lock:
            state["left"] -= 1
            if state["left"] == 0:
                reached.set()
        response = real(request)
        if request.method == "PUT":
            finished[request.path] += 1
        return response

    server._server.answer = answer
    command = [sys.executable, "-m", "vidground_hf.cli", "push", str(folder), "ada/big"]
    (tmp_path / "scratch").mkdir()
    environment = server.environment(tmp_path / "cache", server.token("ada")) | {"TMPDIR": str(tmp_path / "scratch")}
    rng = random.Random(1)
    for number in range(NUM_KILLS):
        # By the clock most kills would fall into reading and writing the rows; by requests they fall everywhere.
        reached.clear()
        num_before_commit = 7 + 2 * (NUM_OBJECTS - len(finished))
        is_last = number == NUM_KILLS - 1
        state["left"] = num_before_commit + 1 if is_last else rng.randrange(1, num_before_commit + 1)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number % 5 == 0:
            time.sleep(rng.uniform(0, 8))
        else:
            assert reached.wait(120)
            time.sleep(0 if is_last else rng.uniform(0, 0.02))
        assert is_last or process.poll() is None
        process.kill()
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("pushed 10 files", "nothing has changed"))
    assert len(server.list_commits("dataset", "ada/big")) == 2
    assert set(finished.values()) == {1}
    assert len(finished) == NUM_OBJECTS
    with server.connect(tmp_path / "cache", server.token("ada")):
        for name, rows in read_splits(folder).items():
            pushed = load_dataset("ada/big", split=name)
            assert pushed.num_rows == rows.num_rows
            sample = range(0, len(rows), 997)
            assert read_rows(pushed.select(sample)) == embed(read_rows(rows.select(sample)))
