"""From prompts with frames to answers: clip by clip, each decoded and seen once, the texts behind them in batches.

Prompts without frames are `transformers_engine.py`'s; frames are read by `frame_loading.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_batches import Batch, Cluster, find_clusters, pack
from vidground_hf.answerers.transformers_clips import Clip, ClipEncoder
from vidground_hf.answerers.transformers_engine import Engine, OnAnswer, add_costs, find_text_error, name_question
from vidground_hf.answerers.transformers_forward import gather_letters, run_in_halves
from vidground_hf.answerers.transformers_generation import make_seed, write_answers
from vidground_hf.answerers.transformers_kept import Recent
from vidground_hf.answerers.transformers_sight import Seen, can_keep, extend, look, read_seen_logits
from vidground_hf.answerers.transformers_tokens import Ids
from vidground_hf.media import FrameRequest
from vidground_hf.prompts import Prompt
from vidground_hf.video import VideoFrames, VideoReadError, show_frames

_MAX_FRAME_BYTES = 1 << 30
_MAX_SEEN_BYTES = 1 << 31
# Of a column that is read from memory beside one that is computed; all three are our guesses.
_KEPT_PER_COMPUTED = 16
_SAMPLE = "Question: What is this?"

ClipKey: TypeAlias = tuple[FrameRequest, bytes | None]
LoadFrames: TypeAlias = Callable[[Sequence[FrameRequest]], Iterator[VideoFrames | VideoReadError]]


class Row(NamedTuple):
    """One text behind what its prompts have seen.

    Attributes:
        seen (`Seen`): the frames and all before the text.
        ids (`int64[T]`): the text and what the template puts behind it.
        owners (`list[int]`): the prompts that ask exactly this.
        seconds (`float`): a prompt's share of the time that seeing took.
    """

    seen: Seen
    ids: Ids
    owners: list[int]
    seconds: float

    @property
    def size(self) -> int:
        """In tokens that are computed."""
        return len(self.ids) + len(self.seen.ids) // _KEPT_PER_COMPUTED


class VisualEngine:
    """Answers prompts with frames.

    Args:
        engine (`Engine`): the model and how it is asked.
        processor (`ProcessorMixin`): of the model.
        load_frames (`Callable`): the frames, or why there are none, of each of the requests it is given, in order.
    """

    def __init__(self, engine: Engine, processor: Any, load_frames: LoadFrames) -> None:
        self.engine = engine
        self.load_frames = load_frames
        self.is_reasoning = engine.reasoning_tokens is not None
        self.clips = ClipEncoder(engine.loaded, processor, reasoning=self.is_reasoning)
        self.frames: Recent[VideoFrames] = Recent(_MAX_FRAME_BYTES)
        self.seen: Recent[Seen] = Recent(_MAX_SEEN_BYTES)
        sample = self.clips.encode(_make_noise(), FrameRequest(source=""))
        self.keeps_layers = can_keep(engine.loaded, sample, self.clips.texts.encode([_SAMPLE])[0])

    def answer_each(self, prompts: Sequence[Prompt], indices: Sequence[int], on_answer: OnAnswer) -> None:
        """Answers some of the prompts, clip by clip in the order in which clips come up first."""
        asked = self._encode_texts(prompts, indices, on_answer)
        clips: dict[ClipKey, dict[ClipKey, list[int]]] = {}
        digests: dict[int, bytes] = {}
        for index in asked:
            request = _get_request(prompts[index])
            digest = _hash_content(request, digests)
            clips.setdefault((request.clip, digest), {}).setdefault((request, digest), []).append(index)
        # What is kept now is held on to: a later clip may push it out before it is its turn.
        seen = {key: one for views in clips.values() for key in views if (one := self.seen.get(key)) is not None}
        frames = {key: shown for key in clips if (shown := self.frames.get(key)) is not None}
        missing = [key for key, views in clips.items() if key not in frames and not views.keys() <= seen.keys()]
        loading = iter(self.load_frames([key[0] for key in missing]))
        rows: list[Row] = []
        try:
            for clip, views in clips.items():
                loaded = next(loading) if clip in missing else frames.get(clip)
                if clip in missing and isinstance(loaded, VideoFrames):
                    self.frames.put(clip, loaded, loaded.data.nbytes)
                for key, owners in views.items():
                    start = perf_counter()
                    found = seen.get(key) or self._see(key, loaded)
                    seconds = (perf_counter() - start) / len(owners)
                    rows += self._make_rows(prompts, asked, owners, found, seconds, on_answer)
                    if sum(row.size for row in rows) >= self.engine.max_batch_tokens:
                        self._answer_rows(prompts, rows, on_answer)
                        rows = []
            self._answer_rows(prompts, rows, on_answer)
        finally:
            self.engine.num_in_flight = 0

    def _encode_texts(self, prompts: Sequence[Prompt], indices: Sequence[int], on_answer: OnAnswer) -> dict[int, Ids]:
        """The text of each prompt that can be asked, as tokens."""
        texts = {index: prompts[index].render(reasoning=self.is_reasoning) for index in indices}
        for index in indices:
            error = find_text_error(texts[index]) or self.engine.find_error(prompts[index], 0)
            if error is not None:
                del texts[index]
                on_answer(index, Answer(text=None, error=error))
        if not texts:
            return {}
        return dict(zip(texts, self.clips.texts.encode(list(texts.values())), strict=True))

    def _see(self, key: ClipKey, frames: VideoFrames | VideoReadError | None) -> Seen | str:
        """What the model keeps of the frames of a request, or why it has not seen them."""
        if frames is None or isinstance(frames, VideoReadError):
            return str(frames)
        request = key[0]
        try:
            clip = self.clips.encode(show_frames(frames, request), request)
            most = self.engine.loaded.max_length
            if most is not None and len(clip.ids) >= most:
                return f"the frames take {len(clip.ids)} tokens, the model takes {most}; show fewer, or smaller ones"
            seen = self._look(clip)
        except ValueError as error:
            return f"the model cannot be shown {frames.source}: {' '.join(str(error).split())}"
        if seen is None:
            return f"the frames' {len(clip.ids)} tokens do not fit in the memory"
        self.seen.put(key, seen, seen.num_bytes)
        return seen

    def _look(self, clip: Clip) -> Seen | None:
        """Looks, again without what was kept if the memory is short; `None` if that is not enough."""
        for _ in range(2):
            try:
                return look(self.engine.loaded, clip, keep_layers=self.keeps_layers)
            except torch.OutOfMemoryError:
                self.seen.clear()
            torch.cuda.empty_cache()
        return None

    def _make_rows(
        self,
        prompts: Sequence[Prompt],
        texts: dict[int, Ids],
        owners: Sequence[int],
        seen: Seen | str,
        seconds: float,
        on_answer: OnAnswer,
    ) -> list[Row]:
        """Puts texts behind what was seen, equal ones once."""
        rows: dict[Hashable, Row] = {}
        for index in owners:
            ids = texts[index]
            error = seen if isinstance(seen, str) else self.engine.find_error(prompts[index], len(seen.ids) + len(ids))
            if isinstance(seen, str) or error is not None:
                on_answer(index, Answer(text=None, error=error))
                continue
            is_scored = self.engine.is_scored(prompts[index])
            trial = prompts[index].trial_index if self.engine.temperature > 0 and not is_scored else 0
            rows.setdefault((ids.tobytes(), trial, is_scored), Row(seen, ids, [], seconds)).owners.append(index)
        return list(rows.values())

    def _answer_rows(self, prompts: Sequence[Prompt], rows: Sequence[Row], on_answer: OnAnswer) -> None:
        scored = [row for row in rows if self.engine.is_scored(prompts[row.owners[0]])]
        written = [row for row in rows if not self.engine.is_scored(prompts[row.owners[0]])]
        keys = [(id(row.seen), name_question(prompts[row.owners[0]])) for row in scored]
        self._run(prompts, scored, find_clusters([row.ids for row in scored], keys), self._score, on_answer)
        alone = [Cluster((number,), 0, len(row.ids)) for number, row in enumerate(written)]
        self._run(prompts, written, alone, self._write, on_answer)

    def _run(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[Row],
        clusters: list[Cluster],
        ask: Callable[[Sequence[Prompt], Sequence[Row], Batch], list[list[Answer]]],
        on_answer: OnAnswer,
    ) -> None:
        """Asks in batches, and hands the answers over with what they took."""

        def run(batch: Batch) -> None:
            chosen = [rows[number] for number in batch.rows]
            self.engine.num_in_flight, start = sum(len(row.owners) for row in chosen), perf_counter()
            answers = ask(prompts, rows, batch)
            seconds = (perf_counter() - start) / self.engine.num_in_flight
            for row, row_answers in zip(chosen, answers, strict=True):
                for index, answer in zip(row.owners, row_answers, strict=True):
                    on_answer(index, _add_sight(answer, row, seconds))

        def give_up(batch: Batch) -> None:
            for row in (rows[number] for number in batch.rows):
                error = f"the prompt's {len(row.seen.ids) + len(row.ids)} tokens do not fit in the memory"
                for index in row.owners:
                    on_answer(index, Answer(text=None, error=error))

        if not self.keeps_layers:
            clusters = [Cluster((number,), 0, len(row.ids)) for number, row in enumerate(rows)]
        sized = [_add_size(cluster, rows) for cluster in clusters]
        run_in_halves(pack(sized, self.engine.max_batch_tokens if self.keeps_layers else 1), run, give_up)

    def _score(self, prompts: Sequence[Prompt], rows: Sequence[Row], batch: Batch) -> list[list[Answer]]:
        seen: list[Seen] = []
        texts: list[Ids] = []
        for cluster in batch.clusters:
            first = rows[cluster.rows[0]]
            shared = first.ids[: cluster.num_shared]
            begun = extend(self.engine.loaded, first.seen, shared) if len(shared) else first.seen
            seen += [begun] * len(cluster.rows)
            texts += [rows[number].ids[cluster.num_shared :] for number in cluster.rows]
        logits = gather_letters(read_seen_logits(self.engine.loaded, seen, texts), self.engine.columns)
        return [
            [self.engine.choose(prompts[index], row_logits) for index in rows[number].owners]
            for number, row_logits in zip(batch.rows, logits, strict=True)
        ]

    def _write(self, prompts: Sequence[Prompt], rows: Sequence[Row], batch: Batch) -> list[list[Answer]]:
        chosen = [rows[number] for number in batch.rows]
        firsts = [prompts[row.owners[0]] for row in chosen]
        answers = write_answers(
            self.engine.loaded,
            self.clips.texts,
            [row.ids for row in chosen],
            seeds=[make_seed(prompt.text, prompt.trial_index) for prompt in firsts],
            max_tokens=self.engine.max_tokens,
            temperature=self.engine.temperature,
            reasoning_tokens=self.engine.reasoning_tokens,
            seen=[row.seen for row in chosen],
        )
        return [[answer] * len(row.owners) for row, answer in zip(chosen, answers, strict=True)]


def _add_size(cluster: Cluster, rows: Sequence[Row]) -> Cluster:
    """Counts what is read from memory as tokens of each row, so that batches stay bounded."""
    num_kept = len(rows[cluster.rows[0]].seen.ids) // _KEPT_PER_COMPUTED
    return cluster._replace(num_own=cluster.num_own + num_kept)


def _add_sight(answer: Answer, row: Row, seconds: float) -> Answer:
    return add_costs(
        answer,
        num_frames=row.seen.num_frames,
        num_visual_tokens=row.seen.num_visual_tokens,
        num_prompt_tokens=len(row.seen.ids) + len(row.ids),
        seconds=row.seconds + seconds,
        decoder=row.seen.decoder,
    )


def _get_request(prompt: Prompt) -> FrameRequest:
    if prompt.frames is None:
        raise ValueError(f"the prompt of row {prompt.example_id!r} shows no frames; ask it as text")
    return prompt.frames


def _hash_content(request: FrameRequest, digests: dict[int, bytes]) -> bytes | None:
    """Tells videos apart that are given as bytes, whatever they are called; each is read once a call."""
    if request.content is None:
        return None
    if id(request.content) not in digests:
        digests[id(request.content)] = hashlib.blake2b(request.content, digest_size=16).digest()
    return digests[id(request.content)]


def _make_noise() -> VideoFrames:
    """A clip of two frames to try a model on."""
    data = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    return VideoFrames(
        data=data,
        pts_seconds=np.array([0.0, 1.0]),
        duration_seconds=np.array([1.0, 1.0]),
        indices=np.array([0, 1]),
        backend="none",
        source="noise",
        video_seconds=2.0,
        num_video_frames=2,
    )
