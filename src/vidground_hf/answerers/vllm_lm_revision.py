"""Which weights a name stands for, as part of an answerer's id.

No weights are loaded or downloaded here.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from vidground_hf.model_files import ModelError, explain_failure, hash_folder


def find_revision(model: str, revision: str | None) -> str:
    """The commit of a Hub id, also offline where it was downloaded before, or a hash of a folder's files.

    Args:
        model (`str`): a Hub id, or a folder that `save_pretrained` wrote.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Raises:
        `ModelError`: when there is no such model, or the Hub cannot be reached.
    """
    if Path(model).is_dir():
        return hash_folder(Path(model))
    try:
        return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name
    except (OSError, ValueError) as error:
        raise ModelError(explain_failure(model, revision, error)) from error
