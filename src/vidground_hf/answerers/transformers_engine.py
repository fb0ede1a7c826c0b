"""From prompts to answers with a loaded model: each prompt once, in batches, by letters or in writing.

Finding and loading a model is `transformers_loading.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_batches import Batch, Cluster, find_clusters, pack
from vidground_hf.answerers.transformers_forward import can_share, gather_letters, read_logits, run_in_halves
from vidground_hf.answerers.transformers_generation import FORCED, make_seed, write_answers
from vidground_hf.answerers.transformers_letters import find_letters, make_choice, pool_letters
from vidground_hf.answerers.transformers_loading import LoadedModel
from vidground_hf.answerers.transformers_tokens import Ids, make_text_encoder
from vidground_hf.prompts import Prompt

_PROMPTS_PER_WINDOW = 8192  # tokenised and sorted together; our guess: bounds memory at the price of a ragged batch
_SAMPLE = "Question: What is this?"

OnAnswer = Callable[[int, Answer], None]


class Engine:
    """Answers prompts with one model and one way of asking; see `TransformersAnswerer` for the settings."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_tokens: int,
        temperature: float,
        max_tokens: int,
        reasoning_tokens: int | None,
    ) -> None:
        self.loaded = loaded
        self.max_batch_tokens = max_batch_tokens
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.reasoning_tokens = reasoning_tokens
        self.num_in_flight = 0
        self.encoder = make_text_encoder(loaded.tokenizer, loaded.template, reasoning=reasoning_tokens is not None)
        self.letters = find_letters(self.encoder)
        self.shares_prefixes = can_share(loaded, self.encoder.encode([_SAMPLE])[0])
        # The most options whose letters take one token each, in at least one form.
        self.num_letters = int((self.letters >= 0).sum(axis=1).max())
        self.columns = torch.from_numpy(self.letters.clip(min=0).ravel()).to(loaded.model.device)
        self.num_written = max_tokens
        if reasoning_tokens is not None:
            self.num_written += reasoning_tokens + len(self.encoder.encode_plain(FORCED))

    def answer_each(self, prompts: Sequence[Prompt], on_answer: OnAnswer) -> None:
        """Answers prompts, the longest of each window first, and hands each answer over."""
        try:
            for window in _cut_windows(prompts):
                self._answer_window(prompts, window, on_answer)
        finally:
            self.num_in_flight = 0

    def _answer_window(self, prompts: Sequence[Prompt], window: list[int], on_answer: OnAnswer) -> None:
        texts = {index: prompts[index].render(reasoning=self.reasoning_tokens is not None) for index in window}
        for index in window:
            if (error := find_text_error(texts[index])) is not None:
                del texts[index]
                on_answer(index, Answer(text=None, error=error))
        if not texts:
            return
        scored: dict[Hashable, tuple[Ids, list[int]]] = {}
        written: dict[Hashable, tuple[Ids, list[int]]] = {}
        for index, ids in zip(texts, self.encoder.encode(list(texts.values())), strict=True):
            prompt = prompts[index]
            error = self.find_error(prompt, len(ids))
            if error is not None:
                on_answer(index, Answer(text=None, error=error))
            elif self.is_scored(prompt):
                scored.setdefault(ids.tobytes(), (ids, []))[1].append(index)
            else:
                trial = prompt.trial_index if self.temperature > 0 else 0
                written.setdefault((ids.tobytes(), trial), (ids, []))[1].append(index)
        self._score(prompts, list(scored.values()), on_answer)
        self._write(prompts, list(written.values()), on_answer)

    def is_scored(self, prompt: Prompt) -> bool:
        """Whether a prompt is answered by the probabilities of letters; else the answer is written."""
        return prompt.problem_type == "multiple_choice" and self.reasoning_tokens is None

    def find_error(self, prompt: Prompt, num_tokens: int) -> str | None:
        """Why a prompt of so many tokens cannot be asked."""
        most, is_scored = self.loaded.max_length, self.is_scored(prompt)
        num_needed = num_tokens + (0 if is_scored else self.num_written)
        if most is not None and num_needed > most:
            behind = "" if is_scored else f" and up to {self.num_written} of the answer"
            return f"the prompt has {num_tokens} tokens{behind}, the model takes {most}"
        if is_scored and not prompt.options:
            return "the question is multiple choice and has no options"
        if is_scored and len(prompt.options) > self.num_letters:
            return (
                f"the question has {len(prompt.options)} options, and the tokenizer writes only the first "
                f"{self.num_letters} letters with one token each; pass reasoning_tokens=0 to have them written"
            )
        return None

    def choose(self, prompt: Prompt, logits: NDArray[np.float32]) -> Answer:
        """Answers multiple choice.

        Args:
            prompt (`Prompt`): N options.
            logits (`float32[C]`): of the letters' tokens, as `columns` has them.
        """
        shaped = logits.reshape(1, *self.letters.shape)
        logprobs = pool_letters(shaped, self.letters, np.array([len(prompt.options)]))
        return make_choice(prompt, logprobs[0, : len(prompt.options)])

    def _score(self, prompts: Sequence[Prompt], rows: list[tuple[Ids, list[int]]], on_answer: OnAnswer) -> None:
        ids = [row_ids for row_ids, _ in rows]
        if self.shares_prefixes:
            clusters = find_clusters(ids, [name_question(prompts[owners[0]]) for _, owners in rows])
        else:
            clusters = [Cluster((row,), 0, len(row_ids)) for row, row_ids in enumerate(ids)]

        def run(batch: Batch) -> None:
            owners = [rows[row][1] for row in batch.rows]
            self.num_in_flight, start = sum(map(len, owners)), perf_counter()
            logits = gather_letters(read_logits(self.loaded, ids, batch), self.columns)
            seconds = (perf_counter() - start) / self.num_in_flight
            for row, row_logits in zip(batch.rows, logits, strict=True):
                for index in rows[row][1]:
                    answer = self.choose(prompts[index], row_logits)
                    on_answer(index, add_costs(answer, seconds=seconds, num_prompt_tokens=len(ids[row])))

        run_in_halves(pack(clusters, self.max_batch_tokens), run, partial(_give_up, rows, on_answer))

    def _write(self, prompts: Sequence[Prompt], rows: list[tuple[Ids, list[int]]], on_answer: OnAnswer) -> None:
        clusters = [Cluster((row,), 0, len(ids) + self.num_written) for row, (ids, _) in enumerate(rows)]

        def run(batch: Batch) -> None:
            chosen = [rows[row] for row in batch.rows]
            self.num_in_flight, start = sum(len(owners) for _, owners in chosen), perf_counter()
            answers = write_answers(
                self.loaded,
                self.encoder,
                [ids for ids, _ in chosen],
                seeds=[make_seed(prompts[owners[0]].text, prompts[owners[0]].trial_index) for _, owners in chosen],
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                reasoning_tokens=self.reasoning_tokens,
            )
            seconds = (perf_counter() - start) / self.num_in_flight
            for (ids, owners), answer in zip(chosen, answers, strict=True):
                for index in owners:
                    on_answer(index, add_costs(answer, seconds=seconds, num_prompt_tokens=len(ids)))

        run_in_halves(pack(clusters, self.max_batch_tokens), run, partial(_give_up, rows, on_answer))


def add_costs(answer: Answer, **costs: Any) -> Answer:
    """Says what an answer took (fields of `Answer`); one that failed stays as it is."""
    if answer.error is not None:
        return answer
    return replace(answer, num_answer_tokens=answer.num_answer_tokens or 0, **costs)


def _give_up(rows: list[tuple[Ids, list[int]]], on_answer: OnAnswer, batch: Batch) -> None:
    for row in batch.rows:
        ids, owners = rows[row]
        for index in owners:
            on_answer(index, Answer(text=None, error=f"the prompt's {len(ids)} tokens do not fit in the memory"))


def find_text_error(text: str) -> str | None:
    """Why a text cannot be tokenised."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the question is no valid Unicode text and cannot be tokenised"
    return None


def name_question(prompt: Prompt) -> tuple[str | None, str | None]:
    """What prompts have in common that differ in their options only."""
    return prompt.subtitles, prompt.question


def _cut_windows(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Cuts prompts into windows, those of one question behind one another, wherever they stand."""
    together: dict[tuple[str | None, str | None], list[int]] = {}
    for index, prompt in enumerate(prompts):
        together.setdefault(name_question(prompt), []).append(index)
    sorted_indices = [index for indices in together.values() for index in indices]
    for start in range(0, len(sorted_indices), _PROMPTS_PER_WINDOW):
        yield sorted_indices[start : start + _PROMPTS_PER_WINDOW]
