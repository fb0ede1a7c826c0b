"""What the runs of the curation lab came to: a table with intervals paired by seed, and a figure of the curves.

Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

COLUMNS = {
    "vg_video": "VG",
    "vg_text": "VG blind",
    "gap": "gap",
    "ta_video": "TA",
    "full_video": "Full",
    "moved_vg_video": "VG, cues lie",
}
PRIMARY = ("calibrated", "single_shot")
Runs = Mapping[str, Mapping[Any, Mapping[str, Any]]]  # by arm and seed


def compare(runs: Runs, arm: str, other: str, name: str, step: int | None = None) -> dict[str, Any]:
    """An arm's mean minus another's, in points, over the seeds that both have.

    Args:
        runs (`Mapping`): of one base.
        arm (`str`), other (`str`): arms.
        name (`str`): of what is compared, a key of `COLUMNS`.
        step (`int`, *optional*): at this mark of the curve, which has accuracies with the clip alone; by default at
            the end.

    Returns:
        `dict`: `difference`, `low` and `high` (95 %, Student's t; `None` below two seeds), `spread` (standard
        deviation of the differences), `num_seeds`.
    """
    seeds = sorted(set(runs.get(arm, {})) & set(runs.get(other, {})))
    found = np.array(
        [100 * (read(runs[arm][seed], name, step) - read(runs[other][seed], name, step)) for seed in seeds]
    )
    result = {"difference": float(found.mean()) if seeds else None, "low": None, "high": None, "spread": None}
    if len(seeds) > 1:
        spread = float(found.std(ddof=1))
        half = float(stats.t.ppf(0.975, len(seeds) - 1)) * spread / len(seeds) ** 0.5
        result |= {"low": found.mean() - half, "high": found.mean() + half, "spread": spread}
    return {**result, "num_seeds": len(seeds)}


def find_num_seeds(spread: float, difference: float, power: float = 0.8) -> int:
    """How many seeds show a difference with this power in a paired two-sided t-test at 5 %.

    Args:
        spread (`float`): standard deviation of the paired differences, above 0.
        difference (`float`): that shall be found, of the same unit.
        power (`float`, *optional*, defaults to 0.8): in (0, 1).
    """
    number = 2
    while True:
        limit = stats.t.ppf(0.975, number - 1)
        if stats.nct.sf(limit, number - 1, number**0.5 * difference / spread) >= power:
            return number
        number += 1


def read(run: Mapping[str, Any], name: str, step: int | None = None) -> float:
    """A figure of a run at its end or at a mark of its curve, in [0, 1]."""
    if step is not None:
        (found,) = (mark[name] for mark in run["curve"] if mark["step"] == step)
        return float(found)
    return float(run["vg_video"] - run["vg_text"] if name == "gap" else run[name])


def list_contrasts(runs: Runs) -> list[tuple[str, str]]:
    """Which arms are compared: the primary pair, then each arm with full and with random."""
    baselines = [arm for arm in ("full", "random") if arm in runs]
    others = [(arm, other) for other in baselines for arm in runs if arm not in baselines]
    return [PRIMARY, *zip(baselines[1:], baselines, strict=False), *others]


def format_base(runs: Runs) -> str:
    """The arms of one base, one a line (percent, mean and standard deviation over seeds), and their differences."""
    lines = [f"{'arm':12}{'seeds':>6}{'kept':>7}{'text left':>11}" + "".join(f"{c:>15}" for c in COLUMNS.values())]
    for arm, found in runs.items():
        cells = []
        for name in COLUMNS:
            values = 100 * np.array([read(run, name) for run in found.values()])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{f'{values.mean():.1f}{spread}':>15}")
        num_kept, num_left = (
            np.mean([run["kept"][name] for run in found.values()]) for name in ("num_kept", "num_text_left")
        )
        lines.append(f"{arm:12}{len(found):>6}{num_kept:>7,.0f}{num_left:>11,.0f}" + "".join(cells))
    lines += ["", "differences in points, paired by seed, 95 % intervals"]
    for arm, other in list_contrasts(runs):
        cells = [
            f"{COLUMNS[name]} {format_difference(compare(runs, arm, other, name))}" for name in ("vg_video", "gap")
        ]
        mark = "   <- primary" if (arm, other) == PRIMARY else ""
        lines.append(f"{arm + ' - ' + other:26}" + "   ".join(cells) + mark)
    steps = [mark["step"] for mark in next(iter(runs["full"].values()))["curve"]][1:]
    lines += ["", "VG on the way, in points, 95 % intervals"]
    for arm, other in (PRIMARY, *((arm, "full") for arm in runs if arm not in ("full", "random"))):
        cells = [f"step {step}: {format_difference(compare(runs, arm, other, 'vg_video', step))}" for step in steps]
        lines.append(f"{arm + ' - ' + other:26}" + "   ".join(cells))
    return "\n".join(lines)


def format_difference(found: Mapping[str, Any]) -> str:
    if found["difference"] is None:
        return "-"
    bounds = "" if found["low"] is None else f" [{found['low']:+.1f}, {found['high']:+.1f}]"
    return f"{found['difference']:+.1f}{bounds} (n = {found['num_seeds']})"


def draw_curves(path: Path, bases: Mapping[str, Runs]) -> None:
    """Draws the accuracy on visual questions over the steps, a panel a base; bands are the standard error."""
    num_columns = min(2, len(bases))
    num_rows = -(-len(bases) // num_columns)
    figure = Figure(figsize=(5.5 * num_columns, 4.2 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).flat
    colors = {
        arm: f"C{place}" for place, arm in enumerate(dict.fromkeys(arm for runs in bases.values() for arm in runs))
    }
    lines = {}
    for (base, runs), axes in zip(bases.items(), panels, strict=False):
        for arm, found in runs.items():
            steps, values = stack_curves([run["curve"] for run in found.values()])
            mean = values.mean(0)
            error = values.std(0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.zeros(len(steps))
            (lines[arm],) = axes.plot(steps, mean, color=colors[arm], marker="o", markersize=3)
            axes.fill_between(steps, mean - error, mean + error, alpha=0.12, color=colors[arm], linewidth=0)
        lines["chance"] = axes.axhline(25, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=base, xlabel="GRPO steps", ylabel="held-out visual questions right, %")
    for axes in panels:
        axes.set_axis_off()
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines), fontsize=8)
    figure.savefig(path, dpi=110)


def stack_curves(curves: Sequence[Sequence[Mapping[str, float]]]) -> tuple[list[float], NDArray[np.float64]]:
    """The steps (`[M]`) and, of each run, the accuracies at them in percent (`float[N, M]`)."""
    steps = [mark["step"] for mark in curves[0]]
    return steps, 100 * np.array([[mark["vg_video"] for mark in curve] for curve in curves])
