"""The vocabulary of the tasks: two tokens each, where they stand in a text, and how generation is held to them.

The model is not run here. A task's trigger says "this head answers now"; the task token behind it is the place whose
last hidden state the head reads. Both are rows of the vocabulary like any other, so training and generation see the
same context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import LogitsProcessor

from vidground_hf.task_preference.configuration import TASKS

_NOISE = 0.02  # of a new row, as a share of the rows' own spread; our guess, enough to tell the new rows apart


class TaskTokens(NamedTuple):
    """Ids of the tokens of each task.

    Attributes:
        triggers (`dict[str, int]`): of the token that starts an answer by the head.
        states (`dict[str, int]`): of the token behind it, whose state the head reads.
    """

    triggers: dict[str, int]
    states: dict[str, int]


def name_tokens(task: str) -> tuple[str, str]:
    """How the trigger and the task token of a task are written.

    Args:
        task (`str`): one of `TASKS`.

    Returns:
        `tuple[str, str]`: trigger and task token; an answer holds them one behind the other.

    Raises:
        `ValueError`: for another task.

    Example:
        >>> "".join(name_tokens("box"))
        '<|box|><|box_state|>'
    """
    if task not in TASKS:
        raise ValueError(f"task = {task!r} has no tokens; pass one of {', '.join(TASKS)}")
    return f"<|{task}|>", f"<|{task}_state|>"


def add_task_tokens(tokenizer: Any, tasks: Sequence[str] = TASKS) -> TaskTokens:
    """Adds the tokens of tasks to a tokenizer, where it lacks them.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the model; it is changed.
        tasks (`Sequence[str]`, *optional*): some of `TASKS`; all when left out.

    Returns:
        `TaskTokens`: their ids.

    Raises:
        `ValueError`: for another task.

    Example:
        >>> add_task_tokens(processor.tokenizer, ["box"]).triggers  # doctest: +SKIP
        {'box': 151665}
    """
    names = {task: name_tokens(task) for task in tasks}
    new = [AddedToken(word, special=True, normalized=False) for pair in names.values() for word in pair]
    tokenizer.add_tokens(new, special_tokens=True)
    ids = {task: tokenizer.convert_tokens_to_ids(list(pair)) for task, pair in names.items()}
    return TaskTokens({task: pair[0] for task, pair in ids.items()}, {task: pair[1] for task, pair in ids.items()})


@torch.no_grad()
def fit_embeddings(vlm: Any, vocabulary_size: int, ids: Sequence[int]) -> None:
    """Makes room for new tokens and starts their rows, of inputs and outputs, near the mean of all others.

    Spare rows of published checkpoints were never trained, and `resize_token_embeddings` draws its own; so both are
    overwritten. All rows get the same draws each time. Where the vocabulary has room it is not resized. The config of
    the model keeps which rows were started (`task_token_rows`): another time they stay as they are, for they may have
    been trained. (A tokenizer cannot tell: it may have got the tokens before the model did.)

    Args:
        vlm (`PreTrainedModel`): with a language modeling head; it is changed.
        vocabulary_size (`int`): how many tokens its tokenizer has.
        ids (`Sequence[int]`): of the new tokens.
    """
    num_rows = vlm.get_input_embeddings().weight.shape[0]
    if vocabulary_size > num_rows:
        vlm.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    known = torch.ones(min(num_rows, vlm.get_input_embeddings().weight.shape[0]), dtype=torch.bool)
    known[[index for index in ids if index < len(known)]] = False
    started = getattr(vlm.config, "task_token_rows", [])
    fresh = [place for place, index in enumerate(ids) if index not in started]
    for weight in _list_embeddings(vlm):
        old = weight[: len(known)][known.to(weight.device)].float()
        draws = torch.randn(len(ids), weight.shape[1], generator=torch.Generator().manual_seed(0))
        rows = old.mean(0) + _NOISE * old.std(0) * draws.to(old.device)
        weight[[ids[place] for place in fresh]] = rows[fresh].to(weight.dtype)
    vlm.config.task_token_rows = sorted({*started, *ids})


def _list_embeddings(vlm: Any) -> list[Tensor]:
    """The embeddings of inputs and outputs, once where they are tied."""
    inputs, outputs = vlm.get_input_embeddings().weight, vlm.get_output_embeddings().weight
    return [inputs] if outputs is inputs else [inputs, outputs]


def find_states(ids: Tensor, task_token_ids: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Where the task tokens of a batch are.

    Args:
        ids (`Tensor`): `int64[B, T]`.
        task_token_ids (`Mapping[str, int]`): of each task.

    Returns:
        `dict[str, tuple[int64[N], int64[N]]]`: of each task, row and column of its N tokens, row by row from the left.

    Example:
        >>> rows, columns = find_states(torch.tensor([[1, 7, 2], [7, 1, 7]]), {"box": 7})["box"]
        >>> rows.tolist(), columns.tolist()
        ([0, 1, 1], [1, 0, 2])
    """
    return {
        task: (rows, columns)
        for task, index in task_token_ids.items()
        for rows, columns in [(ids == index).nonzero(as_tuple=True)]
    }


class TaskTokenProcessor(LogitsProcessor):
    """Has a task token follow its trigger, always, and nothing else.

    So a head never reads a state in a context that training did not have.

    Args:
        trigger_token_ids (`Mapping[str, int]`): of each task.
        task_token_ids (`Mapping[str, int]`): the same.

    Example:
        >>> forced = TaskTokenProcessor({"box": 0}, {"box": 1})
        >>> forced(torch.tensor([[5, 0], [5, 5]]), torch.zeros(2, 3)).tolist()
        [[-inf, 0.0, -inf], [0.0, -inf, 0.0]]
    """

    def __init__(self, trigger_token_ids: Mapping[str, int], task_token_ids: Mapping[str, int]) -> None:
        self.pairs = [(trigger_token_ids[task], task_token_ids[task]) for task in task_token_ids]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Changes the scores of the next token.

        Args:
            input_ids (`Tensor`): `int64[B, T]`, what has been written.
            scores (`Tensor`): `float[B, V]`.

        Returns:
            `float[B, V]`: new.
        """
        scores = scores.clone()
        for trigger, state in self.pairs:
            is_due = input_ids[:, -1] == trigger
            scores[:, state] = float("-inf")
            scores[is_due] = float("-inf")
            scores[is_due, state] = 0.0
        return scores
