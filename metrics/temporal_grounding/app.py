"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from temporal_grounding import TemporalGrounding

EXAMPLE = {
    "predictions": "[[[0, 10]], [[4, 6]], []]",
    "references": "[[[0, 8]], [[3, 5], [20, 30]], [[7, 9]]]",
}


def compute_scores(predictions: str, references: str, mode: str) -> dict[str, Any]:
    """Computes the metric from JSON text and the way to count."""
    try:
        return TemporalGrounding(keep_in_memory=True).compute(
            predictions=json.loads(predictions),
            references=json.loads(references),
            mode=mode,
        )
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=[
        gradio.Textbox(
            EXAMPLE["predictions"],
            lines=4,
            label="Predicted windows per query: [start, end] or [start, end, score] in seconds, best first",
        ),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Windows that answer each query"),
        gradio.Radio(["strict", "official"], value="strict", label="Count"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Temporal grounding",
    description="How well predicted time windows match the parts of a video that a query describes.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
