"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from object_tracking import ObjectTracking

EXAMPLE = {
    "predictions": "[[[0, 0, 10, 10], [5, 0, 10, 10], [9, 5, 10, 10]]]",
    "references": "[[[0, 0, 10, 10], [5, 0, 10, 10], [9, 0, 10, 10]]]",
}


def compute_scores(predictions: str, references: str, mode: str) -> dict[str, Any]:
    """Computes the metric from JSON text and the way to count."""
    try:
        return ObjectTracking(keep_in_memory=True).compute(
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
            EXAMPLE["predictions"], lines=4, label="Predicted boxes per video and frame: left, top, width, height"
        ),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Annotated boxes per video and frame"),
        gradio.Radio(["strict", "official"], value="strict", label="Count"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Object tracking",
    description="How well boxes follow one object through a video.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
