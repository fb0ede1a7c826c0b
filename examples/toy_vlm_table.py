"""What a saved model answers under each view of a toy set, by what its questions need: a table of accuracies.

The model and its processor are loaded and used as any other; nothing is trained here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toy_vlm_data import FPS, MAX_FRAMES, VIEWS, ToySet, find_letter_ids, make_example, show
from transformers import AutoModelForImageTextToText, AutoProcessor

from vidground_hf.orders import draw_orders
from vidground_hf.toy_questions import NEEDS

BATCH_SIZE = 32
Table = dict[str, dict[str, float | None]]


def measure(folder: Path, toy_set: ToySet, seed: int) -> tuple[Table, dict[str, int]]:
    """Asks every question once under each view, its options in one random rotation.

    Args:
        folder (`Path`): of the model.
        toy_set (`ToySet`): that it has not seen.
        seed (`int`): of rotations, shuffles and which other clip is the wrong one.

    Returns:
        `tuple[dict, dict]`: the accuracy for each need (and `"visual"`, all but text) and view, `None` where there are
        no questions, and how many questions each need has.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    clips, rows = zip(*((clip, row) for clip, rows in enumerate(toy_set.rows) for row in rows), strict=True)
    orders = [draw_orders(make_example(row), 1, seed)[0] for row in rows]
    gold = np.array(
        [[row["options"][k] for k in order].index(row["answer"]) for row, order in zip(rows, orders, strict=True)]
    )
    needs = np.array([row["needs"] for row in rows])
    chosen = {need: needs == need for need in NEEDS} | {"visual": needs != "text"}
    table: Table = {need: {} for need in chosen}
    rng = np.random.default_rng(seed)
    for view in VIEWS:
        texts = [
            show(row, order, with_question=view != "options_only") for row, order in zip(rows, orders, strict=True)
        ]
        videos = [pick_frames(toy_set.frames, clip, view, rng) for clip in clips]
        is_right = answer(model, processor, texts, videos) == gold
        for need, is_chosen in chosen.items():
            table[need][view] = float(is_right[is_chosen].mean()) if is_chosen.any() else None
    return table, {need: int(is_chosen.sum()) for need, is_chosen in chosen.items()}


def pick_frames(
    frames: NDArray[np.uint8], clip: int, view: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[int]] | None:
    """The frames of a clip that a view shows and their places in it; `None` for a blind view."""
    num_clips, num_frames = frames.shape[:2]
    places = list(range(num_frames))
    if view in ("options_only", "text"):
        return None
    if view == "wrong_video":
        clip = (clip + int(rng.integers(1, num_clips))) % num_clips
    if view == "shuffled_frames":
        return frames[clip][shuffled := rng.permutation(num_frames)], shuffled.tolist()
    if view == "single_frame":
        places = [num_frames // 2]
    return frames[clip][places], places


@torch.inference_mode()
def answer(
    model: Any, processor: Any, texts: list[str], videos: list[tuple[NDArray[np.uint8], list[int]] | None]
) -> NDArray[np.int64]:
    """The position of the option whose letter the model finds likeliest, for each prompt."""
    letters = find_letter_ids(processor)
    found = []
    for start in range(0, len(texts), BATCH_SIZE):
        shown = [video for video in videos[start : start + BATCH_SIZE] if video is not None]
        prompts = [
            processor.apply_chat_template(
                [
                    {
                        "role": "user",
                        "content": [*([{"type": "video"}] if shown else []), {"type": "text", "text": text}],
                    }
                ],
                tokenize=False,
                add_generation_prompt=True,
            )
            for text in texts[start : start + BATCH_SIZE]
        ]
        media: dict[str, Any] = {}
        if shown:
            media["videos"] = [frames for frames, _ in shown]
            media["video_metadata"] = [
                {"fps": FPS, "total_num_frames": MAX_FRAMES, "frames_indices": places} for _, places in shown
            ]
            media["do_sample_frames"] = False
        inputs = processor(text=prompts, padding=True, return_tensors="pt", **media)
        found.append(model(**inputs, logits_to_keep=1).logits[:, 0, letters].argmax(1).numpy())
    return np.concatenate(found)


def format_accuracies(table: Table, counts: dict[str, int]) -> str:
    """The table as text, a need a line."""
    lines = [" ".join(["needs".ljust(13), "questions", *(view.rjust(15) for view in VIEWS)])]
    for need, cells in table.items():
        values = [cells[view] for view in VIEWS]
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(" ".join([need.ljust(13), str(counts[need]).rjust(9), *(value.rjust(15) for value in shown)]))
    return "\n".join(lines)
