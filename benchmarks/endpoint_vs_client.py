"""Speed of `EndpointAnswerer` with its cache beside the bare client's, and memory by the number of questions.

An instant local server answers, in a process of its own. Prints one JSON line.

    python benchmarks/endpoint_vs_client.py [REQUESTS]
    python benchmarks/endpoint_vs_client.py memory [QUESTIONS]
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import AsyncInferenceClient

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint import EndpointAnswerer
from vidground_hf.asking import Asking, ask_rows
from vidground_hf.cache import AnswerCache, answer_through_cache
from vidground_hf.judging import make_trial
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.rules import single_shot
from vidground_hf.schema import Example

CONCURRENCY = 64
REPEATS = 5
SERVER = Path(__file__).resolve().parents[1] / "tests" / "chat_server.py"


def make_example(index: int) -> Example:
    # Strings that no two examples share, as if they had been read from a file.
    return Example(
        id=str(index),
        question=f"What does the man do after he opens the door, {index}?",
        problem_type="multiple_choice",
        options=tuple(f"{what} {index}" for what in ("walks", "sits down", "waves", "picks up a cup", "turns around")),
        answer_index=index % 5,
    )


def make_prompts(count: int) -> list[Prompt]:
    return [make_prompt(make_example(index)) for index in range(count)]


class LazyPrompts:
    """Prompts that are made when they are taken, so that nobody holds them."""

    def __init__(self, num_prompts: int) -> None:
        self.num_prompts = num_prompts

    def __len__(self) -> int:
        return self.num_prompts

    def __getitem__(self, index: int) -> Prompt:
        if index >= self.num_prompts:
            raise IndexError(index)
        return make_prompt(make_example(index))


async def ask_bare(url: str, prompts: list[Prompt]) -> float:
    """The least a client can do: as many workers as requests in flight, nothing kept, nothing checked."""
    left = iter(prompts)

    async def work(client: AsyncInferenceClient) -> None:
        for prompt in left:
            await client.chat_completion([{"role": "user", "content": prompt.text}], model="m", max_tokens=1024)

    started = time.perf_counter()
    async with AsyncInferenceClient(base_url=url, api_key="none") as client:
        await asyncio.gather(*(work(client) for _ in range(CONCURRENCY)))
    return time.perf_counter() - started


def ask_ours(url: str, prompts: list[Prompt], folder: str) -> tuple[float, float]:
    """Seconds to ask everything and keep it, and seconds to find it again."""
    with AnswerCache(Path(tempfile.mkdtemp(dir=folder)) / "answers.sqlite") as cache:
        answerer = EndpointAnswerer("m", base_url=url, concurrency=CONCURRENCY)
        started = time.perf_counter()
        answers = answer_through_cache(answerer, prompts, cache, on_answer=lambda count, source: None)
        asked = time.perf_counter()
        if any(answer.error for answer in answers):
            raise RuntimeError("the local server failed; run again")
        answer_through_cache(answerer, prompts, cache, on_answer=lambda count, source: None)
        return asked - started, time.perf_counter() - asked


@contextmanager
def serve() -> Iterator[str]:
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def compare_speed(num_requests: int) -> dict[str, object]:
    prompts = make_prompts(num_requests)
    with tempfile.TemporaryDirectory() as folder, serve() as url:
        asyncio.run(ask_bare(url, prompts[:100]))
        runs = [(asyncio.run(ask_bare(url, prompts)), *ask_ours(url, prompts, folder)) for _ in range(REPEATS)]
    bare, ours, found = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    return {
        "benchmark": "endpoint_vs_client",
        "requests": num_requests,
        "concurrency": CONCURRENCY,
        "ours_per_second": round(num_requests / ours),
        "bare_client_per_second": round(num_requests / bare),
        "ratio": round(statistics.median(run[0] / run[1] for run in runs), 2),
        "from_cache_per_second": round(num_requests / found),
    }


def hold(what: str, count: int, url: str) -> None:
    """Asks and keeps nothing, keeps what a set's judgement keeps without asking, or does both; prints the peak."""
    answerer = EndpointAnswerer("m", base_url=url, concurrency=CONCURRENCY)
    if what == "asking":
        answerer.answer_each(LazyPrompts(count), lambda index, answer: None)  # type: ignore[arg-type]
    else:
        examples = [make_example(index) for index in range(count)]
        if what == "judging":
            asking = Asking(answerers=(answerer,), rule=single_shot(), view="text")
            rows = ask_rows(asking, examples).trials
        else:
            rows = [[make_trial(example, Answer(text="A"))] for example in examples]
        if len(rows) != count or any(trial.error for trials in rows for trial in trials):
            raise RuntimeError("the local server failed; run again")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure_memory(num_questions: int) -> dict[str, object]:
    few = 1000
    result: dict[str, object] = {"benchmark": "endpoint_memory", "concurrency": CONCURRENCY}
    for what in ("asking", "holding", "judging"):
        peaks = []
        for count in (few, num_questions):
            with serve() as url, tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "hold", what, str(count), url]
                environment = {**os.environ, "VIDGROUND_CACHE": folder}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                peaks.append(int(done.stdout))
        result[f"{what}_peak_mb"] = {few: round(peaks[0] / 2**20), num_questions: round(peaks[1] / 2**20)}
        result[f"{what}_bytes_per_question"] = round((peaks[1] - peaks[0]) / (num_questions - few))
    return result


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["hold"]:
        hold(arguments[1], int(arguments[2]), arguments[3])
    elif arguments[:1] == ["memory"]:
        print(json.dumps(measure_memory(int((arguments[1:] or ["100000"])[0]))))
    else:
        print(json.dumps(compare_speed(int((arguments or ["2000"])[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
