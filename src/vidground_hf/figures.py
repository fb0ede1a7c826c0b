"""The figures of a curation report, drawn from its numbers.

Computes no statistic: what is not in the report is not drawn.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from vidground_hf.drawing import (
    CARD,
    DROPPED,
    INK,
    KEPT,
    LINE,
    LUCK,
    SOFT,
    UNDECIDED,
    fit_font,
    format_share,
    mark_percent,
    name_axes,
    open_figure,
    save_figure,
    write,
    write_key,
)
from vidground_hf.wording import GROUPINGS

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
    figure, axes = open_figure(height_inches=1.75, bounds=(0.04, 0.56, 0.92, 0.26))
    axes.axis("off")
    axes.set(xlim=(0, num_rows), ylim=(-0.5, 0.5))
    parts = (
        (report["num_grounded"], "kept", KEPT),
        (report["num_text_answerable"], "text alone answers", DROPPED),
        (report["num_undecided"], "undecided", UNDECIDED),
    )
    left = 0
    for column, (count, name, color) in enumerate(parts):
        axes.barh(0, count, left=left, height=1, color=color, edgecolor=CARD, linewidth=1.5)
        left += count
        x = 0.04 + 0.36 * column
        write(figure, x, 0.32, f"{count:,}", size=15, weight="bold")
        write_key(figure, 0.13, (x, "■", color, f"{name}, {format_share(count / num_rows, 1)}"))
    return save_figure(figure)


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
    figure, axes = open_figure(height_inches, bounds=(0.27, 0.55 / height_inches, 0.57, 1 - 1.1 / height_inches))
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks([])
    mark_percent(axes.xaxis)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    for y, (name, group) in enumerate(rows):
        _draw_group_row(axes, y, name, group)
    key = (
        (0.04, "●", DROPPED, "right without the video"),
        (0.31, "|", SOFT, "chance"),
        (0.41, "□", SOFT, "best fixed position"),
        (0.63, "◇", SOFT, "longest option"),
    )
    write_key(figure, 1 - 0.32 / height_inches, *key)
    write(figure, 0.978, 1 - 0.32 / height_inches, "questions", ha="right", color=SOFT, size=10)
    if left_out:
        names = fit_font(f"{len(left_out)} smaller groups left out: {', '.join(left_out)}", max_characters=110)
        write(figure, 0.04, 0.12 / height_inches, names, color=SOFT, size=9)
    return save_figure(figure)


def _draw_group_row(axes: Axes, y: int, name: str, group: dict[str, Any] | None) -> None:
    """Draws one line of the group figure: a heading, or a name, its markers and its numbers."""
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    if group is None:
        write(axes, -0.4, y + 0.12, name, color=SOFT, size=9, **beside)
        return
    weight = "bold" if y == 0 else "normal"
    write(axes, -0.02, y, fit_font(name, _MAX_LABEL_CHARACTERS), ha="right", size=10, weight=weight, **beside)
    accuracy, floors = group["blind_accuracy"], group["floors"]
    marks = ((group["chance"], "|"), (floors["constant_option"], "s"), (floors["longest_option"], "D"))
    for value, marker in marks:
        if value is not None:
            size = 15 if marker == "|" else 5.5
            axes.plot(value, y, marker, color=SOFT, markersize=size, markerfacecolor=CARD, markeredgewidth=1.5)
    if accuracy["low"] is not None and accuracy["high"] is not None:
        axes.plot([accuracy["low"], accuracy["high"]], [y, y], color=DROPPED, linewidth=2.5)
    axes.plot(accuracy["value"], y, "o", color=DROPPED, markersize=8)
    write(axes, 1.09, y, format_share(accuracy["value"]), ha="right", size=10, weight=weight, **beside)
    write(axes, 1.24, y, f"{group['num_rows']:,}", ha="right", color=SOFT, size=10, **beside)


def draw_confidence(report: dict[str, Any]) -> bytes | None:
    """Draws how sure the right answers were, and how many of them luck explains; `None` without a distribution."""
    distribution = report["distribution"]
    if distribution is None:
        return None
    edges, targets, decoys = distribution["edges"], distribution["targets"], distribution["decoys"]
    threshold = distribution["threshold"]
    figure, axes = open_figure(height_inches=3.3, bounds=(0.09, 0.17, 0.87, 0.62))
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(1, *targets, *decoys) * 1.12))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.stairs(targets, edges, fill=True, color=KEPT)
    axes.stairs(decoys, edges, fill=True, color=LUCK, zorder=2)
    name_axes(axes, "how sure the text-only answer was", "questions")
    key = [(0.04, "■", KEPT, "right answers"), (0.53, "■", LUCK, "what luck explains of them")]
    if threshold is not None:
        key += [(0.27, "■", DROPPED, "those that are dropped")]
        dropped = axes.stairs(targets, edges, fill=True, color=DROPPED)
        dropped.set_clip_path(
            Rectangle((threshold, 0), edges[-1] - threshold, axes.get_ylim()[1], transform=axes.transData)
        )
        axes.axvline(threshold, color=INK, linewidth=1.2)
        side = "left" if threshold < (edges[0] + edges[-1]) / 2 else "right"
        beside: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": side, "size": 10}
        write(axes, threshold, 1.03, "dropped from here on →", **beside)
    write_key(figure, 0.9, *key)
    return save_figure(figure)


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

    figure, axes = open_figure(height_inches=3.3, bounds=(0.09, 0.17, 0.87, 0.66))
    axes.set(xlim=(0, num_right * 1.03), ylim=(0, top * 1.1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    mark_percent(axes.yaxis)
    name_axes(axes, "questions dropped", "of which luck")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.plot(drops, errors, color=SOFT, linewidth=2)
    axes.axhline(alpha, color=DROPPED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    at_right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom", "size": 10}
    write(axes, 1, alpha + top * 0.02, f"at most {format_share(alpha)}", color=SOFT, **at_right)
    axes.plot(num_right, share_lucky, "o", color=SOFT, markersize=9, clip_on=False)
    key = [(0.5, "●", SOFT, f"every right answer: {num_right:,}, luck {format_share(share_lucky)}")]
    if calibration["threshold"] is None:
        key.append((0.04, "○", DROPPED, "nothing is dropped: luck is never so rare"))
    else:
        axes.plot(num_drops, error, "o", color=DROPPED, markersize=9, clip_on=False)
        key.append((0.04, "●", DROPPED, f"dropped here: {num_drops:,}, luck {format_share(error, 1)}"))
    write_key(figure, 0.9, *key)
    return save_figure(figure)
