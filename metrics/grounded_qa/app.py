"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from grounded_qa import GroundedQA

EXAMPLE = {
    "predictions": '["B", "A", "C"]',
    "references": '["B", "C", "C"]',
    "windows": "[[2, 4], [0, 9], [20, 30]]",
    "reference_windows": "[[[1, 6]], [[0, 9]], [[3, 5]]]",
}


def compute_scores(
    predictions: str, references: str, windows: str, reference_windows: str, mode: str
) -> dict[str, Any]:
    """Computes the metric from JSON text and the way to count."""
    try:
        return GroundedQA(keep_in_memory=True).compute(
            predictions=json.loads(predictions),
            references=json.loads(references),
            windows=json.loads(windows),
            reference_windows=json.loads(reference_windows),
            mode=mode,
        )
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=[
        gradio.Textbox(EXAMPLE["predictions"], lines=4, label="Predicted answers"),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Right answers"),
        gradio.Textbox(EXAMPLE["windows"], lines=4, label="One predicted window [start, end] in seconds per question"),
        gradio.Textbox(EXAMPLE["reference_windows"], lines=4, label="Windows that show each answer"),
        gradio.Radio(["strict", "official"], value="strict", label="Count"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Grounded question answering",
    description="How often a model answers right and points to the part of the video that shows why.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
