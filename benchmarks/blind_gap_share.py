"""The share of a GRPO training's time that `BlindGapCallback` takes at its defaults, evaluation by evaluation.

The model of `grpo_step.py` (Qwen2.5-VL, 6.2 million parameters, random weights, one thread) is trained on toy clips,
one prompt and eight completions of 32 tokens a step, and evaluated every so many steps. `eval_dataset` is one row, so
that next to nothing else is done in an evaluation. The first evaluation has to find out what asking takes, and is not
bounded. Figures are by the clock: run it on a machine with nothing else to do. Prints one JSON line.
`python benchmarks/blind_gap_share.py [STEPS] [STEPS_PER_EVALUATION]`
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", CI="1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

NUM_STEPS = 60
STEPS_PER_EVALUATION = 10
NUM_CLIPS = 32
NUM_QUESTIONS = 200


def train(folder: Path, num_steps: int, steps_per_evaluation: int) -> tuple[Any, float]:
    """Trains; returns the trainer and the seconds."""
    import torch
    from grpo_step import SETTINGS, prepare
    from transformers import AutoProcessor
    from trl import GRPOConfig

    from tests.grpo_trainers import FIXED, reward_every_second
    from vidground_hf import BlindGapCallback, VideoGRPOTrainer, make_toy_set, open_dataset, to_trl

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    prepare(folder)
    toy = make_toy_set(folder / "toy", num_questions=NUM_QUESTIONS, num_clips=NUM_CLIPS)
    rows = to_trl(open_dataset(toy), media_root=str(toy.parent))
    evaluation = {"eval_strategy": "steps", "eval_steps": steps_per_evaluation, "per_device_eval_batch_size": 8}
    trainer = VideoGRPOTrainer(
        str(folder / "model"),
        reward_every_second,
        GRPOConfig(str(folder / "out"), **SETTINGS | FIXED | evaluation | {"max_steps": num_steps}),
        train_dataset=rows,
        eval_dataset=rows.select([0]),
        processing_class=AutoProcessor.from_pretrained(folder / "model", padding_side="left"),
    )
    trainer.add_callback(BlindGapCallback(trainer, rows))
    start = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - start


def main(num_steps: int = NUM_STEPS, steps_per_evaluation: int = STEPS_PER_EVALUATION) -> None:
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        trainer, seconds = train(Path(name), num_steps, steps_per_evaluation)
    load.append(os.getloadavg()[0])
    lines = [line for line in trainer.state.log_history if "eval_gap_num_rows" in line]
    shares = [line["eval_gap_time_share"] for line in lines]
    figures = {
        "benchmark": "blind_gap_share",
        "num_parameters": sum(value.numel() for value in trainer.model.parameters()),
        "num_steps": num_steps,
        "seconds": round(seconds, 1),
        "evaluation_steps": [line["step"] for line in lines],
        "num_rows": [line["eval_gap_num_rows"] for line in lines],
        "evaluation_seconds": [round(line["eval_gap_seconds"], 2) for line in lines],
        "time_shares": [round(share, 4) for share in shares],
        "most_share_from_second": round(max(shares[1:]), 4),
        "load": [round(value, 1) for value in load],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))
