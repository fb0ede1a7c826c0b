"""`AnswerCache` at ten thousand to three million answers: puts and gets a second, and the size of the file.

Answers are put one by one, each on its way to the disk when `put` returns, and to fill the file ten thousand in one
transaction; gets are of keys drawn at random. Prints one JSON line.
`python benchmarks/cache_at_scale.py [--folder DIR] [SIZE ...]`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidground_hf.answerers.base import Answer
from vidground_hf.cache import AnswerCache

_SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
_SAMPLE = 5_000
_ANSWERER = "benchmark@1"


def make_answer(number: int) -> tuple[bytes, Answer]:
    key = hashlib.sha256(str(number).encode()).digest()
    return key, Answer(text="ABCD"[number % 4], option_logprobs=(-1.5, -0.7, -2.5, -3.0), num_answer_tokens=1)


def measure(run: Callable[[], Any], count: int) -> int:
    started = time.perf_counter()
    run()
    return round(count / (time.perf_counter() - started))


def put_each(cache: AnswerCache, numbers: range) -> None:
    for number in numbers:
        cache.put(*make_answer(number), _ANSWERER)


def fill(cache: AnswerCache, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, 10_000):
        cache._database.execute("BEGIN")
        # By key, as the file is sorted: neighbours are on the same page.
        for key, answer in sorted(make_answer(k) for k in range(start, min(start + 10_000, numbers.stop))):
            cache.put(key, answer, _ANSWERER)
        cache._database.execute("COMMIT")


def main(sizes: list[int], base: str | None) -> None:
    found = []
    with tempfile.TemporaryDirectory(dir=base) as folder, AnswerCache(Path(folder) / "answers.sqlite") as cache:
        size = 0
        for target in sizes:
            filled = range(size, target - _SAMPLE)
            part: dict[str, Any] = {"answers": target, "puts_together_per_second": None}
            if len(filled):
                started = time.perf_counter()
                fill(cache, filled)
                part["puts_together_per_second"] = round(len(filled) / (time.perf_counter() - started))
            each = range(target - _SAMPLE, target)
            part["puts_per_second"] = measure(lambda each=each: put_each(cache, each), _SAMPLE)
            rng = random.Random(target)
            keys = [make_answer(rng.randrange(target))[0] for _ in range(_SAMPLE)]
            part["gets_per_second"] = measure(lambda keys=keys: cache.get_many(keys), len(set(keys)))
            missing = [hashlib.sha256(f"none {k}".encode()).digest() for k in range(_SAMPLE)]
            part["misses_per_second"] = measure(lambda keys=missing: cache.get_many(keys), _SAMPLE)
            part["bytes_per_answer"] = round(cache.describe()["num_bytes"] / target)
            found.append(part)
            size = target
    print(json.dumps({"benchmark": "cache_at_scale", "sizes": found}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=list(_SIZES))
    parser.add_argument("--folder", help="where the cache lies meanwhile; the temporary folder if left out")
    given = parser.parse_args()
    main(given.sizes, given.folder)
