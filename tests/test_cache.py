from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidground_hf.answerers.base import Answer
from vidground_hf.cache import AnswerCache, CacheError, answer_through_cache, make_key
from vidground_hf.mounts import find_file_system, find_network_mount
from vidground_hf.prompts import Prompt

PROMPT = Prompt(
    example_id="7",
    view="text",
    problem_type="multiple_choice",
    question="Which one?",
    options=("a", "b"),
    order=(0, 1),
    group="clip",
)
ANSWER = Answer(text="B", option_logprobs=(-2.5, -0.125), confidence=0.75, finish_reason="length")


def make_prompts(count: int) -> list[Prompt]:
    return [replace(PROMPT, question=f"Which one, {index}?") for index in range(count)]


def find_key(prompt: Prompt = PROMPT, answerer: str = "m@1", trial_index: int = 0, **sampling: Any) -> bytes:
    return make_key(answerer, {"temperature": 0, "max_tokens": 9} | sampling, replace(prompt, trial_index=trial_index))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "answers.sqlite"


class CountingModel:
    """Answers with the question, fails where it says so, and remembers what it was asked."""

    id = "counting@1"
    sampling = {"temperature": 0}  # noqa: RUF012
    num_in_flight = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        raise NotImplementedError

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for index in reversed(range(len(prompts))):
            question = prompts[index].question or ""
            self.asked.append(question)
            on_answer(index, Answer(text=None, error="no") if "fail" in question else Answer(text=question))


def test_the_key_is_everything_that_changes_an_answer() -> None:
    different = [
        find_key(),
        find_key(answerer="m@2"),
        find_key(trial_index=1),
        find_key(temperature=1),
        find_key(top_p=0.5),
        find_key(replace(PROMPT, question="Which two?")),
        find_key(replace(PROMPT, options=("b", "a"))),
        find_key(replace(PROMPT, options=("a\nB. b",))),
        find_key(replace(PROMPT, options=("a", "b", ""))),
        find_key(replace(PROMPT, view="options_only", question=None)),
        find_key(replace(PROMPT, view="subtitles")),
        find_key(replace(PROMPT, problem_type="free_form")),
    ]
    assert len(set(different)) == len(different)


def test_the_key_is_nothing_else() -> None:
    assert find_key(replace(PROMPT, example_id="8", group=None, order=(1, 0))) == find_key()
    assert make_key("m@1", {"max_tokens": 9, "temperature": 0}, PROMPT) == find_key()


def test_the_key_is_the_same_in_every_version_of_this_schema() -> None:
    # A change here makes every kept answer unfindable: raise SCHEMA_VERSION with it.
    assert find_key().hex() == "db3ae85161b0b0c9184b8ba67701a69d32348d70ea33d3e78dcc5d6aa9c0391d"


def test_what_was_put_comes_back(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache.put(find_key(), ANSWER, "m@1")
        assert cache.get_many([find_key(), find_key(trial_index=1)]) == {find_key(): ANSWER}
    with AnswerCache(path) as cache:
        assert cache.get_many([find_key()]) == {find_key(): ANSWER}


def test_an_error_is_no_answer(path: Path) -> None:
    with AnswerCache(path) as cache:
        with pytest.raises(ValueError, match="an error is not an answer and is not kept, got 'timed out'"):
            cache.put(find_key(), Answer(text=None, error="timed out"), "m@1")
        assert cache.describe()["num_answers"] == 0


@given(text=st.text(), finish_reason=st.none() | st.text())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_comes_back(text: str, finish_reason: str | None, path: Path) -> None:
    answer = Answer(text=text + "\0\ud800", finish_reason=finish_reason)
    with AnswerCache(path) as cache:
        cache.put(find_key(), answer, "m@1")
        assert cache.get_many([find_key()]) == {find_key(): answer}


def test_more_keys_than_one_query_takes(path: Path) -> None:
    keys = [find_key(prompt) for prompt in make_prompts(1203)]
    with AnswerCache(path) as cache:
        for key in keys[::2]:
            cache.put(key, ANSWER, "m@1")
        assert set(cache.get_many(keys)) == set(keys[::2])


def test_an_error_is_never_kept(path: Path) -> None:
    message = "an error is not an answer and is not kept, got 'timed out'"
    with AnswerCache(path) as cache, pytest.raises(ValueError, match=re.escape(message)):
        cache.put(find_key(), Answer(text=None, error="timed out"), "m@1")


def test_it_says_how_large_and_how_useful_it_is(path: Path) -> None:
    with AnswerCache(path) as cache:
        assert cache.describe()["hit_rate"] is None
        for index, prompt in enumerate(make_prompts(5)):
            cache.put(find_key(prompt), ANSWER, "m@1" if index else "n@1")
        cache.get_many([find_key(prompt) for prompt in make_prompts(8)])
    with AnswerCache(path) as cache:
        described = cache.describe()
    assert described.pop("num_bytes") > 4096
    assert described == {
        "path": str(path),
        "num_answers": 5,
        "answerers": {"m@1": 4, "n@1": 1},
        "hits": 5,
        "misses": 3,
        "hit_rate": 0.625,
    }


def test_a_cache_without_its_counts_is_damaged(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache._database.execute("DELETE FROM lookups")
        with pytest.raises(CacheError, match=r"is damaged \(its counts of lookups are None\); delete it"):
            cache.describe()


def test_old_answers_are_pruned_and_their_space_is_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with AnswerCache(path) as cache:
        monkeypatch.setattr("time.time", lambda: now - 10 * 86400)
        for prompt in make_prompts(500):
            cache.put(find_key(prompt), replace(ANSWER, text="long " * 100), "m@1")
        monkeypatch.setattr("time.time", lambda: now)
        cache.put(find_key(), ANSWER, "m@1")
        num_bytes = cache.describe()["num_bytes"]
        assert cache.prune(older_than_days=11) == 0
        assert cache.prune(older_than_days=9) == 500
        assert cache.describe()["num_answers"] == 1
        assert cache.describe()["num_bytes"] < num_bytes / 5
        assert cache.get_many([find_key()]) == {find_key(): ANSWER}


def test_several_write_at_once(path: Path) -> None:
    def write(part: int) -> None:
        with AnswerCache(path) as cache:
            for prompt in make_prompts(400)[part::4]:
                cache.put(find_key(prompt), ANSWER, "m@1")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with AnswerCache(path) as cache:
        assert cache.describe()["num_answers"] == 400


def test_the_default_place_is_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "mine"))
    with AnswerCache() as cache:
        assert cache.path == tmp_path / "mine" / "answers.sqlite"


MOUNTS = r"""/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/me/local xfs rw 0 0
them@there: /mnt/my\040disk fuse.sshfs rw 0 0
/dev/vdc /covered ext4 rw 0 0
//server/share /covered cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/work", "ext4"),
        ("/home/me", "nfs4"),
        ("/homes", "ext4"),
        ("/home/me/local/cache", "xfs"),
        ("/mnt/my disk/a", "fuse.sshfs"),
        ("/covered", "cifs"),
    ],
)
def test_the_innermost_mount_counts(folder: str, kind: str, tmp_path: Path) -> None:
    assert find_file_system(Path(folder), MOUNTS) == kind
    table = tmp_path / "mounts"
    table.write_text(MOUNTS, encoding="utf-8")
    assert find_network_mount(Path(folder), table) == (None if kind in ("ext4", "xfs") else kind)


def test_nothing_is_known_without_a_list_of_mounts(tmp_path: Path) -> None:
    assert find_network_mount(tmp_path, tmp_path / "none") is None


def test_a_network_mount_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.cache.find_network_mount", lambda _: "nfs4")
    message = (
        f"{str(path.parent)!r} is on a network mount (nfs4), where SQLite can lose answers; point VIDGROUND_CACHE at "
        "a folder on a local disk"
    )
    with pytest.raises(CacheError, match=re.escape(message)):
        AnswerCache(path)


def test_another_version_is_refused(path: Path) -> None:
    AnswerCache(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(CacheError, match="has version 99, this package reads 1; move it away"):
        AnswerCache(path)


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(CacheError, match=r"is damaged \(file is not a database\); delete it, and what it held is ask"):
        AnswerCache(path)


def test_a_full_disk_is_told_from_damage(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache._database.execute("PRAGMA max_page_count=8")
        with pytest.raises(CacheError, match=r"cannot be used \(database or disk is full\); free the disk"):
            cache.put(find_key(), replace(ANSWER, text="long" * 10_000), "m@1")


def test_a_changed_answer_is_noticed(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache.put(find_key(), ANSWER, "m@1")
        cache._database.execute("UPDATE answers SET answer = replace(CAST(answer AS TEXT), 'B', 'A')")
        with pytest.raises(CacheError, match=r"is damaged \(an answer does not match its digest\)"):
            cache.get_many([find_key()])


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_is_an_error_or_a_missing_answer_and_never_another_one(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.unlink(missing_ok=True)
    keys = {find_key(prompt): replace(ANSWER, text=f"{index}") for index, prompt in enumerate(make_prompts(60))}
    with AnswerCache(path) as cache:
        for key, answer in keys.items():
            cache.put(key, answer, "m@1")
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=40)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))]))
    try:
        with AnswerCache(path) as cache:
            found = cache.get_many(list(keys))
    except CacheError:
        return
    assert all(keys[key] == answer for key, answer in found.items())


def test_only_what_is_missing_is_asked_and_equal_prompts_once(path: Path) -> None:
    prompts = make_prompts(6)
    model = CountingModel()
    counts: list[tuple[int, str]] = []

    def count(number: int, source: str) -> None:
        counts.append((number, source))

    with AnswerCache(path) as cache:
        answer_through_cache(model, prompts[:2], cache, on_answer=count)
        answers = answer_through_cache(model, prompts + prompts[::-1], cache, on_answer=count)
        assert [answer.text for answer in answers] == [p.question for p in prompts + prompts[::-1]]
        assert sorted(model.asked) == [prompt.question for prompt in prompts]
        assert Counter(counts) == {(1, "asked"): 6, (1, "cached"): 2 + 2 + 4}
        answer_through_cache(model, [replace(prompts[0], trial_index=1)], cache, on_answer=count)
        assert model.asked[-1] == prompts[0].question


def test_what_failed_is_asked_again(path: Path) -> None:
    prompts = [replace(PROMPT, question="fail"), PROMPT]
    model = CountingModel()
    with AnswerCache(path) as cache:
        for _ in range(2):
            answers = answer_through_cache(model, prompts, cache, on_answer=ignore_progress)
            assert [answer.error for answer in answers] == ["no", None]
    assert sorted(model.asked) == ["Which one?", "fail", "fail"]


def test_answers_are_there_before_the_run_ends(path: Path) -> None:
    class Failing(CountingModel):
        def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
            super().answer_each(prompts[:3], on_answer)
            raise RuntimeError("the power went")

    with AnswerCache(path) as cache, pytest.raises(RuntimeError, match="the power went"):
        answer_through_cache(Failing(), make_prompts(5), cache, on_answer=ignore_progress)
    with AnswerCache(path) as cache:
        assert cache.describe()["answerers"] == {"counting@1": 3}


def ignore_progress(count: int, source: str) -> None:
    """Nobody watches the progress of these."""
