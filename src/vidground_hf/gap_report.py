"""The blind-visual gap for readers: a table for the terminal, a figure, and one HTML page.

Computes no figure: what is not in the metric's result is not shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from vidground_hf.drawing import (
    CARD,
    DROPPED,
    INK,
    KEPT,
    LINE,
    SOFT,
    fit_font,
    mark_percent,
    open_figure,
    save_figure,
    write,
    write_key,
)
from vidground_hf.rendering import (
    MISSING,
    clean_text,
    format_count,
    format_interval,
    format_percent,
    format_slug,
    render_html_page,
)

# How many groups are shown, largest first, before the rest is only counted: our guess at what a reader still scans.
MAX_GROUPS = 20

Result = Mapping[str, Any]


class Fact(NamedTuple):
    """One line of the report: what it is called, what it means, and its value in words."""

    name: str
    meaning: str
    value: str


def format_gap(result: Result) -> str:
    """The gap in percentage points, with its interval; `–` when missing.

    Example:
        >>> format_gap({"gap": 0.2194, "gap_low": 0.1953, "gap_high": 0.2432})
        '+21.9 points (+19.5 to +24.3)'
    """
    if result["gap"] is None:
        return MISSING
    points = f"{100 * result['gap']:+.1f} points"
    if result["gap_low"] is None:
        return points
    return f"{points} ({100 * result['gap_low']:+.1f} to {100 * result['gap_high']:+.1f})"


def list_facts(result: Result) -> list[Fact]:
    """The figures of a result in reading order.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> print(list_facts(measure_gap(["A", "B"], ["A", "C"], ["A", "B"], num_options=4))[0].value)
        100.0 % (100.0 to 100.0)
    """

    def share(key: str) -> str:
        return format_interval({"value": result[key], "low": result[f"{key}_low"], "high": result[f"{key}_high"]})

    p_value = MISSING if result["p_value"] is None else f"{result['p_value']:.2g}"
    return [
        Fact("With the video", "right answers", share("visual_accuracy")),
        Fact("Without the video", "right answers of the same model to the same questions", share("blind_accuracy")),
        Fact("Gap", "the difference", format_gap(result)),
        Fact("p-value", "how likely so large a gap is if the video changes nothing", p_value),
        Fact("Right both times", "questions", format_count(result["both"])),
        Fact("Right only with the video", "questions", format_count(result["visual_only"])),
        Fact("Right only without", "questions", format_count(result["blind_only"])),
        Fact("Never right", "questions", format_count(result["neither"])),
        Fact("Chance", "what a uniform guess gets", format_percent(result["chance"])),
        Fact("With the video, above chance", "0 is guessing, 100 % perfect", share("visual_accuracy_above_chance")),
        Fact("Without the video, above chance", "the same", share("blind_accuracy_above_chance")),
        Fact("VG", "with the video, where the blind answer is wrong", share("vg_accuracy")),
        Fact("VG, luck taken out", "the same, guessed questions weighted", share("vg_accuracy_corrected")),
        Fact("TA", "with the video, where the blind answer is right", share("ta_accuracy")),
        Fact("TA, luck taken out", "above 100 % luck repeats itself with the video", share("ta_accuracy_corrected")),
        Fact("No answer with the video", "counts as wrong", format_count(result["num_visual_unanswered"])),
        Fact("No answer without the video", "counts as wrong", format_count(result["num_blind_unanswered"])),
        Fact("Not scored", "the reference cannot be scored", _list_reasons(result)),
    ]


def _list_reasons(result: Result) -> str:
    reasons = ", ".join(f"{format_slug(name)} {count:,}" for name, count in result["unscored_reasons"].items())
    return format_count(result["num_unscored"]) + (f" ({reasons})" if reasons else "")


def list_groups(result: Result) -> list[tuple[str, Result]]:
    """The largest groups, those with the largest gap first.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> result = measure_gap(["A", "B"], ["A", "C"], ["A", "B"], num_options=4, groups=["count", "order"])
        >>> [(name, group["gap"]) for name, group in list_groups(result)]
        [('order', 1.0), ('count', 0.0)]
    """
    largest = sorted(result["groups"].items(), key=lambda item: -item[1]["num_examples"])[:MAX_GROUPS]
    return sorted(largest, key=lambda item: 2 if item[1]["gap"] is None else -item[1]["gap"])


def format_gap_table(result: Result) -> str:
    """The result in plain text, for the terminal.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> print(format_gap_table(measure_gap(["A", "B"], ["A", "C"], ["A", "B"], num_options=4)).splitlines()[4])
          Gap                              +50.0 points (+0.0 to +100.0)
    """
    facts = list_facts(result)
    width = max(len(fact.name) for fact in facts)
    lines = [f"{result['num_examples']:,} questions, answered with and without the video", ""]
    lines += [f"  {fact.name:{width}}  {fact.value}" for fact in facts]
    groups = list_groups(result)
    if groups:
        lines += ["", f"  {'group':24} {'questions':>9} {'without':>9} {'with':>9}  gap"]
    lines += [
        f"  {clean_text(name)[:24]:24} {group['num_examples']:>9,} {format_percent(group['blind_accuracy']):>9} "
        f"{format_percent(group['visual_accuracy']):>9}  {format_gap(group)}"
        for name, group in groups
    ]
    if len(result["groups"]) > MAX_GROUPS:
        lines += [f"  and {len(result['groups']) - MAX_GROUPS} smaller groups"]
    return "\n".join(lines)


def draw_gap(result: Result) -> bytes:
    """Draws accuracy with and without the video, each with its interval, and the gap between them, for every group.

    Args:
        result (`dict`): what the metric `blind_visual_gap` returns.

    Returns:
        `bytes`: a PNG picture; the same result gives the same bytes.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> draw_gap(measure_gap(["A"], ["B"], ["A"], num_options=4))[1:4]
        b'PNG'
    """
    rows = [("all questions", result), *list_groups(result)]
    height_inches = 1.2 + 0.32 * len(rows)
    figure, axes = open_figure(height_inches, bounds=(0.25, 0.55 / height_inches, 0.5, 1 - 1.1 / height_inches))
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks([])
    mark_percent(axes.xaxis)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    for y, (name, group) in enumerate(rows):
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
        weight = "bold" if y == 0 else "normal"
        write(axes, -0.02, y, fit_font(name, 24), ha="right", size=10, weight=weight, **beside)
        write(axes, 1.46, y, f"{group['num_examples']:,}", ha="right", color=SOFT, size=10, **beside)
        if group["gap"] is None:
            write(axes, 0.5, y, "nothing could be scored", color=SOFT, size=9, ha="center", **beside)
            continue
        write(axes, 1.26, y, f"{100 * group['gap']:+.1f}", ha="right", size=10, weight=weight,
               **beside)  # fmt: skip
        if group["chance"] is not None:
            axes.plot(group["chance"], y, "|", color=SOFT, markersize=15, markeredgewidth=1.5)
        axes.plot(
            [group["blind_accuracy"], group["visual_accuracy"]],
            [y, y],
            color=LINE,
            linewidth=7,
            zorder=1,
            solid_capstyle="butt",
        )
        for key, color, offset in (("blind_accuracy", DROPPED, 0.16), ("visual_accuracy", KEPT, -0.16)):
            if group[f"{key}_low"] is not None:
                bounds = [group[f"{key}_low"], group[f"{key}_high"]]
                axes.plot(bounds, [y + offset] * 2, color=color, linewidth=2)
            axes.plot(group[key], y + offset, "o", color=color, markersize=7, markeredgecolor=CARD)
    top = 1 - 0.32 / height_inches
    write_key(figure, top, (0.04, "●", DROPPED, "without the video"), (0.27, "●", KEPT, "with the video"),
               (0.47, "|", SOFT, "chance"))  # fmt: skip
    write(figure, 0.88, top, "gap", ha="right", color=SOFT, size=10)
    write(figure, 0.98, top, "questions", ha="right", color=SOFT, size=10)
    if len(result["groups"]) > MAX_GROUPS:
        left_out = f"{len(result['groups']) - MAX_GROUPS} smaller groups are left out"
        write(figure, 0.04, 0.12 / height_inches, left_out, color=INK, size=9)
    return save_figure(figure)


def render_gap_page(result: Result, unmatched: Mapping[str, list[str]], sources: Mapping[str, str]) -> str:
    """Writes the result as one HTML page that loads nothing and runs no script.

    Args:
        result (`dict`): what the metric `blind_visual_gap` returns.
        unmatched (`Mapping[str, list[str]]`): ids that were not compared, by what they lack.
        sources (`Mapping[str, str]`): where the answers come from, as shown at the end.

    Returns:
        `str`: the page.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> page = render_gap_page(measure_gap(["A"], ["B"], ["A"], num_options=4), {}, {"With the video": "run.csv"})
        >>> "run.csv" in page
        True
    """
    return render_html_page(
        "gap.html.j2",
        {
            "result": result,
            "facts": list_facts(result),
            "picture": Markup("data:image/png;base64," + base64.b64encode(draw_gap(result)).decode("ascii")),
            "groups": [(name, group, format_gap(group)) for name, group in list_groups(result)],
            "gap": format_gap(result),
            "num_scored": result["num_examples"] - result["num_unscored"],
            "num_left_out": max(0, len(result["groups"]) - MAX_GROUPS),
            "unmatched": {name: ids for name, ids in unmatched.items() if ids},
            "sources": sources,
        },
    )
