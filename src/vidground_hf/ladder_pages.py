"""A ladder's report for readers: the table of the terminal, one figure, one HTML page, and the card of its splits.

Computes no figure and writes no file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vidground_hf.drawing import (
    CARD,
    LUCK,
    SOFT,
    UNDECIDED,
    fit_font,
    mark_percent,
    open_figure,
    save_figure,
    write,
    write_key,
)
from vidground_hf.pages import describe_metadata, list_splits
from vidground_hf.rendering import format_percent, render_html_page, render_markdown

MAX_GROUPS = 20  # our guess at what is read at a glance, as in figures.py
# Warm where text is enough, cold where pixels are needed, and darker with the evidence.
_COLORS = {
    "options": "#a3480c",
    "text": "#d8741c",
    "subtitles": "#f0b27a",
    "one_frame": "#a9cfe8",
    "unordered_frames": "#5fa3d6",
    "video": "#1f5f94",
    "unanswered": LUCK,
    "undecided": UNDECIDED,
}
MEANINGS = {
    "options": "answered from the options alone",
    "text": "answered from question and options",
    "subtitles": "answered with the subtitles",
    "one_frame": "answered with one frame",
    "unordered_frames": "answered with frames in a random order",
    "video": "answered with frames in their order",
    "unanswered": "asked through every view it has, and answered through none",
    "undecided": "could not be judged",
}


def count_parts(group: Mapping[str, Any]) -> dict[str, int]:
    """The labels of a group and how many rows have each, those that could not be judged last."""
    return {**group["needs"], "undecided": group["num_undecided"]}


def list_category_groups(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The categories of a set with two or more, largest first."""
    groups = report["groups"]["category"]
    return sorted(groups.items(), key=lambda item: -item[1]["num_rows"]) if len(groups) > 1 else []


def format_ladder(report: Mapping[str, Any]) -> str:
    """The report in plain text, for the terminal."""
    lines = [
        f"{report['num_rows']:,} questions, asked of {report['answerer']}, "
        f"rule {report['rule']}, alpha {report['alpha']:g}",
        "",
        f"  {'needs':18} {'rows':>8} {'share':>8}",
    ]
    lines += [
        f"  {need:18} {count:>8,} {format_percent(count / report['num_rows']):>8}"
        for need, count in count_parts(report).items()
    ]
    lines += [f"    {reason:16} {count:>8,}" for reason, count in report["reasons"].items()]
    groups = list_category_groups(report)
    if groups:
        head = "".join(f" {_SHORT[need]:>9}" for need in _COLORS)
        lines += ["", f"  {'category':16} {'rows':>6}{head}"]
        lines += [
            f"  {name[:16]:16} {group['num_rows']:>6,}"
            + "".join(f" {format_percent(count / group['num_rows']):>9}" for count in count_parts(group).values())
            for name, group in groups[:MAX_GROUPS]
        ]
        if len(groups) > MAX_GROUPS:
            lines.append(f"  {len(groups) - MAX_GROUPS} smaller categories are left out")
    lines += ["", f"  {'asked through':16} {'rows':>7} {'answered':>9} {'skipped':>8} {'answers':>8} {'saved':>8}"]
    lines += [
        f"  {rung['view']:16} {rung['num_rows']:>7,} {rung['num_answered']:>9,} {rung['num_skipped']:>8,} "
        f"{rung['num_answers']:>8,} {rung['num_saved']:>8,}{_note_luck(rung)}"
        for rung in report["rungs"]
    ]
    return "\n".join(lines + _format_checks(report))


def _note_luck(rung: Mapping[str, Any]) -> str:
    """Why `calibrated` let a view answer nothing."""
    if rung["threshold"] is not None or rung["smallest_error"] is None:
        return ""
    return f"   luck is never under {format_percent(min(rung['smallest_error'], 1.0))}"


_SHORT = {"unordered_frames": "unordered", "unanswered": "none"} | {
    need: need for need in _COLORS if need not in ("unordered_frames", "unanswered")
}


def _format_checks(report: Mapping[str, Any]) -> list[str]:
    lines = []
    wrong, kept, planted = (report[name] for name in ("wrong_video", "kept_blind", "planted"))
    if wrong is not None:
        lines += ["", f"  {wrong['num_rows']:,} questions with a clip, one answer each"]
        lines += [
            f"    {name:26} {_bracket(wrong[view])}"
            for view, name in (("video", "the right clip"), ("wrong_video", "another row's clip"), ("text", "no clip"))
        ]
        lines.append(f"    {'chance':26} {format_percent(wrong['chance'])}")
    if kept is not None:
        lines += ["", f"  {kept['num_rows']:,} kept questions, asked blind once more"]
        lines += [
            f"    {'right':26} {_bracket(kept['accuracy'])}",
            f"    {'chance':26} {format_percent(kept['chance'])}",
        ]
        if kept["num_without_order"]:
            lines.append(f"    {kept['num_without_order']:,} more have no order of the options left to ask")
    if planted is not None and planted["num_answered"]:
        lines += ["", f"  against what was planted: {format_percent(planted['recovered'])} of "
                  f"{planted['num_answered']:,} answered questions have the right label, "
                  f"{format_percent(planted['too_little'])} one below it"]  # fmt: skip
    return lines


def _bracket(estimate: Mapping[str, Any]) -> str:
    text = format_percent(estimate["value"])
    if estimate["low"] is not None:
        text += f"  [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"
    return text + (f"   {estimate['num_unscored']:,} left out" if estimate["num_unscored"] else "")


def draw_needs(report: Mapping[str, Any]) -> bytes:
    """Draws the shares of the labels as one bar for the whole set and one for each category.

    Args:
        report (`dict`): of a ladder.

    Returns:
        `bytes`: a PNG picture; the same report gives the same bytes.
    """
    groups = list_category_groups(report)
    rows = [("all questions", report), *groups[:MAX_GROUPS]]
    height_inches = 1.5 + 0.32 * len(rows)
    figure, axes = open_figure(height_inches, bounds=(0.22, 0.55 / height_inches, 0.66, 1 - 1.4 / height_inches))
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks([])
    mark_percent(axes.xaxis)
    for y, (name, group) in enumerate(rows):
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
        weight = "bold" if y == 0 else "normal"
        write(axes, -0.02, y, fit_font(name, 20), ha="right", size=10, weight=weight, **beside)
        write(axes, 1.14, y, f"{group['num_rows']:,}", ha="right", color=SOFT, size=10, **beside)
        left = 0.0
        for need, count in count_parts(group).items():
            share = count / group["num_rows"]
            axes.barh(y, share, left=left, height=0.72, color=_COLORS[need], edgecolor=CARD, linewidth=0.8)
            left += share
    for place, (need, color) in enumerate(_COLORS.items()):
        height = 1 - (0.32 + 0.27 * (place // 4)) / height_inches
        write_key(figure, height, (0.04 + 0.21 * (place % 4), "■", color, need.replace("_", " ")))
    write(figure, 0.978, 1 - 0.32 / height_inches, "questions", ha="right", color=SOFT, size=10)
    if len(groups) > MAX_GROUPS:
        left_out = f"{len(groups) - MAX_GROUPS} smaller categories left out"
        write(figure, 0.04, 0.12 / height_inches, left_out, color=SOFT, size=9)
    return save_figure(figure)


def render_ladder_html(report: Mapping[str, Any], picture: bytes) -> str:
    """Writes the report as one HTML page that loads nothing and runs no script.

    Args:
        report (`dict`): of a ladder.
        picture (`bytes`): what `draw_needs` gave.

    Returns:
        `str`: the page.
    """
    uri = "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
    return render_html_page("ladder.html.j2", _describe(report) | {"picture": Markup(uri)})


def render_ladder_card(report: Mapping[str, Any], **described: Any) -> str:
    """Writes the `README.md` of a set split by need, or of its report.

    Args:
        report (`dict`): of a ladder.
        described: `dataset_info`, as `pages.describe_metadata` takes it.

    Returns:
        `str`: front matter that `load_dataset` reads, and a Markdown body.
    """
    metadata = describe_metadata(report, described.get("dataset_info")).to_yaml()
    return f"---\n{metadata}\n---\n\n{render_markdown('ladder_card.md.j2', _describe(report))}"


def _describe(report: Mapping[str, Any]) -> dict[str, Any]:
    groups = list_category_groups(report)
    num_rows, parts = report["num_rows"], count_parts(report)
    return {
        "report": report,
        "name": report["source"]["id"] or "unnamed dataset",
        "needs": [(need, count, count / num_rows, MEANINGS[need]) for need, count in parts.items()],
        "groups": [(name, part["num_rows"], list(count_parts(part).values())) for name, part in groups[:MAX_GROUPS]],
        "num_left_out": max(0, len(groups) - MAX_GROUPS),
        "splits": [(Markup(name), report[f"num_{name}"], meaning) for name, meaning in list_splits(report).items()],
        "rule": _RULES[report["rule"]],
        "settings": {
            "Model": report["answerer"],
            "Rule": f"{report['rule']}, alpha {report['alpha']:g}",
            "Views": ", ".join(report["views"]),
            "Frames": ", ".join(f"{name} {value}" for name, value in report["budget"].items() if value is not None),
            "Decoder": report["decoder"] or "none asked",
            "Single frames tried": str(report["num_tries"]),
            "Seed": str(report["seed"]),
        },
    }


_RULES = {
    "calibrated": "A view answers a question when the model is right and at least as sure as a threshold, found for "
    "each view by the wrong answers that are as sure: at most the share alpha of what a view answers is expected to "
    "be luck.",
    "circular": "A view answers a question when the model is right under every order of the options. Who guesses "
    "afresh under each is right every time in at most alpha over the number of views; a model that sticks to a wrong "
    "belief is not bounded.",
}
