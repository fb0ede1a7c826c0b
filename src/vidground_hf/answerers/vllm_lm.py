"""`VllmAnswerer`: asks a language model that vLLM runs in this process, on a GPU.

Multiple choice is one token among the option letters, all else is written. A vLLM server is asked by `endpoint.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.answerers.vllm_lm_reading import find_letters, read_letters, read_text
from vidground_hf.answerers.vllm_lm_revision import find_revision
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt

# Our guess: enough to keep a GPU busy, and what a killed run has to ask again at most.
_PROMPTS_PER_BATCH = 1024


class VllmAnswerer:
    """Asks a chat model through vLLM's offline engine, which starts with the first answer; it runs no foreign code.

    Letter probabilities do not depend on `temperature` or the trial; with `reasoning_tokens` the choice is written.

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

    def __getstate__(self) -> dict[str, Any]:
        # What `datasets` keeps goes by the pickle, so it has to change with the weights. A model that cannot be had is
        # reported when it is asked.
        with suppress(ModelError, OSError):
            self.id  # noqa: B018
        return {**self.__dict__, "num_in_flight": 0, "_engine": None, "_letters": {}}

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

    def describe(self) -> Mapping[str, Any]:
        """What a report says of how it answered (`Mapping`)."""
        return self.sampling

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts; the same length, in the same order."""
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts in order and hands answers over batch by batch; raises `ImportError` without vLLM."""
        for start in range(0, len(prompts), _PROMPTS_PER_BATCH):
            batch = prompts[start : start + _PROMPTS_PER_BATCH]
            self.num_in_flight = len(batch)
            try:
                answers = self._ask(batch)
            finally:
                self.num_in_flight = 0
            for index, answer in enumerate(answers, start):
                on_answer(index, answer)

    def _ask(self, prompts: Sequence[Prompt]) -> list[Answer]:
        try:
            import vllm
        except ImportError as error:
            raise ImportError(f"vLLM cannot be imported ({error}); pip install 'vidground-hf[vllm]'") from error
        if self._engine is None:
            self._start(vllm)
        thinks = self.reasoning_tokens is not None
        try:
            outputs = self._engine.chat(
                [[{"role": "user", "content": prompt.render(reasoning=thinks)}] for prompt in prompts],
                [vllm.SamplingParams(**self._list_parameters(prompt)) for prompt in prompts],
                use_tqdm=False,
                add_generation_prompt=True,
                chat_template_kwargs={"enable_thinking": thinks},
            )
        except ValueError as error:
            # One prompt that is too long refuses its whole batch.
            if len(prompts) == 1:
                return [Answer(text=None, error=str(error))]
            return [answer for prompt in prompts for answer in self._ask([prompt])]
        return [self._read(output.outputs[0], prompt) for output, prompt in zip(outputs, prompts, strict=True)]

    def _read(self, output: Any, prompt: Prompt) -> Answer:
        if output.logprobs:  # were asked for letters only
            return read_letters(output.logprobs[0], self._letters, prompt.options)
        return read_text(output.text, output.finish_reason, self.sampling["max_tokens"])

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
