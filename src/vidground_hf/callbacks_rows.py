"""The rows whose blind-visual gap is followed through a training, and what their answers come to.

Nobody is asked here; that is `callbacks_gap.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from vidground_hf.answerers.base import Answer
from vidground_hf.gap import measure_gap
from vidground_hf.judging import make_trial
from vidground_hf.ladder_needs import BLIND_NEEDS
from vidground_hf.media import FrameBudget
from vidground_hf.orders import draw_orders
from vidground_hf.post_training import is_trl, name_gold, read_trl
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.reading import read_examples
from vidground_hf.schema import LETTERS, Example, View

VERDICT_COLUMNS = ("is_visually_grounded", "needs")
"""Where rows say whether they need the video: as `curate` writes it, then as `climb` and the toy set do."""


class Asked(NamedTuple):
    """What the model answered to one row, as positions of options in the data's order.

    Attributes:
        row (`int`): which of the sampled rows.
        visual (`int`, *optional*), blind (`int`, *optional*): the choices; `None` without an answer.
        visual_score (`float`, *optional*), blind_score (`float`, *optional*): 0 or 1.
        error (`str`, *optional*): why an answer is missing.
    """

    row: int
    visual: int | None
    blind: int | None
    visual_score: float | None
    blind_score: float | None
    error: str | None


class GapRow(NamedTuple):
    """One row, ready to be asked.

    Attributes:
        example (`Example`): multiple choice, with a video.
        order (`tuple[int, ...]`): in which its options are shown.
        prompts (`tuple[Prompt, Prompt]`): with the video, and without.
        is_grounded (`bool`, *optional*): whether it needs the video; `None` where that is not known.
    """

    example: Example
    order: tuple[int, ...]
    prompts: tuple[Prompt, Prompt]
    is_grounded: bool | None

    def score(self, number: int, visual: Answer, blind: Answer) -> Asked:
        """Grades both answers to the row of this number."""
        trials = [make_trial(self.example, answer, self.order) for answer in (visual, blind)]
        error = trials[0].error or trials[1].error
        return Asked(number, trials[0].choice, trials[1].choice, trials[0].score, trials[1].score, error)


def draw_rows(
    dataset: Dataset,
    num_rows: int,
    *,
    budget: FrameBudget | None,
    verdict_column: str | None,
    adapter: str | None,
    columns: Mapping[str, str] | None,
    media_root: str | None,
    seed: int,
) -> list[GapRow]:
    """Draws rows that can be asked; fewer of one seed are the first of more. Arguments are `BlindGapCallback`'s.

    Raises:
        `ValueError`: when there are none, and for a `verdict_column` that is not there.
    """
    if is_trl(dataset) and not (adapter or columns):
        examples = read_trl(dataset, with_media=True)
    else:
        _, _, examples = read_examples(
            dataset, adapter=adapter, columns=columns, media_root=media_root, with_media=True
        )
    able = [index for index, example in enumerate(examples) if _can_ask(example)]
    if not able:
        raise ValueError(
            f"none of the {len(examples)} rows is multiple choice with a gold answer and a video; pass others as "
            "dataset=, or say how to read them with columns="
        )
    verdicts = read_verdicts(dataset, verdict_column)
    rows = []
    for place in np.random.default_rng(seed).permutation(len(able))[:num_rows].tolist():
        example = examples[able[place]]
        (order,) = draw_orders(example, 1, seed)
        views: tuple[View, View] = ("video", "text")
        visual, blind = (make_prompt(example, view, order, budget=budget) for view in views)
        rows.append(GapRow(example, order, (visual, blind), verdicts[able[place]]))
    return rows


def _can_ask(example: Example) -> bool:
    return example.problem_type == "multiple_choice" and example.defect is None and bool(example.video)


def read_verdicts(rows: Dataset, column: str | None) -> list[bool | None]:
    """Which rows need the video, where a column says so.

    Args:
        rows (`Dataset`): N rows.
        column (`str`, *optional*): one of `VERDICT_COLUMNS`; the first that is there when left out.

    Returns:
        `list[bool | None]`: N; `None` for undecided rows, and for all where there is no column.

    Raises:
        `ValueError`: for another column, or one that is not there.
    """
    if column is not None and (column not in VERDICT_COLUMNS or column not in rows.column_names):
        raise ValueError(
            f"verdict_column = {column!r} is not allowed; allowed are those of {', '.join(VERDICT_COLUMNS)} that the "
            f"rows have, which have {', '.join(rows.column_names)}"
        )
    name = column or next((name for name in VERDICT_COLUMNS if name in rows.column_names), None)
    if name is None:
        return [None] * len(rows)
    if name == "needs":
        return [None if need is None else need not in BLIND_NEEDS for need in rows[name]]
    return list(rows[name])


def summarize_rows(asked: Sequence[Asked], is_grounded: Sequence[bool | None]) -> dict[str, float]:
    """Accuracies and gaps on all rows, on those that need the video and on those that text answers.

    Args:
        asked (`Sequence[Asked]`): N rows; those without both answers are counted and left out.
        is_grounded (`Sequence[bool | None]`): of all rows, asked or not.

    Returns:
        `dict[str, float]`: the metrics; of an empty part there are none.

    Raises:
        `RuntimeError`: when no row has both answers.

    Example:
        >>> asked = [Asked(0, 1, 1, 1.0, 0.0, None), Asked(1, 0, 0, 1.0, 1.0, None)]
        >>> metrics = summarize_rows(asked, [True, False])
        >>> metrics["eval_gap"], metrics["eval_vg_gap"], metrics["eval_ta_gap"]
        (0.5, 1.0, 0.0)
    """
    both = [one for one in asked if one.error is None]
    if not both:
        raise RuntimeError(f"none of {len(asked)} rows got both answers, the first because: {asked[0].error}")
    metrics: dict[str, float] = {}
    for name, wanted in (("", None), ("vg_", True), ("ta_", False)):
        part = [one for one in both if wanted is None or is_grounded[one.row] is wanted]
        if part:
            visual = float(np.mean([one.visual_score for one in part]))
            blind = float(np.mean([one.blind_score for one in part]))
            metrics |= {f"eval_{name}visual_accuracy": visual, f"eval_{name}blind_accuracy": blind}
            metrics[f"eval_{name}gap"] = visual - blind
    return metrics | {"eval_gap_num_rows": len(both), "eval_gap_num_unanswered": len(asked) - len(both)}


def report_rows(rows: Sequence[GapRow], asked: Sequence[Asked]) -> dict[str, Any]:
    """What was answered as `measure_gap` puts it, with intervals by clip; rows without both answers are left out."""
    both = [one for one in asked if one.error is None]
    examples = [rows[one.row].example for one in both]
    return measure_gap(
        [_name_choice(one.visual) for one in both],
        [_name_choice(one.blind) for one in both],
        [name_gold(example.options, example.answer_index or 0) for example in examples],
        options=[list(example.options) for example in examples],
        clusters=[example.group or example.id for example in examples],
    )


def _name_choice(choice: int | None) -> str:
    return "" if choice is None else LETTERS[choice]
