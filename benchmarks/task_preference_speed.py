"""A task preference model: batched generation beside row by row, and a training step, both beside the bare model's.

A Qwen2.5-VL with random weights and heads for moments, boxes and masks, on two threads. Eight rows of all tasks about
toy clips, read and tokenised beforehand; the first token of each answer is set, because a model that was not trained
calls no head, and all answers have one length. The bare model generates as many tokens from the same prompts. The
training step is forward and backward of those rows with their labels, with the heads' losses and without heads. The
arms take turns, and the first round is left out; figures are medians of wall time, which other work on the machine
spoils (its load is printed). Prints one JSON line for each length of answers.
`python benchmarks/task_preference_speed.py [ROUNDS] [WIDTH] [LAYERS] [LENGTHS ...]`
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

NUM_THREADS = 2
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CI="1", OMP_NUM_THREADS=str(NUM_THREADS))
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

NUM_ROUNDS = 5
NUM_ROWS = 8
WIDTH, NUM_LAYERS = 256, 6
LENGTHS = (16, 64)

Batch = tuple[list[Any], dict[str, Any]]


def prepare_model(folder: Path, width: int, num_layers: int) -> tuple[Any, Any]:
    """The model with its heads, and its collator."""
    import torch
    from grpo_step import FRAME_SHAPE, NUM_FRAMES, grow_vision
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from tests.grpo_trainers import show_images
    from tests.task_preference_rows import make_collator
    from tests.tiny_vlms import save_qwen2_5_vl
    from vidground_hf.task_preference import TaskPreferenceModel

    sizes = {"hidden_size": width, "intermediate_size": width * 11 // 4, "num_hidden_layers": num_layers}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192}
    save_qwen2_5_vl(folder / "model", max_pixels=NUM_FRAMES * FRAME_SHAPE[0] * FRAME_SHAPE[1], **sizes)
    grow_vision(folder / "model", json.loads((folder / "model" / "config.json").read_text()))
    show_images("qwen2_5_vl", folder / "model")
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(folder / "model", padding_side="left")
    vlm = AutoModelForImageTextToText.from_pretrained(folder / "model")
    model = TaskPreferenceModel.from_vlm(vlm, processor)
    return model, make_collator(processor)


def call_heads(model: Any, rows: list[Any], prompt_length: int) -> Callable[[Any, Any], Any]:
    """Sets the first token of each answer, which calls the row's head."""
    first = [model.config.trigger_token_ids.get(row.task) for row in rows]

    def call(input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] == prompt_length:
            for row, token in enumerate(first):
                if token is not None:
                    scores[row] = float("-inf")
                    scores[row, token] = 0.0
        return scores

    return call


def write(model: Any, tokenizer: Any, batches: list[Batch], length: int) -> list[Any]:
    """Answers batches of rows."""
    answers: list[Any] = []
    for rows, inputs in batches:
        call = call_heads(model, rows, inputs["input_ids"].shape[1])
        answers += model.generate(
            **inputs, tokenizer=tokenizer, max_new_tokens=length, logits_processor=[call], **fix(length + 1)
        )
    return answers


def write_bare(model: Any, batches: list[Batch], length: int) -> None:
    """Has the wrapped model write as much."""
    for rows, inputs in batches:
        call = call_heads(model, rows, inputs["input_ids"].shape[1])
        model.vlm.generate(**drop_facts(inputs), max_new_tokens=length, logits_processor=[call], **fix(length))


def fix(length: int) -> dict[str, Any]:
    return {"min_new_tokens": length, "do_sample": False}


def drop_facts(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in ("targets", "media")}


def learn(model: Any, batch: dict[str, Any], *, with_heads: bool) -> None:
    """One forward and backward."""
    model.zero_grad()
    if with_heads:
        model(**batch).loss.backward()
    else:
        model.vlm(**drop_facts(batch)).loss.backward()


def measure(arms: dict[str, Callable[[], Any]], num_rounds: int) -> dict[str, float]:
    """The median seconds of each arm."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(num_rounds + 1):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(median(found[1:]), 3) for name, found in seconds.items()}


def main(num_rounds: int = NUM_ROUNDS, width: int = WIDTH, num_layers: int = NUM_LAYERS, *lengths: int) -> None:
    import torch

    from tests.task_preference_rows import make_task_rows

    warnings.simplefilter("ignore")
    torch.set_num_threads(NUM_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        model, collator = prepare_model(Path(folder), width, num_layers)
        rows = make_task_rows()[:NUM_ROWS]
        tokenizer = collator.processor.tokenizer
        whole = [(rows, collator.collate_prompts(rows))]
        single = [([row], collator.collate_prompts([row])) for row in rows]
        batch = collator(rows)
        step = measure(
            {
                "with_heads": lambda: learn(model.train(), batch, with_heads=True),
                "bare": lambda: learn(model.train(), batch, with_heads=False),
            },
            num_rounds,
        )
        model.zero_grad()
        for length in lengths or LENGTHS:
            answers = write(model.eval(), tokenizer, whole, length)
            generation = measure(
                {
                    "batched": lambda length=length: write(model, tokenizer, whole, length),
                    "one_by_one": lambda length=length: write(model, tokenizer, single, length),
                    "bare_batched": lambda length=length: write_bare(model, whole, length),
                    "bare_one_by_one": lambda length=length: write_bare(model, single, length),
                },
                num_rounds,
            )
            result = {
                "benchmark": "task_preference_speed",
                "num_parameters": sum(value.numel() for value in model.parameters()),
                "num_rows": len(rows),
                "num_prompt_tokens": whole[0][1]["input_ids"].shape[1],
                "num_new_tokens": length,
                "called": sorted(task for answer in answers for task in answer.tasks),
                "generation_seconds": generation,
                "step_seconds": step,
                "one_by_one_to_batched": round(generation["one_by_one"] / generation["batched"], 2),
                "bare_one_by_one_to_batched": round(generation["bare_one_by_one"] / generation["bare_batched"], 2),
                "batched_to_bare": round(generation["batched"] / generation["bare_batched"], 2),
                "with_heads_to_bare": round(step["with_heads"] / step["bare"], 2),
                "load": round(os.getloadavg()[0], 1),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
