"""`vidground gap` from files to table, JSON, figure and page, and every refusal."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.gap import measure_gap
from vidground_hf.gap_command import gap
from vidground_hf.gap_report import MAX_GROUPS, draw_gap, format_gap_table, list_groups, render_gap_page

PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gap, ["--num-resamples", "50", *map(str, arguments)])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A blind and a visual run that share three of their four questions, in another order."""
    gold = {"q1": "A", "q2": "B", "q3": "C", "q4": "D", "q5": "A"}
    shared = {"num_options": 4, "category": "order"}
    blind = [{"id": key, "prediction": "A", "answer": gold[key], **shared} for key in ("q1", "q2", "q3", "q4")]
    visual = [{"id": key, "prediction": gold[key], "answer": gold[key], **shared} for key in ("q5", "q3", "q2", "q1")]
    return write_csv(tmp_path / "blind.csv", blind), write_csv(tmp_path / "visual.csv", visual)


def test_table_goes_to_stdout_and_unmatched_ids_to_stderr(runs: tuple[Path, Path]) -> None:
    ran = run("--blind", runs[0], "--visual", runs[1])
    assert ran.exit_code == 0, ran.output
    assert "3 questions, answered with and without the video" in ran.stdout
    assert re.search(r"With the video  +100\.0 %", ran.stdout)
    assert re.search(r"Without the video  +33\.3 %", ran.stdout)
    assert re.search(r"Gap  +\+66\.7 points", ran.stdout)
    assert re.search(r"order  +3  +33\.3 %  +100\.0 %  \+66\.7 points", ran.stdout)
    assert ran.stderr.splitlines() == [
        "note: 1 ids not compared, only blind: q4", "note: 1 ids not compared, only visual: q5",
    ]  # fmt: skip


def test_json_is_the_dictionary_of_the_metric(runs: tuple[Path, Path]) -> None:
    printed = json.loads(run("--blind", runs[0], "--visual", runs[1], "--json", "--seed", "3").stdout)
    assert printed.pop("ids") == ["q3", "q2", "q1"]
    assert printed.pop("unmatched") == {"only_blind": ["q4"], "only_visual": ["q5"]}
    assert printed == measure_gap(
        list("CBA"), list("AAA"), list("CBA"), num_options=4, groups=["order"] * 3, num_resamples=50, seed=3
    )


def test_output_holds_json_figure_and_page(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    ran = run("--blind", runs[0], "--visual", runs[1], "--output", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["gap.json", "gap.png"]
    assert f"report: {folder / 'gap.json'}" in ran.stdout
    assert json.loads((folder / "gap.json").read_text())["unmatched"]["only_blind"] == ["q4"]
    assert (folder / "gap.png").read_bytes().startswith(PNG)
    ran = run("--blind", runs[0], "--visual", runs[1], "--output", folder, "--html", "--json")
    assert json.loads(ran.stdout)["gap"] == 2 / 3
    assert f"report: {folder / 'gap.html'}" in ran.stderr
    page = (folder / "gap.html").read_text(encoding="utf-8")
    page = page.replace("\u00a0", " ")
    assert "gets 100.0 % of 3 questions right, without it 33.3 %: +66.7 points" in page
    assert "0.95 confidence, 50 resamples by question, seed 0" in page
    assert "<bdi>q4</bdi>" in page
    assert "blind.csv" in page
    assert 'src="data:image/png;base64,' in page


@needs_shared_data
def test_wide_file_with_references_in_another() -> None:
    folder = SHARED_DATA / "mlvu-blind-and-video-predictions"
    wide = folder / "labels/aggregated/Qwen2.5-VL-7B_MLVU_predictions_wide.csv"
    ran = run("--blind", wide, "--blind-column", "textonly", "--visual", wide, "--visual-column", "128f_151k",
              "--references", folder / "mlvu_alignment.csv")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    counts = re.findall(r"(?:Right both times|Right only with.*?|Never right)  +(\d+)$", ran.stdout, re.MULTILINE)
    assert counts == ["841", "640", "164", "525"]
    assert re.search(r"count  +206  +28\.2 %  +29\.1 %  \+1\.0 points", ran.stdout)
    assert ran.stderr == ""


def test_known_data_files_give_options_and_columns_can_be_mapped(tmp_path: Path) -> None:
    rows = [{"clip": "v1", "n": k, "text": "A", "frames": "B", "truth": "B"} for k in range(3)]
    path = write_csv(tmp_path / "runs.csv", rows)
    ran = run("--blind", path, "--visual", path, "--blind-column", "text", "--visual-column", "frames", "--json",
              "--map", "id=clip,n", "--map", "reference=truth", "--map", "video=clip")  # fmt: skip
    printed = json.loads(ran.stdout)
    assert (printed["gap"], printed["ids"]) == (1.0, ["v1_0", "v1_1", "v1_2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html"], "--html writes gap.html to a folder; say which with --output DIR"),
        (["--map", "id"], "--map takes KEY=COLUMN, got 'id'; for example --map question=q"),
        (["--problem-type", "bbox"], "'bbox' is not one of 'multiple_choice', 'numerical'"),
        (["--confidence", "1"], "1.0 is not in the range 0<x<1"),
        (["--references", "absent.csv"], "File 'absent.csv' does not exist"),
    ],
)
def test_bad_usage_is_status_2(runs: tuple[Path, Path], arguments: list[str], message: str) -> None:
    ran = run("--blind", runs[0], "--visual", runs[1], *arguments)
    assert ran.exit_code == 2
    assert message in ran.stderr
    assert ran.stdout == ""


def test_bad_input_is_one_clear_error(runs: tuple[Path, Path]) -> None:
    ran = run("--blind", runs[0], "--visual", runs[1], "--blind-column", "textonly")
    assert isinstance(ran.exception, ValueError)
    assert "blind.csv has no column textonly; found id, prediction, answer" in str(ran.exception)


def test_a_log_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    log = tmp_path / "run.eval"
    log.touch()
    ran = run("--blind", log, "--visual", log)
    assert ran.exit_code == 1
    assert "reading the log 'run.eval' needs inspect_ai: pip install inspect_ai" in ran.stderr


def make_result(num_groups: int = 2) -> dict[str, Any]:
    names = [f"group {k}" for k in range(num_groups)]
    return measure_gap(
        ["A", "B"] * num_groups, ["A", "C"] * num_groups, ["A", "B"] * num_groups,
        num_options=4, groups=[name for name in names for _ in range(2)], num_resamples=20,
    )  # fmt: skip


def test_only_the_largest_groups_are_shown_and_the_rest_counted() -> None:
    result = make_result(MAX_GROUPS + 3)
    assert len(list_groups(result)) == MAX_GROUPS
    assert "and 3 smaller groups" in format_gap_table(result)
    assert "3 smaller groups are left out here" in render_gap_page(result, {}, {})


def test_groups_are_sorted_by_gap_and_unscored_ones_come_last() -> None:
    result = measure_gap(
        ["A", "B", "A"], ["A", "C", "A"], ["A", "B", "Z"], num_options=4, groups=["even", "seen", "bad"],
        num_resamples=20,
    )  # fmt: skip
    assert [name for name, _ in list_groups(result)] == ["seen", "even", "bad"]
    assert re.search(r"bad  +1  +–  +–  –", format_gap_table(result))
    assert "1 (gold not among options 1)" in format_gap_table(result)
    assert draw_gap(result).startswith(PNG)


def test_the_figure_has_the_same_bytes_each_time_and_shows_the_numbers() -> None:
    result = make_result()
    assert draw_gap(result) == draw_gap(result)
    assert draw_gap(result) != draw_gap({**result, "visual_accuracy": 0.6})


def test_texts_of_strangers_stay_text() -> None:
    result = make_result()
    result["groups"] = {"<b>$x$</b>\u202e": result["groups"]["group 0"]}
    page = render_gap_page(result, {"only_blind": ["<script>"] * 60}, {"With the video": "a<b>.csv"})
    assert "<b>" not in page
    assert "<script>" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert "and more" in page
    assert "\u202e" not in format_gap_table(result)


def test_a_result_without_any_scored_row_can_be_shown() -> None:
    result = measure_gap(["A"], ["A"], ["Z"], num_options=4)
    assert re.search(r"Gap  +–", format_gap_table(result))
    assert draw_gap(result).startswith(PNG)
    assert "–" in render_gap_page(result, {}, {})
