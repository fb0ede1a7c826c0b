"""The small model of the task preference lab: Qwen2.5-VL's architecture, one token a cell, a word or a number.

It is not trained here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from task_preference_lab_world import CELL_PX, DIALOGUE, FPS, NUM_FRAMES, SIDE_PX, TURNS
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from toy_vlm_model import CHAT_TEMPLATE, CONTROL, make_model
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vidground_hf.task_preference.templates import HELD_OUT_TEMPLATES, TEMPLATES
from vidground_hf.toy_world import COLOURS, PLACES, SHAPES

WIDTH, NUM_LANGUAGE_LAYERS, NUM_VISION_LAYERS = 96, 4, 1
# Numbers whole, and the mark of seconds with its colon, so that what is written comes back as it was.
_PIECES = r"\d+\.\d+|s:|\w+|[^\w\s]"
_SIDES = {round(1000 * side / SIDE_PX) for side in range(SIDE_PX + 1)}  # as `answers="text"` writes sides


def make_lab_processor() -> Any:
    """A processor that knows the words of the lab, and has a token for each number in its labels."""
    splitter = Sequence([WhitespaceSplit(), Split(Regex(_PIECES), "isolated")])
    words = {word for text in _list_texts() for word, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: k for k, word in enumerate([*CONTROL, "<unk>", *sorted({*words, "user", "assistant"})])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(CONTROL[1:]),
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    pixels: dict[str, Any] = {
        "patch_size": CELL_PX,
        "temporal_patch_size": 1,
        "merge_size": 1,
        "size": {"shortest_edge": SIDE_PX**2, "longest_edge": 4 * SIDE_PX**2},
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
    }
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**pixels),
        fast,
        Qwen2VLVideoProcessor(**pixels, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


def _list_texts() -> Iterator[str]:
    for wordings in (*TEMPLATES.values(), *HELD_OUT_TEMPLATES.values(), *DIALOGUE.values()):
        yield from (wording.replace("{media}", "video").replace("{query}", "") for wording in wordings)
    yield " ".join([*COLOURS, *SHAPES, *PLACES, *TURNS])
    yield "[ ] , ; . : ? to seconds s: none"
    yield " ".join(f"{tenths / 10:.1f}" for tenths in range(10 * NUM_FRAMES // FPS + 1))
    yield " ".join(map(str, sorted(_SIDES)))


def make_lab_model(processor: Any) -> Any:
    """The toy model (`toy_vlm_model.make_model`) for patches of the lab's size."""
    config = make_model(
        processor.tokenizer,
        width=WIDTH,
        num_language_layers=NUM_LANGUAGE_LAYERS,
        num_vision_layers=NUM_VISION_LAYERS,
    ).config
    config.vision_config.patch_size = CELL_PX
    config.vision_config.window_size = 2 * SIDE_PX
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def save(folder: Path, model: Any, processor: Any) -> None:
    """Saves both, the configuration of the model last: a folder with `config.json` is whole."""
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
