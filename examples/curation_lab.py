"""Post-trains small models on differently chosen questions, and compares what they see afterwards.

    python examples/curation_lab.py --output lab             # half an hour on two cores
    python examples/curation_lab.py --output lab --quick     # two minutes, to see that it runs; learns nothing
    python examples/curation_lab.py --output lab --full      # every arm, two bases and the control; hours

What is done is in the folder, and the same command goes on from there. The table goes to stdout and with every figure
into `result.json`, the curves into `curves.png`. `docs/curation_lab.md` has the design and what came out. Needs
`pip install "vidground-hf[models,train]"`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from curation_lab_arms import ARMS, CONTROL_ARMS, STANDARD_ARMS, choose_questions, describe_kept, judge_questions
from curation_lab_base import make_seeing_model, teach_letters
from curation_lab_policy import Policy
from curation_lab_runs import LabSets, measure_views, post_train, write_result
from curation_lab_table import compare, draw_curves, format_base, list_contrasts
from toy_vlm_data import read_toy_set
from tqdm import tqdm

from vidground_hf import make_toy_set

POOLED = "all that know cues"
TEXT_SHARE = 0.309  # of Video-R1-260K's questions (VidGround, arXiv 2604.05117)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSizes:
    """How much is tried.

    Attributes:
        arms (`tuple[str, ...]`): keys of `ARMS`; a base without cues has those of `CONTROL_ARMS` only.
        bases (`tuple[str, ...]`): `"cues 0"` and so on know the cues, `"no cues 0"` does not; the number is its seed.
        num_seeds (`int`): runs of each arm and base.
        num_clips (`int`): of the training set, with twelve questions each.
        num_held_out_clips (`int`): with five questions each.
        num_letter_steps (`int`): of the second half of the warm-up.
        num_steps (`int`), mark_steps (`int`): of GRPO, and between two marks of the curve.
    """

    arms: tuple[str, ...]
    bases: tuple[str, ...]
    num_seeds: int
    num_clips: int
    num_held_out_clips: int
    num_letter_steps: int
    num_steps: int
    mark_steps: int


STANDARD = LabSizes(
    arms=STANDARD_ARMS,
    bases=("cues 0",),
    num_seeds=6,
    num_clips=200,
    num_held_out_clips=160,
    num_letter_steps=100,
    num_steps=100,
    mark_steps=25,
)
QUICK = LabSizes(
    arms=tuple(ARMS),
    bases=("cues 0", "cues 1"),
    num_seeds=1,
    num_clips=20,
    num_held_out_clips=10,
    num_letter_steps=4,
    num_steps=2,
    mark_steps=1,
)
FULL = LabSizes(
    arms=tuple(ARMS),
    bases=("cues 0", "cues 1", "no cues 0"),
    num_seeds=10,
    num_clips=200,
    num_held_out_clips=160,
    num_letter_steps=100,
    num_steps=100,
    mark_steps=25,
)


def main() -> None:
    arguments = parse_arguments()
    name = "quick" if arguments.quick else "full" if arguments.full else "standard"
    sizes = {"quick": QUICK, "standard": STANDARD, "full": FULL}[name]
    folder = arguments.output / name
    start = time.perf_counter()
    torch.set_num_threads(1)
    make_sets(folder, sizes)
    for base in sizes.bases:
        make_base(folder, base, sizes, quick=arguments.quick, num_processes=arguments.processes)
    run_all(folder, sizes, arguments.processes)
    print(summarize(folder, sizes, time.perf_counter() - start))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder for all that is made")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="two minutes")
    size.add_argument("--full", action="store_true", help="hours")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each; runs go side by side")
    return parser.parse_args()


def make_sets(folder: Path, sizes: LabSizes) -> None:
    """Makes the toy sets that are not there yet; one with `questions.jsonl` is whole."""
    held_out = sizes.num_held_out_clips
    wanted = {
        "train": {"num_clips": sizes.num_clips, "num_questions": 12 * sizes.num_clips, "seed": 5},
        "held_out": {"num_clips": held_out, "num_questions": 5 * held_out, "seed": 6},
        "moved": {"num_clips": held_out, "num_questions": 5 * held_out, "seed": 7, "misleading_share": 1.0},
        "letters": {"num_clips": sizes.num_clips, "num_questions": 10 * sizes.num_clips, "seed": 8},
    }
    for name, settings in wanted.items():
        if not (folder / name / "questions.jsonl").exists():
            text_share = 0.0 if name == "moved" else TEXT_SHARE
            make_toy_set(folder / name, text_share=text_share, **settings)


def make_base(folder: Path, base: str, sizes: LabSizes, *, quick: bool, num_processes: int) -> None:
    """Makes a base model and asks it blind, unless that has been done."""
    home = find_home(folder, base)
    seed, with_cues = int(base.split()[-1]), base.startswith("cues")
    seeing = home / "seeing"
    if not (seeing / "config.json").exists():
        make_seeing_model(seeing, seed, with_cues=with_cues, quick=quick, num_processes=num_processes)
    if not (home / "model" / "config.json").exists():
        letters = read_toy_set(folder / "letters")
        teach_letters(
            seeing, home / "model", letters, with_cues=with_cues, num_steps=sizes.num_letter_steps, seed=seed
        )
    if not (home / "kept.json").exists():
        (home / "runs").mkdir(exist_ok=True)
        write_result(home / "kept.json", judge_questions(home / "model", folder / "train", list(sizes.arms)))
    if not (home / "start.json").exists():
        sets = read_sets(folder)
        write_result(
            home / "start.json", measure_views(Policy(home / "model", sets.train, 0), sets.held_out, ["video"])
        )


def run_all(folder: Path, sizes: LabSizes, num_processes: int) -> None:
    """Makes the runs that are not there yet, seed by seed, so that what is there can be compared at any time."""
    tasks = [
        (base, arm, seed) for seed in range(sizes.num_seeds) for base in sizes.bases for arm in list_arms(base, sizes)
    ]
    left = [(folder, sizes, *task) for task in tasks if not find_result(folder, *task).exists()]
    if not left:
        return
    with torch.multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        done = pool.imap_unordered(run_one, left)
        for _ in tqdm(done, desc="runs", total=len(tasks), initial=len(tasks) - len(left), file=sys.stderr):
            pass


def run_one(task: tuple[Path, LabSizes, str, str, int]) -> None:
    """Makes one run in a process of its own."""
    folder, sizes, base, arm, seed = task
    torch.set_num_threads(1)
    start = time.perf_counter()
    sets, home = read_sets(folder), find_home(folder, base)
    kept = choose_questions(arm, sets.train, read_json(home / "kept.json"), seed)
    policy = Policy(home / "model", sets.train, seed)
    result = post_train(policy, sets, arm, kept, seed, sizes.num_steps, sizes.mark_steps)
    result["curve"].insert(0, {"step": 0, **read_json(home / "start.json")})
    result |= {"kept": describe_kept(sets.train, kept), "seconds": round(time.perf_counter() - start, 1)}
    write_result(find_result(folder, base, arm, seed), result)


@lru_cache(maxsize=1)
def read_sets(folder: Path) -> LabSets:
    """The questions, read once a process."""
    return LabSets(**{name: read_toy_set(folder / name) for name in ("train", "held_out", "moved")})


def list_arms(base: str, sizes: LabSizes) -> list[str]:
    """The arms that are tried on a base."""
    return [arm for arm in sizes.arms if base.startswith("cues") or arm in CONTROL_ARMS]


def summarize(folder: Path, sizes: LabSizes, seconds: float) -> str:
    """Writes `result.json` and `curves.png`; returns the tables."""
    bases: dict[str, Any] = {}
    for base in sizes.bases:
        bases[base] = {
            arm: {
                f"{base}, seed {seed}": read_json(find_result(folder, base, arm, seed))
                for seed in range(sizes.num_seeds)
            }
            for arm in list_arms(base, sizes)
        }
    run_seconds = sum(run["seconds"] for runs in bases.values() for found in runs.values() for run in found.values())
    knowing = [runs for base, runs in bases.items() if base.startswith("cues")]
    if len(knowing) > 1:
        pooled = {arm: {name: run for runs in knowing for name, run in runs[arm].items()} for arm in sizes.arms}
        bases = {POOLED: pooled, **bases}
    contrasts = {
        base: {f"{arm} - {other}": compare(runs, arm, other, "vg_video") for arm, other in list_contrasts(runs)}
        for base, runs in bases.items()
    }
    write_result(folder / "result.json", {"sizes": asdict(sizes), "contrasts": contrasts, "runs": bases})
    draw_curves(folder / "curves.png", bases)
    tables = [f"base: {base}\n\n" + format_base(runs) for base, runs in bases.items()]
    tables.append(f"{seconds:.0f} s this time; all runs together {run_seconds:.0f} s of one process")
    return "\n\n".join(tables)


def find_home(folder: Path, base: str) -> Path:
    return folder / base.replace(" ", "_")


def find_result(folder: Path, base: str, arm: str, seed: int) -> Path:
    return find_home(folder, base) / "runs" / f"{arm}-{seed}.json"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
