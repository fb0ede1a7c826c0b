"""`EndpointAnswerer`: asks a model behind a chat-completion server, one of your own or an Inference Provider.

It returns what the model wrote; finding an option in it is `scoring.py`'s, keeping it is `cache.py`'s.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.answerers.endpoint_frames import (
    FRAMES_AS,
    TEST_FRAMES,
    FramesAs,
    Question,
    Sight,
    describe_encoding,
    make_test_parts,
)
from vidground_hf.answerers.endpoint_loop import run_in_background
from vidground_hf.answerers.endpoint_reply import Failure, read_error, read_reply
from vidground_hf.answerers.endpoint_run import Run
from vidground_hf.answerers.endpoint_server import Server
from vidground_hf.answerers.endpoint_traffic import Traffic
from vidground_hf.prompts import Prompt, order_by_clip

DEFAULT_CONCURRENCY = 64
MAX_CONCURRENCY = 100  # connections that huggingface_hub's client opens at most
_TOP_LOGPROBS = 20  # the most that OpenAI's API gives
# huggingface_hub 1 stands on httpx and 2 on httpx2; either way a lost connection is of the kind its own errors are of.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
_TEST_QUESTION = Prompt(
    example_id="",
    view="text",
    problem_type="multiple_choice",
    question="Which of the two is a colour?",
    options=("red", "seven"),
)


class EndpointAnswerer:
    """Asks a model behind a server, many questions at once.

    A request that fails is tried again after a random, growing wait; a refused key or an unknown model stops the
    run, and every question that was not answered then carries that reason as its error. So do those of the next
    runs, unasked, until the key is another one or the answerer is made anew; a server that answered nothing is asked
    again after a minute. The key of a server of your own is read from `$VIDGROUND_ENDPOINT_KEY` when it is needed
    (the word `none` is sent without it, never a Hub token); for an Inference Provider the Hub's token store is used.

    Args:
        model (`str`): as the server calls it.
        base_url (`str`, *optional*): an OpenAI-compatible server, for example `http://localhost:8000/v1`.
        provider (`str`, *optional*): an Inference Provider, or `"auto"`. Exactly one of the two is given.
        concurrency (`int`, *optional*, defaults to 64): requests in flight at most, 1 to 100.
        max_requests (`int`, *optional*): what may be sent in all, tries included; then asking stops.
        timeout_seconds (`float`, *optional*, defaults to 60): the longest a request may take.
        temperature (`float`, *optional*, defaults to 0): as the server understands it; above 0 the trial index of a
            prompt is sent as its seed.
        max_tokens (`int`, *optional*, defaults to 1024): the longest answer.
        reasoning_tokens (`int`, *optional*): let the model think first, for this many tokens more.
        logprobs (`bool`, *optional*, defaults to `False`): read option probabilities from multiple-choice answers.
            The first request is then a question of our own; if the server gives no log-probabilities with it, this
            warns, and what the model writes is all there is.
        frames_as (`str`, *optional*, defaults to `"images"`): how frames are sent: each as a JPEG image before the
            text, or `"video"`, all in one mp4. A server may draw other frames from a video than were put in it (vLLM
            draws 32, unless it is started with `--media-io-kwargs '{"video": {"num_frames": -1}}'`). Before the first
            frames a question of our own is asked with and without some; if they add nothing to the tokens that the
            server says it read, no prompt with frames is asked.

    Raises:
        `ValueError`: for settings out of range or at odds, and a URL that holds a password or is none.

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
        reasoning_tokens: int | None = None,
        logprobs: bool = False,
        frames_as: FramesAs = "images",
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"{concurrency = } is out of range; allowed are 1 to {MAX_CONCURRENCY}")
        if max_requests is not None and max_requests < 1:
            raise ValueError(f"{max_requests = } is out of range; it is at least 1, or None for no limit")
        if not timeout_seconds > 0 or not temperature >= 0 or max_tokens < 1:
            raise ValueError(
                f"{timeout_seconds = }, {temperature = } or {max_tokens = } is out of range; allowed are above 0, "
                "0 or more, and 1 or more"
            )
        if reasoning_tokens is not None and reasoning_tokens < 1:
            raise ValueError(f"{reasoning_tokens = } is out of range; it is at least 1, or None to answer at once")
        if reasoning_tokens is not None and logprobs:
            raise ValueError(
                f"{reasoning_tokens = } and {logprobs = } do not go together: probabilities are read only where "
                "the model answers at once; drop logprobs to let it think, or reasoning_tokens to have probabilities"
            )
        if frames_as not in FRAMES_AS:
            raise ValueError(f"{frames_as = } is unknown; allowed are {', '.join(FRAMES_AS)}")
        self.server = Server(model, base_url.rstrip("/") if base_url is not None else None, provider)
        self.concurrency = concurrency
        self.max_requests = max_requests
        self.timeout_seconds = timeout_seconds
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.reasoning_tokens = reasoning_tokens
        self.logprobs = logprobs
        self.frames_as: FramesAs = frames_as
        self._gives_logprobs: bool | None = None
        self._reads_frames = False
        self._traffic = Traffic(max_requests)

    def __getstate__(self) -> dict[str, Any]:
        live = {"_gives_logprobs": None, "_reads_frames": False, "_traffic": Traffic(self.max_requests)}
        return {**self.__dict__, **live}

    @property
    def id(self) -> str:
        return self.server.id

    @property
    def sampling(self) -> Mapping[str, Any]:
        """What is sent besides model and prompt (`Mapping`)."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_tokens + (self.reasoning_tokens or 0)}
        if self.reasoning_tokens is not None:
            sampling["reasoning_tokens"] = self.reasoning_tokens
        return sampling | ({"logprobs": True} if self.logprobs else {})

    @property
    def takes_frames(self) -> bool:
        return True

    @property
    def visual_sampling(self) -> Mapping[str, Any]:
        """How frames are sent (`Mapping`)."""
        return describe_encoding(self.frames_as)

    def describe(self) -> Mapping[str, Any]:
        """What is sent besides model and prompt (`Mapping`), for a report."""
        return self.sampling

    @property
    def num_sent(self) -> int:
        """How many requests were sent, tries included."""
        return self._traffic.num_sent

    @property
    def num_in_flight(self) -> int:
        return self._traffic.num_in_flight

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts; the same length, in the same order."""
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts and hands each answer over as soon as it is there, from another thread.

        Args:
            prompts (`Sequence[Prompt]`): N prompts.
            on_answer (`Callable`): called N times with a position and an answer, one call at a time. What it raises
                ends the run and is raised here.
        """
        if prompts:
            run_in_background(partial(self._answer_each, prompts, on_answer))

    async def _answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        key = self.server.read_key()
        self._traffic.begin_run(key)
        where: dict[str, Any] = {"base_url": self.server.base_url, "provider": self.server.provider}
        ordered = [(index, prompts[index]) for index in order_by_clip(prompts)]
        sight = Sight([prompt for _, prompt in ordered], self.frames_as)
        async with AsyncInferenceClient(**where, token=key) as client:
            run = Run(self.id, self.concurrency, self._traffic, sight.look, partial(self._ask, client, key, sight))
            try:
                if self.logprobs and self._gives_logprobs is None and any(prompt.options for prompt in prompts):
                    await self._try_logprobs(run)
                if not self._reads_frames and any(prompt.frames is not None for prompt in prompts):
                    await self._try_frames(run, sight)
                await run.answer_each(ordered, on_answer)
            finally:
                await sight.close()

    async def _try_logprobs(self, run: Run[Question]) -> None:
        answer = await run.answer(Question(_TEST_QUESTION))
        if self._gives_logprobs is None and self._traffic.stop_reason is None:
            self._gives_logprobs = False
            reason = answer.error or "it left them out"
            warnings.warn(
                f"{self.id} gives no log-probabilities ({reason}); the option is looked for in what it writes",
                stacklevel=2,
            )

    async def _try_frames(self, run: Run[Question], sight: Sight) -> None:
        """Some servers leave out what their model cannot read, and answer all the same."""
        blind = await run.answer(Question(_TEST_QUESTION))
        seeing = await run.answer(Question(_TEST_QUESTION, make_test_parts(self.frames_as), TEST_FRAMES))
        without, with_frames = blind.num_prompt_tokens, seeing.num_prompt_tokens
        if without is not None and with_frames is not None:
            self._reads_frames = with_frames > without
            if not self._reads_frames:
                sight.refuse(
                    f"{self.id} read no frames: a question with some took {with_frames} tokens, and without "
                    f"{without}; ask a model that takes images or videos, or pass another frames_as"
                )
        elif seeing.error is not None:
            sight.refuse(seeing.error)
        else:
            self._reads_frames = True
            warnings.warn(
                f"{self.id} does not say how many tokens it read, so whether it looks at the frames is not known",
                stacklevel=2,
            )

    async def _ask(self, client: AsyncInferenceClient, key: str, sight: Sight, question: Question) -> Answer | Failure:
        prompt, started = question.prompt, time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                outcome = await self._send(client, question)
        except TimeoutError:
            return Failure("retry", f"no reply came within {self.timeout_seconds} s")
        except HfHubHTTPError as error:
            failure = read_error(error, self.server, key, question.num_frames)
            if failure.then == "unseen":
                sight.refuse(failure.reason, prompt)
            return failure
        except _HTTPError as error:
            return Failure("retry", f"the connection failed ({type(error).__name__})")
        except UnicodeEncodeError:
            return Failure("leave", "the question is no valid Unicode text and cannot be sent")
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            # The client parses whatever the server sent, and fails in as many ways as there are kinds of nonsense;
            # a NaN makes it call itself for ever.
            return Failure("retry", f"the reply is no chat completion ({type(error).__name__})")
        if isinstance(outcome, Failure):
            return outcome
        seconds = time.monotonic() - started
        return replace(outcome, num_frames=question.num_frames, decoder=question.decoder, seconds=seconds)

    async def _send(self, client: AsyncInferenceClient, question: Question) -> Answer | Failure:
        prompt, max_tokens = question.prompt, self.sampling["max_tokens"]
        wants_logprobs = self.logprobs and self._gives_logprobs is not False and bool(prompt.options)
        text = prompt.render(reasoning=self.reasoning_tokens is not None)
        content = [*question.parts, {"type": "text", "text": text}] if question.parts else text
        reply = await client.chat_completion(
            messages=[{"role": "user", "content": content}],
            model=self.server.model,
            max_tokens=max_tokens,
            temperature=self.temperature,
            seed=prompt.trial_index if self.temperature > 0 else None,
            logprobs=True if wants_logprobs else None,
            top_logprobs=_TOP_LOGPROBS if wants_logprobs else None,
        )
        logprobs = reply.choices[0].logprobs
        if wants_logprobs and logprobs is not None and logprobs.content:
            self._gives_logprobs = True
        return read_reply(reply, prompt.options if wants_logprobs else (), max_tokens)
