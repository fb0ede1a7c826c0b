"""Requests a second of `EndpointAnswerer` with its cache beside the bare client's, against an instant local server.

The server is a process of its own. Prints one JSON line. `python benchmarks/endpoint_vs_client.py [REQUESTS]`
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from huggingface_hub import AsyncInferenceClient

from vidground_hf.answerers.endpoint import EndpointAnswerer
from vidground_hf.cache import AnswerCache, answer_through_cache
from vidground_hf.prompts import Prompt

CONCURRENCY = 64
REPEATS = 5
SERVER = Path(__file__).resolve().parents[1] / "tests" / "chat_server.py"


def make_prompts(count: int) -> list[Prompt]:
    return [
        Prompt(
            example_id=str(index),
            view="text",
            problem_type="multiple_choice",
            question=f"What does the man do after he opens the door, {index}?",
            options=("walks away", "sits down", "waves", "picks up a cup", "turns around"),
        )
        for index in range(count)
    ]


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
        answers = answer_through_cache(answerer, prompts, cache, on_answer=int)
        asked = time.perf_counter()
        if any(answer.error for answer in answers):
            raise RuntimeError("the local server failed; run again")
        answer_through_cache(answerer, prompts, cache, on_answer=int)
        return asked - started, time.perf_counter() - asked


def main(num_requests: int) -> None:
    prompts = make_prompts(num_requests)
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stdout is not None
        assert server.stdin is not None
        url = server.stdout.readline().strip()
        asyncio.run(ask_bare(url, prompts[:100]))
        runs = [(asyncio.run(ask_bare(url, prompts)), *ask_ours(url, prompts, folder)) for _ in range(REPEATS)]
        server.stdin.close()
    bare, ours, found = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    print(
        json.dumps(
            {
                "benchmark": "endpoint_vs_client",
                "requests": num_requests,
                "concurrency": CONCURRENCY,
                "ours_per_second": round(num_requests / ours),
                "bare_client_per_second": round(num_requests / bare),
                "ratio": round(statistics.median(run[0] / run[1] for run in runs), 2),
                "from_cache_per_second": round(num_requests / found),
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
