"""Trains small models with heads, with labels as text and on dialogue alone, and compares what they find and say.

    python examples/task_preference_lab.py --output lab             # about half an hour on two cores
    python examples/task_preference_lab.py --output lab --quick     # two minutes, to see that it runs; learns nothing
    python examples/task_preference_lab.py --output lab --full      # three seeds, all arms; hours

What is done is in the folder, and the same command goes on from there. The tables go to stdout and with every figure
into `result.json`, the bars into `scores.png`. `docs/task_preference_lab.md` has the design and what came out. Needs
`pip install "vidground-hf[models]"`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from task_preference_lab_arms import ARMS, STANDARD_ARMS, load_trained, train_stage
from task_preference_lab_baselines import list_baselines
from task_preference_lab_detector import score_heads, start_arm
from task_preference_lab_scores import ask, probe_states, score, swap_clips
from task_preference_lab_table import (
    compare,
    draw_scores,
    format_contrasts,
    format_kinds,
    format_probes,
    format_scores,
    list_contrasts,
)
from task_preference_lab_warmup import WarmUpSizes, warm_up
from task_preference_lab_world import make_rows, sample_rows, write_clips
from tqdm import tqdm
from transformers.utils import logging

from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.toy_world import Clip

TRAINING_SEED, HELD_OUT_SEED = 2000, 3000  # of clips; those of the warm-up are from 1000 on
HELD_OUT_COUNTS = {"moment": 2, "box": 2, "mask": 2, "dialogue": 4}  # rows of a clip


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSizes:
    """How much is tried.

    Attributes:
        arms (`tuple[str, ...]`): keys of `ARMS`.
        num_seeds (`int`): runs of each arm.
        warm_up (`WarmUpSizes`): of the bases.
        num_clips (`int`): of the arms.
        num_held_out_clips (`int`): with ten rows each.
        num_stage_steps (`tuple[int, int, int]`): of the stages.
        num_head_rows (`int`), num_head_steps (`int`): of the heads alone, before the stages; rows of each task.
        num_probe_rows (`int`): of each task, to fit what reads the task states; at most as many are read.
    """

    arms: tuple[str, ...]
    num_seeds: int
    warm_up: WarmUpSizes
    num_clips: int
    num_held_out_clips: int
    num_stage_steps: tuple[int, int, int]
    num_head_rows: int
    num_head_steps: int
    num_probe_rows: int


STANDARD = LabSizes(
    arms=STANDARD_ARMS,
    num_seeds=1,
    warm_up=WarmUpSizes(num_clips=400, num_looking_steps=60, num_frame_steps=300, num_clip_steps=250),
    num_clips=400,
    num_held_out_clips=100,
    num_stage_steps=(60, 300, 200),
    num_head_rows=1200,
    num_head_steps=1200,
    num_probe_rows=250,
)
QUICK = LabSizes(
    arms=tuple(name for name, arm in ARMS.items() if arm.steps_factor == 1),
    num_seeds=1,
    warm_up=WarmUpSizes(num_clips=4, num_looking_steps=1, num_frame_steps=1, num_clip_steps=1),
    num_clips=8,
    num_held_out_clips=3,
    num_stage_steps=(1, 1, 1),
    num_head_rows=12,
    num_head_steps=1,
    num_probe_rows=12,
)
FULL = LabSizes(
    arms=tuple(ARMS),
    num_seeds=3,
    warm_up=WarmUpSizes(num_clips=1000, num_looking_steps=100, num_frame_steps=600, num_clip_steps=1000),
    num_clips=1000,
    num_held_out_clips=200,
    num_stage_steps=(100, 500, 400),
    num_head_rows=1600,
    num_head_steps=1600,
    num_probe_rows=1000,
)


@dataclass(frozen=True, slots=True)
class LabSets:
    """Rows to learn from, rows to be measured on, and the clips of the latter by id."""

    train: list[TaskRow]
    held_out: list[TaskRow]
    clips: dict[str, Clip]


def main() -> None:
    arguments = parse_arguments()
    name = "quick" if arguments.quick else "full" if arguments.full else "standard"
    sizes = {"quick": QUICK, "standard": STANDARD, "full": FULL}[name]
    folder = arguments.output / name
    start = time.perf_counter()
    torch.set_num_threads(1)
    make_sets(folder, sizes)
    with torch.multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for turn, jobs in plan(folder, sizes).items():
            # A base alone has all threads: everything waits for it.
            num_threads = max(1, arguments.processes // len(jobs)) if jobs and turn == "bases" else 1
            done = pool.imap_unordered(partial(run_job, num_threads=num_threads), jobs)
            for _ in tqdm(done, desc=turn, total=len(jobs), file=sys.stderr):
                pass
    print(summarize(folder, sizes, time.perf_counter() - start))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder for all that is made")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="two minutes")
    size.add_argument("--full", action="store_true", help="hours")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each; runs go side by side")
    return parser.parse_args()


def make_sets(folder: Path, sizes: LabSizes) -> LabSets:
    """Makes the clips that are not there yet, and lists what is asked of them."""
    train = write_clips(folder / "train", TRAINING_SEED, sizes.num_clips)
    held_out = write_clips(folder / "held_out", HELD_OUT_SEED, sizes.num_held_out_clips)
    rng = np.random.default_rng(HELD_OUT_SEED)
    return LabSets(
        [row for clip in train for row in make_rows(clip, folder / "train")],
        [row for clip in held_out for row in sample_rows(make_rows(clip, folder / "held_out"), HELD_OUT_COUNTS, rng)],
        {clip.id: clip for clip in held_out},
    )


Job = tuple[Path, LabSizes, str, int]  # what is run: "base" or an arm, and its seed


def plan(folder: Path, sizes: LabSizes) -> dict[str, list[Job]]:
    """What is still to be run, in turns: the bases, then everything that starts from them, seed by seed."""
    bases: list[Job] = [
        (folder, sizes, "base", seed)
        for seed in range(sizes.num_seeds)
        if not (find_base(folder, seed) / "config.json").exists()
    ]
    runs: list[Job] = [
        (folder, sizes, name, seed)
        for seed in range(sizes.num_seeds)
        for name in sizes.arms
        if not find_result(folder, name, seed).exists()
    ]
    return {"bases": bases, "runs": runs}


def run_job(job: Job, num_threads: int = 1) -> None:
    """Makes one base or one run, in a process of its own."""
    folder, sizes, name, seed = job
    torch.set_num_threads(num_threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    start = time.perf_counter()
    if name == "base":
        warm_up(find_base(folder, seed), folder / f"warmup_{seed}", sizes.warm_up, seed=seed)
        return
    result = run_arm(folder, sizes, make_sets(folder, sizes), name, seed)
    result["seconds"] = round(time.perf_counter() - start, 1)
    write_json(find_result(folder, name, seed), result)


def run_arm(folder: Path, sizes: LabSizes, sets: LabSets, name: str, seed: int) -> dict[str, Any]:
    """Trains an arm through its stages and measures it; with heads, what its states carry behind each stage."""
    arm = ARMS[name]
    home = find_result(folder, name, seed).with_suffix("")
    before = home / "start"
    rng = np.random.default_rng(seed)
    taught = sample_rows(sets.train, dict.fromkeys(TASKS, sizes.num_head_rows), rng)
    start_arm(arm, find_base(folder, seed), before, taught, num_steps=sizes.num_head_steps, seed=seed)
    probed = [
        sample_rows(rows, dict.fromkeys(TASKS, sizes.num_probe_rows), rng) for rows in (sets.train, sets.held_out)
    ]
    probes: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    if name == "heads":
        scores["heads alone"] = score_heads(*load_trained(before), sets.held_out)
    for number, num_steps in enumerate(sizes.num_stage_steps, 1):
        if arm.has_heads:
            probes[f"{name}, before stage {number}"] = probe_states(*load_trained(before), *probed)
        output = home / f"stage_{number}"
        train_stage(arm, number, before, output, sets.train, num_steps=arm.steps_factor * num_steps, seed=seed)
        before = output
    model, processor = load_trained(before)
    rows = [row for row in sets.held_out if row.task in arm.tasks]
    scores[name] = score(rows, ask(model, processor, rows, arm.answers))
    if name == "heads":
        some = rows[::2]
        scores["blind"] = score(some, ask(model, processor, some, arm.answers, is_blind=True))
        scores["other clip"] = score(some, ask(model, processor, swap_clips(some), arm.answers))
        scores["new wordings"] = score(some, ask(model, processor, some, arm.answers, wording="held_out"))
    if arm.has_heads:
        probes[f"{name}, in the end"] = probe_states(model, processor, *probed)
    return {"scores": scores, "probes": probes}


def summarize(folder: Path, sizes: LabSizes, seconds: float) -> str:
    """Writes `result.json` and `scores.png`; returns the tables."""
    sets = make_sets(folder, sizes)
    scores: dict[str, dict[int, Any]] = {}
    probes: dict[str, dict[int, Any]] = {}
    run_seconds: dict[str, float] = {}
    for name in sizes.arms:
        for seed in range(sizes.num_seeds):
            run = json.loads(find_result(folder, name, seed).read_text(encoding="utf-8"))
            run_seconds[f"{name} {seed}"] = run["seconds"]
            for key, one in run["scores"].items():
                scores.setdefault(key, {})[seed] = one
            for key, one in run["probes"].items():
                probes.setdefault(key, {})[seed] = one
    for name, answers in list_baselines(sets.train, sets.held_out, sets.clips).items():
        scored = score(sets.held_out, answers)
        scores[name] = dict.fromkeys(range(sizes.num_seeds), scored)
    contrasts = [
        {"task": task, "arm": arm, "other": other, **compare(scores, task, arm, other)}
        for task, arm, other in list_contrasts(scores)
    ]
    result = {"sizes": asdict(sizes), "contrasts": contrasts, "scores": scores, "probes": probes}
    write_json(folder / "result.json", {**result, "seconds": run_seconds})
    draw_scores(folder / "scores.png", scores)
    spent = f"{seconds:.0f} s this time; all runs but the bases {sum(run_seconds.values()):.0f} s of one process"
    return "\n\n".join(
        [format_scores(scores), format_kinds(scores), format_contrasts(contrasts), format_probes(probes), spent]
    )


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
    partial.replace(path)


def find_base(folder: Path, seed: int) -> Path:
    return folder / f"base_{seed}"


def find_result(folder: Path, name: str, seed: int) -> Path:
    return folder / "runs" / f"{name.replace(', ', '_').replace(' ', '_')}-{seed}.json"


if __name__ == "__main__":
    main()
