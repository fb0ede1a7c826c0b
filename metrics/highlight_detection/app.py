"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from highlight_detection import HighlightDetection

EXAMPLE = {
    "predictions": "[[0.1, 0.9, 0.5]]",
    "references": "[[[0, 1, 0], [4, 4, 3], [2, 2, 4]]]",
}


def compute_scores(predictions: str, references: str, mode: str) -> dict[str, Any]:
    """Computes the metric from JSON text and the way to count."""
    try:
        return HighlightDetection(keep_in_memory=True).compute(
            predictions=json.loads(predictions),
            references=json.loads(references),
            mode=mode,
        )
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=[
        gradio.Textbox(EXAMPLE["predictions"], lines=4, label="One score per clip, for each query"),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Ratings of 0 to 4 per query, clip and annotator"),
        gradio.Radio(["strict", "official"], value="strict", label="Count"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Highlight detection",
    description="How well a model ranks the clips of a video by how worth watching they are for a query.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
