"""One GRPO step with videos beside TRL's own with the same frames as images: tokens, time and memory.

A small Qwen2.5-VL with random weights, which merges two frames in time, on one thread. Each arm is a process of its
own that takes a few steps of one prompt and eight completions of fixed length; the arms take turns, and the first step
of each is left out. Ours reads the video file in the step; TRL's frames lie in its data set as PNG images of the size
that ours are shown in. Figures are medians; seconds are those of the processor, so that other work on the machine does
not count, and memory is the most that the process held. Prints one JSON line.
`python benchmarks/grpo_step.py [ROUNDS] [STEPS]`
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", CI="1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NUM_ROUNDS = 2
NUM_STEPS = 3
NUM_FRAMES = 16
FRAME_SHAPE = (112, 168)
COMPLETION_LENGTH = 32
SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6}
SIZES |= {"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192}
SETTINGS = {
    "per_device_train_batch_size": 8,
    "num_generations": 8,
    "max_completion_length": COMPLETION_LENGTH,
    "generation_kwargs": {"min_new_tokens": COMPLETION_LENGTH},
    "learning_rate": 1e-6,
    "activation_checkpointing": False,
}


def run_arm(arm: str, folder: Path, num_steps: int) -> dict[str, Any]:
    """Trains a few steps and tells of them."""
    import datasets
    import torch
    from PIL import Image
    from transformers import AutoProcessor, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from tests.grpo_trainers import FIXED, ask, reward_every_second
    from vidground_hf.grpo import VideoGRPOTrainer
    from vidground_hf.media import FrameBudget
    from vidground_hf.video import read_frames

    class Clock(TrainerCallback):
        """Notes the processor's time of each step."""

        def __init__(self) -> None:
            self.moments: list[float] = []

        def on_step_begin(self, *arguments: Any, **settings: Any) -> None:
            self.moments.append(time.process_time())

        on_step_end = on_step_begin

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    clock = Clock()
    clip, model = str(folder / "clip.mp4"), folder / "model"
    prompt = ask("What happens in the video, and what is shown first?")
    settings = SETTINGS | FIXED | {"max_steps": num_steps, "num_train_epochs": num_steps}
    common = {
        "model": str(model),
        "reward_funcs": reward_every_second,
        "callbacks": [clock],
        "args": GRPOConfig(str(folder / arm), **settings),
        "processing_class": AutoProcessor.from_pretrained(model, padding_side="left"),
    }
    if arm == "video":
        rows = [{"prompt": prompt, "video": clip}]
        budget = FrameBudget(num_frames=NUM_FRAMES, size=None)
        trainer = VideoGRPOTrainer(train_dataset=datasets.Dataset.from_list(rows), frame_budget=budget, **common)
    else:
        frames = [Image.fromarray(frame) for frame in read_frames(clip, num_frames=NUM_FRAMES).data]
        rows = [{"prompt": prompt, "images": frames}]
        trainer = GRPOTrainer(train_dataset=datasets.Dataset.from_list(rows), **common)
    trainer.train()
    steps = [log for log in trainer.state.log_history if "step_time" in log]
    num_parameters = sum(value.numel() for value in trainer.model.parameters())
    return {
        "seconds": [end - start for start, end in list(zip(clock.moments[::2], clock.moments[1::2], strict=True))[1:]],
        "tokens": steps[0]["num_tokens"] / SETTINGS["num_generations"] - COMPLETION_LENGTH,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "num_parameters": num_parameters,
    }


def prepare(folder: Path) -> None:
    """Saves the model and the clip."""
    from tests.grpo_trainers import show_images
    from tests.tiny_vlms import save_qwen2_5_vl
    from tests.video_files import make_video

    save_qwen2_5_vl(folder / "model", max_pixels=NUM_FRAMES * FRAME_SHAPE[0] * FRAME_SHAPE[1], **SIZES)
    config = json.loads((folder / "model" / "config.json").read_text())
    grow_vision(folder / "model", config)
    show_images("qwen2_5_vl", folder / "model")
    make_video(folder / "clip.mp4", num_frames=200, shape=FRAME_SHAPE)


def grow_vision(model: Path, config: dict[str, Any]) -> None:
    """Gives the model a vision tower of a size in keeping with its text model: about a fifth, as that of 3 B has."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"depth": 6, "hidden_size": 128, "intermediate_size": 352, "num_heads": 4, "fullatt_block_indexes": [5]}
    config["vision_config"] |= vision
    torch.manual_seed(0)
    grown = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    grown.save_pretrained(model)


def main(num_rounds: int, num_steps: int) -> None:
    found: dict[str, list[dict[str, Any]]] = {"images": [], "video": []}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for _ in range(num_rounds):
            for arm, runs in found.items():
                command = [sys.executable, __file__, "--arm", arm, name, str(num_steps)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
                load.append(os.getloadavg()[0])
    seconds = {arm: median(value for run in runs for value in run["seconds"]) for arm, runs in found.items()}
    tokens = {arm: round(runs[0]["tokens"]) for arm, runs in found.items()}
    memory = {arm: round(median(run["megabytes"] for run in runs)) for arm, runs in found.items()}
    figures = {
        "benchmark": "grpo_step",
        "num_parameters": found["video"][0]["num_parameters"],
        "num_frames": NUM_FRAMES,
        "num_rounds": num_rounds,
        "seconds": {arm: round(value, 3) for arm, value in seconds.items()},
        "prompt_tokens": tokens,
        "megabytes": memory,
        "time_ratio": round(seconds["video"] / seconds["images"], 3),
        "token_ratio": round(tokens["video"] / tokens["images"], 3),
        "memory_ratio": round(memory["video"] / memory["images"], 3),
        "load": [round(value, 1) for value in (min(load), max(load))],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        print(json.dumps(run_arm(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        numbers = [int(value) for value in sys.argv[1:]]
        main(*(numbers + [NUM_ROUNDS, NUM_STEPS][len(numbers) :]))
