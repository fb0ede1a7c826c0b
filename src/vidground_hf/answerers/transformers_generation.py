"""Lets a model write: greedily or sampled, after thinking or at once; the same for a prompt whatever its batch.

What an answer in the text means is found in `extraction.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_forward import pad_left
from vidground_hf.answerers.transformers_loading import LoadedModel, be_quiet
from vidground_hf.answerers.transformers_sight import Seen, prepare_rows
from vidground_hf.answerers.transformers_tokens import Ids, TextEncoder

OPEN_ANSWER = "<answer>"
FORCED = "</think>\n" + OPEN_ANSWER
"""What is put in a model's mouth when it has thought long enough."""


class Completion(NamedTuple):
    """What a model wrote.

    Attributes:
        ids (`int64[T]`): without the token that ends it.
        is_finished (`bool`): whether the model ended it; else it was cut off.
    """

    ids: Ids
    is_finished: bool


class GumbelNoise(LogitsProcessor):
    """Makes greedy decoding sample: the largest of logits / temperature + Gumbel noise is an exact draw.

    Each row has its own noise, so what is drawn does not depend on the batch.

    Args:
        seeds (`Sequence[int]`): one per row.
        temperature (`float`): above 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty(scores.shape)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - noise.log_().to(scores.device)


def make_seed(text: str, trial_index: int) -> int:
    """A seed that depends on a prompt and its trial, and on nothing else."""
    content = f"{trial_index}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 1


@torch.inference_mode()
def complete(
    loaded: LoadedModel,
    prompts: Sequence[Ids],
    *,
    max_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    seen: Sequence[Seen] | None = None,
) -> list[Completion]:
    """Continues prompts.

    Args:
        loaded (`LoadedModel`): the model.
        prompts (`Sequence[int64[T]]`): one batch.
        max_tokens (`int`): the longest completion; 0 writes nothing.
        temperature (`float`): 0 takes the likeliest token each time.
        seeds (`Sequence[int]`): one per prompt; read above temperature 0.
        seen (`Sequence[Seen]`, *optional*): what stands before each of them.

    Returns:
        `list[Completion]`: one per prompt, in order.
    """
    if max_tokens == 0 or not prompts:
        return [Completion(np.zeros(0, np.int64), False)] * len(prompts)
    model = loaded.model
    ends = np.atleast_1d(np.array(model.generation_config.eos_token_id or [], np.int64))
    if seen is None:
        ids, mask = pad_left(prompts)
        inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    else:
        inputs = prepare_rows(loaded, seen, prompts)
    settings = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=ends.tolist() or None,
        pad_token_id=int(ends[0]) if len(ends) else 0,
    )
    noise = [GumbelNoise(seeds, temperature)] if temperature > 0 else []
    with be_quiet():
        written = model.generate(
            **inputs,
            generation_config=settings,
            logits_processor=LogitsProcessorList(noise),
        )
    completions = []
    for row in written[:, inputs["input_ids"].shape[1] :].cpu().numpy():
        is_end = np.isin(row, ends)
        completions.append(Completion(row[: is_end.argmax()] if is_end.any() else row, bool(is_end.any())))
    return completions


def write_answers(
    loaded: LoadedModel,
    encoder: TextEncoder,
    prompts: Sequence[Ids],
    *,
    seeds: Sequence[int],
    max_tokens: int,
    temperature: float,
    reasoning_tokens: int | None,
    seen: Sequence[Seen] | None = None,
) -> list[Answer]:
    """Lets a model answer in its own words.

    Args:
        loaded (`LoadedModel`): the model.
        encoder (`TextEncoder`): its tokenizer.
        prompts (`Sequence[int64[T]]`): one batch.
        seeds (`Sequence[int]`): one per prompt; read above temperature 0.
        max_tokens (`int`): the longest answer.
        temperature (`float`): 0 takes the likeliest token each time.
        reasoning_tokens (`int`, *optional*): the longest thought before it.
        seen (`Sequence[Seen]`, *optional*): what stands before each prompt.

    Returns:
        `list[Answer]`: one per prompt, in order.
    """
    first = max_tokens if reasoning_tokens is None else reasoning_tokens
    done = complete(loaded, prompts, max_tokens=first, temperature=temperature, seeds=seeds, seen=seen)
    if reasoning_tokens is not None:
        done = _finish_thoughts(
            loaded,
            encoder,
            prompts,
            done,
            seeds=[seed + 1 for seed in seeds],
            max_tokens=max_tokens,
            temperature=temperature,
            seen=seen,
        )
    texts = encoder.decode([completion.ids for completion in done])
    # A model that was not taught to chat goes on with questions of its own.
    is_first_line_only = not encoder.has_template and reasoning_tokens is None
    return [_read(text, completion, is_first_line_only) for text, completion in zip(texts, done, strict=True)]


def _finish_thoughts(
    loaded: LoadedModel,
    encoder: TextEncoder,
    prompts: Sequence[Ids],
    thoughts: Sequence[Completion],
    *,
    seeds: Sequence[int],
    max_tokens: int,
    temperature: float,
    seen: Sequence[Seen] | None,
) -> list[Completion]:
    """Makes a model answer where it has thought only, and end the answers that were cut off."""
    done = list(thoughts)
    forced = encoder.encode_plain(FORCED)
    for index, text in enumerate(encoder.decode([thought.ids for thought in thoughts])):
        if OPEN_ANSWER not in text:
            done[index] = Completion(np.concatenate([done[index].ids, forced]), False)
    left = [index for index, completion in enumerate(done) if not completion.is_finished]
    ids = [np.concatenate([prompts[index], done[index].ids]) for index in left]
    some_seeds = [seeds[index] for index in left]
    some_seen = None if seen is None else [seen[index] for index in left]
    answers = complete(loaded, ids, max_tokens=max_tokens, temperature=temperature, seeds=some_seeds, seen=some_seen)
    for index, answer in zip(left, answers, strict=True):
        done[index] = Completion(np.concatenate([done[index].ids, answer.ids]), answer.is_finished)
    return done


def _read(text: str, completion: Completion, is_first_line_only: bool) -> Answer:
    is_finished = completion.is_finished
    if is_first_line_only:
        text, line_end, _ = text.lstrip().partition("\n")
        is_finished = is_finished or bool(line_end)
    if not text.replace(FORCED, "").strip():
        return Answer(text=None, error="the model wrote nothing")
    return Answer(text=text, finish_reason="stop" if is_finished else "length", num_answer_tokens=len(completion.ids))
