"""Finds a model on the Hub or in a folder, says which revision it is, and explains why one cannot be had.

Weights are not read here; see `transformers_loading.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidground_hf.model_files import ModelError, explain_failure, hash_folder


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
    return hash_folder(folder)


def load_config(model: str, revision: str | None) -> Any:
    """Reads a model's configuration, and nothing else of it."""
    check_installed()
    from transformers import AutoConfig

    with report_failure(model, revision):
        return AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)


@contextmanager
def report_failure(model: str, revision: str | None) -> Iterator[None]:
    """Turns what the Hub and transformers raise into one line that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(explain_failure(model, revision, error)) from error
