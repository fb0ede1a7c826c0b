"""`Trial`: one answer to one example, scored. What several of them lead to is `rules.py`'s and `set_rules.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidground_hf.stats.gap import RIGHT_SCORE

VIEW_GAPS = ("no_subtitles", "no_video")
"""Errors of rows that were not asked about, because they have not got what the view shows."""

KILLED_WORKER = "killed_worker"
"""The error of a row that two workers died over; it stands for the answer, and the run goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One answer to one example, and its score.

    Attributes:
        score (`float`, *optional*): in [0, 1]; `None` when it cannot be scored.
        confidence (`float`, *optional*): how sure the answerer was, without having seen the gold answer; of a row's
            first trial, how sure all of its trials make it.
        bias_score (`float`, *optional*): probability, in [0, 1], that text alone gives the gold answer.
        num_options (`int`, *optional*, defaults to 0): distinct options; 0 for open-ended questions.
        num_gold (`int`, *optional*, defaults to 1): how many of the distinct options equal the gold answer.
        error (`str`, *optional*): why there is no answer.
        text (`str`, *optional*): what was answered, for multiple choice in the words of the option.
        choice (`int`, *optional*): the option that was chosen, by its position in the data, whatever the order shown;
            `None` for open-ended questions and for an answer that means none of the options.
        option_logprobs (`tuple[float, ...]`, *optional*): of the options in the data's order, as in `Answer`.
        answerer (`int`, *optional*, defaults to 0): which of several answerers.
    """

    score: float | None
    confidence: float | None = None
    bias_score: float | None = None
    num_options: int = 0
    num_gold: int = 1
    error: str | None = None
    text: str | None = None
    choice: int | None = None
    option_logprobs: tuple[float, ...] | None = None
    answerer: int = 0

    @property
    def is_right(self) -> bool | None:
        """Whether the score is at least `RIGHT_SCORE`; `None` without a score."""
        return None if self.score is None else self.score >= RIGHT_SCORE

    @property
    def chance(self) -> float:
        """How often guessing is right: 0 for open-ended questions."""
        return self.num_gold / self.num_options if self.num_options else 0.0

    @property
    def has_decoys(self) -> bool:
        """Whether some, but not all, of the options equal the gold answer."""
        return 0 < self.num_gold < self.num_options


def find_defect(trials: Sequence[Trial]) -> str | None:
    """Says why a row cannot be judged, by any rule: an answer is missing, or cannot be scored."""
    if not trials or any(trial.error is not None for trial in trials):
        return "no_answer"
    return "unscored" if any(trial.score is None for trial in trials) else None
