"""A chat-completion server on the loopback address, with faults on request, for tests and benchmarks.

It answers at once and always the same to the same prompt, or fails in a seeded way; it knows no model.
`python tests/chat_server.py` serves without faults, prints its address, and ends when its input closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter, deque
from typing import Any, Literal

FAULTS = ("429", "500", "reset", "hang", "truncated", "empty")
_LETTER = re.compile(r"^([A-Z])\. ", re.MULTILINE)


def answer_prompt(prompt: str, seed: int = 0) -> str:
    """A letter of an option chosen by the hash of prompt and seed, or a number where there are no options."""
    digest = int.from_bytes(hashlib.sha256(f"{prompt}{seed or ''}".encode()).digest()[:8], "big")
    letters = _LETTER.findall(prompt)
    return letters[digest % len(letters)] if letters else str(digest % 10)


def weigh_tokens(letters: list[str], answer: str) -> dict[str, float]:
    """Probabilities of first tokens: half for the answer in two forms, 0.3 for the other letters, 0.15 for a word."""
    others = {letter: 0.3 / (len(letters) - 1) for letter in letters if letter != answer}
    return {answer: 0.4, f" {answer}": 0.1, "The": 0.15} | others


class ChatServer:
    """Serves `POST .../chat/completions` from a thread of its own, as a context manager.

    Args:
        fault_share (`float`, *optional*, defaults to 0): how often a request fails; which ones is decided by the
            seed, the prompt and how often it was asked before, whatever the order of requests.
        seed (`int`, *optional*, defaults to 0): of the faults.
        delay_seconds (`float`, *optional*, defaults to 0): how long an answer takes.
        key (`str`, *optional*): requests with another `Authorization` get 401 and the header back.
        model (`str`, *optional*): requests for another model get 404.
        max_in_flight (`int`, *optional*): more requests at once get 429.
        reply (`tuple`, *optional*): a status, headers and a body to give to every request instead.
        logprobs (`str` or `int`, *optional*, defaults to `"left_out"`): `"given"` with the answers, or the status
            that requests for them get.
        usage (`str`, *optional*): `"read"` counts a token a word and 100 a frame part, `"ignored"` leaves out frames.
        max_images (`int`, *optional*): more in a prompt get 400 as from vLLM, and the first of them back.
        max_bytes (`int`, *optional*): larger requests get 413.
        media_reply (`tuple`, *optional*): a status and a message to give to prompts with frames instead.

    Attributes:
        num_requests (`int`): all that came in.
        asked, answered (`Counter`): requests and whole answers by prompt.
        authorizations (`set`): the header of every request.
        max_seen (`int`): most requests in flight at once.
    """

    def __init__(
        self,
        *,
        fault_share: float = 0.0,
        seed: int = 0,
        delay_seconds: float = 0.0,
        key: str | None = None,
        model: str | None = None,
        max_in_flight: int | None = None,
        reply: tuple[int, dict[str, str], bytes] | None = None,
        logprobs: Literal["left_out", "given"] | int = "left_out",
        usage: Literal["read", "ignored"] | None = None,
        max_images: int | None = None,
        max_bytes: int | None = None,
        media_reply: tuple[int, str] | None = None,
    ) -> None:
        self.fault_share = fault_share
        self.seed = seed
        self.delay_seconds = delay_seconds
        self.key = key
        self.model = model
        self.max_in_flight = max_in_flight
        self.reply = reply
        self.logprobs = logprobs
        self.usage = usage
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.media_reply = media_reply
        self.num_requests = 0
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()
        self.bodies: deque[dict[str, Any]] = deque()
        self.num_in_flight = 0
        self.max_seen = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24, backlog=512))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _stop(self) -> None:
        self._server.close()
        await asyncio.sleep(0.02)  # what is being accepted gets its task
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)  # transports close one turn later

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.num_in_flight += 1
                self.max_seen = max(self.max_seen, self.num_in_flight)
                try:
                    if not await self._respond(headers, body, reader, writer):
                        break
                finally:
                    self.num_in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _respond(
        self, headers: dict[str, str], body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        prompt, media = read_content(body["messages"][0]["content"])
        self.num_requests += 1
        self.authorizations.add(headers.get("authorization"))
        self.bodies.append(body)
        self.asked[prompt] += 1
        fault = self._choose_fault(prompt)
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.reply is not None:
            status, more, content = self.reply
            return await self._write(writer, status, content, more)
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return await self._write_error(writer, 401, f"bad key {headers.get('authorization')}")
        if self.model is not None and body["model"] != self.model:
            return await self._write_error(writer, 404, f"no model {body['model']}")
        if self.max_in_flight is not None and self.num_in_flight > self.max_in_flight:
            return await self._write_error(writer, 429, "too many requests")
        if fault is not None:
            self.faults[fault] += 1
            return await self._fail(fault, prompt, reader, writer)
        if (refusal := self._refuse(media, int(headers["content-length"]))) is not None:
            return await self._write_error(writer, *refusal)
        if body.get("logprobs") and isinstance(self.logprobs, int):
            return await self._write_error(writer, self.logprobs, "logprobs are not supported")
        return await self._complete(writer, prompt, media, body)

    async def _complete(self, writer: asyncio.StreamWriter, prompt: str, media: list[str], body: Any) -> bool:
        self.answered[prompt] += 1
        answer = answer_prompt(prompt, body.get("seed", 0))
        tokens = None
        if body.get("logprobs") and self.logprobs == "given":
            tokens = [weigh_tokens(_LETTER.findall(prompt), answer)]
        usage = None
        if self.usage is not None:
            usage = len(prompt.split()) + (100 * len(media) if self.usage == "read" else 0) - bool(media)  # the mark
        return await self._write(writer, 200, make_completion(answer, tokens=tokens, num_prompt_tokens=usage))

    def _refuse(self, media: list[str], num_bytes: int) -> tuple[int, str] | None:
        if self.max_bytes is not None and num_bytes > self.max_bytes:
            return 413, "request entity too large"
        if self.max_images is not None and len(media) > self.max_images:
            return 400, f"At most {self.max_images} image(s) may be provided in one prompt. {media[0]}"
        return self.media_reply if media else None

    def _choose_fault(self, prompt: str) -> str | None:
        rng = random.Random(f"{self.seed} {self.asked[prompt]} {prompt}")
        return rng.choice(FAULTS) if rng.random() < self.fault_share else None

    async def _fail(self, fault: str, prompt: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if fault == "429":
            return await self._write_error(writer, 429, "slow down", {"Retry-After": "0"})
        if fault == "500":
            return await self._write_error(writer, 500, "something broke")
        if fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if fault == "hang":
            await reader.read(1)  # until the client gives up
            return False
        if fault == "truncated":
            content = make_completion(answer_prompt(prompt))
            return await self._write(writer, 200, content[: len(content) // 2])
        return await self._write(writer, 200, make_completion(" \n"))

    async def _write_error(
        self, writer: asyncio.StreamWriter, status: int, message: str, headers: dict[str, str] | None = None
    ) -> bool:
        return await self._write(writer, status, json.dumps({"error": {"message": message}}).encode(), headers)

    async def _write(
        self, writer: asyncio.StreamWriter, status: int, content: bytes, headers: dict[str, str] | None = None
    ) -> bool:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + content)
        await writer.drain()
        return True


def read_content(content: Any) -> tuple[str, list[str]]:
    """What a message says, marked by the media that it shows, and their URLs."""
    if isinstance(content, str):
        return content, []
    media = [part[part["type"]]["url"] for part in content if part["type"] != "text"]
    digest = hashlib.sha256("".join(media).encode()).hexdigest()
    return f"{content[-1]['text']}\n{digest}", media


def make_completion(
    text: str | None,
    finish_reason: str = "stop",
    tokens: list[dict[str, float]] | None = None,
    num_prompt_tokens: int | None = None,
) -> bytes:
    """The JSON of a chat completion with one choice; each of its tokens is the first of some with probabilities."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    choice["message"] = {"role": "assistant", "content": text}
    if tokens is not None:
        listed = [[{"token": token, "logprob": math.log(p)} for token, p in weights.items()] for weights in tokens]
        choice["logprobs"] = {"content": [{**likeliest[0], "top_logprobs": likeliest} for likeliest in listed]}
    reply: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    if num_prompt_tokens is not None:
        counts = {"prompt_tokens": num_prompt_tokens, "completion_tokens": 1, "total_tokens": num_prompt_tokens + 1}
        reply["usage"] = counts
    return json.dumps(reply).encode()


if __name__ == "__main__":
    with ChatServer() as server:
        server.bodies = deque(maxlen=0)
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()
