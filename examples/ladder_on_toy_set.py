"""Climbs the ladder on toy videos and compares the labels with what was planted.

    python examples/ladder_on_toy_set.py toy_vlm

takes the folder of a vision-language model, for example the one that train_toy_vlm.py makes. The toy set is made from
a seed that the model was not trained on. The table of planted and found labels and one line of JSON go to stdout.
Needs `pip install "vidground-hf[models]"`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from vidground_hf import FrameBudget, climb, load_answerer, make_toy_set, open_dataset
from vidground_hf.ladder_pages import format_ladder

NUM_QUESTIONS_PER_CLIP = 5


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        toy = Path(folder) / "toy"
        num_clips = arguments.num_questions // NUM_QUESTIONS_PER_CLIP
        make_toy_set(toy, num_questions=arguments.num_questions, num_clips=num_clips, seed=arguments.seed)
        started = time.perf_counter()
        done = climb(
            open_dataset(toy),
            load_answerer(f"transformers:{arguments.model}"),
            rule=arguments.rule,
            alpha=arguments.alpha,
            keep=["one_frame", "unordered_frames", "video"],
            budget=FrameBudget(num_frames=arguments.frames),
            num_tries=arguments.single_frames,
            num_control_rows=arguments.num_questions,
            media_root=str(toy),
            source={"id": "toy set"},
            progress=True,
        )
    report = done.report
    print(format_ladder(report))
    print()
    print(format_confusion(report["planted"]["confusion"]))
    result = {name: report[name] for name in ("planted", "wrong_video", "kept_blind", "rule", "alpha", "num_tries")}
    result |= {"rungs": report["rungs"], "calls": done.calls, "seconds": round(time.perf_counter() - started, 1)}
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or an id on the Hub")
    parser.add_argument("--rule", choices=["calibrated", "circular"], default="calibrated")
    parser.add_argument("--alpha", type=float, default=0.05, help="largest share of lucky labels")
    parser.add_argument("--num-questions", type=int, default=600, help="five a clip")
    parser.add_argument("--frames", type=int, default=8, help="of a clip, which has eight")
    parser.add_argument("--single-frames", type=int, default=1, help="how many single frames are tried")
    parser.add_argument("--seed", type=int, default=1, help="of the toy set; the model was trained on others")
    return parser.parse_args()


def format_confusion(confusion: dict[str, dict[str, Any]]) -> str:
    """Planted needs down, labels across."""
    names = list(next(iter(confusion.values())))
    lines = [f"{'planted':14}" + "".join(f"{name.replace('unordered_frames', 'unordered'):>11}" for name in names)]
    lines += [f"{need:14}" + "".join(f"{found[name]:>11,}" for name in names) for need, found in confusion.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
