"""Asks the model that is being trained, by the letters of the options, with frames and without.

How it is asked is `answerers/`'s; which rows, and how often, is `callbacks_gap.py`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_clips import Clip, ClipEncoder
from vidground_hf.answerers.transformers_engine import Engine
from vidground_hf.answerers.transformers_kept import Recent
from vidground_hf.answerers.transformers_loading import LoadedModel
from vidground_hf.answerers.transformers_visual import VisualEngine
from vidground_hf.frame_loading import FrameLoader, Loaded
from vidground_hf.media import FrameRequest
from vidground_hf.prompts import Prompt
from vidground_hf.video import VideoFrames

# Our guesses: what fits beside a training run.
_MAX_BATCH_TOKENS = 4096
_MAX_CLIP_BYTES = 1 << 32


class LiveModel:
    """A model in memory whose weights change from asking to asking; frames and what became of them are kept.

    Args:
        model (`PreTrainedModel`): in eval mode, on its device, whole in this process.
        processor (`ProcessorMixin`): of the model.
        num_workers (`int`): processes that decode videos; 0 decodes in this one.

    Raises:
        `ModelError`: when the model or its processor does not take frames.
    """

    def __init__(self, model: Any, processor: Any, *, num_workers: int) -> None:
        self.model = model
        self.num_workers = num_workers
        loaded = LoadedModel(
            model=model,
            tokenizer=processor.tokenizer,
            template=processor.chat_template or processor.tokenizer.chat_template,
            max_length=getattr(model.config.get_text_config(), "max_position_embeddings", None),
            # That of the class: trainers put wrappers around the forward of a model.
            arguments=frozenset(inspect.signature(type(model).forward).parameters),
        )
        self.engine = Engine(
            loaded, max_batch_tokens=_MAX_BATCH_TOKENS, temperature=0.0, max_tokens=1, reasoning_tokens=None
        )
        self.visual = VisualEngine(self.engine, processor, self._load)
        self.visual.clips = _KeptClips(self.visual.clips)  # type: ignore[assignment]

    def ask(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers multiple choice with the weights of this moment.

        Args:
            prompts (`Sequence[Prompt]`): N, blind or with frames.

        Returns:
            `list[Answer]`: N.
        """
        answers: dict[int, Answer] = {}
        visual = [index for index, prompt in enumerate(prompts) if prompt.frames is not None]
        blind = [index for index, prompt in enumerate(prompts) if prompt.frames is None]
        self.visual.seen.clear()  # what other weights saw
        self.visual.answer_each(prompts, visual, answers.__setitem__)
        self.visual.seen.clear()  # the memory is needed for training
        self.engine.answer_each(
            [prompts[index] for index in blind], lambda place, answer: answers.__setitem__(blind[place], answer)
        )
        return [answers[index] for index in range(len(prompts))]

    def _load(self, requests: Sequence[FrameRequest]) -> Iterator[Loaded]:
        with FrameLoader(num_workers=self.num_workers) as loader:
            yield from loader.load(requests)


class _KeptClips:
    """A `ClipEncoder` that prepares the frames of a request once, as long as there is room."""

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder = encoder
        self.texts = encoder.texts
        self.kept: Recent[Clip] = Recent(_MAX_CLIP_BYTES)

    def encode(self, frames: VideoFrames, request: FrameRequest) -> Clip:
        clip = self.kept.get(request.clip_name)
        if clip is None:
            clip = self.encoder.encode(frames, request)
            self.kept.put(request.clip_name, clip, sum(getattr(part, "nbytes", 0) for part in clip.tensors.values()))
        return clip
