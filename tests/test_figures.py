"""The figures: drawn from the report alone, the same bytes every time, and indifferent to what groups are called."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vidground_hf.figures import MAX_GROUPS, draw_confidence, draw_error, draw_figures, draw_groups, draw_split

KEPT, DROPPED, LUCK = (0x2F, 0x7E, 0xBC), (0xD8, 0x74, 0x1C), (0x2B, 0x32, 0x3A)


@pytest.fixture
def report() -> dict[str, Any]:
    """A report as curating a set of MLVU's size gives it."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("report_example.json").read_text())
    return loaded


def read_pixels(picture: bytes | None) -> NDArray[np.uint8]:
    assert picture is not None
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def find_color(pixels: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((pixels == np.array(color)).all(axis=2))


def test_draws_every_figure_in_reading_order(report: dict[str, Any]) -> None:
    figures = draw_figures(report)
    assert list(figures) == ["split", "groups", "confidence", "error"]
    for picture in figures.values():
        assert Image.open(io.BytesIO(picture)).width == 1280


def test_the_same_report_gives_the_same_bytes_without_date_or_program(report: dict[str, Any]) -> None:
    first, second = draw_figures(report), draw_figures(json.loads(json.dumps(report)))
    assert first == second
    for picture in first.values():
        assert set(Image.open(io.BytesIO(picture)).info) == {"dpi"}


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({"calibration": None}, ["split", "groups", "confidence"]),
        ({"distribution": None}, ["split", "groups", "error"]),
        ({"blind_accuracy": {"value": None, "low": None, "high": None}}, ["split", "confidence", "error"]),
        ({"num_rows": 0}, ["groups", "confidence", "error"]),
    ],
)
def test_leaves_out_what_has_no_numbers(report: dict[str, Any], changes: dict[str, Any], drawn: list[str]) -> None:
    assert list(draw_figures(report | changes)) == drawn


def test_an_empty_curve_is_not_drawn(report: dict[str, Any]) -> None:
    report["calibration"]["curve"] = []
    assert draw_error(report) is None


@pytest.mark.parametrize(("kept", "dropped"), [(1662, 511), (50, 50), (0, 7), (9, 0)])
def test_the_bar_is_split_in_proportion(report: dict[str, Any], kept: int, dropped: int) -> None:
    counts = {"num_rows": kept + dropped, "num_grounded": kept, "num_text_answerable": dropped, "num_undecided": 0}
    bar = read_pixels(draw_split(report | counts))[60]
    num_kept, num_dropped = (int((bar == np.array(color)).all(axis=1).sum()) for color in (KEPT, DROPPED))
    assert num_kept / 1178 == pytest.approx(kept / (kept + dropped), abs=0.01)  # the bar is 0.92 of 1280 pixels wide
    assert num_dropped / 1178 == pytest.approx(dropped / (kept + dropped), abs=0.01)


@pytest.mark.parametrize("accuracy", [0.1, 0.5654, 0.95])
def test_the_dot_stands_at_the_blind_accuracy(report: dict[str, Any], accuracy: float) -> None:
    interval = {"value": accuracy, "low": None, "high": None}
    pixels = read_pixels(draw_groups(report | {"blind_accuracy": interval, "groups": {}}))
    below_key = find_color(pixels, DROPPED)[80:]
    assert np.nonzero(below_key)[1].mean() == pytest.approx(1280 * (0.27 + 0.57 * accuracy), abs=1.5)


def test_draws_the_largest_groups_only(report: dict[str, Any]) -> None:
    group = report["groups"]["category"]["plotQA"]

    def draw(num_groups: int) -> NDArray[np.uint8]:
        groups = {f"group {index}": group | {"num_rows": 100 + index} for index in range(num_groups)}
        return read_pixels(draw_groups(report | {"groups": {"category": groups}}))

    assert draw(MAX_GROUPS - 1).shape[0] < draw(MAX_GROUPS).shape[0] == draw(MAX_GROUPS + 5).shape[0]
    footer = (slice(-40, None), slice(0, 200))
    assert len(np.unique(draw(MAX_GROUPS)[footer])) < len(np.unique(draw(MAX_GROUPS + 5)[footer]))


def test_leaves_out_a_grouping_of_one_and_groups_without_score(report: dict[str, Any]) -> None:
    group = report["groups"]["category"]["plotQA"]
    unscored = group | {"blind_accuracy": {"value": None, "low": None, "high": None}}
    plain = draw_groups(report | {"groups": {}})
    assert draw_groups(report | {"groups": {"source": {"one": group}}}) == plain
    assert draw_groups(report | {"groups": {"source": {"one": unscored, "two": unscored}}}) == plain


def test_colours_what_lies_above_the_threshold(report: dict[str, Any]) -> None:
    report["distribution"] = {"edges": [0.0, 1.0, 2.0], "targets": [4, 4], "decoys": [1.0, 0.0], "threshold": 1.0}
    pixels = read_pixels(draw_confidence(report))[120:]  # below the key
    kept, dropped, luck = (find_color(pixels, color).sum() for color in (KEPT, DROPPED, LUCK))
    assert dropped / (kept + luck) == pytest.approx(1, abs=0.03)
    assert luck / dropped == pytest.approx(1 / 4, abs=0.02)
    report["distribution"]["threshold"] = None
    assert not find_color(read_pixels(draw_confidence(report)), DROPPED).any()


def test_marks_the_rule_in_force_only_where_it_drops(report: dict[str, Any]) -> None:
    def count_marks() -> int:
        return int(find_color(read_pixels(draw_error(report)), DROPPED).sum())

    with_rule = count_marks()
    report["calibration"] |= {"threshold": None, "estimated_error": None}
    assert 0 < count_marks() < with_rule - 200  # the dashed line is left, the dot is gone


@pytest.mark.parametrize(
    "name", ["$\\frac{$", "電影問題", "a\nb\tc", "\u202egold\x00", "\ud800", "x" * 100_000, "\\alpha_{", "%s {0}", ""]
)
def test_draws_whatever_groups_are_called(report: dict[str, Any], name: str) -> None:
    groups = report["groups"]["category"]
    figure = draw_groups(report | {"groups": {"source": {name: groups["plotQA"], "plain": groups["ego"]}}})
    assert read_pixels(figure).shape[1] == 1280


def test_leaves_the_state_of_pyplot_alone() -> None:
    code = "import sys, vidground_hf.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
