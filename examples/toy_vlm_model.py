"""A small vision-language model of the Qwen2.5-VL architecture, its tokenizer and its processor, made from nothing.

It is not trained here. One patch is one frame's cell of a toy clip and one visual token, and black is zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vidground_hf.schema import LETTERS

PATCH_PX = 14
MIN_PIXELS, MAX_PIXELS = 56 * 56, 112 * 112  # a grid clip is left as it is
# All found by trying. Far below 100 words are not matched over a distance, far above it columns are told apart late:
# they are given the lower frequencies.
ROPE_BASE, ROPE_SECTIONS = 100.0, [2, 2, 8]
INITIALIZER_RANGE = 0.08  # much narrower, and a cue is not matched with its option for long
CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_processor(texts: Iterable[str]) -> Any:
    """A processor whose tokenizer has one token a word, letter or mark.

    Args:
        texts (`Iterable[str]`): all the words that it shall know; any other is read as `<unk>`.

    Returns:
        `Qwen2_5_VLProcessor`: with its chat template.
    """
    splitter = Whitespace()
    words = {word for text in [*texts, " ".join(LETTERS)] for word, _ in splitter.pre_tokenize_str(text)}
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
        "patch_size": PATCH_PX,
        "temporal_patch_size": 1,
        "merge_size": 1,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
    }
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**pixels),
        fast,
        Qwen2VLVideoProcessor(**pixels, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    tokenizer: Any, *, width: int = 96, num_language_layers: int = 7, num_vision_layers: int = 1
) -> Qwen2_5_VLForConditionalGeneration:
    """The model, with random weights; queries and keys begin equal, so that tokens alike attend to one another.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): of the processor.
        width (`int`, *optional*, defaults to 96): of both halves; a multiple of 96.
        num_language_layers (`int`, *optional*, defaults to 7), num_vision_layers (`int`, *optional*, defaults to 1).

    Returns:
        `Qwen2_5_VLForConditionalGeneration`.
    """
    num_heads = width // 24
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(list(CONTROL)), strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": num_language_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE, "mrope_section": ROPE_SECTIONS},
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": num_vision_layers,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": num_heads,
        "out_hidden_size": width,
        "patch_size": PATCH_PX,
        "temporal_patch_size": 1,
        "spatial_merge_size": 1,
        "window_size": 8 * PATCH_PX,
        "fullatt_block_indexes": [],
        "tokens_per_second": 4,
        "initializer_range": INITIALIZER_RANGE,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def save(folder: Path, model: Any, processor: Any) -> None:
    """Saves both, so that `AutoProcessor` and `AutoModelForImageTextToText` load them from the folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
