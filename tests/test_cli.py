from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from tests.questions import make_rows
from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(120)), encoding="utf-8")
    return path


class Finished:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> Finished:
    monkeypatch.setattr(sys, "argv", ["vidground", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return Finished(int(stopped.value.code or 0), captured.out, captured.err)


def test_audit_prints_a_table_and_writes_nothing(questions: Path, capsys: Any, monkeypatch: Any) -> None:
    done = run(capsys, monkeypatch, "audit", questions, "--alpha", "0.1")
    assert done.status == 0
    assert done.out.startswith(
        "120 questions, answered by probe@1(folds=5,seed=0) without the video, rule calibrated(alpha=0.1)"
    )
    for line in ("grounded (needs the video)", "chance                       25.0 %", "longest option"):
        assert line in done.out
    assert "120 questions, asking probe" in done.err
    assert [path.name for path in questions.parent.iterdir()] == ["questions.jsonl"]


def test_audit_writes_a_report_when_asked(questions: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    done = run(capsys, monkeypatch, "audit", questions, "--output", tmp_path / "out", "--json")
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert not (tmp_path / "out" / "data").exists()
    assert "report.html" in done.err


def test_curate_writes_a_folder_that_opens(questions: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    done = run(capsys, monkeypatch, "curate", questions, "--output", out)
    assert done.status == 0
    assert done.out.rstrip().endswith(f"report: {out / 'report.html'}")
    assert sum(len(rows) for rows in load_dataset(str(out)).values()) == 120


def test_json_is_what_the_report_holds(questions: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    done = run(capsys, monkeypatch, "curate", questions, "--output", tmp_path / "o", "--json", "--rule", "single_shot")
    printed = json.loads(done.out)
    assert printed == json.loads((tmp_path / "o" / "report.json").read_text(encoding="utf-8"))
    assert printed["rule"] == "single_shot()"
    assert printed["source"]["id"] == f"{questions.parent.name}/questions.jsonl"


def test_several_files_are_named_by_their_folder(questions: Path, capsys: Any, monkeypatch: Any) -> None:
    copy = questions.with_name("more.jsonl")
    copy.write_text(questions.read_text(encoding="utf-8").replace("clip_", "other_"), encoding="utf-8")
    report = json.loads(run(capsys, monkeypatch, "audit", questions, copy, "--json").out)
    assert report["num_rows"] == 240
    assert report["source"]["id"] == f"{'/'.join(questions.parent.parts[-2:])} (2 files)"


def test_limit_map_adapter_and_answerer(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,x,y,gold\n" + "".join(f"which {k}?,this,that,{k % 2}\n" for k in range(50)), encoding="utf-8")
    arguments = ["audit", path, "--map", "question=q", "--map", "options=x,y", "--map", "answer=gold", "--limit", "30"]
    done = run(capsys, monkeypatch, *arguments, "--answerer", "constant:B", "--rule", "single_shot", "--json")
    report = json.loads(done.out)
    assert (report["num_rows"], report["blind_accuracy"]["value"], report["answerer"]) == (30, 0.5, "constant:B")
    refused = run(capsys, monkeypatch, "audit", path, "--adapter", "mlvu")
    assert refused.status == 2
    assert (
        "adapter 'mlvu' needs the columns video, duration, question, answer, question_type; found q, x, y, gold"
        in refused.err
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["audit", "nothing.csv"],
            2,
            "error: no file or folder 'nothing.csv'; pass a csv, tsv, json, jsonl, parquet file",
        ),
        (["audit", "QUESTIONS", "--rule", "best"], 2, "error: got rule 'best'; allowed are 'calibrated'"),
        (["audit", "QUESTIONS", "--alpha", "2"], 2, "error: alpha = 2.0 is out of range; calibrated allows (0, 1)"),
        (["audit", "QUESTIONS", "--alpha", "0.1", "--rule", "single_shot"], 2, "--alpha goes with --rule calibrated"),
        (["audit", "QUESTIONS", "--answerer", "oracle"], 2, "error: unknown answerer 'oracle'; allowed are 'probe'"),
        (["audit", "QUESTIONS", "--map", "question"], 2, "--map takes KEY=COLUMN, got 'question'"),
        (["audit", "QUESTIONS", "--map", "question=zzz"], 2, "error: no column 'zzz'; found id, video, question"),
        (["audit", "QUESTIONS", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["audit", "QUESTIONS", "--view", "video"], 2, "Invalid value for '--view'"),
        (["audit", "QUESTIONS", "--split", "val"], 2, "error: no split 'val': the data is one split"),
        (["curate", "QUESTIONS"], 2, "Missing option '--output'"),
        (["curate", "QUESTIONS", "--output", "QUESTIONS"], 2, "questions.jsonl' is a file; name a folder"),
        (["audit"], 2, "Missing argument 'DATA"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], status: int, message: str, questions: Path, capsys: Any, monkeypatch: Any
) -> None:
    done = run(capsys, monkeypatch, *[str(questions) if part == "QUESTIONS" else part for part in arguments])
    assert done.status == status
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_failure_of_the_work_has_its_own_status(
    questions: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    def fill_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidground_hf.curation.write_report", fill_disk)
    done = run(capsys, monkeypatch, "curate", questions, "--output", tmp_path / "out")
    message = "error: [Errno 28] No space left on device; free space on that disk and run the same command again"
    assert (done.status, done.err.splitlines()[-1]) == (1, message)
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["vidground", "audit", "nothing.csv", "--debug"])
    with pytest.raises(ValueError, match=re.escape("no file or folder 'nothing.csv'")):
        main()


def test_env_lists_versions(capsys: Any, monkeypatch: Any) -> None:
    done = run(capsys, monkeypatch, "env")
    assert re.search(r"^python +3\.\d+", done.out, re.MULTILINE)
    assert set(json.loads(run(capsys, monkeypatch, "env", "--json").out)) >= {"vidground-hf", "datasets", "torch"}


def test_demo_finds_what_was_planted(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    done = run(capsys, monkeypatch, "demo", "--output", tmp_path / "demo", "--json")
    report = json.loads(done.out)
    assert report["num_rows"] == 1000
    assert report["precision"] >= 0.95
    assert report["recall"] >= 0.90
    assert (tmp_path / "demo" / "curated" / "report.html").exists()
    table = run(capsys, monkeypatch, "demo", "--output", tmp_path / "demo", "--num-questions", 200, "--num-clips", 40)
    assert "against the planted truth: precision" in table.out


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "num_rows", "num_unscored"),
    [
        ("nextqa/dataset/nextqa/val.csv", 4996, 0),
        ("mlvu/data/1_plotQA.json", 539, 0),
        ("social-iq-2/siq2/qa/qa_test.json", 1715, 1715),
    ],
)
def test_real_files_are_audited_as_they_are(
    name: str, num_rows: int, num_unscored: int, capsys: Any, monkeypatch: Any
) -> None:
    report = json.loads(run(capsys, monkeypatch, "audit", SHARED_DATA / name, "--json").out)
    assert (report["num_rows"], report["num_unscored"]) == (num_rows, num_unscored)


def test_an_interrupted_run_leaves_no_folder_and_the_next_one_finishes(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vidground_hf.cli", "curate", str(questions), "--output", str(out)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stderr is not None
        for line in started.stderr:
            if "asking" in line:
                break
        time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        rest = started.stderr.read()
    assert started.returncode == 1
    assert "interrupted; nothing half-written is left, run the same command again" in rest
    assert "Traceback" not in rest
    assert not out.exists()
    subprocess.run(command, check=True, capture_output=True)
    assert sum(len(rows) for rows in load_dataset(str(out)).values()) == 120


def write_readme_files(folder: Path) -> None:
    """Files of the names and columns that the README's commands use, in our own words."""
    nextqa = ["video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"]
    mine = ["question,a0,a1,a2,a3,a4,answer"]
    for index, row in enumerate(make_rows(120)):
        options, gold = [*row["options"], "something else"], "ABCD".index(row["answer"])
        nextqa.append(f"{index // 4},9,1,1,{row['question']},{gold},{index},CW," + ",".join(options))
        mine.append(f"{row['question']}," + ",".join(options) + f",{gold}")
    (folder / "NExTQA").mkdir()
    (folder / "NExTQA" / "val.csv").write_text("\n".join(nextqa), encoding="utf-8")
    (folder / "my.csv").write_text("\n".join(mine), encoding="utf-8")
    for name, letter in (("blind", "A"), ("visual", "B")):
        rows = [{"id": k, "prediction": letter, "answer": "AB"[k % 2], "options": ["x", "y"]} for k in range(20)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_commands_of_the_readme_run_as_written(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("vidground ")]
    assert len(commands) >= 5
    write_readme_files(tmp_path)
    for command in commands:
        arguments = [sys.executable, "-m", "vidground_hf.cli", *shlex.split(command)[1:]]
        subprocess.run(arguments, check=True, capture_output=True, cwd=tmp_path)
    assert sum(len(rows) for rows in load_dataset(str(tmp_path / "curated")).values()) == 120


def test_the_python_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code, printed = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", readme, re.DOTALL)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == printed.strip()
