"""Trials shard by shard: what is cut, kept, found again and asked again, and that none of it changes a result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from tests.models import SimulatedModel
from tests.questions import make_dataset, make_rows
from vidground_hf.answerers.base import Answer, ConstantAnswerer
from vidground_hf.asking import Asking, ask_rows
from vidground_hf.cli import cli
from vidground_hf.curation import curate
from vidground_hf.deciding import fit_rule, judge_rows, name_rule
from vidground_hf.facts import gather_facts
from vidground_hf.filtering import GroundFilter, list_clusters
from vidground_hf.judging import AnswerError
from vidground_hf.progress import AskingBar
from vidground_hf.prompts import Prompt
from vidground_hf.reading import RowSource, read_examples
from vidground_hf.rules import circular, single_shot
from vidground_hf.schema import Example
from vidground_hf.set_rules import FOLLOWED_SHARE, calibrated, drop_fraction
from vidground_hf.shard_asking import ask_shard
from vidground_hf.shards import ShardFolder, WorkFolder, count_shards, find_bounds
from vidground_hf.stats.floors import measure_floors, score_floors
from vidground_hf.trial_tables import pack_trials, unpack_trials
from vidground_hf.trials import Trial


class CountedModel(SimulatedModel):
    """Counts the prompts it is given, and stops the run when a limit is reached."""

    def __init__(self, golds: dict[str, str], limit: int | None = None) -> None:
        super().__init__(golds)
        self.num_asked = 0
        self.limit = limit

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for position, prompt in enumerate(prompts):
            if self.limit is not None and self.num_asked == self.limit:
                raise KeyboardInterrupt
            self.num_asked += 1
            on_answer(position, self._answer(prompt))


def make_golds(rows: list[dict[str, Any]], share: float = 0.5) -> dict[str, str]:
    known = rows[: round(share * len(rows))]
    return {row["question"]: row["options"]["ABCD".index(row["answer"])] for row in known}


def strip(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what differs from run to run."""
    calls = report["calls"] and {name: count for name, count in report["calls"].items() if name != "cached"}
    return {**report, "seconds": None, "calls": calls}


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("data/*"))}


@given(num_rows=st.integers(1, 50), size=st.integers(1, 60))
def test_shards_cover_every_row_once(num_rows: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidground_hf.shards.ROWS_PER_SHARD", size)
        bounds = [find_bounds(shard, num_rows) for shard in range(count_shards(num_rows))]
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(num_rows))


@given(
    st.lists(
        st.lists(
            st.builds(
                Trial,
                score=st.none() | st.floats(0, 1),
                confidence=st.none() | st.floats(-9, 9),
                bias_score=st.none() | st.floats(0, 1),
                num_options=st.integers(0, 26),
                error=st.none() | st.just("no_answer"),
                text=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
                choice=st.none() | st.integers(0, 25),
                option_logprobs=st.none() | st.lists(st.floats(-9, 0)).map(tuple),
                answerer=st.integers(0, 3),
            ),
            min_size=1,
            max_size=3,
        )
    )
)
def test_packed_trials_come_back(rows: list[list[Trial]]) -> None:
    assert unpack_trials(pack_trials(rows, [False] * len(rows))) == rows


def test_text_that_no_file_can_hold_is_kept_as_far_as_it_can() -> None:
    table = pack_trials([[Trial(score=None, text="broken \udc80")]], [False])
    assert unpack_trials(table)[0][0].text == "broken ?"


@pytest.mark.parametrize("rule", [calibrated(0.1), single_shot(), circular()], ids=str)
def test_where_a_set_is_cut_changes_no_verdict_and_no_figure_of_a_model(
    rule: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = make_rows(60)
    data = DatasetDict(train=Dataset.from_list(rows[:50]), test=Dataset.from_list([*rows[50:], rows[0]]))
    found = []
    for size in (10_000, 7):
        monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", size)
        monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / str(size)))
        made = curate(data, answerer=CountedModel(make_golds(rows)), rule=rule)
        found.append((strip(made.report), {name: part.to_list() for name, part in made.splits.items()}))
    assert found[0] == found[1]


@pytest.mark.parametrize("rule", [calibrated(0.1), drop_fraction(0.2)], ids=str)
def test_where_a_set_is_cut_changes_nothing_for_the_probe(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (10_000, 13):
        monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", size)
        made = curate(make_dataset(90), rule=rule)
        found.append((strip(made.report), {name: part.to_list() for name, part in made.splits.items()}))
    assert found[0] == found[1]


def test_rows_that_are_followed_up_are_the_same_however_a_set_is_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vidground_hf.asking.MAX_ROWS_FOLLOWED", 20)
    rows = make_rows(60)
    data, rule = Dataset.from_list([*rows, rows[0], rows[0]]), calibrated(0.2)
    found = []
    for size in (10_000, 7):
        monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", size)
        monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / str(size)))
        judged = GroundFilter(CountedModel(make_golds(rows, 0.4)), rule).judge(data)
        found.append((judged.rows, judged.grounded.tolist(), judged.calls, judged.rule))
    assert found[0] == found[1]
    # The same in one piece, by the functions that the ladder uses.
    _, keys, examples = read_examples(data)
    asked = ask_rows(Asking(answerers=(CountedModel(make_golds(rows, 0.4)),), rule=rule, view="text"), examples)
    fitted = fit_rule(
        rule, asked.trials, list_clusters(examples).tolist(), keys, probe=None, followed_share=asked.followed_share
    )
    verdicts = judge_rows(examples, asked.trials, fitted)
    values = {True: 1, False: 0, None: -1}
    assert asked.followed_share == FOLLOWED_SHARE
    assert found[0][0] == asked.trials
    assert found[0][1] == [values[verdict.is_visually_grounded] for verdict in verdicts]
    is_wrong = [not trials[0].is_right for trials in asked.trials]
    num_followed = sum(wrong and len(trials) > 1 for wrong, trials in zip(is_wrong, asked.trials, strict=True))
    assert 5 < num_followed < sum(is_wrong) - 5
    assert 0 in found[0][1]


def test_a_run_that_was_interrupted_asks_only_for_what_is_missing_and_ends_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 10)
    rows = make_rows(40)
    data, golds = Dataset.from_list(rows), make_golds(rows)
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "one"))
    whole = CountedModel(golds)
    reference = curate(data, answerer=whole, rule=circular())
    reference.save(tmp_path / "reference")

    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "two"))
    stopped = CountedModel(golds, limit=round(0.6 * whole.num_asked))
    with pytest.raises(KeyboardInterrupt):
        curate(data, answerer=stopped, rule=circular(), work_dir=tmp_path / "work")
    finished = set(json.loads((tmp_path / "work/trials/manifest.json").read_text())["shards"])
    assert finished
    assert finished < {"0", "1", "2", "3"}
    resumed = CountedModel(golds)
    made = curate(data, answerer=resumed, rule=circular(), work_dir=tmp_path / "work")
    assert stopped.num_asked + resumed.num_asked == whole.num_asked
    assert read_folder(made.save(tmp_path / "out")) == read_folder(tmp_path / "reference")
    differs = {name for name in made.report if made.report[name] != reference.report[name]}
    assert differs <= {"seconds", "calls"}
    total = {name: made.report["calls"][name] for name in ("saved", "failed", "minimum")}
    assert total.items() <= reference.report["calls"].items()
    assert sum(made.report["calls"][name] for name in ("asked", "cached")) == reference.report["calls"]["asked"]


def test_an_answerer_that_is_not_kept_in_the_cache_starts_at_the_first_missing_shard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 10)
    asked: list[int] = []

    class Recorder:
        id = "recorder"

        def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
            asked.append(len(prompts))
            if len(asked) == 3:
                raise KeyboardInterrupt
            return ConstantAnswerer("A").answer(prompts)

    settings: dict[str, Any] = {"answerer": Recorder(), "rule": single_shot(), "work_dir": tmp_path / "work"}
    with pytest.raises(KeyboardInterrupt):
        curate(make_dataset(40), **settings)
    curate(make_dataset(40), **settings)
    assert asked == [10, 10, 10, 10, 10]


def test_a_shard_with_a_failed_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 10)

    class Flaky:
        id = "flaky"
        fails = True

        def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
            answers = ConstantAnswerer("A").answer(prompts)
            if self.fails and any(prompt.example_id == "q15" for prompt in prompts):
                answers[5] = Answer(text=None, error="out of luck")
            return answers

    model = Flaky()
    settings: dict[str, Any] = {"answerer": model, "rule": single_shot(), "work_dir": tmp_path / "work"}
    with pytest.raises(AnswerError, match=re.escape("1 of 30 questions lack an answer, the first because: out")):
        curate(make_dataset(30), **settings)
    state = json.loads((tmp_path / "work/trials/manifest.json").read_text())
    assert set(state["shards"]) == {"0", "2"}
    model.fails = False
    assert curate(make_dataset(30), **settings).report["reasons"]["undecided"] == {}


def test_a_second_run_in_a_folder_leaves_what_the_first_one_returned(tmp_path: Path) -> None:
    first = curate(make_dataset(40), work_dir=tmp_path / "work")
    rows = first.splits["grounded"].to_list()
    assert first.work is not None
    first.work.release()
    curate(make_dataset(30), work_dir=tmp_path / "work")
    assert first.splits["grounded"].to_list() == rows


def make_folder(path: Path, **settings: Any) -> ShardFolder:
    return ShardFolder(path, {"content": "abc", "seed": 0, **settings})


def test_a_shard_is_found_again_only_as_it_was_written(tmp_path: Path) -> None:
    table = pack_trials([[Trial(score=1.0)]], [False])
    make_folder(tmp_path / "trials").write(0, table, {"asked": 1}, is_finished=True)
    again = make_folder(tmp_path / "trials")
    assert again.find_calls(0) == {"asked": 1}
    assert again.find_calls(1) is None
    assert again.read(0).equals(table)
    path = tmp_path / "trials" / "trials-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert make_folder(tmp_path / "trials").find_calls(0) is None


@pytest.mark.parametrize("change", ["settings", "garbage", "list"])
def test_other_settings_or_a_manifest_that_cannot_be_read_start_anew(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "trials"
    make_folder(folder).write(0, pack_trials([[Trial(score=1.0)]], [False]), {}, is_finished=True)
    if change != "settings":
        (folder / "manifest.json").write_text("{" if change == "garbage" else "[]", encoding="utf-8")
    assert make_folder(folder, seed=1 if change == "settings" else 0).find_calls(0) is None
    assert list(folder.iterdir()) == []


def test_a_work_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path / "work")
    with pytest.raises(RuntimeError, match=re.escape(f"is using '{tmp_path / 'work'}'; wait")):
        WorkFolder(tmp_path / "work")
    first.remove()
    assert not (tmp_path / "work").exists()
    WorkFolder(tmp_path / "work").release()


def test_a_folder_without_a_name_goes_with_its_object() -> None:
    work = WorkFolder(None)
    path = work.path
    assert path.is_dir()
    del work
    assert not path.exists()


def test_a_shard_is_asked_from_its_arguments_alone() -> None:
    examples = [
        Example(
            id=str(k), question=f"q{k // 2}", problem_type="multiple_choice", options=("a", "b", "c"), answer_index=0
        )
        for k in range(6)
    ]
    asking = Asking(answerers=(ConstantAnswerer("B"),), rule=calibrated(), view="text")

    def ask(rows: list[Example], num_before: list[int]) -> pa.Table:
        bar = AskingBar(total=0, show=False)
        return ask_shard(asking, rows, num_before=num_before, followed_share=0.5, cache=None, bar=bar)

    together = ask(examples, [0, 1] * 3)
    apart = pa.concat_tables([ask(examples[k : k + 1], [k % 2]) for k in range(6)])
    assert together.combine_chunks().equals(apart.combine_chunks())
    # Equal rows are followed up one by one: which of them are drawn depends on how many came before.
    sizes = {len(unpack_trials(ask(examples[:1], [number]))[0]) for number in range(20)}
    assert min(sizes) == 1 < max(sizes)


def test_facts_are_those_of_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 8)
    rows = make_rows(20)
    rows[4]["answer"] = None
    rows[5]["options"] = ["same", "same", "other"]
    rows[5]["answer"] = "A"
    data = Dataset.from_list([*rows, rows[2], rows[2]])
    _, keys, examples = read_examples(data)
    source = RowSource(data, tmp_path)
    facts = gather_facts(source)
    assert list(source) == examples == source.take(range(22)) == source[0:22]
    assert source.take([21, 3, 3]) == [examples[21], examples[3], examples[3]]
    assert [key.tobytes() for key in facts.keys] == keys
    assert facts.is_first.tolist() == [True] * 20 + [False] * 2
    assert facts.num_before.tolist()[-2:] == [1, 2]
    assert facts.clusters.tolist() == list_clusters(examples).tolist()
    assert [facts.defects.get(k) for k in range(22)] == [example.defect for example in examples]
    assert facts.flags["repeated_question"] == 2
    part = np.arange(22) % 3 == 0
    scores = score_floors([e.options for e in examples], [e.answer_index for e in examples])
    assert measure_floors(facts.floors, np.flatnonzero(part)) == measure_floors(scores, part)


def test_rows_are_picked_as_from_a_list(tmp_path: Path) -> None:
    data = make_dataset(12)
    examples, source = read_examples(data)[2], RowSource(data, tmp_path)
    assert (source[-1], source[-12]) == (examples[-1], examples[0])
    for part in (slice(2, 9, 3), slice(None, None, -1), slice(-3, None), slice(9, 2), slice(5, 99)):
        assert source[part] == examples[part], part
    for index in (12, -13):
        with pytest.raises(IndexError):
            source[index]


def test_a_rule_has_the_same_name_in_every_process() -> None:
    class Never:
        def __call__(self, trials: Sequence[Trial]) -> Any: ...

    assert re.fullmatch(r"<.*\.Never object>", name_rule(Never()))
    assert name_rule(single_shot()) == "single_shot()"


def test_a_bar_is_for_the_whole_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vidground_hf.shards.ROWS_PER_SHARD", 10)
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path))
    totals = []
    monkeypatch.setattr(AskingBar, "add", lambda bar, number, source: totals.append(bar._bar.total))
    rows = make_rows(25)
    GroundFilter(CountedModel({}), single_shot()).judge(Dataset.from_list(rows))
    assert totals == [25] * 25


def test_a_stream_is_read_like_the_set_it_comes_from(tmp_path: Path) -> None:
    data = make_dataset(30)
    streamed = RowSource(data.to_iterable_dataset(), tmp_path)
    assert list(streamed) == list(RowSource(data, tmp_path))
    assert GroundFilter().fit(data.to_iterable_dataset()).fit_sha256 == GroundFilter().fit(data).fit_sha256


def test_the_command_keeps_its_work_beside_the_output_and_takes_it_away(tmp_path: Path) -> None:
    data, output, work = tmp_path / "rows.jsonl", tmp_path / "out", tmp_path / ".out.work"
    data.write_text("\n".join(json.dumps(row) for row in make_rows(40)), encoding="utf-8")
    arguments = ["curate", str(data), "--output", str(output), "--json"]
    held = WorkFolder(work)
    refused = CliRunner().invoke(cli, arguments)
    assert isinstance(refused.exception, RuntimeError)
    assert f"is using {str(work)!r}; wait until it ends" in str(refused.exception)
    assert not output.exists()
    held.release()
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 0
    assert (output / "report.json").is_file()
    assert not work.exists()


def test_columns_with_other_roles_are_another_question(tmp_path: Path) -> None:
    rows = [
        {"q": f"Which is it, {k % 20}?", "o": ["this", "that"], "a": "AB"[k % 7 % 2], "g": f"{k % 9}"}
        for k in range(60)
    ]
    dataset, roles = Dataset.from_list(rows), {"question": "q", "options": "o", "answer": "a"}
    first = curate(dataset, columns={**roles, "category": "g"}, work_dir=tmp_path / "work")
    assert first.work is not None
    first.work.release()
    resumed = curate(dataset, columns={**roles, "group": "g"}, work_dir=tmp_path / "work")
    fresh = curate(dataset, columns={**roles, "group": "g"})
    assert {name: part.to_list() for name, part in resumed.splits.items()} == {
        name: part.to_list() for name, part in fresh.splits.items()
    }
    assert resumed.report["blind_accuracy"] == fresh.report["blind_accuracy"] != first.report["blind_accuracy"]


def test_a_folder_with_files_of_others_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "precious.txt").write_text("mine")
    message = f"{str(tmp_path / 'trials')!r} holds 'precious.txt', which is not ours; name another work folder"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        ShardFolder(tmp_path / "trials", {"seed": 0})
    assert (tmp_path / "trials" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("shards", ['{"0": {"calls": {}}}', "[]", '{"0": 1}'])
def test_a_damaged_manifest_is_begun_anew(shards: str, tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, {"seed": 0})
    folder.write(0, pack_trials([[Trial(score=1.0)]], [False]), {"asked": 1}, is_finished=True)
    assert ShardFolder(tmp_path, {"seed": 0}).find_calls(0) == {"asked": 1}
    manifest = tmp_path / "manifest.json"
    state = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**state, "shards": json.loads(shards)}))
    assert ShardFolder(tmp_path, {"seed": 0}).find_calls(0) is None
