"""What a bug report needs to know about a machine: versions of what is installed. Nothing secret, nothing imported."""

from __future__ import annotations

import platform
from importlib import metadata

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
    """Versions of Python and of every package that changes a result; `None` where one is not installed.

    Example:
        >>> "python" in describe_environment()
        True
    """
    described: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    return described | {package: read_version(package) for package in BASE_PACKAGES + OPTIONAL_PACKAGES}
