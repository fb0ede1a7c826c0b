"""Rewards in TRL's shape: completions and the columns of their rows to one number each, or `None`.

Answers are found by `extraction.py` and graded by `scoring.py`; what the rewards lead to is the trainer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from vidground_hf.examples import build_example
from vidground_hf.extraction import extract_answer
from vidground_hf.schema import Example
from vidground_hf.scoring import score_answer
from vidground_hf.stats.windows import temporal_iou

Completion: TypeAlias = str | Sequence[Mapping[str, Any]]
Rewards: TypeAlias = list[float | None]

LENGTH_WINDOW = (320, 512)
"""Tokens, both ends included; this, the bonus and what counts as right are of Video-R1's training script."""
LENGTH_BONUS = 0.2
LENGTH_LEAST_ACCURACY = 0.1

_FORMAT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)
_MEDIA_COLUMNS = ("video", "images", "image")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_SECONDS = re.compile(r"\d+(?:\.\d+)?|\.\d+")


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    **columns: Any,
) -> Rewards:
    """How right each answer is, by its own row's problem type; what is thought aloud is no answer.

    Args:
        completions (`Sequence[str]` or `Sequence[list[dict]]`): N texts, or conversations that end with one.
        solution (`Sequence[str]`): N golds; of multiple choice a letter or an option's text.
        problem_type (`Sequence[str]`): N of `schema.PROBLEM_TYPES`.
        options (`Sequence[Sequence[str]]`, *optional*): of each row as shown; empty or `None` for open-ended ones.

    Returns:
        `list[float | None]`: N, in [0, 1]; `None` where the row cannot be scored.

    Example:
        >>> answers = ["<think>B?</think><answer>A</answer>", "<think>It must be A", "7"]
        >>> kinds = ["multiple_choice", "multiple_choice", "numerical"]
        >>> accuracy_reward(answers, ["A", "A", "seven"], kinds, [["red", "sea"], ["red", "sea"], None])
        [1.0, 0.0, None]
    """
    shown: Sequence[Sequence[str] | None] = options or [None] * len(completions)
    rows = zip(completions, solution, problem_type, shown, strict=True)
    return [
        score_answer(cut_thinking(read_text(completion)), _make_example(gold, kind, tuple(texts or ())))
        for completion, gold, kind, texts in rows
    ]


def read_text(completion: Completion) -> str:
    """The text of a completion: itself, or what the last message of a conversation says.

    Example:
        >>> read_text([{"role": "assistant", "content": [{"type": "text", "text": "B"}]}])
        'B'
    """
    return completion if isinstance(completion, str) else join_parts(completion[-1]["content"])


def join_parts(content: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a message, written as a string or as parts of which some are pixels."""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def cut_thinking(text: str) -> str:
    """What follows the thinking; nothing where it is cut off, since letters that are weighed in it are no answer.

    Example:
        >>> cut_thinking("<think>A? No.</think> B"), cut_thinking("<think>It may be A")
        (' B', '')
    """
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    return "" if "<think>" in text else text


@lru_cache(maxsize=4096)
def _make_example(solution: str, problem_type: str, options: tuple[str, ...]) -> Example:
    return build_example(row_id=None, question=None, options=list(options), answer=solution, problem_type=problem_type)


def format_reward(completions: Sequence[Completion], **columns: Any) -> Rewards:
    """1.0 for thinking and then an answer in their tags, each once and nothing around them, else 0.0 (Video-R1).

    Example:
        >>> format_reward(["<think>hm</think> <answer>B</answer>", "<answer>B</answer>"])
        [1.0, 0.0]
    """
    texts = map(read_text, completions)
    return [float(bool(_FORMAT.fullmatch(text)) and all(text.count(tag) == 1 for tag in _TAGS)) for text in texts]


def length_reward(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    solution: Sequence[str],
    problem_type: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    **columns: Any,
) -> Rewards:
    """A bonus of 0.2 for right answers of 320 to 512 tokens, else 0.0 (Video-R1, arXiv 2503.21776).

    Right means an accuracy above 0.1, as in Video-R1's training script. There at least two answers of a group must be
    right, too; here each stands for itself, since a process may hold a part of a group.

    Args:
        completions, solution, problem_type, options: as in `accuracy_reward`.
        completion_ids (`Sequence[Sequence[int]]`): the N completions as tokens; TRL passes them.

    Returns:
        `list[float | None]`: N; `None` where the row cannot be scored.

    Example:
        >>> length_reward(["A", "A"], [[0] * 320, [0] * 513], ["A", "A"], ["multiple_choice"] * 2, [["x", "y"]] * 2)
        [0.2, 0.0]
    """
    low, high = LENGTH_WINDOW
    scores = accuracy_reward(completions, solution, problem_type, options)
    return [
        None if score is None else LENGTH_BONUS * (score > LENGTH_LEAST_ACCURACY and low <= len(ids) <= high)
        for score, ids in zip(scores, completion_ids, strict=True)
    ]


def temporal_iou_reward(
    completions: Sequence[Completion], evidence_spans: Sequence[Sequence[Sequence[float]] | None], **columns: Any
) -> Rewards:
    """How well the window of time in each answer matches the nearest one in which the answer can be seen.

    An answer names two times in seconds and no other number, for example `<answer>12.5 to 20</answer>`.

    Args:
        completions (`Sequence`): as in `accuracy_reward`.
        evidence_spans (`Sequence[Sequence[Sequence[float]]]`): half-open `[start, end)` seconds of each of N rows.

    Returns:
        `list[float | None]`: N, temporal IoU in [0, 1]; 0.0 for an answer without a window, `None` for a row without.

    Example:
        >>> temporal_iou_reward(["<answer>5s to 10s</answer>", "later", "1-2"], [[[0.0, 10.0]], [[3.0, 4.0]], []])
        [0.5, 0.0, None]
    """
    rewards: Rewards = []
    for completion, spans in zip(completions, evidence_spans, strict=True):
        window = [float(number) for number in _SECONDS.findall(extract_answer(cut_thinking(read_text(completion))))]
        if not spans:
            rewards.append(None)
        else:
            rewards.append(float(temporal_iou(window, spans).max()) if len(window) == 2 else 0.0)
    return rewards


class LookReward:
    """Accuracy with the clip minus the same policy's without it, at least 0: an answer known blind earns nothing.

    A completion of accuracy a to a question whose blind accuracy is b earns max(0, a - b): a right choice 1 - b, which
    is nothing where the policy is right without looking, and a wrong one nothing. It is not a - b for all, because
    GRPO takes the mean of a group off its rewards, and b with it. Use it in place of `accuracy_reward`, not beside it:
    there right answers would still earn. Where rewards are scaled by the group's spread, 1 - b counts only where it is
    0, or beside other rewards; with `scale_rewards="batch"` or `"none"` it weighs questions as well. A row that shows
    nothing earns its accuracy. Derivation: `docs/design/post_training.md`.

    Off unless passed to a trainer. It costs `num_generations` more completions for every question to which one of the
    group is right: with 4 beside a group of 8 up to half as many again, without visual tokens under `"text"`; the
    share is logged as `look_share_of_generations`.

    Args:
        num_generations (`int`, *optional*, defaults to 4): blind completions of a question, at least 1; where a group
            lies in two processes, each asks for as many. Our guess: the size of Video-R1's second group.
        view (`str`, *optional*, defaults to `"text"`): `"text"`, or `"wrong_video"` for another row's clip; then all
            rows of a process are asked, which are about at least two clips.

    Raises:
        `ValueError`: for settings out of range.

    Example:
        >>> look = LookReward(num_generations=2)
        >>> class Knows:  # a trainer, `VideoGRPOTrainer(..., reward_funcs=[look])`, whose policy always says A
        ...     def sample_completions(self, rows, *, view, num_generations):
        ...         return [["A"] * num_generations for _ in rows]
        >>> look.attach(Knows())
        >>> columns = {"solution": ["A", "B"], "problem_type": ["multiple_choice"] * 2, "options": [["x", "y"]] * 2}
        >>> look(["A", "B"], id=["1", "2"], prompts=["X or y?"] * 2, video=["1.mp4", "2.mp4"], **columns)
        [0.0, 1.0]
    """

    def __init__(self, num_generations: int = 4, view: Literal["text", "wrong_video"] = "text") -> None:
        if num_generations < 1:
            raise ValueError(f"{num_generations = } is out of range; it is at least 1")
        if view not in ("text", "wrong_video"):
            raise ValueError(f"{view = } is not allowed; allowed are 'text' and 'wrong_video'")
        self.num_generations = num_generations
        self.view = view
        self.trainer: Any = None
        self.__name__ = "look_reward"  # what TRL calls it in its logs

    def attach(self, trainer: Any) -> None:
        """Says whose policy is asked; trainers are made after their rewards.

        Args:
            trainer (`VideoGRPOTrainer`): has `sample_completions`.
        """
        if not hasattr(trainer, "sample_completions"):
            raise ValueError(
                f"{type(trainer).__name__} cannot be asked without the video; look_reward goes with VideoGRPOTrainer"
            )
        self.trainer = trainer

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        prompts: Sequence[Any],
        id: Sequence[str],  # noqa: A002  # the name of the column
        completion_ids: Any = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> Rewards:
        """Rewards the completions of one process.

        Args:
            completions (`Sequence`): N, those of one row beside one another.
            prompts (`Sequence`): N; what the rows asked.
            id (`Sequence[str]`): N names of rows.
            completion_ids (`Any`, *optional*): what TRL passes besides; not used.
            log_metric (`Callable`, *optional*): TRL's.
            columns: the other columns of the rows, N each.

        Returns:
            `list[float | None]`: N, in [0, 1]; `None` where the row cannot be scored.

        Raises:
            `RuntimeError`: before `attach`.
        """
        if self.trainer is None:
            raise RuntimeError("look_reward asks the policy; call its attach(trainer) before trainer.train()")
        scores = accuracy_reward(completions, **columns)
        cells = {name: column for name, column in columns.items() if _is_column(column, len(completions))}
        rows = {
            name: {"id": name, "prompt": _take_text(prompts[k]), **{key: cells[key][k] for key in cells}}
            for k, name in enumerate(id)
        }
        seeing = {name for name, row in rows.items() if any(row.get(key) for key in _MEDIA_COLUMNS)}
        earning = {name for name, score in zip(id, scores, strict=True) if score and name in seeing}
        blind, num_asked = self._measure_blind(
            [row for name, row in rows.items() if name in earning], list(rows.values())
        )
        if log_metric is not None:
            log_metric("look_share_of_generations", num_asked / len(completions))
            if blind:
                log_metric("look_blind_accuracy", float(np.mean(list(blind.values()))))
        return [
            None if score is None else max(0.0, score - blind.get(name, 0.0))
            for name, score in zip(id, scores, strict=True)
        ]

    def _measure_blind(self, wanted: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[dict[str, float], int]:
        """The blind accuracy of the rows that earn something, and how many completions this process asked for."""
        from accelerate.utils import gather_object

        most = max(gather_object([len(wanted)]))
        if not most:
            return {}, 0
        # All processes ask as many, as the trainer wants it. Another row's clip has to be among those that are asked.
        asked = (wanted + rows[:1] * most)[:most] if self.view == "text" else rows
        answers = self.trainer.sample_completions(asked, view=self.view, num_generations=self.num_generations)
        found = []
        for row, texts in zip(asked, answers, strict=True):
            repeated = {
                name: [row[name]] * len(texts) for name in ("solution", "problem_type", "options") if name in row
            }
            found.append((row["id"], accuracy_reward(texts, **repeated)))
        # A group may lie in several processes, and all of its completions are compared with one figure.
        tries: dict[str, list[float]] = {}
        for name, scores in gather_object(found):
            tries.setdefault(name, []).extend(score for score in scores if score is not None)
        return {name: float(np.mean(scores)) for name, scores in tries.items() if scores}, sum(map(len, answers))


def _is_column(value: Any, length: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == length


def _take_text(prompt: Any) -> Any:
    """A prompt as rows have it: a trainer may have put pixels into its messages."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": message["role"], "content": join_parts(message["content"])} for message in prompt]
