"""Finds a language model on the Hub or on disk, says which revision it is, and loads it.

Safetensors only, no code from repositories; asking it is `transformers_lm.py`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

_BYTES_PER_READ = 1 << 24
# The files of a model folder that determine what it answers; READMEs and training logs do not.
_PATTERNS = ("*.safetensors", "*.jinja", "*.model", "*.tiktoken", "chat_template.json", "config.json")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "generation_config.json", "processor_config.json", "model.safetensors.index.json"),
)


class ModelError(RuntimeError):
    """A model cannot be had; the message says why and what to do."""


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


def check_installed() -> None:
    """Says what to install where torch or transformers is missing."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ModelError("a local model needs torch and transformers; pip install 'vidground-hf[models]'") from error
    del torch, transformers


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


def find_revision(model: str, revision: str | None) -> str:
    """The commit of a Hub id, or a hash of what determines a folder's answers.

    Raises:
        `ModelError`: when there is no such model, or it cannot be reached.
        `ValueError`: for a revision of a folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(load_config(model, revision)._commit_hash)
    if revision is not None:
        raise ValueError(f"{revision = } was given for the folder {model!r}; only a Hub id has revisions")
    digest = xxhash.xxh3_128()
    files = {path for pattern in _PATTERNS for path in folder.glob(pattern)}
    files |= {folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()}
    for path in sorted(files):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(_BYTES_PER_READ):
                digest.update(part)
    return digest.hexdigest()


def load_config(model: str, revision: str | None) -> Any:
    """Reads a model's configuration, and nothing else of it."""
    check_installed()
    from transformers import AutoConfig

    with _explain(model, revision):
        return AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)


def load_model(model: str, revision: str | None, device: str, dtype: str) -> LoadedModel:
    """Loads weights, tokenizer and chat template.

    Raises:
        `ModelError`: when there is no such model, it cannot be reached, it has no safetensors, or it writes no text.
    """
    config = load_config(model, revision)
    loader = _find_loader(model, config)
    settings = {"revision": revision, "trust_remote_code": False}
    from transformers import AutoTokenizer, GenerationConfig

    with be_quiet(), _explain(model, revision):
        tokenizer = AutoTokenizer.from_pretrained(model, **settings)
        loaded = loader.from_pretrained(model, **settings, dtype=dtype, use_safetensors=True).to(device).eval()
    # What a repository advises for chatting (sampling, penalties) must not change an answer behind `sampling`'s back.
    eos = loaded.generation_config.eos_token_id if loaded.generation_config is not None else None
    loaded.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id if eos is None else eos)
    text_config = config.get_text_config()
    return LoadedModel(
        model=loaded,
        tokenizer=tokenizer,
        template=tokenizer.chat_template or _find_processor_template(model, settings, text_config is not config),
        max_length=getattr(text_config, "max_position_embeddings", None),
        arguments=frozenset(inspect.signature(loaded.forward).parameters),
    )


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


def _find_processor_template(model: str, settings: dict[str, Any], is_multimodal: bool) -> str | None:
    """The chat template that a VLM keeps with its processor only."""
    if not is_multimodal:
        return None
    from transformers import AutoProcessor

    with be_quiet(), _explain(model, settings["revision"]):
        return getattr(AutoProcessor.from_pretrained(model, **settings), "chat_template", None)


@contextmanager
def be_quiet() -> Iterator[None]:
    """Keeps transformers' notes and bars off stderr; bars of downloads stay."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    verbosity, had_bars, had_downloads = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
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


@contextmanager
def _explain(model: str, revision: str | None) -> Iterator[None]:
    """Turns what the Hub and transformers raise into one line that says what to do."""
    from huggingface_hub import errors

    name = repr(model) if revision is None else f"{model!r} at {revision!r}"
    try:
        yield
    except (OSError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.GatedRepoError):
            reason = f"is gated; accept its terms at https://huggingface.co/{model} and run `hf auth login`"
        elif isinstance(cause, (errors.RepositoryNotFoundError, errors.HFValidationError)):
            reason = "is no folder here and no model on the Hub that you may read; check the name, or `hf auth login`"
        elif isinstance(cause, errors.RevisionNotFoundError):
            reason = "is a revision that the Hub does not have; pass a branch, a tag or a commit of the model"
        elif isinstance(cause, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
            reason = "is not in the local cache, and the Hub cannot be reached; go online once, or pass a folder"
        else:
            reason = f"cannot be loaded: {' '.join(str(error).split())}"
        raise ModelError(f"{name} {reason}") from error
