"""From training rows to what the policy is shown: tokens and pixel tensors, made once for each different prompt.

The model is not run here; `grpo_sight.py` hands the tensors to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vidground_hf.answerers.transformers_clips import count_frames, describe_times, read_times
from vidground_hf.answerers.transformers_kept import Recent
from vidground_hf.answerers.transformers_loading import be_quiet
from vidground_hf.frame_loading import FrameLoader
from vidground_hf.grpo_media import Media, Row, read_media
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video import VideoFrames, VideoReadError

# Our guess: a small set is prepared once in a run, of a large one the last batches are kept.
_MAX_PROMPT_BYTES = 1 << 30
_MAX_FRAME_BYTES = 1 << 28
_TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "video_metadata"})


class SightError(RuntimeError):
    """What a row shows did not reach the model, so that training on it would be blind."""


@dataclass(frozen=True, slots=True, eq=False)
class ShownPrompt:
    """A prompt as the model's processor prepared it.

    Attributes:
        ids (`list[int]`): T tokens, placeholders of frames and images included.
        types (`list[int]`): T numbers: 1 and 2 at placeholders of images and videos where the processor tells them,
            else 0.
        tensors (`Mapping[str, Tensor]`): pixels and their layout, as the model takes them; empty for text.
        vllm_media (`Mapping[str, Any]`): the same as vLLM takes it.
    """

    ids: list[int]
    types: list[int]
    tensors: Mapping[str, torch.Tensor]
    vllm_media: Mapping[str, Any] = field(repr=False)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory, about."""
        return sum(tensor.nbytes for tensor in self.tensors.values()) + 16 * len(self.ids)


class PromptShower:
    """Prepares rows: decodes each clip once, runs the processor once for each different prompt.

    Args:
        processor (`ProcessorMixin`): of the model.
        render (`Callable[[list[dict]], str]`): writes messages in the chat template.
        arguments (`Collection[str]`): what the model's forward takes.
        budget (`FrameBudget`): how much of a video is shown.
        num_workers (`int`): decoding processes; 0 decodes in this one.
    """

    def __init__(
        self,
        processor: Any,
        render: Callable[[list[dict[str, Any]]], str],
        arguments: Sequence[str],
        budget: FrameBudget,
        num_workers: int,
    ) -> None:
        self.processor, self.render, self.arguments = processor, render, frozenset(arguments)
        self.budget, self.num_workers = budget, num_workers
        self._prompts: Recent[ShownPrompt] = Recent(_MAX_PROMPT_BYTES)
        self._frames: Recent[VideoFrames] = Recent(_MAX_FRAME_BYTES)  # the same clip under other words comes next

    def show(self, rows: Sequence[Row]) -> list[ShownPrompt]:
        """Prepares rows.

        Args:
            rows (`Sequence[Mapping]`): N rows, each with a `prompt` and what `grpo_media.read_media` takes.

        Returns:
            `list[ShownPrompt]`: N; rows that show the same share one.

        Raises:
            `VideoReadError`: for a video that cannot be read; nothing is shown in its place.
            `SightError`: when a prompt does not show all of it.
            `ValueError`: for a prompt that is no list of messages.
        """
        asked: dict[tuple[str, Hashable], tuple[Row, Media | None]] = {}
        names = []
        for row in rows:
            if isinstance(row["prompt"], str):
                raise ValueError(f"row {row.get('id')!r} has a prompt of type str; pass a list of messages")
            media = read_media(row, self.budget)
            names.append((json.dumps(row["prompt"], sort_keys=True), media.name if media else None))
            asked.setdefault(names[-1], (row, media))
        shown = {name: kept for name in asked if (kept := self._prompts.get(name)) is not None}
        missing = {name: found for name, found in asked.items() if name not in shown}
        frames = self._read_frames([media for _, media in missing.values() if media is not None])
        for name, (row, media) in missing.items():
            shown[name] = self._prepare(row["prompt"], media, frames.get(media))
            self._prompts.put(name, shown[name], shown[name].num_bytes)
        return [shown[name] for name in names]

    def _read_frames(self, media: Sequence[Media]) -> dict[Media | None, VideoFrames]:
        """The frames of each video."""
        videos = [one for one in dict.fromkeys(media) if one.request is not None]
        found: dict[Media | None, VideoFrames] = {
            one: kept for one in videos if (kept := self._frames.get(one.name)) is not None
        }
        missing = [one for one in videos if one not in found]
        with FrameLoader(self.num_workers if missing else 0) as loader:
            requests = [one.request for one in missing if one.request is not None]
            for one, loaded in zip(missing, loader.load(requests), strict=True):
                if isinstance(loaded, VideoReadError):
                    raise loaded
                found[one] = loaded
                self._frames.put(one.name, loaded, loaded.data.nbytes)
        return found

    def _prepare(self, messages: Sequence[Row], media: Media | None, frames: VideoFrames | None) -> ShownPrompt:
        text = self.render(_place_media(messages, media))
        self._check_text(text, media)
        if media is None:
            found, vllm_media = self._process(text), {}
        elif frames is None or media.request is None:
            found, vllm_media = self._process(text, images=[list(media.images)]), {"image": list(media.images)}
        else:
            found, vllm_media = self._process_video(text, frames, media.request)
        ids = found["input_ids"][0].tolist()
        has_types = "mm_token_type_ids" in found and "mm_token_type_ids" in self.arguments
        types = found["mm_token_type_ids"][0].tolist() if has_types else [0] * len(ids)
        tensors = {
            key: torch.as_tensor(value)
            for key, value in found.items()
            if key not in _TEXT_KEYS and key in self.arguments and media is not None
        }
        if media is not None and not any(key.startswith("pixel") for key in tensors):
            raise SightError(
                f"the processor's tensors ({', '.join(sorted(found))}) hold no pixels that the model's forward takes"
            )
        return ShownPrompt(ids=ids, types=types, tensors=tensors, vllm_media=vllm_media)

    def _check_text(self, text: str, media: Media | None) -> None:
        """Makes sure that the template names what is shown, and the prompt's own words do not."""
        expected = {"video_token": 0, "image_token": 0}
        if media is not None:
            expected["image_token" if media.request is None else "video_token"] = len(media.images) or 1
        for name, count in expected.items():
            token = str(getattr(self.processor, name, None))
            if text.count(token) != count:
                raise SightError(
                    f"the prompt has {text.count(token)} times {token!r} where {count} were expected; the chat "
                    "template must show each video and image once, and the words of a prompt must not hold it: "
                    f"{text[:200]!r}"
                )

    def _process_video(
        self, text: str, frames: VideoFrames, request: FrameRequest
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        times, num_seconds = read_times(frames, request)
        # Fewer frames than go into one patch: some processors refuse them, others repeat the last one as this does.
        patch = int(getattr(self.processor.video_processor, "temporal_patch_size", None) or 1)
        num_missing = max(0, patch - len(frames.data))
        data = np.concatenate([frames.data, *[frames.data[-1:]] * num_missing])
        about = describe_times(times + times[-1:] * num_missing, num_seconds)
        about |= {"height": data.shape[1], "width": data.shape[2]}
        found = self._process(
            text, videos=[data], video_metadata=[about], do_sample_frames=False, input_data_format="channels_last"
        )
        num_taken = count_frames(found, patch)
        if not 0 <= num_taken - len(frames.data) < patch:
            raise SightError(f"the processor took {num_taken} of {len(frames.data)} frames of {request.source!r}")
        return found, {"video": [(data, about)]}

    def _process(self, text: str, **media: Any) -> dict[str, Any]:
        with be_quiet():
            return dict(self.processor(text=[text], add_special_tokens=False, return_tensors="pt", **media))


def collate(prompts: Sequence[ShownPrompt]) -> dict[str, torch.Tensor]:
    """Joins the pixels and layouts of prompts, in their order.

    Args:
        prompts (`Sequence[ShownPrompt]`): N, with and without pixels.

    Returns:
        `dict[str, Tensor]`: as the model takes them; empty where there are none.

    Raises:
        `SightError`: when the model takes clips of one length only and they differ.
    """
    keys = dict.fromkeys(key for prompt in prompts for key in prompt.tensors)
    return {key: _join(key, [prompt.tensors[key] for prompt in prompts if key in prompt.tensors]) for key in keys}


def collate_types(prompts: Sequence[ShownPrompt], prompt_length: int, length: int) -> dict[str, torch.Tensor]:
    """The types of the tokens of prompts that are padded on the left, with completions behind them.

    Args:
        prompts (`Sequence[ShownPrompt]`): N.
        prompt_length (`int`): columns of the prompts.
        length (`int`): columns of all.

    Returns:
        `dict[str, int64[N, length]]`: empty where the types tell nothing.
    """
    if not any(any(prompt.types) for prompt in prompts):
        return {}
    types = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        types[row, prompt_length - len(prompt.types) : prompt_length] = torch.tensor(prompt.types)
    return {"mm_token_type_ids": types}


def _join(key: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    widths = {part.shape[1] for part in parts if part.ndim > 1}
    if len(widths) < 2:
        return torch.cat(list(parts))
    if key == "pixel_values_videos":
        raise SightError(
            f"this model takes clips of one length in a batch, these have {sorted(widths)} frames; use clips that "
            "give the full number of frames, or a batch of one prompt"
        )
    most = max(widths)  # models leave out what is padded with zeros
    return torch.cat([torch.nn.functional.pad(part, _pad_second(part, most)) for part in parts])


def _pad_second(part: torch.Tensor, most: int) -> list[int]:
    """The padding of the second dimension, as `torch.nn.functional.pad` takes it: from the last dimension."""
    return [0, 0] * (part.ndim - 2) + [0, most - part.shape[1]]


def _place_media(messages: Sequence[Row], media: Media | None) -> list[dict[str, Any]]:
    """Messages of parts, with what is shown before the text of the last user message."""
    parts = [{**message, "content": _list_parts(message["content"])} for message in messages]
    if media is not None:
        asked = [place for place, message in enumerate(parts) if message["role"] == "user"]
        if not asked:
            raise SightError("a prompt with a video or images has no user message to show them in")
        shown = [{"type": "image"}] * len(media.images) or [{"type": "video"}]
        parts[asked[-1]]["content"] = shown + parts[asked[-1]]["content"]
    return parts


def _list_parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    # A dataset fills up the keys that parts of other types have.
    return [{key: value for key, value in part.items() if value is not None} for part in content]
