from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from tests.answerers.test_transformers_serve import save_chat_model
from vidground_hf import bias_at_least, calibrated, curate, load_answerer, majority, single_shot
from vidground_hf.answerers.base import Answer, ModelAnswerer, collect_answers
from vidground_hf.asking import CALLS, Asking
from vidground_hf.cli import cli
from vidground_hf.prompts import Prompt
from vidground_hf.reading import read_examples
from vidground_hf.schema import Example
from vidground_hf.shards import ROWS_PER_SHARD, count_shards, find_bounds
from vidground_hf.trial_tables import pack_trials, unpack_trials
from vidground_hf.trials import Trial

ray = pytest.importorskip("ray", reason="ray is not installed; pip install 'vidground-hf[ray]'")
from vidground_hf import ray_engine  # noqa: E402  needs ray
from vidground_hf.ray_workers import Worker  # noqa: E402

# Ray's own settings warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def make_rows(number: int) -> Dataset:
    return Dataset.from_list(
        [
            {"question": f"Which of them is it, {k}?", "options": ["this", "that", "those"], "answer": "ABC"[k % 3]}
            for k in range(number)
        ]
    )


def make_answerer(on_question: Callable[[str], None] = lambda question: None) -> ModelAnswerer:
    """A model that knows every fifth question, guesses the others, and writes down what it was asked."""

    class Steady:  # local, so that it goes to the workers by value
        id = "steady@1"
        sampling: Mapping[str, Any] = {"temperature": 0}
        num_in_flight = 0
        concurrency = 4

        def describe(self) -> Mapping[str, Any]:
            return {}

        def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
            return collect_answers(self, prompts)

        def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
            for position, prompt in enumerate(prompts):
                question = prompt.question or ""
                on_question(question)
                (number,) = map(int, re.findall("[0-9]+", question))
                known = ["this", "that", "those"][number % 3]
                shown = prompt.options.index(known) if number % 5 == 0 else number * 7919 % 11 % 3
                on_answer(position, Answer(text="ABC"[shown]))

    return Steady()


def without_seconds(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "seconds"}


@pytest.mark.slow
def test_workers_come_to_what_one_process_comes_to_and_a_second_run_asks_nothing(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(400)
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "local"))
    local = curate(rows, answerer=make_answerer(), rule=calibrated())
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "ray"))
    remote = ray_engine.curate_with_ray(rows, answerer=make_answerer(), rule=calibrated(), num_workers=2)
    assert without_seconds(remote.report) == without_seconds(local.report)
    assert {name: part.to_list() for name, part in remote.splits.items()} == {
        name: part.to_list() for name, part in local.splits.items()
    }
    assert local.report["num_text_answerable"] > 50

    def refuse(question: str) -> None:
        raise AssertionError("asked again")

    again = ray_engine.curate_with_ray(rows, answerer=make_answerer(refuse), rule=calibrated(), num_workers=2)
    assert again.splits["grounded"].to_list() == local.splits["grounded"].to_list()
    assert again.report["calls"]["asked"] == 0


@pytest.mark.slow
def test_a_row_that_kills_its_workers_is_left_undecided_and_one_that_killed_once_is_not(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "cache"))
    asked = tmp_path / "asked"

    def die(question: str) -> None:
        with asked.open("a") as file:
            file.write(question + "\n")
        died = tmp_path / "died_once"
        if ", 17?" in question and not died.exists():
            died.touch()
            os._exit(1)
        if ", 150?" in question:
            os._exit(1)

    with pytest.warns(UserWarning, match="1 rows killed their workers and are undecided"):
        done = ray_engine.curate_with_ray(
            make_rows(200), answerer=make_answerer(die), rule=single_shot(), num_workers=2
        )
    (lost,) = done.splits["undecided"].to_list()
    assert (lost["question"], lost["drop_reason"]) == ("Which of them is it, 150?", "killed_worker")
    assert lost["blind_answers"] == [None]
    assert done.report["num_rows"] == 200
    counts = {question: asked.read_text().splitlines().count(question) for question in make_rows(200)["question"]}
    assert counts.pop("Which of them is it, 150?") == 4  # twice among others, twice alone
    assert counts.pop("Which of them is it, 17?") == 2
    assert set(counts.values()) == {1}, "a row was paid for twice because another one killed its worker"


@pytest.mark.slow
def test_models_in_workers_differ_by_their_kernels_only(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_chat_model(tmp_path / "model")
    chosen: dict[str, Any] = {"rule": bias_at_least(0.335), "shortcut_kinds": False}
    found = []
    for name, run in (("local", curate), ("ray", partial(ray_engine.curate_with_ray, num_workers=2))):
        monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / name))
        done = run(make_rows(240), answerer=load_answerer(f"transformers:{tmp_path / 'model'}"), **chosen)
        found.append({row["question"]: row for part in done.splits.values() for row in part})
    local, remote = found
    scores = np.array([[local[name]["bias_score"], remote[name]["bias_score"]] for name in local])
    assert np.abs(np.log(scores[:, 0]) - np.log(scores[:, 1])).max() <= 1e-3
    is_near_tie = np.abs(scores[:, 0] - 0.335) < 1e-3
    verdicts = np.array([[one[name]["is_visually_grounded"] for name in local] for one in found])
    assert len(set(verdicts[0].tolist())) == 2
    np.testing.assert_array_equal(*verdicts[:, ~is_near_tie])
    assert is_near_tie.mean() < 0.2


@pytest.mark.slow
def test_the_report_says_what_workers_answered_with_and_another_revision_is_refused(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "cache"))
    answerer, here = make_answerer(), os.getpid()
    monkeypatch.setattr(
        type(answerer), "describe", lambda self: {"device": "here" if os.getpid() == here else "there", "dtype": "f"}
    )
    done = ray_engine.curate_with_ray(make_rows(10), answerer=answerer, rule=single_shot(), num_workers=1)
    (one,) = done.report["answerers"]
    assert (one["id"], one["device"], one["dtype"]) == ("steady@1", "there", "f")
    monkeypatch.setattr(type(answerer), "id", property(lambda self: "steady@" + "12"[os.getpid() != here]))
    message = "a worker has steady@2, the process that started it steady@1; name a revision, or give all machines"
    with pytest.raises(RuntimeError, match=f"a worker failed; ValueError: {message}"):
        ray_engine.curate_with_ray(make_rows(10), answerer=answerer, rule=majority(), num_workers=1)


class Here:
    """A keeper in this process, for workers that are no actors."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.kept: dict[bytes, Answer] = {}
        self.read = self._answer(lambda start, stop: (examples[start:stop], [0] * (stop - start)))
        self.begin = self.end = self._answer(lambda what: 0)
        self.get_many = self._answer(lambda keys: {key: self.kept[key] for key in keys if key in self.kept})
        self.put = self._answer(lambda key, answer, name: self.kept.__setitem__(key, answer))

    def _answer(self, run: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=run)


def test_a_worker_says_what_it_answered_with_and_refuses_another_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda found: found)
    examples = read_examples(make_rows(6))[2]
    answerer, keeper = make_answerer(), Here(examples)
    monkeypatch.setattr(type(answerer), "describe", lambda self: {"device": "there"})
    asking = Asking(answerers=(answerer,), rule=single_shot(), view="text")
    piece = {"start": np.array([2]), "stop": np.array([6])}
    said = Worker(asking, keeper, 1.0, ["steady@1"])(piece)
    assert (said["error"], said["described"], said["asked"]) == ([None], ['[{"device": "there"}]'], [4])
    trials = unpack_trials(pa.ipc.open_stream(said["trials"][0]).read_all())
    assert [row[0].text for row in trials][3] == "those"  # the sixth question is known
    assert len(keeper.kept) == 4
    assert Worker(asking, keeper, 1.0, ["steady@1"])(piece)["cached"] == [4]
    (error,) = Worker(asking, keeper, 1.0, ["steady@2"])(piece)["error"]
    assert error == (
        "ValueError: a worker has steady@1, the process that started it steady@2; name a revision, or give all "
        "machines the same folder"
    )


def make_piece(start: int, stop: int, **more: Any) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    table = pack_trials([[Trial(score=1.0, text=str(row))] for row in range(start, stop)], [False] * (stop - start))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    piece = {"start": start, "stop": stop, "error": None, "described": "[]", "trials": sink.getvalue().to_pybytes()}
    return {**piece, **dict.fromkeys(CALLS, stop - start), **more}


def test_shards_are_whole_and_in_order_however_their_pieces_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 10)
    pieces = [(0, 4), (4, 8), (8, 10), (20, 24), (24, 25)]  # the second shard was there already
    bar, described = tqdm(disable=True), dict[str, None]()
    order = [(24, 25), (8, 10), (0, 4), (20, 24), (4, 8)]
    shards = ray_engine.gather_shards([make_piece(*piece) for piece in order], pieces, bar, described)
    found = [
        (shard, [trials[0].text for table in tables for trials in unpack_trials(table)], calls)
        for shard, tables, calls in shards
    ]
    assert found == [
        (2, ["20", "21", "22", "23", "24"], dict.fromkeys(CALLS, 5)),
        (0, [str(row) for row in range(10)], dict.fromkeys(CALLS, 10)),
    ]
    failed = [make_piece(0, 4), make_piece(4, 8, error="OSError: gone")]
    with pytest.raises(RuntimeError, match="a worker failed; OSError: gone"):
        list(ray_engine.gather_shards(failed, pieces, bar, described))


def test_what_workers_say_is_merged() -> None:
    said = ['[{"device": "cuda", "temperature": 0}, {}]', '[{"device": "mps", "temperature": 0}, {}]']
    assert ray_engine.merge_descriptions(said) == [{"device": "cuda, mps", "temperature": 0}, {}]
    assert ray_engine.merge_descriptions([]) == []


@pytest.mark.slow
def test_what_breaks_in_a_worker_is_told_in_a_line(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "cache"))

    def break_down(question: str) -> None:
        raise OSError("the model is gone")

    with pytest.raises(RuntimeError, match="a worker failed; OSError: the model is gone") as caught:
        ray_engine.curate_with_ray(make_rows(10), answerer=make_answerer(break_down), rule=single_shot())
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_a_model_that_kills_every_worker_ends_the_run(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "cache"))

    def die(question: str) -> None:
        os._exit(1)

    with pytest.raises(RuntimeError, match="12 workers died one after the other and none came to an answer"):
        ray_engine.curate_with_ray(make_rows(50), answerer=make_answerer(die), rule=single_shot(), num_workers=1)


@pytest.mark.slow
def test_the_command_takes_an_engine(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "cache"))
    make_rows(30).to_json(tmp_path / "rows.jsonl")
    command = ["curate", str(tmp_path / "rows.jsonl"), "--answerer", "constant:A", "--rule", "single_shot"]
    for engine, more in (("local", []), ("ray", ["--workers", "2"])):
        chosen = ["--engine", engine, *more, "--output", str(tmp_path / engine)]
        assert CliRunner().invoke(cli, command + chosen).exit_code == 0
    reports = [json.loads((tmp_path / engine / "report.json").read_text()) for engine in ("local", "ray")]
    own = [{name: value for name, value in report.items() if name not in ("seconds", "command")} for report in reports]
    assert own[0] == own[1]
    assert "--engine ray --workers 2" in reports[1]["command"]
    shards = [sorted((tmp_path / engine / "data").iterdir()) for engine in ("local", "ray")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers and --ray-address go with --engine ray"),
        (["--ray-address", "auto"], "--workers and --ray-address go with --engine ray"),
        (["--engine", "ray", "--ladder"], "--ladder asks in one process; leave --engine, --workers"),
        (["--workers", "2", "--ladder"], "--ladder asks in one process; leave --engine, --workers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], message: str, tmp_path: Path) -> None:
    make_rows(3).to_json(tmp_path / "rows.jsonl")
    done = CliRunner().invoke(cli, ["audit", str(tmp_path / "rows.jsonl"), "--answerer", "constant:A", *options])
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_numbers_that_do_not_go_with_workers_are_refused(cluster: None) -> None:
    with pytest.raises(ValueError, match=re.escape("num_workers = 0 is out of range; it is at least 1, or None")):
        ray_engine.curate_with_ray(make_rows(2), num_workers=0)
    with pytest.raises(ValueError, match="shortcut_kinds asks in this process; leave it out"):
        ray_engine.curate_with_ray(make_rows(2), answerer=make_answerer(), shortcut_kinds=True)
    with pytest.raises(ValueError, match=re.escape("num_workers = 99 needs 99 CPUs, Ray has 2; take fewer")):
        ray_engine.find_resources([make_answerer()], 99)
    with (
        pytest.raises(
            ValueError, match="this process is connected to Ray already, got address = 'auto'; leave it out"
        ),
        ray_engine.connect("auto"),
    ):
        pass
    limited = make_answerer()
    limited.max_requests = 5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=re.escape("max_requests of steady@1 is counted by one process; leave it")):
        ray_engine.find_resources([limited], 2)


def test_workers_are_as_many_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    served, local = make_answerer(), make_answerer()
    local.num_gpus = 1  # type: ignore[attr-defined]
    for there, expected in (({"CPU": 9.0}, [(4, 0), (1, 0)]), ({"CPU": 9.0, "GPU": 8.0}, [(4, 0), (8, 1)])):
        monkeypatch.setattr(ray, "cluster_resources", lambda there=there: there)
        assert [ray_engine.find_resources([one], None) for one in (served, local)] == expected
        assert ray_engine.find_resources([served], 3) == (3, 0)


@given(st.integers(1, 3 * ROWS_PER_SHARD), st.integers(1, 9))
def test_pieces_hold_every_row_of_their_shards_once(num_rows: int, num_workers: int) -> None:
    shards = list(range(count_shards(num_rows)))[::2]
    pieces = ray_engine.cut_pieces(shards, num_rows, num_workers)
    found = [row for start, stop in pieces for row in range(start, stop)]
    assert found == [row for shard in shards for row in range(*find_bounds(shard, num_rows))]
    assert all(start // ROWS_PER_SHARD == (stop - 1) // ROWS_PER_SHARD for start, stop in pieces)
