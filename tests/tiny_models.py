"""Tiny language models with random weights and a tokenizer trained on the spot, saved for `from_pretrained`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.questions import make_rows

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As some processors have it: only a list of parts is shown.
PARTS_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,  # wide, so that logits differ enough for mistakes to show
}


def train_tokenizer(
    chat_template: str | None,
    vocab_size: int = 400,
    *,
    control: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> Any:
    """A byte-level tokenizer that has learnt the words of `questions.py`, and " A" to " E" as one token each.

    Some processors look for control tokens by the names that the tokenizer gives them.
    """
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = ["Question: Answer with the letter of one option.\nAnswer: A B C D E\n"] * 200
    texts += [f"{row['question']} {' '.join(row['options'])}" for row in make_rows(200)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_CONTROL, *control],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|image_pad|>", "<|video_pad|>", *control],
        chat_template=chat_template,
        extra_special_tokens=dict(named or {}),
    )
    fast.add_tokens(["<think>", "</think>"])  # added, but not special, as reasoning models have them
    return fast


def save_llama(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, seed: int = 0, **sizes: Any) -> Path:
    """A causal language model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(chat_template)
    settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, **SIZES, **sizes}
    config = LlamaConfig(**settings, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    return _save(folder, LlamaForCausalLM, config, tokenizer, seed)


def save_qwen_vl(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, seed: int = 0) -> Path:
    """A vision-language model whose tokens have three positions."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = train_tokenizer(chat_template)
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        **SIZES,
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    pads = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **pads)
    return _save(folder, Qwen2_5_VLForConditionalGeneration, config, tokenizer, seed)


def save_mistral(folder: Path, *, sliding_window: int, seed: int = 0) -> Path:
    """A causal language model that attends to the last few tokens only."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = train_tokenizer(CHAT_TEMPLATE)
    settings = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "sliding_window": sliding_window,
        **SIZES,
    }
    config = MistralConfig(**settings, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    return _save(folder, MistralForCausalLM, config, tokenizer, seed)


def _save(folder: Path, model_class: Any, config: Any, tokenizer: Any, seed: int) -> Path:
    import torch
    from transformers.utils import logging

    torch.manual_seed(seed)
    logging.disable_progress_bar()
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
