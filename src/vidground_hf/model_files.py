"""Which weights the folder of a model holds, and why a model cannot be had from the Hub.

Nothing is loaded or downloaded here.
"""

from __future__ import annotations

from pathlib import Path

import xxhash
from huggingface_hub import errors

_BYTES_PER_READ = 1 << 24
# The files of a model folder that determine what it answers; READMEs and training logs do not.
_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "config.json", "params.json"),
    *("generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "tekken.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model"),
    *("*.tiktoken", "*.jinja", "chat_template.json", "preprocessor_config.json", "video_preprocessor_config.json"),
)


class ModelError(RuntimeError):
    """A model cannot be had; the message says why and what to do."""


def hash_folder(folder: Path) -> str:
    """A hash (`str`, 32 hexadecimal digits) of the weights, configuration and tokenizer in a folder.

    Args:
        folder (`Path`): as `save_pretrained` wrote it.

    Raises:
        `OSError`: when a file cannot be read.

    Example:
        >>> hash_folder(Path("a/folder/without/files"))
        '99aa06d3014798d86001c324468d497f'
    """
    digest = xxhash.xxh3_128()
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(_BYTES_PER_READ):
                digest.update(part)
    return digest.hexdigest()


def explain_failure(model: str, revision: str | None, error: Exception) -> str:
    """What the Hub or a loader raised, as one line (`str`) that says what to do.

    Args:
        model (`str`): a Hub id, or what was taken for one.
        revision (`str`, *optional*): of it.
        error (`Exception`): as it was raised; what it was raised from counts as well.

    Example:
        >>> explain_failure("a/b", None, OSError("two\\nlines"))
        "'a/b' cannot be loaded: two lines"
    """

    def is_any(*kinds: type[Exception]) -> bool:
        return isinstance(error, kinds) or isinstance(error.__cause__, kinds)

    name = repr(model) if revision is None else f"{model!r} at {revision!r}"
    if is_any(errors.GatedRepoError):
        return f"{name} is gated; accept its terms at https://huggingface.co/{model} and run `hf auth login`"
    if is_any(errors.RepositoryNotFoundError, errors.HFValidationError):
        return (
            f"{name} is no folder here and no model on the Hub that you may read; check the name, or `hf auth login`"
        )
    if is_any(errors.RevisionNotFoundError):
        return f"{name} is a revision that the Hub does not have; pass a branch, a tag or a commit of the model"
    if is_any(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        return f"{name} is not in the local cache, and the Hub cannot be reached; go online once, or pass a folder"
    return f"{name} cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}"
