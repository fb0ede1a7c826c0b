"""Draws time and peak memory over rows of what `curate_at_scale.py` printed.

`python benchmarks/curate_at_scale_figure.py PICTURE RESULT.json [RESULT.json ...]`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PANELS = {"minutes": ("seconds", 60), "peak memory, GiB": ("peak_memory_mib", 1024)}


def draw(picture: Path, parts: list[dict[str, Any]]) -> None:
    """Draws a panel a measure, a line for each answerer and engine."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (title, (name, unit)) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for way in sorted({(part["answerer"], part["engine"]) for part in parts}):
            own = [part for part in parts if (part["answerer"], part["engine"]) == way]
            points = sorted((part["rows"] / 1000, part[name] / unit) for part in own)
            axes.plot(*zip(*points, strict=True), marker="o", label=" ".join(way))
        axes.set(title=title, xlabel="thousand rows", xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    results = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[2:]]
    draw(Path(sys.argv[1]), [part for result in results for part in result["runs"]])
