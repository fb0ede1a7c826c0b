"""A page that computes the metric from pasted JSON; nothing is computed here."""

from __future__ import annotations

import json
from typing import Any

import gradio
from video_segmentation import VideoSegmentation

EXAMPLE = {
    "predictions": '[[{"size": [1, 2], "counts": [0, 2]}, {"size": [1, 2], "counts": [0, 1, 1]}]]',
    "references": '[[{"size": [1, 2], "counts": [0, 2]}, {"size": [1, 2], "counts": [0, 2]}]]',
}


def read_masks(text: str) -> list[list[str]]:
    """Brings the encodings into the form of the metric. Paths are not accepted: this page may run on a server."""
    rows = json.loads(text)
    if any(not isinstance(mask, dict | None) for row in rows for mask in row):
        raise ValueError('Got a mask that is no COCO encoding; allowed are {"size", "counts"} and null.')
    return [["" if mask is None else json.dumps(mask) for mask in row] for row in rows]


def compute_scores(predictions: str, references: str) -> dict[str, Any]:
    """Computes the metric from JSON text."""
    try:
        return VideoSegmentation(keep_in_memory=True).compute(
            predictions=read_masks(predictions),
            references=read_masks(references),
        )
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error)) from error


demo = gradio.Interface(
    fn=compute_scores,
    inputs=[
        gradio.Textbox(
            EXAMPLE["predictions"],
            lines=4,
            label="Predicted masks per object and frame: COCO encodings, or null where the object is not found",
        ),
        gradio.Textbox(EXAMPLE["references"], lines=4, label="Annotated masks per object and frame"),
    ],
    outputs=gradio.JSON(label="Result"),
    title="Video segmentation",
    description="How well masks follow an object through a video. Masks are COCO run-length encodings here.",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
