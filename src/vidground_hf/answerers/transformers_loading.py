"""Loads a language model with its tokenizer and chat template: safetensors only, and no code of a repository.

Which revision it is says `transformers_hub.py`; asking it is `transformers_engine.py`'s.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidground_hf.answerers.transformers_hub import check_installed, load_config, report_failure
from vidground_hf.model_files import ModelError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its tokenizer, ready to answer.

    Attributes:
        model (`PreTrainedModel`): in eval mode, on its device.
        tokenizer (`PreTrainedTokenizerBase`): of the model, or of a VLM's processor.
        template (`str`, *optional*): the chat template.
        max_length (`int`, *optional*): the most tokens the model takes, if it says so.
        arguments (`frozenset[str]`): what the model's forward takes.
    """

    model: Any
    tokenizer: Any
    template: str | None
    max_length: int | None
    arguments: frozenset[str]


def find_device(device: str | None) -> str:
    """Checks a device; by default CUDA, else MPS, else the CPU."""
    check_installed()
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        return next(name for name, is_there in has.items() if is_there)
    if not has.get(device.partition(":")[0], False):
        there = ", ".join(name for name, is_there in has.items() if is_there)
        raise ValueError(f"{device = } is not there; this machine allows {there}")
    return device


def find_dtype(device: str) -> str:
    """The number format a device is fast and safe with."""
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "float16" if device.startswith("mps") else "float32"


def load_model(model: str, revision: str | None, device: str, dtype: str) -> LoadedModel:
    """Loads weights, tokenizer and chat template.

    Raises:
        `ModelError`: when there is no such model, it cannot be reached, it has no safetensors, or it writes no text.
    """
    config = load_config(model, revision)
    loader = _find_loader(model, config)
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    from transformers import AutoTokenizer, GenerationConfig

    with be_quiet(), report_failure(model, revision):
        tokenizer = AutoTokenizer.from_pretrained(model, **settings)
        loaded, found = loader.from_pretrained(
            model, **settings, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        loaded = loaded.to(device).eval()
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ModelError(
            f"{model!r} lacks {len(missing)} of its weights, the first is {missing[0]}; get its files again, or pass "
            "the model that they belong to"
        )
    # What a repository advises for chatting (sampling, penalties) must not change an answer behind `sampling`'s back.
    eos = loaded.generation_config.eos_token_id if loaded.generation_config is not None else None
    loaded.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id if eos is None else eos)
    text_config = config.get_text_config()
    template = None if text_config is config else _read_processor_template(model, revision)
    return LoadedModel(
        model=loaded,
        tokenizer=tokenizer,
        template=tokenizer.chat_template if template is None else template,
        max_length=getattr(text_config, "max_position_embeddings", None),
        arguments=frozenset(inspect.signature(loaded.forward).parameters),
    )


def load_processor(model: str, revision: str | None) -> Any:
    """Loads what turns videos into a model's input.

    Raises:
        `ModelError`: when the model takes no videos, or its processor cannot be had.
    """
    config = load_config(model, revision)
    if config.get_text_config() is config:
        raise ModelError(f"{model!r} reads text only; pass a vision-language model, or ask it with a blind view")
    from transformers import AutoProcessor

    with be_quiet(), report_failure(model, revision):
        processor = AutoProcessor.from_pretrained(model, revision=revision, trust_remote_code=False)
    if getattr(processor, "video_processor", None) is None or getattr(processor, "video_token", None) is None:
        raise ModelError(f"{model!r} has no processor of videos; pass a model that takes videos, or use a blind view")
    return processor


def describe_processor(model: str, revision: str | None, processor: Any) -> dict[str, Any]:
    """Which model is shown frames, and the settings of its processor that change what it sees, as JSON."""
    (architecture, *_) = load_config(model, revision).architectures
    video = processor.video_processor
    skipped = ("do_sample_frames", "fps", "num_frames", "min_frames", "max_frames", "return_metadata")
    settings = {key: value for key, value in video.to_dict().items() if value is not None and key not in skipped}
    return {"model": architecture, "processor": type(processor).__name__, **dict(sorted(settings.items()))}


def _find_loader(model: str, config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    names = set(config.architectures or [])
    if not config.is_encoder_decoder:
        if names & set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()):
            return AutoModelForImageTextToText
        if names & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
            return AutoModelForCausalLM
    raise ModelError(
        f"{model!r} is {', '.join(names) or 'of no named architecture'}, which does not continue a text; pass a "
        "causal language model or a vision-language model"
    )


def _read_processor_template(model: str, revision: str | None) -> str | None:
    """The chat template that older VLMs keep with their processor; their tokenizer may have a language model's."""
    from transformers.utils.hub import cached_file, has_file

    with be_quiet(), report_failure(model, revision):
        # A newer file is read by the tokenizer as well, and by the processor before the older one.
        is_there = [has_file(model, f"chat_template.{end}", revision=revision) for end in ("jinja", "json")]
        if is_there != [False, True]:
            return None
        path = Path(cached_file(model, "chat_template.json", revision=revision))
        template: str = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
        return template


@contextmanager
def be_quiet() -> Iterator[None]:
    """Keeps transformers' notes and bars off stderr; bars of downloads stay."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    had_downloads = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if had_downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
