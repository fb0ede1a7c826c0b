"""`VllmAnswerer`: asks a language model that vLLM runs in this process, on a GPU.

Multiple choice is one token among the option letters, all else is written. A vLLM server is asked by `endpoint.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.answerers.vllm_lm_frames import Seen, find_visual_tokens, make_input, read_seen
from vidground_hf.answerers.vllm_lm_reading import find_letters, read_letters, read_text
from vidground_hf.answerers.vllm_lm_revision import find_revision
from vidground_hf.frame_loading import FrameLoader
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt, order_by_clip
from vidground_hf.video import VideoReadError

# Our guess: enough to keep a GPU busy, and what a killed run has to ask again at most.
_PROMPTS_PER_BATCH = 1024
# Our guess, of prompts with frames: they are held while the model reads them, and as many more are read ahead.
_SEEING_PER_BATCH = 16
_MAX_SAID = 500  # of a message; our guess
_Asked = tuple[int, Prompt, Seen | None]  # the place of a prompt, it, and what it shows


class VllmAnswerer:
    """Asks a chat model through vLLM's offline engine, which starts with the first answer; it runs no foreign code.

    Frames are shown as one video, not sampled again, where the model's own chat template puts it. Letter probabilities
    do not depend on `temperature` or the trial; with `reasoning_tokens` the choice is written.

    Args:
        model (`str`): a Hub id, or a folder that `save_pretrained` wrote.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        temperature (`float`, *optional*, defaults to 0): of what is written; above 0 the trial index is the seed.
        max_tokens (`int`, *optional*, defaults to 64): the longest answer.
        reasoning_tokens (`int`, *optional*): lets the model think first, for this many tokens more.

    Raises:
        `ValueError`: for settings out of range.

    Example:
        >>> VllmAnswerer("Qwen/Qwen3-8B").sampling["max_tokens"]
        64
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 64,
        reasoning_tokens: int | None = None,
    ) -> None:
        if not temperature >= 0 or max_tokens < 1 or (reasoning_tokens is not None and reasoning_tokens < 1):
            got = f"{temperature = }, {max_tokens = } or {reasoning_tokens = }"
            raise ValueError(f"{got} is out of range; allowed are 0 or more, 1 or more, and 1 or more or None")
        if revision is not None and Path(model).is_dir():
            raise ValueError(f"{revision = } was given for the folder {model!r}; only a Hub id has revisions")
        self.model = model
        self.revision = revision
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.reasoning_tokens = reasoning_tokens
        self.num_in_flight = 0
        self._commit: str | None = None
        self._engine: Any = None
        self._letters: dict[int, int] = {}
        self._processor: Any = None
        self._visual_tokens: frozenset[int] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        # What `datasets` keeps goes by the pickle, so it has to change with the weights. A model that cannot be had is
        # reported when it is asked.
        with suppress(ModelError, OSError):
            self.id  # noqa: B018
        live: dict[str, Any] = {
            "num_in_flight": 0,
            "_engine": None,
            "_letters": {},
            "_processor": None,
            "_visual_tokens": frozenset(),
        }
        return {**self.__dict__, **live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _commit=None)

    @property
    def id(self) -> str:
        if self._commit is None:
            self._commit = find_revision(self.model, self.revision)
        # Where a folder is says nothing about its answers, and reports and cards go to other people.
        name = Path(self.model).resolve().name if Path(self.model).is_dir() else self.model
        return f"vllm:{name}@{self._commit}"

    @property
    def sampling(self) -> Mapping[str, Any]:
        """What changes an answer besides model and prompt (`Mapping`)."""
        return {
            "multiple_choice": "letter_logprobs" if self.reasoning_tokens is None else "written",
            "temperature": self.temperature,
            "max_tokens": self.max_tokens + (self.reasoning_tokens or 0),
            "reasoning_tokens": self.reasoning_tokens,
        }

    @property
    def takes_frames(self) -> bool:
        return True

    @property
    def num_gpus(self) -> int:
        """How many GPUs it fills."""
        return 1

    @property
    def visual_sampling(self) -> Mapping[str, Any]:
        """How frames are shown (`Mapping`): one video of arrays, with its times."""
        return {"frames_as": "video"}

    def describe(self) -> Mapping[str, Any]:
        """What a report says of how it answered (`Mapping`)."""
        return self.sampling

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts; the same length, in the same order."""
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts, blind ones first, and hands answers over batch by batch.

        Raises:
            `ImportError`: without vLLM.
            `ValueError`: for frames and a model that takes none.
        """
        blind = [index for index, prompt in enumerate(prompts) if prompt.frames is None]
        seeing = [index for index, prompt in enumerate(prompts) if prompt.frames is not None]
        for start in range(0, len(blind), _PROMPTS_PER_BATCH):
            indices = blind[start : start + _PROMPTS_PER_BATCH]
            self._answer_batch([(index, prompts[index], None) for index in indices], on_answer)
        if not seeing:
            return
        with closing(_read_batches(prompts, seeing)) as batches:
            for batch in batches:
                for index, _, seen in batch:
                    if isinstance(seen, VideoReadError):
                        on_answer(index, Answer(text=None, error=str(seen)))
                self._answer_batch([(k, asked, seen) for k, asked, seen in batch if isinstance(seen, Seen)], on_answer)

    def _answer_batch(self, batch: Sequence[_Asked], on_answer: Callable[[int, Answer], None]) -> None:
        if not batch:
            return
        self.num_in_flight = len(batch)
        started = time.monotonic()
        try:
            answers = self._ask(batch)
        finally:
            self.num_in_flight = 0
        seconds = (time.monotonic() - started) / len(batch)
        for (index, _, _), answer in zip(batch, answers, strict=True):
            on_answer(index, replace(answer, seconds=seconds))

    def _ask(self, batch: Sequence[_Asked]) -> list[Answer]:
        try:
            import vllm
        except ImportError as error:
            raise ImportError(f"vLLM cannot be imported ({error}); pip install 'vidground-hf[vllm]'") from error
        if self._engine is None:
            self._start(vllm)
        if batch[0][2] is not None and self._processor is None:
            self._load_processor()
        parameters = [vllm.SamplingParams(**self._list_parameters(prompt)) for _, prompt, _ in batch]
        try:
            outputs = self._generate(batch, parameters)
        except ValueError as error:
            # One prompt that is too long refuses its whole batch.
            if len(batch) == 1:
                return [Answer(text=None, error=str(error)[:_MAX_SAID])]
            return [answer for asked in batch for answer in self._ask([asked])]
        return [self._read(output, prompt, seen) for output, (_, prompt, seen) in zip(outputs, batch, strict=True)]

    def _generate(self, batch: Sequence[_Asked], parameters: list[Any]) -> list[Any]:
        thinks = self.reasoning_tokens is not None
        if batch[0][2] is None:
            return list(
                self._engine.chat(
                    [[{"role": "user", "content": prompt.render(reasoning=thinks)}] for _, prompt, _ in batch],
                    parameters,
                    use_tqdm=False,
                    add_generation_prompt=True,
                    chat_template_kwargs={"enable_thinking": thinks},
                )
            )
        inputs = [make_input(self._processor, prompt, seen, thinks=thinks) for _, prompt, seen in batch if seen]
        return list(self._engine.generate(inputs, parameters, use_tqdm=False))

    def _read(self, output: Any, prompt: Prompt, seen: Seen | None) -> Answer:
        written = output.outputs[0]
        if written.logprobs:  # were asked for letters only
            answer = read_letters(written.logprobs[0], self._letters, prompt.options)
        else:
            answer = read_text(written.text, written.finish_reason, self.sampling["max_tokens"])
        read = output.prompt_token_ids
        answer = replace(answer, num_prompt_tokens=len(read), num_answer_tokens=len(written.token_ids))
        if seen is None or answer.error is not None:
            return answer
        num_frames, num_visual_tokens = len(seen.frames.data), sum(token in self._visual_tokens for token in read)
        if num_visual_tokens == 0:
            return Answer(text=None, error=f"{self.id} read no token of the {num_frames} frames that it was shown")
        decoder = seen.frames.backend
        return replace(answer, num_frames=num_frames, num_visual_tokens=num_visual_tokens, decoder=decoder)

    def _load_processor(self) -> None:
        from transformers import AutoProcessor

        revision = None if Path(self.model).is_dir() else self.id.rpartition("@")[2]
        processor = AutoProcessor.from_pretrained(self.model, revision=revision, trust_remote_code=False)
        self._visual_tokens = find_visual_tokens(processor, self.model)
        self._processor = processor

    def _start(self, vllm: Any) -> None:
        revision = None if Path(self.model).is_dir() else self.id.rpartition("@")[2]
        names = {"model": self.model, "revision": revision, "tokenizer_revision": revision}
        reading = {"logprobs_mode": "processed_logprobs", "max_logprobs": -1}
        engine = vllm.LLM(**names, **reading, trust_remote_code=False, enable_prefix_caching=True)
        if self.reasoning_tokens is None:
            self._letters = find_letters(engine.get_tokenizer())
        self._engine = engine

    def _list_parameters(self, prompt: Prompt) -> dict[str, Any]:
        if prompt.options and self.reasoning_tokens is None:
            allowed = [token for token, letter in self._letters.items() if letter < len(prompt.options)]
            return {"temperature": 0.0, "max_tokens": 1, "allowed_token_ids": allowed, "logprobs": len(allowed)}
        seed = prompt.trial_index if self.temperature > 0 else None
        return {"temperature": self.temperature, "max_tokens": self.sampling["max_tokens"], "seed": seed}


def _read_batches(
    prompts: Sequence[Prompt], seeing: Sequence[int]
) -> Generator[list[tuple[int, Prompt, Seen | VideoReadError]], None, None]:
    """Prompts with frames, one batch while the next is read."""
    ordered = [seeing[place] for place in order_by_clip([prompts[index] for index in seeing])]
    with (
        ThreadPoolExecutor(1, thread_name_prefix="vidground-frames") as thread,
        FrameLoader(num_workers=2, timeout_seconds=60.0, max_ahead=4) as loader,
    ):
        reads = read_seen(loader, [prompts[index] for index in ordered])
        left = ((index, prompts[index], seen) for index, seen in zip(ordered, reads, strict=True))
        batch = list(islice(left, _SEEING_PER_BATCH))
        while batch:
            coming = thread.submit(list, islice(left, _SEEING_PER_BATCH))
            yield batch
            batch = coming.result()
