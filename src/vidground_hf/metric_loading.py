"""Loads a metric of this package by name, without a network.

The metrics themselves are in `metrics/`; what they compute is in `stats/`.
"""

from __future__ import annotations

from pathlib import Path

import evaluate

_PACKAGE = Path(__file__).resolve().parent
# The wheel carries the folder inside the package; a clone has it beside `src`.
_FOLDERS = (_PACKAGE / "metrics", _PACKAGE.parents[1] / "metrics")


def list_metrics() -> dict[str, Path]:
    """The metrics that come with the package: name to module file.

    Example:
        >>> list_metrics()["grounded_qa"].name
        'grounded_qa.py'
    """
    modules = (module for folder in _FOLDERS for module in sorted(folder.glob("*/*.py")))
    return {module.stem: module for module in modules if module.stem == module.parent.name}


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Loads a metric from the installed package.

    Args:
        name (`str`): the folder under `metrics/`, for example `"blind_visual_gap"`.

    Returns:
        `evaluate.EvaluationModule`: with `compute`, `add` and `add_batch`.

    Raises:
        `ValueError`: for a name that is not there; lists those that are.

    Example:
        >>> load_metric("blind_visual_gap").name
        'blind_visual_gap'
    """
    metrics = list_metrics()
    if name not in metrics:
        raise ValueError(f"no metric {name!r}; allowed are {', '.join(metrics)}")
    return evaluate.load(str(metrics[name].parent))
