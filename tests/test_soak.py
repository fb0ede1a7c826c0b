"""Curation survives what happens to long runs: kills, too little memory or disk, a read-only folder, a second run.

`VIDGROUND_SOAK_KILLS` sets the length: so many kills, and a tenth as many of every other disturbance.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.soak.disturbances import find_obstacle
from tests.soak.messy_set import make_messy_rows
from tests.soak.trials import Bench, list_trials, open_bench, run_trial
from vidground_hf import cli
from vidground_hf.folders import check_output_dir, write_whole
from vidground_hf.loading import DataError

TRIALS = list_trials(int(os.environ.get("VIDGROUND_SOAK_KILLS", "3")))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("soak")) as bench:
        yield bench


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), TRIALS, ids=[f"{kind} {seed}" for kind, seed in TRIALS])
def test_the_next_run_ends_as_if_nothing_had_happened(bench: Bench, kind: str, seed: int) -> None:
    if (obstacle := find_obstacle(kind)) is not None:
        pytest.skip(obstacle)
    run_trial(bench, kind, seed)


def test_one_run_at_a_time_writes_an_output(tmp_path: Path) -> None:
    message = "another run is writing "
    with write_whole(tmp_path / "out") as partial:
        (partial / "report.json").write_text("{}", encoding="utf-8")
        with pytest.raises(DataError, match=message), write_whole(tmp_path / "out"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with write_whole(tmp_path / "out") as partial:
        assert list(partial.iterdir()) == []
        (partial / "report.json").write_text("[]", encoding="utf-8")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json")] == ["[]"]


_REPLACE = """
import os, signal, sys
from pathlib import Path
from vidground_hf.folders import write_whole

def replace(source, target, replace=os.replace):
    if str(target) == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace
with write_whole(Path(sys.argv[1])) as partial:
    (partial / "report.json").write_text("[]", encoding="utf-8")
"""


def test_a_result_that_a_killed_run_had_set_aside_is_put_back(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with write_whole(output) as partial:
        (partial / "report.json").write_text("{}", encoding="utf-8")
    killed = subprocess.run([sys.executable, "-c", _REPLACE, str(output)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.earlier", ".out.partial"]
    check_output_dir(output)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/report.json"]
    assert (output / "report.json").read_text(encoding="utf-8") == "{}"


def test_what_is_left_of_a_deleted_result_is_not_put_back(tmp_path: Path) -> None:
    (tmp_path / ".out.earlier" / "data").mkdir(parents=True)
    check_output_dir(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with write_whole(tmp_path / "out") as partial:
        (partial / "report.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_takes_no_files_is_refused_before_anything_is_asked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write whatever the mode is
    message = f"cannot write in {str(tmp_path)!r}, where output 'out' is to be; name another folder"
    with pytest.raises(DataError, match=re.escape(message)):
        check_output_dir(tmp_path / "new" / "out")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError("Unable to allocate 16 MiB"), "; there is too little memory: end other programs, or take fewer "),
        (RuntimeError("can't start new thread"), "; there is too little memory: end other programs, or take fewer "),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "; there is too little memory: end other programs, or "),
        (OSError(errno.EROFS, "Read-only file system"), "; name a folder that can be written to, or make this one"),
        (OSError(errno.EACCES, "Permission denied"), "; name a folder or file that you may use, or change who may"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "; free space within your quota and run the same command"),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(
    error: Exception, advice: str, monkeypatch: Any, capsys: Any
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr().err.startswith(f"error: {error}{advice}")


def test_a_messy_set_has_equal_rows_and_rows_of_every_kind_of_dirt() -> None:
    rows = make_messy_rows(160)
    assert [row["row"] for row in rows] == list(range(160))
    texts = [(row["question"], *row["options"]) for row in rows]
    assert len(set(texts)) < 160
    assert {row["problem_type"] for row in rows} == {"multiple choice", "free-form", "bbox"}
    assert any(row["answer"] is None for row in rows)
    assert rows == make_messy_rows(160)
