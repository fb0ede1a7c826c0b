"""Letter log-probabilities by `TransformersAnswerer` beside lm-evaluation-harness and beside the bare forward pass.

A Llama of 30M parameters with random weights, a tokenizer trained on the prompts, one process, as many threads as
torch is given; five minutes on one core. The limit is the model run over the same tokens without padding. Sides take
turns, and a ratio is the median over the turns. Prints one JSON line.
`python benchmarks/lm_vs_harness.py NEXT_QA_CSV [QUESTIONS]`
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", LMEVAL_LOG_LEVEL="ERROR", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")

import datasets
import numpy as np
import torch
import transformers
from lm_decisions import measure_decisions
from lm_sides import Harness, Limit, make_model

from vidground_hf import Example, find_adapter, open_dataset
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.orders import draw_orders
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.schema import LETTERS

SEED = 0
NUM_TURNS = 3
NUM_QUESTIONS = 240
# Five orders of each, and thirty passes for decisions: fewer questions do.
NUM_ROTATED = 60
NUM_ORDERS = 5  # NExT-QA has five options
CHOICES = [f" {letter}" for letter in LETTERS[:NUM_ORDERS]]


def read_rows(path: str, num_questions: int) -> tuple[datasets.Dataset, list[Example]]:
    """A seeded sample of the rows without defects, each question once."""
    rows = open_dataset([path])
    convert = find_adapter(rows.column_names).convert
    examples = [convert(row) for row in rows]
    first = {(e.question, e.options): index for index, e in reversed(list(enumerate(examples))) if e.defect is None}
    chosen = sorted(random.Random(SEED).sample(sorted(first.values()), num_questions))
    return rows.select(chosen), [examples[index] for index in chosen]


def time_turns(sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each side in each turn, of the CPU on one thread, by the wall with more. The order is turned, too."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(NUM_TURNS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = clock()
            sides[name]()
            seconds[name].append(clock() - started)
    return seconds


def compare_answers(answerer: TransformersAnswerer, harness: Harness, prompts: list[Prompt]) -> dict[str, float]:
    """How often the harness's surest letter is ours: of the form " A" alone, and of "A" and " A" together as ours."""
    surest = np.array([LETTERS.index(answer.text or "") for answer in answerer.answer(prompts)])
    bare = [choice.strip() for choice in CHOICES]
    logprobs = harness.read_logprobs([show(prompt) for prompt in prompts], CHOICES + bare)
    one_form, other = logprobs[:, :NUM_ORDERS], logprobs[:, NUM_ORDERS:]
    return {
        "one_form": round(float((one_form.argmax(axis=1) == surest).mean()), 4),
        "both_forms": round(float((np.logaddexp(one_form, other).argmax(axis=1) == surest).mean()), 4),
    }


def measure_sides(
    answerer: TransformersAnswerer,
    limit: Limit,
    harness: Harness,
    prompts: list[list[Prompt]],
    ids: list[list[list[int]]],
) -> dict[str, Any]:
    """One order of all questions, and five rotations of some, which our side answers in one call."""
    first, rotated = [row[0] for row in prompts], prompts[:NUM_ROTATED]
    together = [prompt for row in rotated for prompt in row]
    one_task = harness.make_tasks("one", [[show(prompt) for prompt in first]], CHOICES)
    five_tasks = harness.make_tasks(
        "five", [[show(p) for p in order] for order in zip(*rotated, strict=True)], CHOICES
    )
    seconds = time_turns(
        {
            "ours": lambda: answerer.answer(first),
            "limit": lambda: limit.run([row[0] for row in ids]),
            "harness": lambda: harness.run(one_task),
            "ours_five": lambda: answerer.answer(together),
            "harness_five": lambda: harness.run(five_tasks),
        }
    )
    num_tokens = sum(len(row[0]) for row in ids)
    num_tokens_five = sum(len(order) for row in ids[:NUM_ROTATED] for order in row)
    num_shared = fmean(count_shared(row) for row in ids[:NUM_ROTATED])
    num_own = num_tokens_five / len(together) - num_shared
    allowed = NUM_ORDERS * (num_shared + num_own) / (num_shared + NUM_ORDERS * num_own)
    # Tokens of five whole prompts a second over tokens of one: the questions are not the same.
    gained = num_tokens_five / num_tokens * take_ratio(seconds, "ours", "ours_five")
    counts = {"ours_five": len(rotated), "harness_five": len(rotated)}
    return {
        "questions_per_second": {
            name: round(counts.get(name, len(first)) / median(values), 2) for name, values in seconds.items()
        },
        "ratio_to_limit": round(take_ratio(seconds, "limit", "ours"), 3),
        "ratio_to_harness": round(take_ratio(seconds, "harness", "ours"), 3),
        "mean_shared_tokens": round(num_shared, 1),
        "mean_own_tokens": round(num_own, 1),
        "sharing_allows": round(allowed, 3),
        "sharing_gives": round(gained, 3),
        "ratio_to_what_sharing_allows": round(gained / allowed, 3),
        "ratio_to_harness_five": round(take_ratio(seconds, "harness_five", "ours_five"), 3),
    }


def take_ratio(seconds: dict[str, list[float]], slower: str, faster: str) -> float:
    return median(s / f for s, f in zip(seconds[slower], seconds[faster], strict=True))


def count_shared(rows: list[list[int]]) -> int:
    """Length of the common beginning of rows that differ."""
    return next(place for place, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1)


def show(prompt: Prompt) -> str:
    """What `TransformersAnswerer` shows a model without a chat template."""
    return f"{prompt.text}\nAnswer:"


def main(path: str, num_questions: int) -> None:
    started = time.perf_counter()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets.config.HF_DATASETS_CACHE = folder / "datasets"
        os.environ["VIDGROUND_CACHE"] = str(folder / "answers")
        rows, examples = read_rows(path, num_questions)
        prompts = [[make_prompt(e, order=order) for order in draw_orders(e, NUM_ORDERS, SEED)] for e in examples]
        num_parameters = make_model(folder, [show(prompt) for row in prompts for prompt in row])
        answerer = TransformersAnswerer(str(folder), device="cpu", dtype="float32")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer([show(prompt) for prompt in row])["input_ids"] for row in prompts]
        mean_tokens = fmean(len(row[0]) for row in ids)
        max_batch_tokens = answerer._load().max_batch_tokens
        batch_size = round(max_batch_tokens / mean_tokens)
        limit, harness = Limit(folder, max_batch_tokens), Harness(folder, batch_size)
        line = {
            "benchmark": "lm_vs_harness",
            "data": Path(path).name,
            "questions": num_questions,
            "parameters": num_parameters,
            "threads": torch.get_num_threads(),
            "clock": "cpu" if torch.get_num_threads() == 1 else "wall",
            "prompt": show(prompts[0][0]),
            "mean_tokens": round(mean_tokens, 1),
            "batch_size": batch_size,
            "turns": NUM_TURNS,
            "rotated_questions": NUM_ROTATED,
            "same_answers_as_harness": compare_answers(answerer, harness, [row[0] for row in prompts[:NUM_ROTATED]]),
            **measure_sides(answerer, limit, harness, prompts, ids),
            "decisions": measure_decisions(answerer, rows.select(range(NUM_ROTATED)), examples[:NUM_ROTATED]),
            "seconds": round(time.perf_counter() - started),
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else NUM_QUESTIONS)
