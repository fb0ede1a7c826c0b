"""A page that computes the metric from a pasted table; nothing is computed here."""

from __future__ import annotations

import csv
import io
from typing import Any

import gradio
from blind_visual_gap import BlindVisualGap

EXAMPLE = """reference,visual,blind,num_options,group,video
A,A,A,4,colour,clip-1
B,B,C,4,colour,clip-1
C,C,A,4,order,clip-2
D,A,D,4,order,clip-3
"""


def compute_scores(table: str) -> dict[str, Any]:
    """Computes the metric from csv text with the columns `reference, visual, blind` and any of the others."""
    rows = list(csv.DictReader(io.StringIO(table.strip())))
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    missing = [name for name in ("reference", "visual", "blind") if name not in columns]
    if missing:
        raise gradio.Error(f"no column {', '.join(missing)}; the first line names reference, visual and blind")
    try:
        return BlindVisualGap(keep_in_memory=True).compute(
            predictions=columns["visual"],
            blind_predictions=columns["blind"],
            references=columns["reference"],
            num_options=[int(cell) for cell in columns["num_options"]] if "num_options" in columns else None,
            groups=columns.get("group"),
            clusters=columns.get("video"),
        )
    except ValueError as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=gradio.Textbox(EXAMPLE, lines=8, label="One question a line, as csv"),
    outputs=gradio.JSON(label="Result"),
    title="Blind-visual gap",
    description="How much better a model answers with the video than without. `num_options`, `group` and `video` are "
    "optional columns.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
