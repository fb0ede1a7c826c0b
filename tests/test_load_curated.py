"""Curated datasets that come back whole: as they were pushed, or joined again with their source."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

import huggingface_hub
import pytest
from datasets import Dataset, DatasetDict, Image, List, Video, load_dataset
from huggingface_hub import HfApi

from tests.hub_server import HubServer
from tests.questions import LetterAnswerer, make_rows
from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf import curate, load_curated, open_dataset, single_shot
from vidground_hf.answerers import ConstantAnswerer
from vidground_hf.cli import main
from vidground_hf.curation import Curation
from vidground_hf.hub_errors import HubError
from vidground_hf.id_rows import list_source_columns, strip_rows
from vidground_hf.loading import DataError
from vidground_hf.publishing import write_dataset
from vidground_hf.rows import hash_rows
from vidground_hf.rules import majority
from vidground_hf.set_rules import calibrated

# huggingface_hub's own way to upload a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

UNDECODED = Video(decode=False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    huggingface_hub.utils.disable_progress_bars()
    with HubServer(tmp_path / "server") as server, server.connect(tmp_path / "cache", server.token("ada")):
        yield server
    huggingface_hub.utils.enable_progress_bars()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "questions.jsonl", make_rows(60))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def push_ids(curation: Curation, folder: Path) -> str:
    """What is pushed, in a folder: `load_curated` reads it as it reads the Hub."""
    write_dataset(curation.splits, curation.report, folder, "ada/ids", ids_only="a reason")
    return str(folder)


def assert_equal(loaded: DatasetDict, curation: Curation) -> None:
    assert list(loaded) == list(curation.splits)
    for name, rows in curation.splits.items():
        assert loaded[name].features == rows.features
        assert loaded[name].with_format("arrow")[:].equals(rows.with_format("arrow")[:]), name


# --- the same again


def test_whole_rows_are_simply_loaded(hub: HubServer, questions: Path) -> None:
    curation = curate(open_dataset(questions), rule=calibrated(0.2))
    curation.push_to_hub("ada/full")
    assert_equal(load_curated("ada/full"), curation)
    one = load_curated("ada/full", split="grounded")
    assert one.to_list() == curation.splits["grounded"].to_list()


def test_ids_are_joined_with_a_local_source_in_the_order_pushed(hub: HubServer, questions: Path) -> None:
    curation = curate(open_dataset(questions), rule=calibrated(0.2), source={"id": "x/questions.jsonl"})
    curation.push_to_hub("ada/ids", ids_only=True)
    write_rows(questions, list(reversed(make_rows(60))))
    assert_equal(load_curated("ada/ids", source=questions), curation)
    one = load_curated("ada/ids", split="grounded", source=str(questions))
    assert one["id"][:] == curation.splits["grounded"]["id"][:]
    message = "this dataset holds ids only, and was made from local files, x/questions.jsonl; say where your copy is"
    with pytest.raises(DataError, match=re.escape(message)):
        load_curated("ada/ids")


def test_ids_are_joined_with_the_hub_at_the_revision_that_was_curated(hub: HubServer) -> None:
    parts = {"train": make_rows(50), "test": make_rows(30, seed=3)}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}).push_to_hub("ada/source")
    curation = curate(open_dataset("ada/source"), rule=calibrated(0.2))
    assert curation.report["source"]["id"] == "ada/source"
    curation.push_to_hub("ada/ids", ids_only=True)
    changed = [{**row, "question": "changed"} for row in make_rows(50)]
    DatasetDict(train=Dataset.from_list(changed)).push_to_hub("ada/source", commit_message="change")
    assert_equal(load_curated("ada/ids"), curation)
    text = hub.read_file("dataset", "ada/ids", "README.md").decode()
    assert '    load_curated("ada/ids", split="grounded")' in text.replace("questions = ", "    ")


def test_one_split_and_some_files_of_the_hub_are_found_again(hub: HubServer) -> None:
    Dataset.from_list(make_rows(40)).push_to_hub("ada/source")
    curation = curate(load_dataset("ada/source"), rule=calibrated(0.3))
    assert set(curation.splits["grounded"]["split"]) == {"train"}
    curation.push_to_hub("ada/ids", ids_only=True)
    assert_equal(load_curated("ada/ids"), curation)
    content = "".join(json.dumps(row) + "\n" for row in make_rows(30, seed=4)).encode()
    HfApi().upload_file(
        path_or_fileobj=content, path_in_repo="more/extra.jsonl", repo_id="ada/source", repo_type="dataset"
    )
    files = ["more/extra.jsonl"]
    curation = curate(open_dataset("ada/source", data_files=files), rule=calibrated(0.3), source={"data_files": files})
    curation.push_to_hub("ada/more", ids_only=True)
    assert curation.report["num_rows"] == 30
    assert_equal(load_curated("ada/more"), curation)


def test_a_column_mapping_and_a_split_are_asked_for_again(hub: HubServer, tmp_path: Path) -> None:
    rows = [
        {"frage": row["question"], "wahl": row["options"], "loesung": row["answer"], "nr": index}
        for index, row in enumerate(make_rows(60))
    ]
    folder = tmp_path / "set"
    folder.mkdir()
    write_rows(folder / "train.jsonl", rows[:40])
    write_rows(folder / "test.jsonl", rows[40:])
    columns = {"question": "frage", "options": "wahl", "answer": "loesung", "id": "nr"}
    opened = open_dataset(folder, split="train", columns=columns)
    curation = curate(opened, columns=columns, rule=calibrated(0.3), source={"id": "set", "split": "train"})
    curation.push_to_hub("ada/ids", ids_only=True)
    assert load_dataset("ada/ids", split="grounded").column_names[:3] == ["nr", "split", "row_key"]
    assert_equal(load_curated("ada/ids", source=folder), curation)


@needs_shared_data
@pytest.mark.parametrize("name", ["mlvu/data", "nextqa/dataset/nextqa/val.csv"])
def test_real_sets_come_back_equal(hub: HubServer, name: str) -> None:
    source = SHARED_DATA / name
    curation = curate(open_dataset(source), answerer=ConstantAnswerer("B"), rule=single_shot(), source={"id": name})
    curation.push_to_hub("ada/set")
    is_stripped = "row_key" in load_dataset("ada/set", split="grounded").column_names
    assert is_stripped == (name == "mlvu/data")
    assert_equal(load_curated("ada/set", source=source if is_stripped else None), curation)


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize("name", ["mlvu/data", "nextqa/dataset/nextqa"])
def test_real_sets_come_back_equal_by_the_commands(
    hub: HubServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["curate", SHARED_DATA / name, "--output", tmp_path / "out"],
        ["push", tmp_path / "out", "ada/s"],
    ):
        monkeypatch.setattr(sys, "argv", ["vidground", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    written = DatasetDict(load_dataset(str(tmp_path / "out")))
    assert_equal(load_curated("ada/s", source=SHARED_DATA / name), Curation(written, {}))


def test_rows_that_occur_twice_come_back_twice(tmp_path: Path) -> None:
    rows = [*make_rows(40), *make_rows(4), *make_rows(4)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    curation = curate(open_dataset(path), rule=calibrated(0.3))
    assert_equal(load_curated(push_ids(curation, tmp_path / "ids"), source=path), curation)
    write_rows(path, make_rows(40))
    with pytest.raises(DataError, match=r"^\d of \d+ rows of split \w+ are not in the source"):
        load_curated(str(tmp_path / "ids"), source=path)


def test_a_recorded_split_is_not_asked_of_ones_own_copy(questions: Path, tmp_path: Path) -> None:
    source = {"id": "x/set", "revision": "a" * 40, "split": "test"}
    curation = curate(open_dataset(questions), rule=calibrated(0.2), source=source)
    assert_equal(load_curated(push_ids(curation, tmp_path / "ids"), source=questions), curation)


# --- what no longer matches


def test_changed_and_missing_rows_are_counted_and_named(questions: Path, tmp_path: Path) -> None:
    curation = curate(open_dataset(questions), rule=calibrated(0.2), source={"id": "x/questions.jsonl"})
    ids = push_ids(curation, tmp_path / "ids")
    kept = curation.splits["grounded"]["id"][:]
    rows = {row["id"]: row for row in make_rows(60)}
    rows[kept[0]]["question"] += "?"
    rows[kept[1]]["needs"] = "both"
    del rows[kept[2]]
    write_rows(questions, list(rows.values()))
    shown = "; ".join(f"id {name}, video {make_rows(60)[int(name[1:])]['video']}" for name in kept[:3])
    message = (
        f"3 of {len(kept)} rows of split grounded are not in x/questions.jsonl, or not as they were curated (59 rows "
        f"there): {shown}. Pass the files that were curated as source=PATH; the verdicts alone open with"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        load_curated(ids, source=questions)
    assert len(load_curated(ids, split="text_answerable", source=questions)) == 60 - len(kept)


def test_the_wrong_source_is_told_from_a_changed_one(questions: Path, tmp_path: Path) -> None:
    ids = push_ids(curate(open_dataset(questions), rule=calibrated(0.2)), tmp_path / "ids")
    other = write_rows(tmp_path / "other.jsonl", make_rows(60, seed=9))
    with pytest.raises(DataError, match=re.escape("; .... Nothing matches: is this the right source? Pass the files")):
        load_curated(ids, source=other)
    for row in (rows := make_rows(60)):
        del row["needs"]
    write_rows(other, rows)
    with pytest.raises(
        DataError, match=r"^the source has no column needs; found id, video, question, options, answer\."
    ):
        load_curated(ids, source=other)


def test_a_dataset_that_is_not_there_is_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"^no repository or revision ada/nothing, or the token may not see it \(404\)"):
        load_curated("ada/nothing")
    HfApi().create_repo("ada/other", repo_type="dataset")
    with pytest.raises(HubError, match=r"^ada/other has no report.json, so it is no curated dataset; open it with"):
        load_curated("ada/other")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"^ada/other is not here and http://\S+ is not reached; go online"):
        load_curated("ada/other")


def test_own_words_of_a_model_are_not_pushed_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": str(k), "question": f"why {k}?", "answer": "A" if k < 5 else f"gold {k}"} for k in range(20)]
    path = write_rows(tmp_path / "open.jsonl", rows)
    curation = curate(open_dataset(path), answerer=LetterAnswerer(), rule=majority(1.0), on_error="undecided")
    ids = push_ids(curation, tmp_path / "ids")
    assert_equal(load_curated(ids, source=path), curation)  # letters are nobody's words
    curation = curate(open_dataset(path), answerer=ConstantAnswerer("I guess so"), rule=single_shot())
    loaded = load_curated(push_ids(curation, tmp_path / "more"), source=path)
    (name,) = loaded
    assert loaded[name]["blind_answers"][:] == [[None]] * 20
    assert loaded[name].remove_columns("blind_answers").to_list() == [
        {key: value for key, value in row.items() if key != "blind_answers"} for row in curation.splits[name]
    ]
    assert f"20 blind answers of split {name} are None: they are in a model's own words" in caplog.text


# --- keys


def test_nested_times_make_no_key_and_media_do() -> None:
    rows = Dataset.from_dict(
        {
            "question": ["why?"],
            "when": [datetime(2026, 1, 2)],
            "spans": [[{"at": datetime(2026, 1, 2), "n": 1}]],
            "nested": [{"a": [1.5]}],
            "video": [{"bytes": b"x", "path": None}],
            "images": [[{"bytes": b"x", "path": None}]],
            "bias_score": [0.5],
        }
    )
    rows = rows.cast_column("video", UNDECODED).cast_column("images", List(Image(decode=False)))
    found = list_source_columns(rows.features)
    assert found.columns == ["question", "when", "spans", "nested", "video", "images"]
    assert found.key_columns == ["question", "when", "nested", "video", "images"]
    assert found.media_columns == ["video", "images"]


def make_clips(paths: Sequence[str | None], content: bytes | None = None) -> Dataset:
    """Rows that nothing but their clips tells apart."""
    row = {"question": "is it open?", "options": ["yes", "no"], "answer": "A"}
    rows = [{**row, "video": {"bytes": content, "path": path}} for path in paths]
    return Dataset.from_list(rows).cast_column("video", UNDECODED)


def split_by_hand(rows: Dataset) -> Curation:
    """The even rows in one split, the odd ones in the other."""
    curation = curate(rows, answerer=ConstantAnswerer("B"), rule=majority(1.0))
    (judged,) = curation.splits.values()
    parts = {
        "grounded": judged.select(range(0, len(rows), 2)),
        "text_answerable": judged.select(range(1, len(rows), 2)),
    }
    counts = {f"num_{name}": len(part) for name, part in parts.items()} | {"num_undecided": 0}
    return Curation(DatasetDict(parts), {**curation.report, **counts})


def list_clips(rows: Dataset) -> list[str]:
    return [PurePath(cell["path"]).name for cell in rows["video"]]


def save_clips(folder: Path, number: int) -> list[str]:
    folder.mkdir()
    paths = [folder / f"{index}.mp4" for index in range(number)]
    for path in paths:
        path.write_bytes(str(path).encode())
    return [str(path) for path in paths]


def test_rows_with_the_same_texts_get_their_own_clips_back_from_another_disk(tmp_path: Path) -> None:
    curation = split_by_hand(make_clips(save_clips(tmp_path / "here", 8)))
    ids = push_ids(curation, tmp_path / "ids")
    elsewhere = save_clips(tmp_path / "there", 9)
    changed = [*elsewhere[:7], elsewhere.pop()]
    make_clips(elsewhere).save_to_disk(str(tmp_path / "saved"))
    write_rows(tmp_path / "plain.jsonl", [{**row, "video": row["video"]["path"]} for row in make_clips(elsewhere)])
    loaded = load_curated(ids, source=tmp_path / "saved")
    assert list_clips(loaded["grounded"]) == ["0.mp4", "2.mp4", "4.mp4", "6.mp4"]
    assert list_clips(loaded["text_answerable"]) == ["1.mp4", "3.mp4", "5.mp4", "7.mp4"]
    loaded = load_curated(ids, source=tmp_path / "plain.jsonl")
    assert loaded["text_answerable"]["video"][:] == elsewhere[1::2]
    make_clips(changed).save_to_disk(str(tmp_path / "changed"))
    with pytest.raises(DataError, match=r"^1 of 4 rows of split text_answerable are not in the source"):
        load_curated(ids, source=tmp_path / "changed")


def test_a_clip_without_a_name_is_known_by_its_content() -> None:
    one, same, other = (strip_rows(judge(make_clips([None], content)))["row_key"][0] for content in (b"x", b"x", b"y"))
    assert one == same != other


def judge(rows: Dataset) -> Dataset:
    (judged,) = curate(rows, answerer=ConstantAnswerer("B"), rule=majority(1.0)).splits.values()
    return judged


def test_clips_of_one_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    message = (
        "2 rows have the same cells as another row and media of the same file name in another folder or with other "
        "content, so no key tells them apart: 0.mp4, 1.mp4. Rename the files, or add a column that differs"
    )
    paths = save_clips(tmp_path / "here", 2) + save_clips(tmp_path / "there", 2)
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        push_ids(split_by_hand(make_clips(paths)), tmp_path / "ids")
    again = split_by_hand(make_clips([*paths[:2], *paths[:2]]))
    ids = push_ids(again, tmp_path / "twice")
    make_clips(paths).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_curated(ids, source=tmp_path / "saved")


def test_an_answer_key_tells_nothing_to_who_has_only_the_answer() -> None:
    rows = [{"id": str(k), "question": f"which one {k}?", "options": ["yes", "no"], "answer": "A"} for k in range(20)]
    curation = curate(Dataset.from_list(rows), answerer=ConstantAnswerer("A"), rule=single_shot())
    stripped = [row for part in curation.splits.values() for row in strip_rows(part)]
    keys = [key for row in stripped for key in row["blind_answer_keys"]]
    assert len(keys) == len(set(keys)) == 20
    words = ["A", "B", "yes", "no"]
    guessed = {key.hex() for key in hash_rows([words])}
    guessed |= {hash_rows([[row["row_key"]], [word]])[0].hex() for row in stripped for word in words}
    guessed |= {hash_rows([[bytes.fromhex(row["row_key"])], [word]])[0].hex() for row in stripped for word in words}
    assert not set(keys) & guessed
    assert not set(keys) & {row["row_key"] for row in stripped}


def test_answers_that_the_probe_gives_to_open_questions_are_found_in_other_rows(tmp_path: Path) -> None:
    rows = [{"id": str(k), "question": f"what colour is hat {k}?", "answer": f"colour {k % 7}"} for k in range(60)]
    path = write_rows(tmp_path / "open.jsonl", rows)
    curation = curate(open_dataset(path), rule=calibrated(0.3))
    given = {text for part in curation.splits.values() for row in part["blind_answers"] for text in row}
    assert given & {f"colour {k}" for k in range(7)}
    assert_equal(load_curated(push_ids(curation, tmp_path / "ids"), source=path), curation)


@pytest.mark.parametrize("mapping", [{"id": "question"}, {"question": "uid", "id": "uid"}, {"options": "qid, vid"}])
def test_columns_of_texts_are_no_ids(mapping: dict[str, str]) -> None:
    row = {"question": "why?", "uid": "why so?", "qid": "yes", "vid": "no", "answer": "yes", "image": "iVBORw0KGgo"}
    judged = judge(Dataset.from_list([{**row, "videos": "x", "path": "/a/b", "id": 7}]))
    texts = {name.strip() for value in mapping.values() for name in value.split(",")}
    expected = [name for name in ("uid", "qid", "vid", "id") if name not in texts]
    names = strip_rows(judged, mapping).column_names
    assert names[: names.index("row_key")] == expected


@pytest.mark.parametrize(
    ("cell", "left"),
    [
        ("/home/me/clips/1.mp4", "1.mp4"),
        ("~/clips/1.mp4", "1.mp4"),
        ("file:///srv/1.mp4", "1.mp4"),
        ("C:\\clips\\1.mp4", "1.mp4"),
        ("clips/1.mp4", "clips/1.mp4"),
        (None, None),
    ],
)
def test_ids_name_no_folder_of_a_machine(cell: str | None, left: str | None) -> None:
    rows = Dataset.from_list(
        [{"question": "why?", "answer": "so", "video": cell}, {"question": "x", "answer": "y", "video": "1"}]
    )
    assert strip_rows(judge(rows))["video"][:] == [left, "1"]


def test_every_plain_cell_is_in_the_key(questions: Path) -> None:
    splits = curate(open_dataset(questions), rule=calibrated(0.2)).splits
    rows = splits["grounded"].select(range(3))
    keys = strip_rows(rows)["row_key"][:]
    assert len(set(keys)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", key) for key in keys)
    for name in ("id", "video", "question", "answer", "needs"):
        changed = rows.map(lambda row, name=name: {name: row[name] + "x"})
        assert not set(strip_rows(changed)["row_key"][:]) & set(keys), name
    again = rows.map(lambda row: {"bias_score": 0.0})
    assert strip_rows(again)["row_key"][:] == keys
