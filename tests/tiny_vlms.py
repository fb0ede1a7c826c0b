"""Tiny vision-language models of five families with random weights and processors, saved for `from_pretrained`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_models import SIZES, train_tokenizer
from vidground_hf.media import FrameRequest
from vidground_hf.video import VideoFrames

QWEN_TEMPLATE = (
    "<|im_start|>system\nYou help.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>{% else %}\n{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VISION = ("<|vision_start|>", "<|vision_end|>")
_MAX_LENGTH = 2048


def save_qwen2_5_vl(
    folder: Path, seed: int = 0, *, max_pixels: int = 64 * 28 * 28, tokenizer: Any = None, **sizes: Any
) -> Path:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = tokenizer or train_tokenizer(QWEN_TEMPLATE, control=_VISION)
    text = _describe_text(tokenizer) | sizes
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half // 4, (half - half // 4) // 2, -(-(half - half // 4) // 2)]  # of time, height and width
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    vision: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 14}
    vision |= {"out_hidden_size": text["hidden_size"], "tokens_per_second": 2, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_find_pads(tokenizer))
    pixels = {"size": {"shortest_edge": 28 * 28, "longest_edge": max_pixels}}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=QWEN_TEMPLATE,
    )
    return _save(folder, Qwen2_5_VLForConditionalGeneration, config, processor, seed)


def save_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    tokenizer = train_tokenizer(QWEN_TEMPLATE, control=_VISION)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    text = _describe_text(tokenizer) | {"head_dim": 8, "rope_parameters": rope}
    vision: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 16}
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    vision |= {"initializer_range": 0.5}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_find_pads(tokenizer, _VISION))
    pixels = {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 32 * 32}}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, **pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(cap_pixels_per_frame=False, **pixels),
        chat_template=QWEN_TEMPLATE,
    )
    return _save(folder, Qwen3VLForConditionalGeneration, config, processor, seed)


def save_smolvlm(folder: Path, seed: int = 0) -> Path:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    control = ("<video>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = train_tokenizer(SMOL_TEMPLATE, control=control)
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision |= {"image_size": 32, "patch_size": 8, "initializer_range": 0.5}
    config = SmolVLMConfig(
        text_config=_describe_text(tokenizer) | {"model_type": "llama"},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    edges = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**edges),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(
            video_sampling={"max_frames": 8, "fps": 1, "video_size": {"longest_edge": 64}}, **edges
        ),
        image_seq_len=4,
        chat_template=SMOL_TEMPLATE,
    )
    return _save(folder, SmolVLMForConditionalGeneration, config, processor, seed)


def save_llava_onevision(folder: Path, seed: int = 0) -> Path:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

    tokenizer = train_tokenizer(LLAVA_TEMPLATE, control=("<image>", "<video>"))
    vision: dict[str, Any] = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
    }
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "vision_use_head": False}
    config = LlavaOnevisionConfig(
        text_config=_describe_text(tokenizer) | {"model_type": "qwen2"},
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32]],
    )
    size = {"size": {"height": 32, "width": 32}}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[32, 32]], **size),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )
    return _save(folder, LlavaOnevisionForConditionalGeneration, config, processor, seed)


def save_internvl(folder: Path, seed: int = 0) -> Path:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
    from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = train_tokenizer(INTERN_TEMPLATE, control=tuple(named.values()), named=named)
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision |= {"image_size": 32, "patch_size": 8, "initializer_range": 0.5}
    config = InternVLConfig(
        text_config=_describe_text(tokenizer) | {"model_type": "qwen2"},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    size = {"size": {"height": 32, "width": 32}}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**size),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**size),
        image_seq_length=4,
        chat_template=INTERN_TEMPLATE,
    )
    return _save(folder, InternVLForConditionalGeneration, config, processor, seed)


def make_word_tokenizer(pre_tokenizer: Any) -> Any:
    """A tokenizer that knows a few words, each as one token, and reads the others as unknown."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", *_VISION, "<unk>"]
    words = [*control, *"ABCDE", "Question", "Answer", "red", "blue", "where", "user", "assistant", ":", "?", "."]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=control[1:-1],
        chat_template=QWEN_TEMPLATE,
    )


FAMILIES: dict[str, Callable[..., Path]] = {
    "qwen2_5_vl": save_qwen2_5_vl,
    "qwen3_vl": save_qwen3_vl,
    "smolvlm": save_smolvlm,
    "llava_onevision": save_llava_onevision,
    "internvl": save_internvl,
}


def make_frames(request: FrameRequest, num_frames: int = 4, height: int = 56, width: int = 84) -> VideoFrames:
    """Frames that depend on the source only, a second and a half apart."""
    seed = list(request.source.encode())
    # Smooth, so that resizing keeps them apart.
    coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, 4, 6, 3), np.uint8)
    data = coarse.repeat(height // 4, axis=1).repeat(width // 6, axis=2)
    return VideoFrames(
        data=data,
        pts_seconds=np.arange(num_frames, dtype=np.float64) * 1.5,
        duration_seconds=np.full(num_frames, 1.5),
        indices=3 * np.arange(num_frames),
        backend="pyav",
        source=request.source,
        video_seconds=1.5 * num_frames,
        num_video_frames=3 * num_frames,
    )


def _describe_text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": _MAX_LENGTH,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        **SIZES,
    }


def _find_pads(tokenizer: Any, more: tuple[str, ...] = ()) -> dict[str, int]:
    names = ["<|image_pad|>", "<|video_pad|>", *more]
    keys = {name: name.strip("<|>").replace("_pad", "") + "_token_id" for name in names}
    return {key: tokenizer.convert_tokens_to_ids(name) for name, key in keys.items()}


def _save(folder: Path, model_class: Any, config: Any, processor: Any, seed: int) -> Path:
    import torch
    from transformers.utils import logging

    torch.manual_seed(seed)
    logging.disable_progress_bar()
    model_class(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
