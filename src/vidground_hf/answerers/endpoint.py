"""`EndpointAnswerer`: asks a model behind a chat-completion server, one of your own or an Inference Provider.

It returns what the model wrote; finding an option in it is `scoring.py`'s, keeping it is `cache.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient, get_token
from huggingface_hub.errors import HfHubHTTPError

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint_loop import run_in_background
from vidground_hf.answerers.endpoint_throttle import Throttle
from vidground_hf.prompts import Prompt

KEY_VARIABLE = "VIDGROUND_ENDPOINT_KEY"
_NO_KEY = "none"
DEFAULT_CONCURRENCY = 64
MAX_CONCURRENCY = 100  # connections that huggingface_hub's client opens at most

# Our guesses: eight tries wait up to a minute in all, and a refused key, an unknown model or an empty account will
# not get better by asking again.
_MAX_TRIES = 8
_MAX_REFUSALS = 50
_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_MAX_WAIT_SECONDS = 300.0
_RETRIED = frozenset({408, 409, 425, 429})
_FATAL = {
    401: "does not accept the key",
    402: "asks for payment",
    403: "does not allow this key to use the model",
    404: "does not know the model or the address",
    405: "does not answer chat completions at this address",
}
# huggingface_hub 1 stands on httpx and 2 on httpx2; either way a lost connection is of the kind its own errors are of.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True, slots=True)
class _Failure:
    """A request that gave no answer: try it again, leave the question, slow down, or stop asking altogether."""

    then: Literal["retry", "leave", "slow_down", "stop"]
    reason: str
    wait_seconds: float = 0.0


class EndpointAnswerer:
    """Asks a model behind a server, many questions at once.

    A request that fails is tried again after a random, growing wait; a refused key or an unknown model stops the
    run, and every question that was not answered then carries that reason as its error. The key of a server of your
    own is read from `$VIDGROUND_ENDPOINT_KEY` when it is needed (the word `none` is sent without it, never a Hub
    token); for an Inference Provider the Hub's token store is used.

    Args:
        model (`str`): as the server calls it.
        base_url (`str`, *optional*): an OpenAI-compatible server, for example `http://localhost:8000/v1`.
        provider (`str`, *optional*): an Inference Provider, or `"auto"`. Exactly one of the two is given.
        concurrency (`int`, *optional*, defaults to 64): requests in flight at most, 1 to 100.
        max_requests (`int`, *optional*): what may be sent in all, tries included; then asking stops.
        timeout_seconds (`float`, *optional*, defaults to 60): the longest a request may take.
        temperature (`float`, *optional*, defaults to 0): as the server understands it.
        max_tokens (`int`, *optional*, defaults to 1024): the longest answer.

    Raises:
        `ValueError`: for settings out of range, and a URL that holds a password or is none.

    Example:
        >>> EndpointAnswerer("Qwen/Qwen3-8B", base_url="http://localhost:8000/v1").id
        'endpoint:Qwen/Qwen3-8B@http://localhost:8000/v1'
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        max_requests: int | None = None,
        timeout_seconds: float = 60.0,
        temperature: float = 0.0,
        max_tokens: int = 1024,
    ) -> None:
        if (base_url is None) == (provider is None):
            raise ValueError(f"one of base_url and provider is needed, got {base_url = } and {provider = }")
        if not model or "://" in model:
            raise ValueError(f"{model = } is no model; pass its name, and the address of the server as base_url")
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"{concurrency = } is out of range; allowed are 1 to {MAX_CONCURRENCY}")
        if max_requests is not None and max_requests < 1:
            raise ValueError(f"{max_requests = } is out of range; it is at least 1, or None for no limit")
        if not timeout_seconds > 0 or not temperature >= 0 or max_tokens < 1:
            raise ValueError(
                f"{timeout_seconds = }, {temperature = } or {max_tokens = } is out of range; allowed are above 0, "
                "0 or more, and 1 or more"
            )
        if base_url is not None:
            _check_url(base_url)
        self.model = model
        self.base_url = base_url.rstrip("/") if base_url is not None else None
        self.provider = provider
        self.concurrency = concurrency
        self.max_requests = max_requests
        self.timeout_seconds = timeout_seconds
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.num_sent = 0
        self._num_in_flight = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "num_sent": 0, "_num_in_flight": 0}

    @property
    def id(self) -> str:
        if self.base_url is not None:
            return f"endpoint:{self.model}@{self.base_url}"
        return f"provider:{self.model}@{self.provider}"

    @property
    def sampling(self) -> Mapping[str, Any]:
        """What is sent besides model and prompt (`Mapping`)."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens}

    @property
    def num_in_flight(self) -> int:
        return self._num_in_flight

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts; the same length, in the same order."""
        answers: dict[int, Answer] = {}
        self.answer_each(prompts, answers.__setitem__)
        return [answers[index] for index in range(len(prompts))]

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts and hands each answer over as soon as it is there, from another thread.

        Args:
            prompts (`Sequence[Prompt]`): N prompts.
            on_answer (`Callable`): called N times with a position and an answer, one call at a time. What it raises
                ends the run and is raised here.
        """
        if prompts:
            run_in_background(self._answer_each(prompts, on_answer))

    async def _answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        key = self._read_key()
        async with AsyncInferenceClient(base_url=self.base_url, provider=self.provider, token=key) as client:  # type: ignore[arg-type]
            run = _Run(self, client, key)
            left = iter(enumerate(prompts))
            workers = [
                asyncio.create_task(run.work(left, on_answer)) for _ in range(min(self.concurrency, len(prompts)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _read_key(self) -> str:
        if self.base_url is None:
            token = get_token()
            if token is None:
                raise ValueError(f"{self.id} needs a Hub token, none is stored; run `hf auth login` or set HF_TOKEN")
            return token
        # Given no key the client would send the user's Hub token to whoever runs this server.
        key = os.environ.get(KEY_VARIABLE, "").strip() or _NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"{KEY_VARIABLE} holds characters that no header can carry; set it again")
        return key


class _Run:
    """What the requests of one call share: the client, the bound, and the reason to stop, once there is one."""

    def __init__(self, settings: EndpointAnswerer, client: AsyncInferenceClient, key: str) -> None:
        self.settings = settings
        self.client = client
        self.key = key
        self.throttle = Throttle(settings.concurrency)
        self.num_answered = 0
        self.resume_at = 0.0
        self.stop_reason: str | None = None
        self.is_stopped = asyncio.Event()

    async def work(self, left: Iterator[tuple[int, Prompt]], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers one prompt after the other until none is left."""
        for index, prompt in left:
            on_answer(index, await self.answer(prompt))

    async def answer(self, prompt: Prompt) -> Answer:
        """Answers one prompt, however many tries it takes."""
        num_answered_before = self.num_answered
        num_failed = num_refused = 0
        while self.stop_reason is None:
            outcome = await self._take_turn(prompt)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.then == "stop":
                self.stop(outcome.reason)
            elif outcome.then == "leave":
                return Answer(text=None, error=outcome.reason)
            elif outcome.then == "slow_down":
                num_refused += 1
            else:
                num_failed += 1
            if num_failed == _MAX_TRIES or num_refused == _MAX_REFUSALS:
                reason = f"{num_failed + num_refused} requests failed, the last because {outcome.reason}"
                if self.num_answered > num_answered_before:
                    return Answer(text=None, error=reason)
                self.stop(f"{self.settings.id} answers nothing: {reason}")
            backoff_seconds = min(_MAX_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2 ** max(num_failed - 1, 0))
            await self._sleep(outcome.wait_seconds + random.uniform(0, backoff_seconds))
        return Answer(text=None, error=self.stop_reason)

    def stop(self, reason: str) -> None:
        """Sends nothing more; requests in flight may finish."""
        self.stop_reason = self.stop_reason or reason
        self.is_stopped.set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_stopped.wait(), seconds)

    async def _take_turn(self, prompt: Prompt) -> Answer | _Failure:
        ticket = await self.throttle.acquire()
        try:
            while (pause_seconds := self.resume_at - time.monotonic()) > 0 and self.stop_reason is None:
                await self._sleep(pause_seconds)
            if self.stop_reason is not None:
                return _Failure("stop", self.stop_reason)
            if self.settings.num_sent == self.settings.max_requests:
                return _Failure("stop", f"the budget of {self.settings.max_requests} requests is spent")
            self.settings.num_sent += 1
            self.settings._num_in_flight += 1
            try:
                outcome = await self._send(prompt)
            finally:
                self.settings._num_in_flight -= 1
            if isinstance(outcome, Answer):
                self.num_answered += 1
                self.throttle.grow()
            elif outcome.then == "slow_down":
                self.throttle.shrink(ticket)
                self.resume_at = max(self.resume_at, time.monotonic() + outcome.wait_seconds)
            return outcome
        finally:
            self.throttle.release()

    async def _send(self, prompt: Prompt) -> Answer | _Failure:
        settings = self.settings
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                reply = await self.client.chat_completion(
                    messages=[{"role": "user", "content": prompt.text}],
                    model=settings.model,
                    max_tokens=settings.max_tokens,
                    temperature=settings.temperature,
                )
            return self._read_reply(reply.choices[0].message.content, reply.choices[0].finish_reason)
        except TimeoutError:
            return _Failure("retry", f"no reply came within {settings.timeout_seconds} s")
        except HfHubHTTPError as error:
            return self._read_error(error)
        except _HTTPError as error:
            return _Failure("retry", f"the connection failed ({type(error).__name__})")
        except UnicodeEncodeError:
            return _Failure("leave", "the question is no valid Unicode text and cannot be sent")
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # The client parses whatever the server sent, and fails in as many ways as there are kinds of nonsense.
            return _Failure("retry", f"the reply is no chat completion ({type(error).__name__})")

    def _read_reply(self, text: object, finish_reason: str | None) -> Answer | _Failure:
        if isinstance(text, str) and text.strip():
            # A lone surrogate cannot be stored in a dataset.
            return Answer(text=text.encode("utf-8", "replace").decode(), finish_reason=finish_reason)
        if finish_reason == "length":
            most = self.settings.max_tokens
            return _Failure("leave", f"{most} tokens were written without an answer; a model that reasons needs more")
        return _Failure("retry", "the reply holds no text")

    def _read_error(self, error: HfHubHTTPError) -> _Failure:
        status = error.response.status_code
        said = error.server_message or ""
        if self.key != _NO_KEY:
            said = said.replace(self.key, "***")
        said = " ".join(said[:200].split())
        reason = f"the server said HTTP {status}" + (f": {said}" if said else "")
        if status in _FATAL:
            return _Failure("stop", f"{self.settings.id} {_FATAL[status]} ({reason}). {self._advise(status)}")
        if status not in _RETRIED and status < 500:
            return _Failure("leave", reason)
        wait_seconds = read_retry_after(error.response.headers.get("retry-after"))
        if wait_seconds > _MAX_WAIT_SECONDS:
            return _Failure("stop", f"{reason} and asks to wait {wait_seconds:.0f} s; run again after that")
        return _Failure("slow_down" if status == 429 else "retry", reason, wait_seconds)

    def _advise(self, status: int) -> str:
        if status in (404, 405):
            return "Check the name of the model and the address"
        if self.settings.base_url is None:
            return "Run `hf auth login`, or set HF_TOKEN to a token that may call Inference Providers"
        return f"Set {KEY_VARIABLE} to a key of this server"


def read_retry_after(value: str | None) -> float:
    """Seconds to wait, from a `Retry-After` header (RFC 9110, section 10.2.3); 0 when it says nothing usable.

    Example:
        >>> read_retry_after("2"), read_retry_after("soon"), read_retry_after(None)
        (2.0, 0.0, 0.0)
    """
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except ValueError:
        return 0.0


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url = {url!r} is no address of a server; pass one like http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        # The address is part of names, reports and the cache.
        raise ValueError(f"base_url holds a password or a query; leave it out and set {KEY_VARIABLE} to the key")
