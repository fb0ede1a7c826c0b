"""The probe beside a random forest of 100 trees on hand-made features of options, over the same grouped folds.

The forest has the shape of TsT-RF: lengths, ranks, capitals, numbers, overlap with the question, and how often an
option and its words were answers in the training folds. Each trains five times and answers what it did not see, on
one thread; the probe also trains its model for unseen rows and checks its label invariance.
Prints one JSON line. `python benchmarks/probe_vs_forest.py [NEXT_QA_CSV ...]`; without files, 8,000 made-up rows.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from synthetic import make_rows
from threadpoolctl import threadpool_limits

from vidground_hf import Example, TextBiasProbe, find_adapter, open_dataset
from vidground_hf.answerers.probe_rows import assign_folds
from vidground_hf.schema import normalize_text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NUM_SYNTHETIC_ROWS = 8_000
NUM_FOLDS = 5
NUM_TREES = 100
SEED = 0
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def read_examples(paths: list[str]) -> list[Example]:
    """The rows that both can be judged on: multiple choice, with a gold answer and no defect."""
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = folder
        rows = open_dataset(paths) if paths else make_rows(NUM_SYNTHETIC_ROWS)
        convert = find_adapter(rows.column_names).convert
        examples = [convert(row) for row in rows]
    return [e for e in examples if e.options and e.answer_index is not None and e.defect is None]


def find_folds(examples: list[Example]) -> Ints:
    """The folds that the probe makes with the same seed: rows of one group have one number, counted as they come."""
    codes: dict[object, int] = {}
    keys = [(e.question, *sorted(e.options)) if e.group is None else e.group for e in examples]
    groups = [codes.setdefault(key, len(codes)) for key in keys]
    return assign_folds(np.array(groups), np.ones(len(examples), bool), NUM_FOLDS, SEED)


def rank(values: list[float]) -> list[float]:
    """Place among the values from 0 to 1; equal values share the lowest, a missing one has 0."""
    return [sum(other < value for other in values) / max(len(values) - 1, 1) for value in values]


def read_number(words: list[str]) -> float:
    """The first number; nan where there is none."""
    found = [float(w) if w.isdecimal() else NUMBERS.index(w) for w in words if w.isdecimal() or w in NUMBERS]
    return float(found[0]) if found else np.nan


def describe_options(example: Example) -> list[list[float]]:
    """What is known of each option without an answer."""
    asked = set(re.findall(r"\w+", example.question.lower()))
    words = [re.findall(r"\w+", option.lower()) for option in example.options]
    numbers = [read_number(option) for option in words]
    columns = [
        [float(len(option)) for option in example.options],
        rank([float(len(option)) for option in example.options]),
        [float(len(option)) for option in words],
        rank([float(len(option)) for option in words]),
        [float(sum(letter.isupper() for letter in option)) for option in example.options],
        [float(sum(letter.isdigit() for letter in option)) for option in example.options],
        numbers,  # the forest splits on missing ones by itself
        rank(numbers),
        [len(asked & set(option)) / max(len(set(option)), 1) for option in words],
    ]
    return [list(values) for values in zip(*columns, strict=True)]


class AnswerFrequency:
    """How often terms of options (each option's text, or its words) were in gold options, by fold."""

    def __init__(self, terms: list[list[str]], is_gold: NDArray[np.bool_], folds: Ints) -> None:
        self.counts = np.array([len(some) for some in terms])
        ids: dict[str, int] = {}
        self.ids = np.array([ids.setdefault(term, len(ids)) for some in terms for term in some])
        self.option = np.repeat(np.arange(len(terms)), self.counts)
        self.used = np.zeros((NUM_FOLDS, len(ids)))
        self.won = np.zeros_like(self.used)
        np.add.at(self.used, (folds[self.option], self.ids), 1)
        np.add.at(self.won, (folds[self.option], self.ids), is_gold[self.option])
        self.folds = folds

    def describe(self, held_out: int) -> Floats:
        """Mean over an option's terms of the times a term was gold and of its share of gold (`float64[C, 2]`).

        The option's own fold and the held-out one are not counted: what a forest trains on must look as what it meets.
        """
        columns = np.zeros((len(self.counts), 2))
        for own in range(NUM_FOLDS):
            kept = [fold for fold in range(NUM_FOLDS) if fold not in (own, held_out)]
            won, used = self.won[kept].sum(axis=0), self.used[kept].sum(axis=0)
            chosen = self.folds == own
            for column, values in enumerate((won, won / np.maximum(used, 1))):
                sums = np.bincount(self.option, values[self.ids], minlength=len(self.counts))
                columns[chosen, column] = (sums / np.maximum(self.counts, 1))[chosen]
        return columns


def answer_by_forest(examples: list[Example]) -> list[str]:
    folds = np.repeat(find_folds(examples), [len(e.options) for e in examples])
    is_gold = np.concatenate([np.arange(len(e.options)) == e.answer_index for e in examples])
    options = [option for e in examples for option in e.options]
    fixed = np.array([values for e in examples for values in describe_options(e)])
    texts = AnswerFrequency([[normalize_text(option)] for option in options], is_gold, folds)
    words = AnswerFrequency([re.findall(r"\w+", option.lower()) for option in options], is_gold, folds)
    probabilities = np.zeros(len(options))
    for fold in range(NUM_FOLDS):
        features = np.hstack([fixed, texts.describe(fold), words.describe(fold)])
        forest = RandomForestClassifier(n_estimators=NUM_TREES, random_state=SEED)
        forest.fit(features[folds != fold], is_gold[folds != fold])
        probabilities[folds == fold] = forest.predict_proba(features[folds == fold])[:, 1]
    starts = np.cumsum([len(e.options) for e in examples])[:-1]
    return [e.options[p.argmax()] for e, p in zip(examples, np.split(probabilities, starts), strict=True)]


def answer_by_probe(examples: list[Example]) -> list[str]:
    return [answer.text or "" for answer in TextBiasProbe(num_folds=NUM_FOLDS, seed=SEED).fit(examples).answers]


def measure(answer: Callable[[list[Example]], list[str]], examples: list[Example]) -> dict[str, float]:
    started = time.perf_counter()
    with threadpool_limits(1):
        answers = answer(examples)
    seconds = time.perf_counter() - started
    pairs = zip(answers, examples, strict=True)
    right = [normalize_text(text) == normalize_text(e.options[e.answer_index or 0]) for text, e in pairs]
    return {"accuracy": round(float(np.mean(right)), 4), "questions_per_second": round(len(examples) / seconds, 1)}


def main(paths: list[str]) -> None:
    datasets.disable_progress_bars()
    examples = read_examples(paths)
    probe, forest = measure(answer_by_probe, examples), measure(answer_by_forest, examples)
    line: dict[str, Any] = {
        "benchmark": "probe_vs_forest",
        "data": [path.rsplit("/", 1)[-1] for path in paths] or "generated by synthetic.make_rows",
        "rows": len(examples),
        "chance": round(float(np.mean([1 / e.num_distinct_options for e in examples])), 4),
        "probe": probe,
        "forest": forest,
        "ratio_of_accuracy": round(probe["accuracy"] / forest["accuracy"], 3),
        "ratio_of_questions_per_second": round(probe["questions_per_second"] / forest["questions_per_second"], 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1:])
