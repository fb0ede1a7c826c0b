"""The figures of a curation report, drawn from its numbers.

Computes no statistic: what is not in the report is not drawn.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vidground_hf.wording import GROUPINGS

# Blue and vermilion stay apart under every common colour blindness (Okabe and Ito 2008). The card is light in both
# colour schemes, so that one picture serves the page, the dataset card and print.
_CARD, _INK, _SOFT, _LINE = "#f6f7f8", "#1b2026", "#5b6570", "#d5dade"
_KEPT, _DROPPED, _UNDECIDED, _LUCK = "#2f7ebc", "#d8741c", "#a3abb3", "#2b323a"
_FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same picture
_WIDTH_INCHES, _DOTS_PER_INCH = 8.0, 160

MAX_GROUPS = 20  # our guess at what is read at a glance
_MAX_LABEL_CHARACTERS = 24


def draw_figures(report: dict[str, Any]) -> dict[str, bytes]:
    """Draws every figure that a report has the numbers for.

    Args:
        report (`dict`): a curation report, as in `report.json`.

    Returns:
        `dict[str, bytes]`: PNG pictures by name, in reading order: `split`, `groups`, `confidence`, `error`; those
        without numbers are left out. The same report gives the same bytes.
    """
    drawn = {
        "split": draw_split(report),
        "groups": draw_groups(report),
        "confidence": draw_confidence(report),
        "error": draw_error(report),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def draw_split(report: dict[str, Any]) -> bytes | None:
    """Draws how the questions were split: one bar of kept, text-answerable and undecided; `None` without questions."""
    num_rows = report["num_rows"]
    if not num_rows:
        return None
    figure, axes = _open_figure(height_inches=1.75, bounds=(0.04, 0.56, 0.92, 0.26))
    axes.axis("off")
    axes.set(xlim=(0, num_rows), ylim=(-0.5, 0.5))
    parts = (
        (report["num_grounded"], "kept", _KEPT),
        (report["num_text_answerable"], "text alone answers", _DROPPED),
        (report["num_undecided"], "undecided", _UNDECIDED),
    )
    left = 0
    for column, (count, name, color) in enumerate(parts):
        axes.barh(0, count, left=left, height=1, color=color, edgecolor=_CARD, linewidth=1.5)
        left += count
        x = 0.04 + 0.36 * column
        _write(figure, x, 0.32, f"{count:,}", size=15, weight="bold")
        _write_key(figure, 0.13, (x, "■", color, f"{name}, {_percent(count / num_rows, 1)}"))
    return _save(figure)


def draw_groups(report: dict[str, Any]) -> bytes | None:
    """Draws blind accuracy with its interval, beside chance and floors, for the whole set and each larger group.

    A grouping with a single group says nothing new and is left out, as are groups without a scored row; of the rest
    the `MAX_GROUPS` largest are drawn and the others counted and named below.

    Args:
        report (`dict`): a curation report, as in `report.json`.

    Returns:
        `bytes`, *optional*: a PNG picture; `None` when nothing was scored.
    """
    if report["blind_accuracy"]["value"] is None:
        return None
    found = [
        (grouping, name, group)
        for grouping, groups in report["groups"].items()
        if len(groups) > 1
        for name, group in groups.items()
        if group["blind_accuracy"]["value"] is not None
    ]
    found.sort(key=lambda item: -item[2]["num_rows"])
    largest, left_out = found[:MAX_GROUPS], [name for _, name, _ in found[MAX_GROUPS:]]
    rows: list[tuple[str, dict[str, Any] | None]] = [("all questions", report)]
    for grouping, title in GROUPINGS.items():
        members = [(name, group) for key, name, group in largest if key == grouping]
        members.sort(key=lambda member: -member[1]["blind_accuracy"]["value"])
        rows += [(f"by {title}", None), *members] if members else []

    height_inches = 1.2 + 0.3 * len(rows)
    figure, axes = _open_figure(height_inches, bounds=(0.27, 0.55 / height_inches, 0.57, 1 - 1.1 / height_inches))
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks([])
    _mark_percent(axes.xaxis)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    for y, (name, group) in enumerate(rows):
        _draw_group_row(axes, y, name, group)
    key = (
        (0.04, "●", _DROPPED, "right without the video"),
        (0.31, "|", _SOFT, "chance"),
        (0.41, "□", _SOFT, "best fixed position"),
        (0.63, "◇", _SOFT, "longest option"),
    )
    _write_key(figure, 1 - 0.32 / height_inches, *key)
    _write(figure, 0.978, 1 - 0.32 / height_inches, "questions", ha="right", color=_SOFT, size=10)
    if left_out:
        names = _fit_font(f"{len(left_out)} smaller groups left out: {', '.join(left_out)}", max_characters=110)
        _write(figure, 0.04, 0.12 / height_inches, names, color=_SOFT, size=9)
    return _save(figure)


def _draw_group_row(axes: Axes, y: int, name: str, group: dict[str, Any] | None) -> None:
    """Draws one line of the group figure: a heading, or a name, its markers and its numbers."""
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    if group is None:
        _write(axes, -0.4, y + 0.12, name, color=_SOFT, size=9, **beside)
        return
    weight = "bold" if y == 0 else "normal"
    _write(axes, -0.02, y, _fit_font(name, _MAX_LABEL_CHARACTERS), ha="right", size=10, weight=weight, **beside)
    accuracy, floors = group["blind_accuracy"], group["floors"]
    marks = ((group["chance"], "|"), (floors["constant_option"], "s"), (floors["longest_option"], "D"))
    for value, marker in marks:
        if value is not None:
            size = 15 if marker == "|" else 5.5
            axes.plot(value, y, marker, color=_SOFT, markersize=size, markerfacecolor=_CARD, markeredgewidth=1.5)
    if accuracy["low"] is not None and accuracy["high"] is not None:
        axes.plot([accuracy["low"], accuracy["high"]], [y, y], color=_DROPPED, linewidth=2.5)
    axes.plot(accuracy["value"], y, "o", color=_DROPPED, markersize=8)
    _write(axes, 1.09, y, _percent(accuracy["value"]), ha="right", size=10, weight=weight, **beside)
    _write(axes, 1.24, y, f"{group['num_rows']:,}", ha="right", color=_SOFT, size=10, **beside)


def draw_confidence(report: dict[str, Any]) -> bytes | None:
    """Draws how sure the right answers were, and how many of them luck explains; `None` without a distribution."""
    distribution = report["distribution"]
    if distribution is None:
        return None
    edges, targets, decoys = distribution["edges"], distribution["targets"], distribution["decoys"]
    threshold = distribution["threshold"]
    figure, axes = _open_figure(height_inches=3.3, bounds=(0.09, 0.17, 0.87, 0.62))
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(1, *targets, *decoys) * 1.12))
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.stairs(targets, edges, fill=True, color=_KEPT)
    axes.stairs(decoys, edges, fill=True, color=_LUCK, zorder=2)
    _name_axes(axes, "how sure the text-only answer was", "questions")
    key = [(0.04, "■", _KEPT, "right answers"), (0.53, "■", _LUCK, "what luck explains of them")]
    if threshold is not None:
        key += [(0.27, "■", _DROPPED, "those that are dropped")]
        dropped = axes.stairs(targets, edges, fill=True, color=_DROPPED)
        dropped.set_clip_path(
            Rectangle((threshold, 0), edges[-1] - threshold, axes.get_ylim()[1], transform=axes.transData)
        )
        axes.axvline(threshold, color=_INK, linewidth=1.2)
        side = "left" if threshold < (edges[0] + edges[-1]) / 2 else "right"
        beside: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": side, "size": 10}
        _write(axes, threshold, 1.03, "dropped from here on →", **beside)
    _write_key(figure, 0.9, *key)
    return _save(figure)


def draw_error(report: dict[str, Any]) -> bytes | None:
    """Draws the share of drops that are luck against how many are dropped, with the rule in force marked.

    Args:
        report (`dict`): a curation report, as in `report.json`.

    Returns:
        `bytes`, *optional*: a PNG picture; `None` when the rule was not calibrated or no answer was right.
    """
    calibration = report["calibration"]
    if calibration is None or not calibration["curve"]:
        return None
    alpha, num_drops, error = calibration["alpha"], report["num_text_answerable"], calibration["estimated_error"]
    drops = [point["num_drops"] for point in calibration["curve"]]
    errors = [point["estimated_error"] for point in calibration["curve"]]
    num_right = report["single_shot"]["num_drops"]
    share_lucky = report["single_shot"]["expected_lucky_drops"] / num_right
    # The first cuts drop a handful of questions at a large estimate; they may leave the picture at the top.
    top = max(2 * alpha, errors[-1], share_lucky)

    figure, axes = _open_figure(height_inches=3.3, bounds=(0.09, 0.17, 0.87, 0.66))
    axes.set(xlim=(0, num_right * 1.03), ylim=(0, top * 1.1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _mark_percent(axes.yaxis)
    _name_axes(axes, "questions dropped", "of which luck")
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.plot(drops, errors, color=_SOFT, linewidth=2)
    axes.axhline(alpha, color=_DROPPED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    at_right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom", "size": 10}
    _write(axes, 1, alpha + top * 0.02, f"at most {_percent(alpha)}", color=_SOFT, **at_right)
    axes.plot(num_right, share_lucky, "o", color=_SOFT, markersize=9, clip_on=False)
    key = [(0.5, "●", _SOFT, f"every right answer: {num_right:,}, luck {_percent(share_lucky)}")]
    if calibration["threshold"] is None:
        key.append((0.04, "○", _DROPPED, "nothing is dropped: luck is never so rare"))
    else:
        axes.plot(num_drops, error, "o", color=_DROPPED, markersize=9, clip_on=False)
        key.append((0.04, "●", _DROPPED, f"dropped here: {num_drops:,}, luck {_percent(error, 1)}"))
    _write_key(figure, 0.9, *key)
    return _save(figure)


def _open_figure(height_inches: float, bounds: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Makes an empty card with one quiet pair of axes at `(left, bottom, width, height)`, in shares of the card."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), dpi=_DOTS_PER_INCH, facecolor=_CARD)
    axes = figure.add_axes(bounds, facecolor=_CARD)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=_SOFT, labelfontfamily=_FONT)
    return figure, axes


def _write(on: Figure | Axes, x: float, y: float, text: str, *, color: str = _INK, **properties: Any) -> None:
    """Writes plain text; a dollar sign in it is a dollar sign, not mathematics."""
    on.text(x, y, text, color=color, family=_FONT, parse_math=False, **properties)


def _name_axes(axes: Axes, x_name: str, y_name: str) -> None:
    axes.set_xlabel(x_name, color=_SOFT, fontsize=10, family=_FONT)
    axes.set_ylabel(y_name, color=_SOFT, fontsize=10, family=_FONT)


def _write_key(figure: Figure, y: float, *entries: tuple[float, str, str, str]) -> None:
    """Writes `(x, marker, colour, meaning)` entries on one line; the words are grey, to be easy to read."""
    for x, marker, color, meaning in entries:
        _write(figure, x, y, marker, color=color, size=11)
        _write(figure, x + 0.02, y, meaning, color=_SOFT, size=10)


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _mark_percent(axis: Axis) -> None:
    axis.set_major_formatter(lambda value, _: _percent(value))


def _fit_font(text: str, max_characters: int) -> str:
    """A stranger's text as the font can draw it: what it lacks becomes a box, what is long loses its middle."""
    half = max_characters // 2
    cut = text if len(text) <= max_characters else f"{text[:half]}…{text[1 - half :]}"
    known = _list_characters()
    return "".join(char if char.isprintable() and ord(char) in known else "□" for char in cut)


@cache
def _list_characters() -> frozenset[int]:
    path = font_manager.findfont(_FONT, fallback_to_default=False)
    return frozenset(font_manager.get_font(path).get_charmap())


def _save(figure: Figure) -> bytes:
    """Writes a PNG without date or program name."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
