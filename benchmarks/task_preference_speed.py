"""A task preference model: one batched generation beside row by row, and a training step beside the bare model's.

A Qwen2.5-VL with random weights (6.2 million parameters) with heads for moments, boxes and masks. Eight rows of all
tasks about toy clips, read and tokenised beforehand; the first token of each answer is set, because a model that was
not trained calls no head, and each answer is of equal length. The training step is forward and backward of those rows
with their labels, with the heads' losses and without heads. The arms take turns, and the first round is left out;
figures are medians of the processor's seconds. Prints one JSON line.
`python benchmarks/task_preference_speed.py [ROUNDS]`
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

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CI="1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

NUM_ROUNDS = 5
NUM_ROWS = 8
NUM_NEW_TOKENS = 16


def prepare_model(folder: Path) -> tuple[Any, Any]:
    """The model with its heads, and its collator."""
    import torch
    from grpo_step import prepare
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from tests.task_preference_rows import make_collator
    from vidground_hf.task_preference import TaskPreferenceModel

    prepare(folder)
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(folder / "model", padding_side="left")
    vlm = AutoModelForImageTextToText.from_pretrained(folder / "model")
    model = TaskPreferenceModel.from_vlm(vlm, processor)
    return model, make_collator(processor)


def write(model: Any, tokenizer: Any, batches: list[tuple[list[Any], dict[str, Any]]]) -> list[Any]:
    """Answers batches of rows; the first token of an answer calls the row's head."""
    answers: list[Any] = []
    everything = list(range(len(tokenizer)))
    for rows, inputs in batches:
        length = inputs["input_ids"].shape[1]
        first = [model.config.trigger_token_ids.get(row.task) for row in rows]

        def allow(row: int, ids: Any, length: int = length, first: list[int | None] = first) -> list[int]:
            token = first[row]
            return [token] if token is not None and len(ids) == length else everything

        answers += model.generate(
            **inputs,
            tokenizer=tokenizer,
            max_new_tokens=NUM_NEW_TOKENS,
            min_new_tokens=NUM_NEW_TOKENS,
            do_sample=False,
            prefix_allowed_tokens_fn=allow,
        )
    return answers


def learn(model: Any, batch: dict[str, Any], *, with_heads: bool) -> None:
    """One forward and backward."""
    model.zero_grad()
    if with_heads:
        model(**batch).loss.backward()
    else:
        model.vlm(**{name: value for name, value in batch.items() if name not in ("targets", "media")}).loss.backward()


def measure(arms: dict[str, Callable[[], Any]], num_rounds: int) -> dict[str, float]:
    """The median seconds of each arm."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(num_rounds + 1):
        for name, arm in arms.items():
            start = time.process_time()
            arm()
            seconds[name].append(time.process_time() - start)
    return {name: round(median(found[1:]), 3) for name, found in seconds.items()}


def main(num_rounds: int = NUM_ROUNDS) -> None:
    import torch

    from tests.task_preference_rows import make_task_rows

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, collator = prepare_model(Path(folder))
        rows = make_task_rows()[:NUM_ROWS]
        tokenizer = collator.processor.tokenizer
        whole = [(rows, collator.collate_prompts(rows))]
        single = [([row], collator.collate_prompts([row])) for row in rows]
        answers = write(model.eval(), tokenizer, whole)
        called = sorted(task for answer in answers for task in answer.tasks)
        generation = measure(
            {
                "batched": lambda: write(model, tokenizer, whole),
                "one_by_one": lambda: write(model, tokenizer, single),
            },
            num_rounds,
        )
        model.train()
        batch = collator(rows)
        step = measure(
            {
                "with_heads": lambda: learn(model, batch, with_heads=True),
                "bare": lambda: learn(model, batch, with_heads=False),
            },
            num_rounds,
        )
    result = {
        "benchmark": "task_preference_speed",
        "num_parameters": sum(value.numel() for value in model.parameters()),
        "num_rows": len(rows),
        "called": called,
        "generation_seconds": generation,
        "step_seconds": step,
        "one_by_one_to_batched": round(generation["one_by_one"] / generation["batched"], 2),
        "with_heads_to_bare": round(step["with_heads"] / step["bare"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
