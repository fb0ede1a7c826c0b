"""The ladder: the least evidence that answers each question, found by asking through one view after the other.

Asks and labels. What is counted of the labels is `ladder_report.py`'s, how they are checked `ladder_checks.py`'s.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vidground_hf.answerers.base import Answerer
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.asking import Asking, ask_rows, check_answerers, find_gap
from vidground_hf.deciding import RowRule, fit_rule, judge_rows
from vidground_hf.filtering import list_clusters
from vidground_hf.judging import check_answers, describe_errors, list_errors
from vidground_hf.ladder_needs import BLIND_NEEDS, NEEDS, UNANSWERED, LadderRule
from vidground_hf.media import FrameBudget
from vidground_hf.rules import Circular
from vidground_hf.schema import BLIND_VIEWS, LADDER_VIEWS, Example, Verdict, View
from vidground_hf.set_rules import Calibrated
from vidground_hf.trials import Trial

_REFUSED = (
    "got rule {rule!r}; the ladder allows 'calibrated' and 'circular', which bound how many labels are luck. Of the "
    "four-option questions that need the whole video, 68 % are right by luck in one of four tries, one a view: "
    "1 - (3/4)^4"
)


@dataclass(frozen=True, slots=True)
class RightInEveryOrder(Circular):
    """`circular` under so many orders that luck is rare.

    Args:
        luck (`float`): the largest chance, in (0, 1), that an answerer is right every time who guesses afresh under
            every order.
    """

    luck: float = 0.05

    def count_trials(self, num_options: int) -> int:
        """Every rotation, and more orders where these are too few."""
        if num_options < 2:
            return 1
        return max(num_options, math.ceil(math.log(self.luck) / -math.log(num_options) - 1e-9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """How a set is climbed.

    Args:
        answerer (`Answerer`): who is asked; a model that looks, where a view shows frames.
        rule (`str`, *optional*, defaults to `"calibrated"`): when a view answers a question. `"calibrated"`: it is
            right, and so sure of itself that at most a share `alpha` of what the view answers is expected to be luck;
            what is less sure and right under every order is left undecided.
            `"circular"`: it is right under every order of the options, under so many that who guesses afresh each
            time is in at most `alpha` over the number of views.
        alpha (`float`, *optional*, defaults to 0.05): in (0, 1).
        views (`Sequence[str]`, *optional*): some of `schema.LADDER_VIEWS`; they are climbed in its order.
        budget (`FrameBudget`, *optional*): what the views with pixels show; 32 frames when left out.
        num_tries (`int`, *optional*, defaults to 1): how many single frames are tried; the surest answer counts.
        seed (`int`, *optional*, defaults to 0): of the orders of the options, and of shuffled frames.

    Raises:
        `ValueError`: for a rule that does not bound luck, numbers out of range, and an answerer that cannot see what
            a view shows.
    """

    answerer: Answerer
    rule: LadderRule = "calibrated"
    alpha: float = 0.05
    views: Sequence[View] = LADDER_VIEWS
    budget: FrameBudget = field(default_factory=FrameBudget)
    num_tries: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in ("calibrated", "circular"):
            raise ValueError(_REFUSED.format(rule=self.rule))
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha} is out of range; the ladder allows (0, 1), for example 0.05")
        unknown = [view for view in self.views if view not in LADDER_VIEWS]
        if unknown or not self.views:
            raise ValueError(f"got views {list(self.views)}; allowed are one or more of {', '.join(LADDER_VIEWS)}")
        if self.num_tries < 1:
            raise ValueError(f"num_tries = {self.num_tries} is out of range; it is at least 1")
        object.__setattr__(self, "views", tuple(view for view in LADDER_VIEWS if view in self.views))
        if isinstance(self.answerer, TextBiasProbe):
            raise ValueError("the probe answers once, from text alone; the ladder asks a model through several views")
        for view in self.views:
            check_answerers((self.answerer,), None, None, view)

    def make_asking(self, view: View, rule: RowRule) -> Asking:
        """How a view is asked through (`Asking`)."""
        return Asking(
            answerers=(self.answerer,),
            rule=rule,
            view=view,
            seed=self.seed,
            budget=self.budget,
            num_tries=self.num_tries,
        )

    def make_rule(self, num_views: int) -> Calibrated | RightInEveryOrder:
        """The rule of each of so many views.

        `calibrated` bounds the share of luck among what a view answers, so what all of them answer has the same bound;
        `circular` bounds the chance of each row at each view, and these add up.
        """
        return Calibrated(self.alpha) if self.rule == "calibrated" else RightInEveryOrder(self.alpha / num_views)

    def is_torn(self, example: Example, trials: Sequence[Trial]) -> bool:
        """Whether a row that a view does not answer is right under every order all the same.

        `calibrated` cannot tell such a row from luck, and a guesser is seldom so lucky: a label of any higher view
        would be as doubtful as that of this one.
        """
        return all(trial.is_right for trial in trials) and find_chance(example) ** len(trials) <= self.alpha


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What asking through one view came to.

    Attributes:
        view (`str`): what was shown.
        rows (`list[int]`): the N rows that were asked about, by their place in the set.
        trials (`list[list[Trial]]`): N; what was answered.
        num_answered (`int`), num_undecided (`int`): rows that left the ladder here.
        num_skipped (`int`): rows still open that lack what the view shows.
        calls (`dict[str, int]`): see `asking.Asked`.
        rule (`Callable`): as it was applied, fitted on these rows where it is fitted.
    """

    view: View
    rows: list[int]
    trials: list[list[Trial]]
    num_answered: int
    num_undecided: int
    num_skipped: int
    calls: dict[str, int]
    rule: RowRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What each of N rows needs.

    Attributes:
        needs (`list[str | None]`): one of `NEEDS`, `UNANSWERED`, or `None` for a row that could not be judged.
        reasons (`list[str | None]`): why it could not; `None` for the others.
        rungs (`list[Rung]`): in the order climbed.
    """

    needs: list[str | None]
    reasons: list[str | None]
    rungs: list[Rung]

    @property
    def grounded(self) -> list[bool | None]:
        """N; whether text alone does not answer: `None` where the row was not judged, or not asked without pixels."""
        asked_blind = {row for rung in self.rungs if rung.view in BLIND_VIEWS for row in rung.rows}
        return [
            None if need is None or index not in asked_blind else need not in BLIND_NEEDS
            for index, need in enumerate(self.needs)
        ]


def label_rows(
    ladder: Ladder,
    examples: Sequence[Example],
    keys: Sequence[bytes],
    *,
    on_error: Literal["raise", "undecided"] = "raise",
    progress: bool = False,
) -> Labels:
    """Climbs the views with every row until one answers it.

    Args:
        ladder (`Ladder`): who is asked through which views, and by which rule.
        examples (`Sequence[Example]`): N rows.
        keys (`Sequence[bytes]`): N; of rows with equal keys only the first has a say in where `calibrated` cuts.
        on_error (`str`, *optional*, defaults to `"raise"`): `"undecided"` labels a row whose question got no answer
            `None`. Either way the other rows are asked to the end, and what was answered is kept.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr for each view.

    Returns:
        `Labels`: what each row needs.

    Raises:
        `AnswerError`: when questions got no answer and `on_error` is `"raise"`.
    """
    needs: list[str | None] = [None] * len(examples)
    reasons: list[str | None] = [example.defect for example in examples]
    judged = [index for index, reason in enumerate(reasons) if reason is None]
    num_views = sum(any(find_gap(examples[index], view) is None for index in judged) for view in ladder.views)
    rule = ladder.make_rule(max(1, num_views))
    for index in judged:
        reasons[index] = _find_obstacle(ladder, examples[index], rule)
    clusters = list_clusters(examples).tolist()
    rungs = []
    for view in ladder.views:
        waiting = [index for index in judged if reasons[index] is None and needs[index] is None]
        rows = [index for index in waiting if find_gap(examples[index], view) is None]
        asked = ask_rows(ladder.make_asking(view, rule), [examples[index] for index in rows], progress=progress)
        fitted: RowRule = rule
        if rows:
            fitted = fit_rule(
                rule, asked.trials, [clusters[index] for index in rows], [keys[index] for index in rows], probe=None,
                followed_share=asked.followed_share,
            )  # fmt: skip
        verdicts = judge_rows([examples[index] for index in rows], asked.trials, fitted)
        for place, (index, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            if verdict.is_visually_grounded and ladder.is_torn(examples[index], asked.trials[place]):
                verdicts[place] = verdict = Verdict(None, "right_but_unsure")
            if verdict.is_visually_grounded is None:
                reasons[index] = verdict.reason
            elif not verdict.is_visually_grounded:
                needs[index] = NEEDS[view]
        found = [verdict.is_visually_grounded for verdict in verdicts]
        rungs.append(
            Rung(
                view=view,
                rows=rows,
                trials=asked.trials,
                num_answered=found.count(False),
                num_undecided=found.count(None),
                num_skipped=len(waiting) - len(rows),
                calls=asked.calls,
                rule=fitted,
            )
        )
    _label_rest(examples, needs, reasons, rungs)
    _check_errors(rungs, len(examples), on_error)
    return Labels(needs=needs, reasons=reasons, rungs=rungs)


def _find_obstacle(ladder: Ladder, example: Example, rule: Calibrated | RightInEveryOrder) -> str | None:
    """Why the rule could not tell an answer of this row from luck, whatever the answers."""
    if isinstance(rule, Calibrated):
        return None
    if not example.options:
        return "no_options"
    asking = ladder.make_asking("text", rule)
    num_orders = len(asking.list_trials(example, asking.find_way(ladder.answerer)))
    return None if find_chance(example) ** num_orders <= rule.luck else "too_few_orders"


def find_chance(example: Example) -> float:
    """How often a guess is right: among the options as they are shown, or among those that differ, if that is more.

    Example:
        >>> find_chance(
        ...     Example(id="1", question="?", problem_type="multiple_choice", options=("a", "a", "b"), answer_index=0)
        ... )
        0.6666666666666666
    """
    if example.answer_index is None or not example.options:
        return 0.0
    num_gold = example.option_classes.count(example.option_classes[example.answer_index])
    return max(num_gold / len(example.options), 1 / example.num_distinct_options)


def _label_rest(
    examples: Sequence[Example], needs: list[str | None], reasons: list[str | None], rungs: Sequence[Rung]
) -> None:
    """Labels what no view answered; a row that no view could be shown of was not asked, and has no label."""
    was_asked = {index for rung in rungs for index in rung.rows}
    for index, example in enumerate(examples):
        if needs[index] is not None or reasons[index] is not None:
            continue
        if index in was_asked:
            needs[index] = UNANSWERED
        else:
            reasons[index] = find_gap(example, rungs[-1].view)


def _check_errors(rungs: Sequence[Rung], num_rows: int, on_error: str) -> None:
    rows: list[list[Trial]] = [[] for _ in range(num_rows)]
    for rung in rungs:
        for index, trials in zip(rung.rows, rung.trials, strict=True):
            rows[index] += trials
    if on_error == "raise":
        check_answers(rows)
    elif errors := list_errors(rows):
        warnings.warn(f"{describe_errors(errors, num_rows)}; they are undecided", stacklevel=4)
