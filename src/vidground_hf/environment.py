"""What a bug report needs to know about a machine: versions, devices, decoders and settings of the Hub.

Tells nothing secret: no token, and no folder or address that names somebody.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from huggingface_hub import constants, is_offline_mode

from vidground_hf.fits import find_cache_dir
from vidground_hf.video_backends import BACKENDS, explain_backend

BASE_PACKAGES = (
    "vidground-hf",
    "datasets",
    "huggingface_hub",
    "evaluate",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
)
OPTIONAL_PACKAGES = (
    "av",
    "torch",
    "torchvision",
    "torchcodec",
    "decord",
    "transformers",
    "accelerate",
    "trl",
    "peft",
    "vllm",
    "ray",
)


def read_version(package: str) -> str | None:
    """The installed version of a package, or `None`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_environment() -> dict[str, str | None]:
    """Versions of Python and of every package that changes a result, and what else decides how they behave.

    Returns:
        `dict[str, str | None]`: names and values; `None` where something is not installed.

    Example:
        >>> "python" in describe_environment()
        True
    """
    described: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    described |= {package: read_version(package) for package in BASE_PACKAGES + OPTIONAL_PACKAGES}
    described |= {f"video by {backend}": describe_backend(backend) for backend in BACKENDS}
    described |= {
        "CUDA": describe_cuda(),
        "ffmpeg": _find_ffmpeg(),
        "HF_ENDPOINT": re.sub(r"//[^/@]*@", "//", constants.ENDPOINT),
        "offline": "yes" if is_offline_mode() else "no",
        "HF_HOME": hide_home(Path(constants.HF_HOME)),
        "cache": hide_home(find_cache_dir()),
    }
    return described


def describe_backend(backend: str) -> str | None:
    """Whether a video decoder really loads; `None` where it is not installed.

    Args:
        backend (`str`): one of `video.BACKENDS`.
    """
    if read_version({"pyav": "av"}.get(backend, backend)) is None:
        return None
    cause = explain_backend(backend)
    return "loads" if cause is None else f"does not load: {cause.replace(str(Path.home()), '~')}"


def describe_cuda() -> str | None:
    """The devices that torch sees; `None` without torch, which is imported for this where it is installed."""
    if read_version("torch") is None:
        return None
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of its own is missing or broken
        return f"torch cannot be imported: {type(error).__name__}"
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        return f"no device; torch is built {built}"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}, {', '.join(names)}"


def hide_home(path: Path) -> str:
    """A path as text, with the user's home as `~` and the user's name elsewhere as `USER`.

    Example:
        >>> hide_home(Path.home() / ".cache")
        '~/.cache'
    """
    home = Path.home()
    if path.is_relative_to(home):
        return str("~" / path.relative_to(home))
    return os.sep.join("USER" if part == home.name else part for part in str(path).split(os.sep))


def _find_ffmpeg() -> str | None:
    """The version of the ffmpeg command, whose libraries torchcodec loads."""
    command = shutil.which("ffmpeg")
    if command is None:
        return None
    done = subprocess.run([command, "-version"], capture_output=True, text=True, check=False, timeout=10)
    found = re.match(r"ffmpeg version (\S+)", done.stdout)
    return found[1] if found else "installed, version unknown"
