"""What a filter should gain if questions that text answers did nothing but fill places, for a finished curation lab.

    python examples/curation_lab_groups.py lab/full

Prints, of each base, the share of GRPO groups without advantage under each filter; and beside what runs gained over
those on all questions, what the latter's mean curve gains when it is read at 1/(1 - share of text questions) times the
step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from curation_lab import TEXT_SHARE, find_home, find_result, read_json, read_sets
from curation_lab_arms import choose_questions
from curation_lab_policy import GROUP_SIZE, Policy, draw_batches
from numpy.typing import NDArray
from scipy import stats

FILTERS = ("full", "single_shot", "calibrated", "planted")
NUM_BATCHES = 8  # of 64 questions
STEPS = (25, 50, 69)  # the last is where full, read so much further on, ends


@torch.no_grad()
def measure_idle_share(folder: Path, base: str, arm: str) -> float:
    """The mean chance that eight answers of the base model to a question are all right or all wrong."""
    sets, home = read_sets(folder), find_home(folder, base)
    ids = choose_questions(arm, sets.train, read_json(home / "kept.json"), 0)
    batches = draw_batches([[row for row in part if row["id"] in ids] for part in sets.train.rows], 0)
    policy = Policy(home / "model", sets.train, 0)
    found = []
    for _ in range(NUM_BATCHES):
        asked = policy.ask(next(batches), "video")
        right = asked.log_probs.exp().gather(1, asked.right[:, None])[:, 0].double()
        found.append(right**GROUP_SIZE + (1 - right) ** GROUP_SIZE)
    return float(torch.cat(found).mean())


def read_curves(folder: Path, base: str, arm: str) -> tuple[list[float], NDArray[np.float64]]:
    """Steps (`[M]`) and, of each seed, the accuracies on visual questions there in percent (`float[N, M]`)."""
    paths = sorted(find_result(folder, base, arm, 0).parent.glob(f"{arm}-*.json"))
    curves = [read_json(path)["curve"] for path in paths]
    return [mark["step"] for mark in curves[0]], 100 * np.array([[mark["vg_video"] for mark in one] for one in curves])


def expect_gain(steps: list[float], full: NDArray[np.float64], step: float) -> float:
    """How far full's mean curve rises between a step and the step that is as far with visual questions alone."""
    mean = full.mean(0)
    return float(np.interp(step / (1 - TEXT_SHARE), steps, mean) - np.interp(step, steps, mean))


def format_gain(steps: list[float], own: NDArray[np.float64], full: NDArray[np.float64], step: float) -> str:
    """The difference at a step with its 95 % interval, paired by seed."""
    found = np.array(
        [np.interp(step, steps, one) - np.interp(step, steps, other) for one, other in zip(own, full, strict=True)]
    )
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():+.1f} [{found.mean() - half:+.1f}, {found.mean() + half:+.1f}]"


def main(folder: Path) -> None:
    bases = sorted(path.parent.name.replace("_", " ") for path in folder.glob("*/kept.json"))
    print(f"{'groups without advantage':26}" + "".join(f"{arm:>14}" for arm in FILTERS))
    for base in bases:
        print(f"{base:26}" + "".join(f"{measure_idle_share(folder, base, arm):>14.0%}" for arm in FILTERS))
    print(f"\n{'gain over full':26}" + "".join(f"{f'step {step}':>22}" for step in STEPS))
    for base in (base for base in bases if base.startswith("cues")):
        steps, full = read_curves(folder, base, "full")
        print(f"{base + ', expected':26}" + "".join(f"{expect_gain(steps, full, step):>+22.1f}" for step in STEPS))
        for arm in ("planted", "calibrated"):
            own = read_curves(folder, base, arm)[1]
            print(f"{base + ', ' + arm:26}" + "".join(f"{format_gain(steps, own, full, step):>22}" for step in STEPS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
