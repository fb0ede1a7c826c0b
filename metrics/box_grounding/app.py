"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from box_grounding import BoxGrounding

EXAMPLE = {
    "predictions": "[[0, 0, 4, 4], [1, 1, 3, 3], []]",
    "references": "[[0, 0, 4, 2], [1, 1, 3, 3], [1, 1, 2, 2]]",
}


def compute_scores(predictions: str, references: str) -> dict[str, Any]:
    """Computes the metric from JSON text."""
    try:
        return BoxGrounding(keep_in_memory=True).compute(
            predictions=json.loads(predictions),
            references=json.loads(references),
        )
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=[
        gradio.Textbox(EXAMPLE["predictions"], lines=4, label="Predicted boxes: left, top, right, bottom"),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Annotated boxes"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Box grounding",
    description="How often the box that a model draws for an expression matches the annotated one.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
