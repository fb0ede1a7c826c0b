"""`TransformersAnswerer`: asks a language model that runs in this process, from the Hub or from a folder.

Loading, tokens, batches, forward passes and generation each have a module beside this one; servers have `endpoint.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.answerers.transformers_hub import find_revision
from vidground_hf.answerers.transformers_loading import (
    describe_processor,
    find_device,
    find_dtype,
    load_model,
    load_processor,
)
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt

if TYPE_CHECKING:
    from vidground_hf.answerers.transformers_engine import Engine
    from vidground_hf.answerers.transformers_visual import VisualEngine

DTYPES = ("float32", "bfloat16", "float16")
# On one CPU core with 30 M parameters 1,000 to 1,300 were fastest; our guess for the others.
_MAX_BATCH_TOKENS = {"cpu": 1280, "mps": 4096, "cuda": 16384}


class TransformersAnswerer:
    """Asks a causal language model, or a vision-language model with frames or without, in this process.

    Multiple choice is answered by the probabilities of the option letters, from one forward pass; `trial_index` and
    temperature change nothing there. Everything else, and all questions where the model may think first, is written.
    The model is loaded with the first answer. Weights are read from safetensors only, and no code of a repository is
    run.

    Args:
        model (`str`): a Hub id, or a folder that `save_pretrained` wrote.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        device (`str`, *optional*): defaults to CUDA, else MPS, else the CPU.
        dtype (`str`, *optional*): one of `DTYPES`; defaults to bfloat16 on CUDA where it is native, float16 on other
            accelerators, float32 on the CPU.
        max_batch_tokens (`int`, *optional*): tokens computed at once, padding included; halved where memory is
            short.
        temperature (`float`, *optional*, defaults to 0): of what is written; 0 takes the likeliest token each time.
        max_tokens (`int`, *optional*, defaults to 64): the longest answer.
        reasoning_tokens (`int`, *optional*): lets the model think for at most this many tokens before its answer.
        num_workers (`int`, *optional*, defaults to 1): processes that decode videos while the model runs; 0 decodes
            in between.

    Raises:
        `ValueError`: for settings out of range.

    Example:
        >>> TransformersAnswerer("Qwen/Qwen3-0.6B").max_tokens
        64
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_tokens: int | None = None,
        temperature: float = 0.0,
        max_tokens: int = 64,
        reasoning_tokens: int | None = None,
        num_workers: int = 1,
    ) -> None:
        if not model:
            raise ValueError("model = '' names no model; pass a Hub id or a folder")
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"{dtype = } is not allowed; allowed are {', '.join(DTYPES)}")
        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise ValueError(f"{max_batch_tokens = } is out of range; it is at least 1, or None to choose by device")
        if not 0 <= temperature < float("inf") or max_tokens < 1:
            raise ValueError(f"{temperature = } or {max_tokens = } is out of range; allowed are 0 or more, 1 or more")
        if reasoning_tokens is not None and reasoning_tokens < 0:
            raise ValueError(f"{reasoning_tokens = } is out of range; it is at least 0, or None to answer at once")
        if num_workers < 0:
            raise ValueError(f"{num_workers = } is out of range; it is at least 0")
        self.model = model
        self.revision = revision
        self.device = device
        self.dtype = dtype
        self.max_batch_tokens = max_batch_tokens
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.reasoning_tokens = reasoning_tokens
        self.num_workers = num_workers
        self._found_revision: str | None = None
        self._processor: Any = None
        self._failure: ModelError | None = None
        self._engine: Engine | None = None
        self._visual_engine: VisualEngine | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What `datasets` keeps goes by the pickle, so it has to change with the weights. A model that cannot be had is
        # reported when it is asked.
        with suppress(ModelError, ValueError, OSError):
            self.id  # noqa: B018
        live = ("_processor", "_failure", "_engine", "_visual_engine")
        return {**self.__dict__, **dict.fromkeys(live)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _found_revision=None)

    @property
    def id(self) -> str:
        if self._found_revision is None:
            self._found_revision = find_revision(self.model, self.revision)
        # Where a folder is says nothing about its answers, and reports and cards go to other people.
        name = Path(self.model).resolve().name if Path(self.model).is_dir() else self.model
        return f"transformers:{name}@{self._found_revision}"

    @property
    def sampling(self) -> dict[str, Any]:
        """What changes an answer besides model and prompt (`dict`)."""
        return {
            "multiple_choice": "letter_logprobs" if self.reasoning_tokens is None else "written",
            "dtype": self.dtype or find_dtype(find_device(self.device)),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }

    @property
    def takes_frames(self) -> bool:
        """`True`: whether this model does is known when its processor is loaded, and said then."""
        return True

    @property
    def num_gpus(self) -> int:
        """How many GPUs it fills where there are any."""
        return 1

    @property
    def num_clips_kept(self) -> int:
        """How many clips' layers fit into what is kept of them: about 8, of a model of 7 billion parameters with 4,000
        tokens each (our guess)."""
        return 8

    @property
    def visual_sampling(self) -> dict[str, Any]:
        """What changes an answer to a prompt with frames besides (`dict`): the settings of the model's processor.

        Empty when there is none to be had; `answer` says why, and goes on saying it.
        """
        with suppress(ModelError):
            return describe_processor(self.model, self._find_commit(), self._load_processor())
        return {}

    @property
    def num_in_flight(self) -> int:
        return 0 if self._engine is None else self._engine.num_in_flight

    def describe(self) -> dict[str, Any]:
        """What answers, as JSON, for reports: `device`, what is in `sampling`, and `visual` once it was to look."""
        about = {"device": find_device(self.device), **self.sampling}
        return about if self._processor is None else {**about, "visual": self.visual_sampling}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts; the same length, in the same order."""
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts, and hands answers over batch by batch.

        Args:
            prompts (`Sequence[Prompt]`): N prompts; the longest are answered first.
            on_answer (`Callable`): called N times with a position and an answer.

        Raises:
            `ModelError`: when the model cannot be had.
        """
        if not prompts:
            return
        blind = [index for index, prompt in enumerate(prompts) if prompt.frames is None]
        visual = [index for index, prompt in enumerate(prompts) if prompt.frames is not None]
        if visual:
            self._load_visual().answer_each(prompts, visual, on_answer)
        if blind:
            self._load().answer_each(
                [prompts[index] for index in blind], lambda place, answer: on_answer(blind[place], answer)
            )

    def _load_processor(self) -> Any:
        if self._failure is not None:
            raise self._failure
        if self._processor is None:
            try:
                self._processor = load_processor(self.model, self._find_commit())
            except ModelError as error:
                self._failure = error
                raise
        return self._processor

    def _find_commit(self) -> str | None:
        """What is loaded of a Hub id; a folder is hashed before it is read."""
        commit = self.id.rpartition("@")[2]
        return None if Path(self.model).is_dir() else commit

    def _load_visual(self) -> VisualEngine:
        if self._visual_engine is None:
            processor = self._load_processor()
            engine = self._load()
            from vidground_hf.answerers.transformers_visual import VisualEngine
            from vidground_hf.frame_loading import FrameLoader

            loader = FrameLoader(num_workers=self.num_workers)
            self._visual_engine = VisualEngine(engine, processor, loader.load)
            # Its processes end with the engine, or with this process.
            finalize(self._visual_engine, loader.__exit__)
        return self._visual_engine

    def _load(self) -> Engine:
        if self._engine is None:
            device = find_device(self.device)
            dtype = self.dtype or find_dtype(device)
            loaded = load_model(self.model, self._find_commit(), device, dtype)
            # torch is imported here, when its absence has been reported in words.
            from vidground_hf.answerers.transformers_engine import Engine

            self._engine = Engine(
                loaded,
                max_batch_tokens=self.max_batch_tokens or _MAX_BATCH_TOKENS[device.partition(":")[0]],
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                reasoning_tokens=self.reasoning_tokens,
            )
        return self._engine
