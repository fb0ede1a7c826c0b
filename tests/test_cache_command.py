from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chat_server import ChatServer, answer_prompt
from tests.questions import make_dataset, make_rows
from vidground_hf.cli import main
from vidground_hf.curation import curate
from vidground_hf.filtering import GroundFilter


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(60)), encoding="utf-8")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vidground", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def audit(questions: Path, server: ChatServer, *more: Any) -> list[Any]:
    return ["audit", questions, "--rule", "single_shot", "--answerer", f"endpoint:tiny@{server.url}", *more]


def test_a_served_model_is_audited_and_asked_once(questions: Path, run: Any) -> None:
    with ChatServer() as server:
        status, out, err = run(*audit(questions, server, "--json", "--concurrency", 7))
        assert status == 0, err
        report = json.loads(out)
        again = json.loads(run(*audit(questions, server, "--json"))[1])
        assert server.num_requests == 60
        assert server.max_seen <= 7
    assert report["answerer"] == f"endpoint:tiny@{server.url}"
    letters = {prompt: answer_prompt(prompt) for prompt in server.answered}
    shown = {find_prompt(row, letters): row for row in make_rows(60)}
    right = sum(find_gold(prompt, row) == letters[prompt] for prompt, row in shown.items())
    assert report["blind_accuracy"]["value"] == pytest.approx(right / 60, abs=1e-6)
    assert (report["calls"]["asked"], again["calls"]["asked"], again["calls"]["cached"]) == (60, 0, 60)
    assert {**report, "seconds": 0, "calls": 0} == {**again, "seconds": 0, "calls": 0}


def find_gold(prompt: str, row: dict[str, Any]) -> str:
    """The letter that the gold option was shown with."""
    gold = row["options"]["ABCD".index(row["answer"])]
    return next(line[0] for line in prompt.splitlines() if line[1:] == f". {gold}")


def find_prompt(row: dict[str, Any], prompts: dict[str, str]) -> str:
    return next(prompt for prompt in prompts if f"Question: {row['question']}\n" in prompt)


def test_a_budget_ends_the_run_with_one_line_and_the_next_goes_on(questions: Path, run: Any) -> None:
    with ChatServer() as server:
        status, out, err = run(*audit(questions, server, "--max-requests", 25))
        assert (status, out, server.num_requests) == (1, "", 25)
        assert err.splitlines()[-1] == (
            "error: 35 of 60 questions lack an answer, the first because: the budget of 25 requests is spent. What "
            "was answered is kept: run again to ask for the rest, or pass --on-error undecided (in Python "
            "on_error='undecided') to keep such rows as undecided"
        )
        status, out, _ = run(*audit(questions, server, "--dry-run", "--json"))
        plan = json.loads(out)
        assert plan.pop("num_prompt_tokens") == pytest.approx(35 * 45, rel=0.3)
        assert plan == {
            "num_questions": 60,
            "num_cached": 25,
            "min_requests": 35,
            "max_requests": 35,
            "max_answer_tokens": 35 * 1024,
        }
        assert run(*audit(questions, server))[0] == 0
        assert server.num_requests == 60


@pytest.mark.filterwarnings("ignore:35 of 60 questions lack an answer.* they are undecided")
def test_a_question_that_fails_may_be_left_undecided(questions: Path, run: Any) -> None:
    with ChatServer() as server:
        budget = ("--max-requests", 25, "--on-error", "undecided", "--json")
        status, out, _ = run(*audit(questions, server, *budget))
    report = json.loads(out)
    assert (status, report["num_undecided"], report["reasons"]["undecided"]) == (0, 35, {"no_answer": 35})
    assert server.url not in json.dumps(report["reasons"])


def test_a_dry_run_asks_nothing(questions: Path, run: Any) -> None:
    with ChatServer() as server:
        status, out, _ = run(*audit(questions, server, "--dry-run"))
        assert server.num_requests == 0
    assert status == 0
    lines = [re.split(r" {2,}", line) for line in out.splitlines()]
    assert lines[:4] == [["questions", "60"], ["cached", "0"], ["min requests", "60"], ["max requests", "60"]]
    assert lines[4][0] == "prompt tokens"
    assert lines[4][1].endswith(" (about)")
    assert lines[5] == ["max answer tokens", "61,440"]


def test_a_refused_key_is_one_line(questions: Path, run: Any) -> None:
    with ChatServer(key="right") as server:
        status, _, err = run(*audit(questions, server))
        assert server.num_requests <= 4
    assert status == 1
    assert "60 of 60 questions lack an answer, the first because: endpoint:tiny@http" in err.splitlines()[-1]
    assert "Set VIDGROUND_ENDPOINT_KEY to a key of this server" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run"], "sends no requests; there is nothing to plan"),
        (["--concurrency", "5"], "error: concurrency does nothing for probe; it goes with endpoint:, provider:"),
        (["--samples", "2"], "the probe answers once"),
        (["--shortcut-kinds"], "the probe cannot say why it could answer; shortcut_kinds goes with a model"),
        (["--answerer", "probe", "--answerer", "constant:A"], "got 2 answerers; pass one or more models, or the"),
        (["--answerer", "endpoint:m"], "'endpoint:m' names no server; pass endpoint:MODEL@http://HOST:PORT/v1"),
        (["--answerer", "endpoint:m@h"], "base_url = 'h' is no address of a server; pass one like http://"),
        (
            ["--answerer", "provider:m", "--concurrency", "500"],
            "concurrency = 500 is out of range; allowed are 1 to 100",
        ),
    ],
)
def test_mistakes(arguments: list[str], message: str, questions: Path, run: Any) -> None:
    status, out, err = run("audit", questions, *arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_the_cache_can_be_looked_at_and_pruned(questions: Path, run: Any) -> None:
    assert "never asked" in run("cache", "info")[1]
    with ChatServer() as server:
        run(*audit(questions, server))
        run(*audit(questions, server))
    shown = run("cache", "info")[1]
    assert str(Path(os.environ["VIDGROUND_CACHE"]) / "answers.sqlite") in shown
    assert re.search(r"^answers +60$", shown, re.MULTILINE)
    assert re.search(r"^found +50.0% of lookups$", shown, re.MULTILINE)
    assert re.search(rf"^ +60  endpoint:tiny@{server.url}$", shown, re.MULTILINE)
    no_files = "deleted 0 files of fits and columns, kept 0\n"  # an audit leaves none
    assert run("cache", "prune", "--older-than-days", 1)[1] == "deleted 0 answers, kept 60\n" + no_files
    assert run("cache", "prune", "--older-than-days", 0)[1] == "deleted 60 answers, kept 0\n" + no_files
    described = json.loads(run("cache", "info", "--json")[1])
    assert (described["num_answers"], described["answerers"], described["hit_rate"]) == (0, {}, 0.5)
    status, _, err = run("cache", "prune")
    assert status == 2
    assert "Missing option '--older-than-days'" in err


def test_fits_and_columns_are_pruned_too(run: Any) -> None:
    GroundFilter().fit(make_dataset(40))
    curate(make_dataset(40))
    cache = Path(os.environ["VIDGROUND_CACHE"])
    kept = sorted(path.relative_to(cache).parts[0] for path in cache.glob("*/*"))
    assert kept == ["columns", "fits"]
    num_bytes = sum(path.stat().st_size for path in cache.glob("*/*"))
    assert re.search(rf"^fits, columns +2 files, {num_bytes / 1e6:.1f} MB$", run("cache", "info")[1], re.MULTILINE)
    described = json.loads(run("cache", "info", "--json")[1])
    assert (described["num_files"], described["num_file_bytes"]) == (2, num_bytes)
    os.utime(next(cache.glob("fits/*")), (0, 0))
    pruned = run("cache", "prune", "--older-than-days", 1)[1]
    assert pruned.endswith("deleted 1 files of fits and columns, kept 1\n")
    assert [path.parent.name for path in cache.glob("*/*")] == ["columns"]


def test_a_damaged_cache_is_one_line(run: Any) -> None:
    folder = Path(os.environ["VIDGROUND_CACHE"])
    folder.mkdir(parents=True)
    (folder / "answers.sqlite").write_bytes(b"something else entirely" * 200)
    status, out, err = run("cache", "info")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].endswith(
        "is damaged (file is not a database); delete it, and what it held is asked again"
    )
