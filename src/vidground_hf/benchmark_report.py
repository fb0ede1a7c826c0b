"""The files of a benchmark run: its table for readers and machines, one picture, and the answers.

Computes no figure: what is not in the table is not shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidground_hf.answerers.base import Answer
from vidground_hf.benchmark_asking import Outcome, Showing
from vidground_hf.drawing import (
    CARD,
    DROPPED,
    KEPT,
    LINE,
    SOFT,
    mark_percent,
    name_axes,
    open_figure,
    save_figure,
    write_key,
)
from vidground_hf.folders import write_whole
from vidground_hf.rendering import MISSING, clean_text, escape_markdown, format_count, format_interval, format_percent
from vidground_hf.schema import LETTERS, Example
from vidground_hf.trials import Trial

Row = Mapping[str, Any]

_COLUMNS = ("shown", "questions", "full", "VG", "TA", "blind", "gap", "left out", "frames", "prompt tokens", "seconds")


def write_benchmark(table: Mapping[str, Any], predictions: Mapping[str, Sequence[Row]], output: Path) -> Path:
    """Writes the folder of a run, whole or not at all.

    Args:
        table (`Mapping`): as `run_benchmark` makes it.
        predictions (`Mapping[str, Sequence[Mapping]]`): rows by the name of a showing.
        output (`Path`): the folder; an earlier run in it is replaced.

    Returns:
        `Path`: the folder.
    """
    with write_whole(output, marker="table.json") as partial:
        (partial / "predictions").mkdir()
        for name, rows in predictions.items():
            lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
            (partial / "predictions" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        picture = draw_accuracy(table)
        if picture is not None:
            (partial / "accuracy.png").write_bytes(picture)
        (partial / "README.md").write_text(render_readme(table, has_picture=picture is not None), encoding="utf-8")
        text = json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (partial / "table.json").write_text(text, encoding="utf-8")
    return output


def format_benchmark(table: Mapping[str, Any]) -> str:
    """The table in plain text, for the terminal."""
    cells = [list(_COLUMNS), *(_list_cells(row) for row in table["rows"])]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    lines = [_describe_run(table), ""]
    for line in cells:
        first = line[0].ljust(widths[0])
        lines.append(
            "  ".join([f"  {first}", *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        )
    lines += _format_groups(table)
    return "\n".join([*lines, "", *(f"  {clean_text(note)}" for note in table["notes"])]).rstrip()


def _describe_run(table: Mapping[str, Any]) -> str:
    named = table["benchmark"]["name"] if table["benchmark"] else table["source"]["id"] or "the questions"
    over = "categories" if table["benchmark"] and table["benchmark"]["average"] == "categories" else "questions"
    return f"{table['num_rows']:,} questions of {clean_text(named)}, answered by {clean_text(table['answerer'])}; " + (
        f"means over {over}, 95 % intervals by video"
    )


def _format_value(estimate: Row | None) -> str:
    return format_percent(estimate["value"]) if estimate else MISSING


def _list_cells(row: Row, format_share: Callable[[Any], str] = _format_value) -> list[str]:
    """The cells of `_COLUMNS`; `format_share` writes VG, TA and blind accuracy, with or without intervals."""
    costs = row["costs"]
    left_out = row["num_skipped"] + row["num_unanswered"] + row["num_unscored"]
    frames, seconds = costs["num_frames"]["mean"], costs["seconds"]["mean"]
    return [
        row["name"],
        format_count(row["num_averaged"]),
        format_interval(row["accuracy"]),
        format_share(row["vg_accuracy"]),
        format_share(row["ta_accuracy"]),
        format_share(row["blind_accuracy"]),
        _format_points(row["gap"]),
        format_count(left_out),
        MISSING if frames is None else f"{frames:.1f}",
        format_count(costs["num_prompt_tokens"]["mean"]),
        MISSING if seconds is None else f"{seconds:.2f}",
    ]


def _format_points(gap: Row | None) -> str:
    if gap is None or gap["value"] is None:
        return MISSING
    points = f"{100 * gap['value']:+.1f}"
    return points if gap["low"] is None else f"{points} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"


def _list_groups(table: Mapping[str, Any]) -> Iterable[tuple[str, list[str]]]:
    """Groupings with at least two groups."""
    for grouping, groups in (table["rows"][0]["groups"] if table["rows"] else {}).items():
        if len(groups) > 1:
            yield grouping, list(groups)


def _format_groups(table: Mapping[str, Any]) -> list[str]:
    lines = []
    for grouping, names in _list_groups(table):
        columns = [row["name"] for row in table["rows"]]
        widths = [max(8, len(name)) for name in columns]
        shown = "  ".join(name.rjust(width) for name, width in zip(columns, widths, strict=True))
        lines += ["", f"  {grouping.replace('_', ' '):28} {'questions':>9}  {shown}"]
        for name in names:
            parts = [row["groups"][grouping][name] for row in table["rows"]]
            values = (format_percent(part["accuracy"]["value"]) for part in parts)
            figures = "  ".join(value.rjust(width) for value, width in zip(values, widths, strict=True))
            lines.append(f"  {clean_text(name)[:28]:28} {parts[0]['num_rows']:>9,}  {figures}")
    return lines


def render_readme(table: Mapping[str, Any], *, has_picture: bool) -> str:
    """The table in Markdown, for the folder.

    Args:
        table (`Mapping`): as `run_benchmark` makes it.
        has_picture (`bool`): whether `accuracy.png` lies beside it.

    Returns:
        `str`: the page.
    """
    lines = [f"# {escape_markdown(table['answerer'])}", "", escape_markdown(_describe_run(table)) + ".", ""]
    lines += _draw_rows([list(_COLUMNS), *(_list_cells(row, format_interval) for row in table["rows"])])
    lines += ["", "![Accuracy by what was shown](accuracy.png)"] if has_picture else []
    for grouping, names in _list_groups(table):
        header = [grouping.replace("_", " "), "questions", *(row["name"] for row in table["rows"])]
        rows = []
        for name in names:
            parts = [row["groups"][grouping][name] for row in table["rows"]]
            values = [format_interval(part["accuracy"]) for part in parts]
            rows.append([escape_markdown(name), format_count(parts[0]["num_rows"]), *values])
        lines += ["", *_draw_rows([header, *rows])]
    lines += ["", *(f"- {escape_markdown(note)}" for note in table["notes"])]
    lines += [
        "",
        "`table.json` has every figure and setting, `predictions/` every answer. `vidground gap --blind FILE --visual "
        "FILE` compares two of these files; there a question without an answer counts as wrong, here it is left out.",
        "",
    ]
    return "\n".join(lines)


def _draw_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    drawn = ["| " + " | ".join(row) + " |" for row in rows]
    return [drawn[0], "|" + "---|" * len(rows[0]), *drawn[1:]]


def draw_accuracy(table: Mapping[str, Any]) -> bytes | None:
    """Draws accuracy on all questions and on the visually grounded ones for every showing with pixels.

    Args:
        table (`Mapping`): as `run_benchmark` makes it.

    Returns:
        `bytes`, *optional*: a PNG picture, the same for the same table; `None` when nothing was shown.
    """
    shown = [row for row in table["rows"] if row["budget"] is not None and row["accuracy"]["value"] is not None]
    if not shown:
        return None
    figure, axes = open_figure(height_inches=3.6, bounds=(0.09, 0.21, 0.87, 0.63))
    axes.set(xlim=(-0.5, len(shown) - 0.5), ylim=(0, 1))
    names = [row["name"].replace("_", " ").rsplit("-", 1) for row in shown]
    axes.set_xticks(range(len(shown)), ["\n".join(name) for name in names])
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    mark_percent(axes.yaxis)
    name_axes(axes, "view and frames shown", "right answers")
    for key, color, offset in (("accuracy", KEPT, -0.06), ("vg_accuracy", DROPPED, 0.06)):
        for view in dict.fromkeys(row["view"] for row in shown):
            points = [(x, row[key]) for x, row in enumerate(shown) if row["view"] == view and row[key] is not None]
            points = [(x, found) for x, found in points if found["value"] is not None]
            axes.plot([x + offset for x, _ in points], [found["value"] for _, found in points], "-o", color=color,
                      markersize=7, markeredgecolor=CARD, linewidth=1.5, clip_on=False)  # fmt: skip
            for x, found in points:
                if found["low"] is not None:
                    axes.plot([x + offset] * 2, [found["low"], found["high"]], color=color, linewidth=2)
    key_entries = [(0.04, "●", KEPT, "all questions"), (0.25, "●", DROPPED, "visually grounded")]
    blind = next((row["blind_accuracy"]["value"] for row in shown if row["blind_accuracy"] is not None), None)
    if blind is not None:
        axes.axhline(blind, color=SOFT, linewidth=1.5, linestyle=(0, (4, 3)))
        key_entries.append((0.5, "--", SOFT, f"without the video, {format_percent(blind)}"))
    if shown[0]["chance"] is not None:
        axes.axhline(shown[0]["chance"], color=SOFT, linewidth=1, linestyle=(0, (1, 2)))
        key_entries.append((0.8, "··", SOFT, "chance"))
    write_key(figure, 0.91, *key_entries)
    return save_figure(figure)


def name_rows(examples: Sequence[Example]) -> list[str]:
    """A name for every row that no other row has: its id, with a number where ids are repeated.

    Example:
        >>> name_rows([Example(id=k, question="?", problem_type="free_form") for k in ("a", "b", "a")])
        ['a', 'b', 'a (2)']
    """
    times: Counter[str] = Counter()
    names = []
    for index, example in enumerate(examples):
        own = example.id or f"row {index}"
        times[own] += 1
        names.append(own if times[own] == 1 else f"{own} ({times[own]})")
    return names


def list_predictions(
    examples: Sequence[Example], showings: Sequence[Showing], outcomes: Sequence[Sequence[Outcome]]
) -> dict[str, list[dict[str, Any]]]:
    """For each showing a row for every question that was asked, in a layout that `vidground gap` reads.

    Args:
        examples (`Sequence[Example]`): N rows.
        showings (`Sequence[Showing]`): S of them.
        outcomes (`Sequence[Sequence[Outcome]]`): S lists of N.

    Returns:
        `dict[str, list[dict]]`: by the name of the showing. `prediction` is what was scored: the letter of
        the likeliest option where an answer states probabilities, its `text` otherwise.
    """
    names = name_rows(examples)
    return {
        showing.name: [
            _list_prediction(example, name, showing, outcome.answer, outcome.trial)
            for example, name, outcome in zip(examples, names, row, strict=True)
            if outcome.answer is not None and outcome.trial is not None
        ]
        for showing, row in zip(showings, outcomes, strict=True)
    }


def _list_prediction(example: Example, name: str, showing: Showing, answer: Answer, trial: Trial) -> dict[str, Any]:
    budget = showing.budget
    is_likeliest = answer.option_logprobs is not None and trial.choice is not None
    return {
        "id": name,
        "view": showing.view,
        "num_frames_asked": None if budget is None else 1 if showing.view == "single_frame" else budget.num_frames,
        "num_frames": answer.num_frames,
        "num_visual_tokens": answer.num_visual_tokens,
        "num_prompt_tokens": answer.num_prompt_tokens,
        "num_answer_tokens": answer.num_answer_tokens,
        "prediction": LETTERS[trial.choice or 0] if is_likeliest else answer.text,
        "text": answer.text,
        "score": trial.score,
        "reference": example.answer,
        "options": list(example.options),
        "problem_type": example.problem_type,
        "category": example.category,
        "source": example.source,
        "video": example.video,
        "finish_reason": answer.finish_reason,
        "error": answer.error,
        "seconds": answer.seconds,
        "decoder": answer.decoder,
    }
