"""What decoding ahead saves, and what four more orders of the options of one clip cost.

A Qwen2.5-VL of 30 million parameters with random weights is asked about clips made here (720p h264, ten seconds), on
one thread, with frames decoded by one process while it runs, and by itself in between. The wait is the share of the
time in which the model had no frames to go on with; the first clip cannot be had ahead. Then five orders of one
clip's options are asked beside one, in one call and in five. Nothing is kept between the turns; figures are medians.
Prints one JSON line. `python benchmarks/decode_ahead.py [CLIPS] [TURNS]`
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import numpy as np
import torch

from tests.tiny_vlms import save_qwen2_5_vl
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.prompts import Prompt

NUM_CLIPS = 6
NUM_TURNS = 3
NUM_ORDERS = 5
WIDTH, HEIGHT, RATE, NUM_SECONDS = 1280, 720, 24, 10
BUDGET = FrameBudget(num_frames=16)
SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8}
SIZES |= {"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192}


def make_clip(path: Path, seed: int) -> None:
    """Something that moves over something that does not: neither noise nor a still."""
    rng = np.random.default_rng(seed)
    ground = np.kron(rng.integers(0, 256, (18, 32, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    block = rng.integers(0, 256, (160, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(RATE * NUM_SECONDS):
            picture = ground.copy()
            left = (number * 7 + 40 * seed) % (WIDTH - 160)
            picture[280:440, left : left + 160] = block
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def ask(path: Path, order: int = 0) -> Prompt:
    options = ("to the left", "to the right", "up and away", "down the road", "nowhere at all")
    return Prompt(
        example_id=path.stem,
        view="video",
        problem_type="multiple_choice",
        question="Where does the block go after it has left the middle of the picture?",
        options=options[order:] + options[:order],
        frames=FrameRequest(source=str(path), budget=BUDGET),
    )


class Side:
    """One answerer whose waiting for frames is timed."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self.answerer = TransformersAnswerer(str(folder), device="cpu", num_workers=num_workers)
        self.engine = self.answerer._load_visual()
        self.load, self.engine.load_frames = self.engine.load_frames, self._time
        self.waits: list[float] = []

    def _time(self, requests: Sequence[FrameRequest]) -> Iterator[Any]:
        loading = iter(self.load(requests))
        for _ in requests:
            started = time.perf_counter()
            frames = next(loading)
            self.waits.append(time.perf_counter() - started)
            yield frames

    def forget(self) -> None:
        self.engine.frames.clear()
        self.engine.seen.clear()
        self.waits = []

    def run(self, *calls: list[Prompt], clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds of one call after another, from a cold start."""
        self.forget()
        started = clock()
        answers = [answer for prompts in calls for answer in self.answerer.answer(prompts)]
        seconds = clock() - started
        if any(answer.error is not None or answer.num_frames != BUDGET.num_frames for answer in answers):
            raise RuntimeError(f"not every question was answered: {answers}")
        return seconds


def measure_ahead(ahead: Side, between: Side, paths: Sequence[Path], num_turns: int) -> dict[str, Any]:
    """All clips with decoding ahead and without, in turns."""
    figures: dict[str, list[float]] = {}
    prompts = [ask(path) for path in paths]
    for _ in range(num_turns):
        for name, side in (("ahead", ahead), ("between", between)):
            seconds = side.run(prompts)
            figures.setdefault(f"{name}_seconds", []).append(seconds)
            figures.setdefault(f"{name}_wait_share", []).append(sum(side.waits) / seconds)
            figures.setdefault(f"{name}_wait_share_after_first", []).append(sum(side.waits[1:]) / seconds)
            figures.setdefault(f"{name}_wait_seconds_per_clip", []).append(sum(side.waits) / len(paths))
    found = {name: round(median(values), 4) for name, values in figures.items()}
    found["speedup"] = round(found["between_seconds"] / found["ahead_seconds"], 3)
    return found


def measure_orders(side: Side, path: Path, num_turns: int) -> dict[str, float]:
    """Five orders of one clip beside one, by the processor's time: all of it is spent here."""
    orders = [ask(path, order) for order in range(NUM_ORDERS)]
    calls = {
        "one_seconds": [orders[:1]],
        "five_in_one_call_seconds": [orders],
        "five_in_five_calls_seconds": [[order] for order in orders],
    }
    seconds = {
        name: [side.run(*prompts, clock=time.process_time) for _ in range(num_turns)]
        for name, prompts in calls.items()
    }
    found = {name: round(median(values), 4) for name, values in seconds.items()}
    for name in ("five_in_one_call", "five_in_five_calls"):
        found[f"{name}_ratio"] = round(found[f"{name}_seconds"] / found["one_seconds"], 3)
    return found


def main() -> None:
    num_clips, num_turns = (int(text) for text in [*sys.argv[1:], NUM_CLIPS, NUM_TURNS][:2])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        paths = [Path(root, f"clip_{number}.mp4") for number in range(num_clips)]
        for number, path in enumerate(paths):
            make_clip(path, number)
        folder = save_qwen2_5_vl(Path(root, "model"), max_pixels=FrameBudget().size, **SIZES)
        ahead, between = Side(folder, 1), Side(folder, 0)
        ahead.run([ask(paths[0])])  # starts the process
        ahead_figures = measure_ahead(ahead, between, paths, num_turns)
        order_figures = measure_orders(between, paths[0], num_turns)
        (answer,) = between.answerer.answer([ask(paths[0])])
        model = between.engine.engine.loaded.model
    result = {
        "num_clips": num_clips,
        "num_parameters": model.num_parameters(),
        "num_visual_tokens": answer.num_visual_tokens,
        "num_prompt_tokens": answer.num_prompt_tokens,
        "decoder": answer.decoder,
        **ahead_figures,
        **order_figures,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
