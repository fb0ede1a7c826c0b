"""Toy clips with a row of every task, for tests of batches, training and evaluation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vidground_hf.media import FrameBudget
from vidground_hf.task_preference.collating import TaskPreferenceCollator
from vidground_hf.task_preference.modeling import TaskPreferenceModel
from vidground_hf.task_preference.row_objects import read_masks
from vidground_hf.task_preference.task_rows import TaskRow, read_rows
from vidground_hf.toy import make_toy_set

BUDGET = FrameBudget(num_frames=4)
_HEADS: dict[str, Any] = {
    "moment_head": {"width": 16, "num_layers": 1, "num_queries": 4, "num_heads": 2},
    "box_head": {"width": 16},
    "mask_head": {"width": 16, "upsampling": 2},
}


@cache
def _make_clips() -> tuple[Path, list[dict[str, Any]], TemporaryDirectory[str]]:
    holder = TemporaryDirectory()
    folder = Path(holder.name)
    make_toy_set(folder, num_questions=2, num_clips=2)
    lines = (folder / "labels" / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    return folder, [json.loads(line) for line in lines], holder


def make_task_rows() -> list[TaskRow]:
    """Of two clips of 4 s: moment, box, masks, dialogue, temporal reasoning each; and dialogue without a clip."""
    folder, clips, _ = _make_clips()
    rows: list[TaskRow] = []
    for clip in clips:
        video, name, still = str(folder / clip["video"]), clip["id"], clip["objects"][0]
        size = {"width_px": clip["width_px"], "height_px": clip["height_px"]}
        span = tuple(clip["events"][-1]["span_seconds"])
        box = tuple(next(box for box in still["boxes"] if box))
        asked: dict[str, Any] = {"question": "the still one", "video": video}
        masks = {"id": f"{name} mask", "masks": still["masks"], "frame_rate": clip["fps"], "width": clip["width_px"]}
        rows += [
            TaskRow(id=f"{name} moment", task="moment", spans=(span,), duration_seconds=4.0, **asked),
            TaskRow(id=f"{name} box", task="box", box=box, **size, **asked),
            *read_rows([masks | asked | {"height": clip["height_px"]}], read_masks).rows,
            TaskRow(id=f"{name} talk", task="dialogue", options=("red", "blue"), answer="blue", **asked),
            TaskRow(id=f"{name} why", task="moment", options=("red", "blue"), answer="red", spans=(span,), **asked),
        ]
    return [*rows, TaskRow(id="hello", task="dialogue", question="Hello?", answer="Hi there.")]


def make_model(family: str, **settings: Any) -> tuple[Any, Any]:
    """A tiny model with small heads, the same at every call, and its processor."""
    import torch

    from tests.task_preference_models import load_vlm

    torch.manual_seed(0)
    vlm, processor = load_vlm(family)
    return TaskPreferenceModel.from_vlm(vlm, processor, **_HEADS, **settings), processor


def make_collator(processor: Any, **settings: Any) -> TaskPreferenceCollator:
    """Shows four frames."""
    return TaskPreferenceCollator(processor, budget=BUDGET, **settings)
