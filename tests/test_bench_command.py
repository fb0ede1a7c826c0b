"""`vidground bench` from its options to table, JSON and files, and every refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from vidground_hf.answerers.base import Answer
from vidground_hf.bench_command import bench
from vidground_hf.gap_command import gap
from vidground_hf.judging import AnswerError
from vidground_hf.prompts import Prompt


class Watcher:
    """Answers B when it is shown frames, and A when it is not."""

    id = "watcher@1"
    takes_frames = True
    num_in_flight = 0
    sampling: dict[str, Any] = {"temperature": 0}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked: list[Prompt] = []

    def describe(self) -> dict[str, Any]:
        return {"device": "none"}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        raise NotImplementedError

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            count = None if prompt.frames is None else prompt.frames.budget.num_frames or 3
            on_answer(index, Answer(text="B" if count else "A", num_frames=count))


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    made = Watcher()
    monkeypatch.setattr("vidground_hf.answerers.load_answerer", lambda spec: made if "watcher" in spec else None)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for clip in ("a", "b"):
        with av.open(str(folder / f"{clip}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            for shade in range(20):
                picture = np.full((16, 16, 3), 10 * shade, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
    rows = [
        {"id": f"q{k}", "video": f"{'ab'[k % 2]}.mp4", "question": f"Which is {k}?", "options": ["one", "two"],
         "answer": "B" if k else "A"}
        for k in range(4)
    ]  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench, ["--model", "watcher", *map(str, arguments)])


def test_the_table_of_a_local_file(watcher: Watcher, data: Path) -> None:
    ran = run(data, "--frames", "4", "8", "--views", "text", "video")
    assert ran.exit_code == 0, ran.output
    assert "4 questions of set/rows.jsonl, answered by watcher@1" in ran.stdout
    assert re.search(r"text +4 +25\.0 %", ran.stdout)
    assert re.search(r"video-4 +4 +75\.0 %.* \+50\.0 ", ran.stdout)
    assert re.search(r"video-8 +4 +75\.0 %", ran.stdout)
    assert "4 questions, asking watcher@1" in ran.stderr
    looked = [prompt.frames for prompt in watcher.asked if prompt.frames is not None]
    assert {frames.source for frames in looked} == {str(data.parent / f"{clip}.mp4") for clip in "ab"}
    assert {frames.budget.size for frames in looked} == {200704}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["DATA", "--frames", "4", "8"], ["text", "video-4", "video-8"]),
        (["--frames", "4", "8", "DATA"], ["text", "video-4", "video-8"]),
        (["--frames", "4,8", "--views", "text,video", "DATA"], ["text", "video-4", "video-8"]),
        (["DATA", "--frames", "4", "--frames", "8"], ["text", "video-4", "video-8"]),
        (["--views", "video", "options_only", "DATA", "--frames", "4"], ["video-4", "options_only"]),
        (["--frames=4", "--views=video", "DATA"], ["video-4"]),
        (["DATA"], ["text", "video-16", "video-32", "video-64"]),
        (["DATA", "--fps", "2", "--max-frames", "3"], ["text", "video-2fps"]),
        (["DATA", "--views", "single_frame", "--frames", "4"], ["single_frame"]),
    ],
)
def test_frames_and_views_are_lists(watcher: Watcher, data: Path, arguments: list[str], names: list[str]) -> None:
    ran = run(*(str(data) if word == "DATA" else word for word in arguments), "--json")
    assert ran.exit_code == 0, ran.output
    assert [row["name"] for row in json.loads(ran.stdout)["rows"]] == names


def test_json_is_the_table_that_is_written(watcher: Watcher, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ran = run(
        data, "--frames", "4", "--output", output, "--json", "--max-pixels", "1000", "--backend", "pyav", "--seed", "7"
    )
    printed = json.loads(ran.stdout)
    assert printed == json.loads((output / "table.json").read_text())
    assert f"report: {output / 'README.md'}" in ran.stderr
    assert printed["seed"] == 7
    assert (printed["rows"][1]["budget"]["size"], printed["rows"][1]["budget"]["backend"]) == (1000, "pyav")
    assert printed["source"] == {"id": "set/rows.jsonl", "revision": None, "config": None, "split": None}
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    asked = len(watcher.asked)
    run(data, "--frames", "4", "--output", output, "--max-pixels", "1000", "--backend", "pyav", "--seed", "7")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert len(watcher.asked) == asked
    compared = CliRunner().invoke(
        gap,
        ["--blind", f"{output}/predictions/text.jsonl", "--visual", f"{output}/predictions/video-4.jsonl", "--json"],
    )
    assert json.loads(compared.stdout)["gap"] == printed["rows"][1]["gap"]["value"] == 0.5


def test_a_limit_and_a_mapping(watcher: Watcher, data: Path) -> None:
    ran = run(data, "--views", "text", "--limit", "2", "--map", "category=answer", "--json")
    table = json.loads(ran.stdout)
    assert (table["num_rows"], table["columns"]) == (2, {"category": "answer"})
    assert list(table["rows"][0]["groups"]["category"]) == ["A", "B"]


def test_missing_clips_and_where_to_put_them(watcher: Watcher, data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = run(data, "--frames", "4", "--media-root", empty)
    assert isinstance(ran.exception, AnswerError)
    assert f"4 of 4 questions have no clip: no file {empty}/a.mp4; name the folder with --media-root" in str(
        ran.exception
    )
    table = json.loads(run(data, "--frames", "4", "--media-root", empty, "--on-error", "undecided", "--json").stdout)
    assert (table["num_errors"], table["rows"][1]["num_unanswered"]) == (4, 4)


def test_a_benchmark_by_name_and_its_settings(watcher: Watcher, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    asked: list[Any] = []

    def open_dataset(data: str, **settings: Any) -> Dataset:
        asked.append((data, settings["config"], settings["split"]))
        row = {"question_idx": "1", "question": "What?", "video_idx": "x", "option": ["A. a", "B. b"], "answer": "0"}
        return Dataset.from_list([row])

    monkeypatch.setattr("vidground_hf.benchmark_data.open_dataset", open_dataset)
    for name in ("egoschema", "lmms-lab/EgoSchema"):
        table = json.loads(run(name, "--views", "text", "--json").stdout)
        assert (table["benchmark"]["name"], table["adapter"]) == ("egoschema", "egoschema")
        assert table["rows"][0]["accuracy"]["value"] == 1.0
    assert asked == [("lmms-lab/egoschema", "Subset", "test"), ("lmms-lab/EgoSchema", "Subset", "test")]
    ran = run("egoschema")
    assert "download and unpack videos_chunked_*.zip, which unpack into videos/, and name the folder" in str(
        ran.exception
    )
    local = run(data, "--benchmark", "egoschema", "--map", "question=question", "--views", "text", "--json")
    assert json.loads(local.stdout)["benchmark"]["name"] == "egoschema"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "got '0'; pass whole numbers of at least 1, for example --frames 16 32 64"),
        (["--frames", "many"], "got 'many'; pass whole numbers of at least 1"),
        (["--views", "movie"], "got 'movie'; allowed are options_only, text, subtitles"),
        (["--fps", "1", "--frames", "4"], "--fps goes without --frames, got --fps 1 and --frames 4"),
        (["--max-frames", "4"], "--max-frames goes with --fps; with --frames, the number says how many"),
        (["--model", "probe"], "--model probe learns from the answers of the set itself"),
        (["--map", "q"], "--map takes KEY=COLUMN, got 'q'"),
    ],
)
def test_bad_usage_is_status_2(watcher: Watcher, data: Path, arguments: list[str], message: str) -> None:
    ran = run(data, *arguments)
    assert ran.exit_code == 2
    assert message in " ".join(ran.stderr.split())


def test_bad_input_is_one_clear_error(watcher: Watcher, data: Path, tmp_path: Path) -> None:
    assert "no ready settings for 'nope'; there are videomme" in str(run(data, "--benchmark", "nope").exception)
    output = tmp_path / "taken"
    output.mkdir()
    (output / "mine.txt").touch()
    assert "holds something else, no earlier result" in str(run(data, "--output", output).exception)
    assert watcher.asked == []


def test_a_decoder_is_there_before_anything_is_asked(
    watcher: Watcher, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "backend = 'vlc' is not known; pass one of torchcodec" in str(run(data, "--backend", "vlc").exception)

    def find_backend(backend: str | None) -> str:
        raise ImportError(f"{backend} does not load")

    monkeypatch.setattr("vidground_hf.video_backends.find_backend", find_backend)
    ran = run(data, "--backend", "decord")
    assert (ran.exit_code, "decord does not load" in ran.stderr) == (1, True)
    assert watcher.asked == []


def test_a_served_model_is_asked_as_the_options_say(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    made: list[tuple[str, dict[str, Any]]] = []

    def load_answerer(spec: str, **settings: Any) -> Watcher:
        made.append((spec, settings))
        return Watcher()

    monkeypatch.setattr("vidground_hf.answerers.load_answerer", load_answerer)
    shown = ["--views", "text", "--concurrency", "3", "--max-requests", "90", "--frames-as", "video"]
    asked = ["--model", "endpoint:m@http://h/v1", *shown, "--temperature", "0.5", "--logprobs"]
    assert CliRunner().invoke(bench, [*asked, str(data)]).exit_code == 0
    assert CliRunner().invoke(bench, ["--model", "org/m", "--reasoning", "50", "--views", "text", str(data)])
    assert made == [
        (
            "endpoint:m@http://h/v1",
            {"concurrency": 3, "max_requests": 90, "frames_as": "video", "temperature": 0.5, "logprobs": True},
        ),
        ("transformers:org/m", {"reasoning_tokens": 50}),
    ]
    refused = CliRunner().invoke(bench, ["--model", "org/m", "--frames-as", "video", str(data)])
    assert str(refused.exception) == (
        "frames_as does nothing for transformers:org/m; it goes with endpoint:, provider:"
    )


def test_a_bare_id_is_a_model_of_transformers(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    specs: list[str] = []

    def load_answerer(spec: str) -> Watcher:
        specs.append(spec)
        return Watcher()

    monkeypatch.setattr("vidground_hf.answerers.load_answerer", load_answerer)
    for spec in ("org/model", "/models/mine", "endpoint:m@http://h/v1", "transformers:org/model"):
        assert CliRunner().invoke(bench, ["--model", spec, str(data), "--views", "text"]).exit_code == 0
    assert specs == [
        "transformers:org/model", "transformers:/models/mine", "endpoint:m@http://h/v1", "transformers:org/model",
    ]  # fmt: skip
