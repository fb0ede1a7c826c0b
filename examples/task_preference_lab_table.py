"""What the runs of the task preference lab came to: tables with intervals, and a figure of them.

Nothing is trained or asked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats
from task_preference_lab_scores import FIGURES

from vidground_hf.stats.intervals import bootstrap_mean

# By arm or baseline and seed: what `task_preference_lab_scores.score` gives.
Scores = Mapping[str, Mapping[int, Mapping[str, Any]]]
HEADS, TEXT, EQUAL_DIALOGUE, CONSTANT = "heads", "text", "dialogue, equal dialogue", "constant"
PRIMARY = (
    ("moment", HEADS, CONSTANT),
    ("moment", HEADS, TEXT),
    ("box", HEADS, TEXT),
    ("mask", HEADS, TEXT),
    ("dialogue", HEADS, EQUAL_DIALOGUE),
)
COLUMNS = {
    "R@0.5": ("moments", "r1@0.5"),
    "mIoU": ("moments", "miou"),
    "Acc@0.5": ("boxes", "acc@0.5"),
    "box mIoU": ("boxes", "miou"),
    "mask J": ("masks", "j_present"),
    "dialogue": ("dialogue", "accuracy"),
    "routing": ("routing", "accuracy"),
    "false trig.": ("routing", "false_triggers"),
}
NO_MODEL = ("constant", "words", "all objects", "its cell", "heads alone")  # nothing calls a head there


def compare(scores: Scores, task: str, name: str, other: str) -> dict[str, Any]:
    """The figure of one arm minus that of another or of a baseline, in points, over the seeds that both have.

    Args:
        scores (`Mapping`): of all.
        task (`str`): one of `FIGURES`.
        name (`str`), other (`str`): of the two.

    Returns:
        `dict`: `difference`, `low` and `high` (95 %; over seeds by Student's t, with one seed a bootstrap over clips),
        `interval` (`"seeds"` or `"clips"`), `num_seeds`. All `None` without a seed that both have.
    """
    seeds = sorted(set(scores.get(name, {})) & set(scores.get(other, {})))
    pairs = [(scores[name][seed]["values"][task], scores[other][seed]["values"][task]) for seed in seeds]
    rows = [[100 * (own[row] - against[row]) for row in own if row in against] for own, against in pairs]
    if not rows:
        return {"difference": None, "low": None, "high": None, "interval": None, "num_seeds": 0}
    if len(rows) == 1:
        clips = [row.split("-")[0] for row in pairs[0][0] if row in pairs[0][1]]
        found = bootstrap_mean(rows[0], clusters=clips, num_resamples=2000)
        low, high, kind = found.low, found.high, "clips"
    else:
        means = np.array([np.mean(own) for own in rows])
        half = float(stats.t.ppf(0.975, len(means) - 1)) * float(means.std(ddof=1)) / len(means) ** 0.5
        low, high, kind = means.mean() - half, means.mean() + half, "seeds"
    mean = float(np.mean([np.mean(own) for own in rows]))
    return {"difference": mean, "low": float(low), "high": float(high), "interval": kind, "num_seeds": len(rows)}


def list_contrasts(scores: Scores) -> Iterator[tuple[str, str, str]]:
    """Task, arm and what it is compared with: the primary ones, then *heads* with all else that answers the task."""
    yield from PRIMARY
    for task in FIGURES:
        for other, found in scores.items():
            has_task = any(task in one["values"] for one in found.values())
            if other != HEADS and has_task and (task, HEADS, other) not in PRIMARY:
                yield task, HEADS, other


def format_scores(scores: Scores) -> str:
    """One line for each arm and baseline: percent, mean and standard deviation over seeds."""
    lines = [f"{'':26}{'seeds':>6}" + "".join(f"{name:>14}" for name in COLUMNS)]
    for name, found in scores.items():
        cells = []
        for group, key in COLUMNS.values():
            has_none = name in NO_MODEL and group == "routing"
            values = [one["figures"].get(group, {}).get(key) for one in found.values()]
            known = 100 * np.array([value for value in values if value is not None and not has_none])
            spread = f" ± {known.std(ddof=1):.1f}" if len(known) > 1 else ""
            cells.append(f"{f'{known.mean():.1f}{spread}' if len(known) else '-':>14}")
        lines.append(f"{name:26}{len(found):>6}" + "".join(cells))
    return "\n".join(lines)


def format_kinds(scores: Scores) -> str:
    """Dialogue by kind of question, percent."""
    kinds = sorted({kind for found in scores.values() for one in found.values() for kind in one["by_kind"]})
    lines = [f"{'dialogue, by kind':32}" + "".join(f"{kind:>10}" for kind in kinds)]
    for name, found in scores.items():
        if all(one["by_kind"] for one in found.values()):
            values = ([one["by_kind"][kind] for one in found.values() if kind in one["by_kind"]] for kind in kinds)
            cells = (f"{100 * np.mean(own):.1f}" if own else "-" for own in values)  # few clips may lack a kind
            lines.append(f"{name:32}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def format_contrasts(contrasts: Sequence[Mapping[str, Any]]) -> str:
    """Differences in points with their intervals, the primary ones first."""
    lines = ["differences in points, 95 % intervals"]
    for place, one in enumerate(contrasts):
        if one["difference"] is None:
            continue
        bounds = f"{one['difference']:+6.1f} [{one['low']:+.1f}, {one['high']:+.1f}] over {one['interval']}"
        mark = "   <- primary" if place < len(PRIMARY) else ""
        lines.append(f"{one['task']:9}{one['arm']} - {one['other']:26}{bounds} (n = {one['num_seeds']}){mark}")
    return "\n".join(lines)


def format_probes(probes: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """What task states carry, percent, by stage and task: the means over seeds."""
    lines = ["read from the task states of held-out clips", f"{'':26}{'colour':>10}{'shape':>10}{'place':>10}"]
    for name, found in probes.items():
        for task in next(iter(found.values())):
            means = (
                100 * np.mean([one[task][trait] for one in found.values()]) for trait in ("colour", "shape", "place")
            )
            lines.append(f"{name + ', ' + task:26}" + "".join(f"{mean:>10.1f}" for mean in means))
    return "\n".join(lines)


def draw_scores(path: Path, scores: Scores) -> None:
    """Draws the figure of each task, a panel a task, a bar an arm or baseline; dots are seeds."""
    figure = Figure(figsize=(4 * len(FIGURES), 4), layout="constrained")
    for axes, (task, (group, key)) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        shown = {
            name: [100 * one["figures"][group][key] for one in found.values()]
            for name, found in scores.items()
            if all(one["figures"].get(group) for one in found.values())
        }
        places = np.arange(len(shown))
        colours = ["tab:grey" if name in (*NO_MODEL, "blind", "other clip") else "tab:blue" for name in shown]
        axes.barh(places, [np.mean(values) for values in shown.values()], color=colours, alpha=0.6)
        for place, values in zip(places, shown.values(), strict=True):
            axes.plot(values, [place] * len(values), "k.", markersize=4)
        axes.set_yticks(places, list(shown))
        axes.invert_yaxis()
        axes.set(title=f"{task}: {key}", xlim=(0, 100), xlabel="%")
    figure.savefig(path, dpi=100)
