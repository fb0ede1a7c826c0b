"""Which weights a name stands for, as part of an answerer's id.

No weights are loaded or downloaded here.
"""

from __future__ import annotations

from pathlib import Path

import xxhash
from huggingface_hub import hf_hub_download

_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")  # what answers depend on
_BYTES_PER_READ = 2**24


def find_revision(model: str, revision: str | None) -> str:
    """The commit of a Hub id, also offline where it was downloaded before, or a hash of a folder's files.

    Args:
        model (`str`): a Hub id, or a folder that `save_pretrained` wrote.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Raises:
        `OSError`: when there is no such model, or the Hub cannot be reached.
    """
    if not Path(model).is_dir():
        try:
            return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name
        except (OSError, ValueError) as error:
            name = repr(model) if revision is None else f"{model!r} at {revision!r}"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(
                f"{name} is no folder here, and the Hub did not say which model it is ({reason}); check the name and "
                "the connection, or run `hf auth login`"
            ) from error
    digest = xxhash.xxh3_128()
    for path in sorted({path for pattern in _FILES for path in Path(model).glob(pattern)}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(_BYTES_PER_READ):
                digest.update(part)
    return digest.hexdigest()
