"""Trains a small Qwen2.5-VL on toy videos from nothing, and says what it answers from which evidence.

    python examples/train_toy_vlm.py --output toy_vlm

takes about eleven minutes on two cores, and goes on where it was cut off. The folder then opens with
`AutoProcessor` and `AutoModelForImageTextToText`; the table of accuracies and the same as a line of JSON go to stdout,
progress to stderr. `docs/toy_vlm.md` tells why it learns. Needs `pip install "vidground-hf[models]"`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from toy_vlm_data import Asker, Lesson, ToySet, read_toy_set, show
from toy_vlm_model import make_model, make_processor, save
from toy_vlm_table import format_accuracies, measure
from toy_vlm_training import Hints, Learner

from vidground_hf import make_toy_set
from vidground_hf.toy_questions import NUM_OPTIONS, generate_questions
from vidground_hf.toy_world import generate_clips

TRAINING_SEED = 10_000  # the first of a run's training sets; held-out sets have small ones
LEARNING_RATE = 3e-3
NUM_WARMUP_STEPS = 50
CLIPS_PER_STEP, QUESTIONS_PER_CLIP = 4, 4
DECAY_SHARE = 0.6  # of the steps, the last ones, in which the learning rate falls to 0
REPORT_STEPS = 50
KEPT_STEPS = 100  # after so many steps the state of the training is kept, and clips are drawn afresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained on.

    Attributes:
        num_watching_steps (`int`): first steps, which ask nothing of a clip but what stands where and when.
        num_naming_steps (`int`): next ones, which ask for names.
        num_choosing_steps (`int`): next ones, which ask for options: about order, or about one frame.
        num_mixed_steps (`int`): last ones, which ask anything.
        num_look_up_steps (`int`): first ones of all, in which text alone only asks to find an option.
        num_clips (`int`): for each process; ten questions each.
        num_held_out (`int`): questions of the table.
    """

    num_watching_steps: int
    num_naming_steps: int
    num_choosing_steps: int
    num_mixed_steps: int
    num_look_up_steps: int
    num_clips: int
    num_held_out: int

    @property
    def num_steps(self) -> int:
        return self.num_watching_steps + self.num_naming_steps + self.num_choosing_steps + self.num_mixed_steps


FULL = Sizes(
    num_watching_steps=150,
    num_naming_steps=600,
    num_choosing_steps=600,
    num_mixed_steps=650,
    num_look_up_steps=250,
    num_clips=1000,
    num_held_out=600,
)
QUICK = Sizes(
    num_watching_steps=4,
    num_naming_steps=8,
    num_choosing_steps=4,
    num_mixed_steps=4,
    num_look_up_steps=8,
    num_clips=20,
    num_held_out=30,
)


def main() -> None:
    arguments = parse_arguments()
    sizes = QUICK if arguments.quick else FULL
    start = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            train, (arguments.processes, sizes, arguments.seed, Path(folder), arguments.output), arguments.processes
        )
        held_out = make_set(Path(folder) / "held_out", arguments.seed, sizes.num_held_out // 5, 5)
    table, counts = measure(arguments.output, held_out, arguments.seed)
    print(format_accuracies(table, counts))
    result = {
        "accuracy": table,
        "num_questions": counts,
        "seed": arguments.seed,
        "num_steps": sizes.num_steps,
        "num_processes": arguments.processes,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder for the model and its processor")
    parser.add_argument("--seed", type=int, default=0, help="of sets and weights")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each; more of them see more questions")
    parser.add_argument(
        "--quick", action="store_true", help="a minute's run that learns nothing, to see that it works"
    )
    return parser.parse_args()


def make_set(folder: Path, seed: int, num_clips: int, questions_per_clip: int) -> ToySet:
    """Makes a toy set and reads it back, so that what is learned from went through a real video file."""
    make_toy_set(folder, num_questions=num_clips * questions_per_clip, num_clips=num_clips, seed=seed)
    return read_toy_set(folder)


def train(rank: int, num_processes: int, sizes: Sizes, seed: int, folder: Path, output: Path) -> None:
    """Trains in one of several processes, which share their gradients; the first one saves the model.

    Args:
        rank (`int`): of this process. Each draws from toy sets of its own.
        num_processes (`int`), sizes (`Sizes`), seed (`int`): the same in all.
        folder (`Path`): for the sets.
        output (`Path`): gets the model.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num_processes)
    known = generate_questions(generate_clips(TRAINING_SEED, 200), num_questions=2000, seed=TRAINING_SEED)
    processor = make_processor(
        show({"question": q.question, "options": q.options, "id": q.id}, range(NUM_OPTIONS)) for q in known
    )
    toy_set = make_training_set(folder / str(rank), TRAINING_SEED * (seed + 1) + 1000 * rank, sizes.num_clips)
    torch.manual_seed(seed)
    learner = Learner(make_model(processor.tokenizer), processor, Hints(96))
    asker = Asker(toy_set, processor, questions_per_clip=QUESTIONS_PER_CLIP, seed=f"{seed} {rank}")
    optimizer = torch.optim.AdamW(
        learner.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    kept = output / f"training-{seed}-{sizes.num_steps}.pt"
    first = resume(kept, learner, optimizer) if kept.exists() else 0
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for step in range(first, sizes.num_steps):
        if step % KEPT_STEPS == 0:
            asker.restart(f"{seed} {rank} {step}")
            if rank == 0 and step > first:
                keep(kept, learner, optimizer, step)
        for group in optimizer.param_groups:
            left = (sizes.num_steps - step) / sizes.num_steps
            group["lr"] = LEARNING_RATE * min((step + 1) / NUM_WARMUP_STEPS, left / DECAY_SHARE, 1.0)
        optimizer.zero_grad()
        for views, lesson in plan_step(step, sizes, asker.rng):
            loss, right = learner(asker.draw(views, lesson))
            (loss * len(views) / CLIPS_PER_STEP).backward()
            if right is not None:
                seen[f"{lesson} {views[0]}"].append(right)
        share_gradients(learner, num_processes)
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        if rank == 0 and (step + 1) % REPORT_STEPS == 0:
            shares = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in sorted(seen.items()))
            print(f"step {step + 1} of {sizes.num_steps}; right: {shares or '-'}", file=sys.stderr, flush=True)
            seen.clear()
    if rank == 0:
        save(output, learner.model, processor)
        kept.unlink(missing_ok=True)
    dist.destroy_process_group()


def keep(path: Path, learner: Learner, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Keeps the state of a training that was cut off, for the same command to go on from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def resume(path: Path, learner: Learner, optimizer: torch.optim.Optimizer) -> int:
    """Puts back what was kept; returns the step to go on with."""
    state = torch.load(path, weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def make_training_set(folder: Path, seed: int, num_clips: int) -> ToySet:
    """One large set made of several, for one alone runs out of wordings."""
    sets = [
        make_set(folder / str(first), seed + first, min(200, num_clips - first), 10)
        for first in range(0, num_clips, 200)
    ]
    return ToySet(
        np.concatenate([part.frames for part in sets]),
        np.concatenate([part.cells for part in sets]),
        np.concatenate([part.visitors for part in sets]),
        [rows for part in sets for rows in part.rows],
    )


def plan_step(step: int, sizes: Sizes, rng: random.Random) -> list[tuple[list[str], Lesson]]:
    """What a step shows: whole clips, now and then single frames instead; and text alone."""
    text: tuple[list[str], Lesson] = (
        ["text"] * 3,
        "look_up" if step < sizes.num_look_up_steps or step % 3 == 0 else "choose",
    )
    lesson = find_lesson(step, sizes)
    num_clips = 2 * CLIPS_PER_STEP if lesson in ("watch", "name") else CLIPS_PER_STEP
    clips = rng.choices(("video", "shuffled_frames"), (3, 1), k=num_clips)
    frames = ["single_frame"] * CLIPS_PER_STEP
    turn = step % 6
    if lesson == "watch":
        return [(frames if turn == 5 else clips, lesson), text]
    if lesson == "choose":
        shown = frames if turn == 5 else clips if turn == 0 else ["video"] * CLIPS_PER_STEP
        return [(shown, "name" if turn == 0 else lesson), *([text] if turn % 2 == 0 else [])]
    shown = frames if turn in (2, 5) else clips
    if lesson == "name":
        return [(shown, lesson), text]
    blind = rng.choices(("text", "options_only"), (4, 1), k=2)
    return [(shown, lesson), *([(blind, lesson)] if turn % 2 == 0 else [])]


def find_lesson(step: int, sizes: Sizes) -> Lesson:
    """Which lesson a step belongs to."""
    lengths: dict[Lesson, int] = {
        "watch": sizes.num_watching_steps,
        "name": sizes.num_naming_steps,
        "choose": sizes.num_choosing_steps,
    }
    for lesson, length in lengths.items():
        if step < length:
            return lesson
        step -= length
    return "all"


def share_gradients(learner: Learner, num_processes: int) -> None:
    """Replaces each gradient by its mean over the processes; a hint that was not asked for has none of its own."""
    parameters = list(learner.parameters())
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter) / num_processes


if __name__ == "__main__":
    main()
