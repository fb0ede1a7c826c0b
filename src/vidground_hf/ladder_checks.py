"""How far the labels of a ladder can be trusted: what the model says to a wrong clip, and to the kept rows blind.

Decides nothing: no answer asked for here was read by the rule.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidground_hf.asking import Asking, ask_rows, find_gap
from vidground_hf.filtering import list_clusters
from vidground_hf.ladder import Ladder, find_chance
from vidground_hf.rules import single_shot
from vidground_hf.schema import BLIND_VIEWS, Example, View
from vidground_hf.stats.intervals import bootstrap_mean
from vidground_hf.wrong_videos import assign_wrong_videos


def measure_wrong_videos(ladder: Ladder, examples: Sequence[Example], num_rows: int) -> dict[str, Any] | None:
    """Accuracy with the right clip, with another row's and with none, of a random part of the rows.

    A model that looks falls to what it gets from text when the clip is a wrong one. One answer a row and view counts,
    the same order of the options each time.

    Args:
        ladder (`Ladder`): who is asked, and how much of a clip is shown.
        examples (`Sequence[Example]`): the rows; those without a clip or with a defect are left out.
        num_rows (`int`): how many are drawn at most; 0 asks nothing.

    Returns:
        `dict`, *optional*: `num_rows`, `chance`, and by view (`video`, `wrong_video`, `text`) the accuracy as `value`,
        `low`, `high` and `num_unscored`; `None` where nothing was asked: the ladder shows no video, or there is but
        one clip.
    """
    shown = [example for example in examples if example.defect is None and find_gap(example, "video") is None]
    clips = {(example.video, example.start_seconds, example.end_seconds) for example in shown}
    if not num_rows or "video" not in ladder.views or len(clips) < 2:
        return None
    chosen = sorted(np.random.default_rng(ladder.seed).permutation(len(shown))[:num_rows].tolist())
    wrong = assign_wrong_videos(shown, ladder.seed)
    asked: dict[View, Sequence[Example]] = {"video": shown, "wrong_video": wrong, "text": shown}
    measured: dict[str, Any] = {
        view: _measure(ladder.make_asking(view, single_shot()), [rows[index] for index in chosen], ladder.seed)
        for view, rows in asked.items()
    }
    chance = float(np.mean([find_chance(shown[index]) for index in chosen]))
    return {"num_rows": len(chosen), **measured, "chance": chance}


def measure_kept(ladder: Ladder, examples: Sequence[Example], is_kept: Collection[int]) -> dict[str, Any] | None:
    """Blind accuracy of the kept rows, by one answer each that the rule did not read.

    It is asked through the last blind view that a row has, under an order of the options that comes behind all those
    the rule may ask for.

    Args:
        ladder (`Ladder`): as it was climbed.
        examples (`Sequence[Example]`): all rows.
        is_kept (`Collection[int]`): places of those that are kept.

    Returns:
        `dict`, *optional*: `accuracy` as above, `chance`, `num_rows`, and `num_without_order`, how
        many rows have no order left to ask; `None` where nothing was kept, or the ladder has no blind view.
    """
    blind = [view for view in ladder.views if view in BLIND_VIEWS]
    if not is_kept or not blind:
        return None
    rule = ladder.make_rule(len(ladder.views))
    waiting = [examples[index] for index in sorted(is_kept)]
    asked: list[Example] = []
    scores: list[float | None] = []
    num_without_order = 0
    for view in reversed(blind):
        asking = replace(ladder.make_asking(view, single_shot()), after=rule)
        way = asking.find_way(ladder.answerer)
        here = [example for example in waiting if find_gap(example, view) is None]
        waiting = [example for example in waiting if find_gap(example, view) is not None]
        left = [example for example in here if asking.list_trials(example, way)]
        num_without_order += len(here) - len(left)
        scores += [trials[0].score for trials in ask_rows(asking, left).trials]
        asked += left
    return {
        "num_rows": len(asked),
        "num_without_order": num_without_order,
        "accuracy": _average(scores, asked, ladder.seed),
        "chance": float(np.mean([find_chance(example) for example in asked])) if asked else None,
    }


def _measure(asking: Asking, examples: Sequence[Example], seed: int) -> dict[str, float | None]:
    return _average([trials[0].score for trials in ask_rows(asking, examples).trials], examples, seed)


def _average(scores: Sequence[float | None], examples: Sequence[Example], seed: int) -> dict[str, float | None]:
    values = np.array(scores, dtype=np.float64)
    interval = bootstrap_mean(values, clusters=list_clusters(examples), seed=seed)._asdict()
    return {**interval, "num_unscored": int(np.isnan(values).sum())}
