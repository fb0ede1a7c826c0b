"""Finds a model on the Hub or in a folder, says which revision it is, and explains why one cannot be had.

Weights are not read here; see `transformers_loading.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
from huggingface_hub import errors

_BYTES_PER_READ = 1 << 24
# The files of a model folder that determine what it answers; READMEs and training logs do not.
_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "*.model", "*.tiktoken", "*.jinja", "chat_template.json"),
)


class ModelError(RuntimeError):
    """A model cannot be had; the message says why and what to do."""


def check_installed() -> None:
    """Says what to install where torch or transformers is missing."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ModelError("a local model needs torch and transformers; pip install 'vidground-hf[models]'") from error
    del torch, transformers


def find_revision(model: str, revision: str | None) -> str:
    """The commit of a Hub id, or a hash of what determines a folder's answers.

    Raises:
        `ModelError`: when there is no such model, or it cannot be reached.
        `ValueError`: for a revision of a folder.
    """
    folder = Path(model)
    if not folder.is_dir():
        commit: str | None = load_config(model, revision)._commit_hash
        if commit is None:
            raise ModelError(f"{model!r} comes without a commit, so its answers could not be kept; pass a folder")
        return commit
    if revision is not None:
        raise ValueError(f"{revision = } was given for the folder {model!r}; only a Hub id has revisions")
    digest = xxhash.xxh3_128()
    for path in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(_BYTES_PER_READ):
                digest.update(part)
    return digest.hexdigest()


def load_config(model: str, revision: str | None) -> Any:
    """Reads a model's configuration, and nothing else of it."""
    check_installed()
    from transformers import AutoConfig

    with explain_failure(model, revision):
        return AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)


@contextmanager
def explain_failure(model: str, revision: str | None) -> Iterator[None]:
    """Turns what the Hub and transformers raise into one line that says what to do."""
    from safetensors import SafetensorError

    name = repr(model) if revision is None else f"{model!r} at {revision!r}"
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
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
