"""Whom to ask what, and when to stop: the trials of every row, one wave of questions after the other.

A row is asked only as long as its verdict is open. What its answers mean is `judging.py`'s and `deciding.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import NamedTuple

from vidground_hf.answerers.base import Answer, Answerer, ConstantAnswerer, ModelAnswerer, check_seen, takes_frames
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.cache import AnswerStore, answer_through_cache, open_cache
from vidground_hf.deciding import RowRule
from vidground_hf.judging import make_trial, weigh_trials
from vidground_hf.media import FrameBudget
from vidground_hf.orders import count_orders, draw_shares, iterate_orders
from vidground_hf.progress import AskingBar
from vidground_hf.prompts import Prompt, find_missing, make_prompt
from vidground_hf.rules import AtMost, Circular, Majority, SingleShot
from vidground_hf.schema import BLIND_VIEWS, Example, View
from vidground_hf.set_rules import FOLLOWED_SHARE, MAX_ROWS_FOLLOWED, Calibrated, DropFraction, FittedCalibrated
from vidground_hf.trials import Trial

# Our guess at a part of a wave that keeps any answerer busy and needs little memory.
_PROMPTS_PER_PART = 5000
# Orders are drawn at random once all rotations are taken. Of the six permutations of three options, so many draws for
# each of six trials miss one in two cases of a billion.
_DRAWS_PER_TRIAL = 20
CALLS = ("asked", "cached", "failed", "saved")
"""What answers are counted as; see `Asked`."""


def check_answerers(
    answerers: tuple[Answerer | TextBiasProbe, ...], rule: RowRule | None, samples: int | None, view: View = "text"
) -> None:
    """Refuses what could decide nothing, before anything is asked.

    Raises:
        `ValueError`: for no answerer, one named twice, a probe among others, and numbers that do not go with the rule.
    """
    has_probe = any(isinstance(one, TextBiasProbe) for one in answerers)
    if not answerers or (len(answerers) > 1 and has_probe):
        raise ValueError(f"got {len(answerers)} answerers; pass one or more models, or the probe alone")
    sightless = [one.id for one in answerers if not takes_frames(one)]
    if view not in BLIND_VIEWS and sightless:
        raise ValueError(
            f"{view = } shows frames, and {sightless[0]} reads text only; pass a vision-language model, or a view of "
            f"{', '.join(BLIND_VIEWS)}"
        )
    if samples is not None and samples < 1:
        raise ValueError(f"{samples = } is out of range; it is at least 1, or None for as many as the rule takes")
    if samples is not None and has_probe:
        raise ValueError("the probe answers once; samples goes with models")
    if samples is not None and isinstance(rule, Circular):
        raise ValueError(f"circular asks every rotation, got {samples = }; leave it out")
    if isinstance(rule, DropFraction) and not has_probe:
        raise ValueError(f"{rule} refits the probe on what is left; it goes with the probe alone")
    if isinstance(rule, AtMost) and len(answerers) * (samples or 1) <= rule.limit:
        raise ValueError(
            f"{rule} drops what is answered right more often, which {len(answerers)} answerers with {samples or 1} "
            "samples each cannot; name more of them, or more samples"
        )
    ids = [one.id for one in answerers] if len(answerers) > 1 else []
    if len(set(ids)) < len(ids):
        raise ValueError(f"an answerer is named twice among {', '.join(ids)}; use samples to ask one several times")


class Way(NamedTuple):
    """How one answerer is asked.

    Attributes:
        seed (`int`, *optional*): of the orders; `None` begins with the data's own.
        samples (`bool`): whether an equal prompt may get another answer.
    """

    seed: int | None
    samples: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who is asked, what they are shown, and for which decision.

    Attributes:
        answerers (`tuple[Answerer, ...]`): asked one after the other.
        rule (`Callable`): what the answers are for; it says how many a row takes, and whether it needs more.
        view (`str`): one of `schema.VIEWS`.
        samples (`int`, *optional*): trials a row and answerer at most; left out, as many as the rule takes.
        seed (`int`): of the orders, of the rows that are followed up, and of shuffled frames.
        budget (`FrameBudget`, *optional*): what a view with pixels shows of a clip.
        num_tries (`int`, *optional*, defaults to 1): under `single_frame`, the answer to a trial is the surest of so
            many, each to another frame.
        after (`Callable`, *optional*): another rule; the trials begin behind those that it may read.
    """

    answerers: tuple[Answerer, ...]
    rule: RowRule
    view: View
    samples: int | None = None
    seed: int = 0
    budget: FrameBudget = field(default_factory=FrameBudget)
    num_tries: int = 1
    after: RowRule | None = None

    def find_way(self, answerer: Answerer) -> Way:
        """How an answerer is asked; found once, since a model may have to look itself up to say so."""
        seed = None if isinstance(answerer, ConstantAnswerer) else self.seed
        samples = not isinstance(answerer, ModelAnswerer) or bool(answerer.sampling.get("temperature", 0))
        return Way(seed, samples)

    def list_trials(self, example: Example, way: Way) -> list[tuple[tuple[int, ...], int]]:
        """The trials that an answerer may take for a row.

        A model that does not sample answers an equal prompt the same way, which confirms nothing: it is asked once,
        and further orders are drawn in its place as long as there are any.

        Returns:
            `list[tuple[tuple[int, ...], int]]`: of each trial the order of the options, and which one it is of those
            with an equal prompt.
        """
        number = self.samples or _count_trials(self.rule, example)
        num_passed = 0 if self.after is None else _count_trials(self.after, example)
        return self._draw_trials(example, num_passed + number, way)[num_passed:]

    def _draw_trials(self, example: Example, number: int, way: Way) -> list[tuple[tuple[int, ...], int]]:
        trials: list[tuple[tuple[int, ...], int]] = []
        seen: Counter[tuple[str, ...]] = Counter()
        most = count_orders(example.options)
        for order in islice(iterate_orders(example, way.seed), _DRAWS_PER_TRIAL * number):
            if len(trials) == number or (not way.samples and len(seen) == most):
                break
            shown = tuple(example.options[position] for position in order)
            if way.samples or not seen[shown]:
                trials.append((order, seen[shown]))
            seen[shown] += 1
        return trials

    def make_prompts(self, example: Example, order: tuple[int, ...], trial_index: int) -> list[Prompt]:
        """What is shown for one trial: one prompt, or one for each frame that is tried."""
        picks = [(k, self.num_tries) for k in range(self.num_tries)] if self.view == "single_frame" else [None]
        return [
            make_prompt(example, self.view, order, trial_index, budget=self.budget, pick=pick, shuffle_seed=self.seed)
            for pick in picks
        ]

    def find_followed_share(self, num_rows: int) -> float:
        """The share of the rows with a wrong first answer that are asked again, in (0, 1]; of small sets all are."""
        asks_again = self.samples != 1 or len(self.answerers) > 1
        is_large = num_rows > MAX_ROWS_FOLLOWED
        return FOLLOWED_SHARE if isinstance(self.rule, Calibrated) and asks_again and is_large else 1.0

    def wants_more(self, trials: Sequence[Trial], left: Sequence[int], is_drawn: bool) -> bool:
        """Whether another trial could change the verdict on a row.

        Args:
            trials (`Sequence[Trial]`): so far.
            left (`Sequence[int]`): the answerer of each trial that may still be taken.
            is_drawn (`bool`): whether the row is followed up even if its first answer is wrong.
        """
        if not trials:
            return True
        if not left or trials[-1].error is not None or trials[0].score is None:
            return False
        if isinstance(self.rule, (Calibrated, FittedCalibrated)):
            return self._wants_confirmation(trials, is_drawn)
        if isinstance(self.rule, (SingleShot, Majority, AtMost, Circular)):
            # These count right answers: the verdict stands if it is the same whether all others are right or wrong.
            worst, best = ([*trials, *(Trial(score=s, answerer=a) for a in left)] for s in (0.0, 1.0))
            return self.rule(worst) != self.rule(best)
        return True

    def _wants_confirmation(self, trials: Sequence[Trial], is_drawn: bool) -> bool:
        """Stops at the first answer that differs; of the gold it knows only that a wrong candidate was drawn.

        An answerer that states a confidence of its own is taken at its word.
        """
        first = trials[0]
        if first.confidence is not None or first.choice is None or not first.has_decoys:
            return False
        if any(trial.choice != first.choice for trial in trials):
            return False
        if isinstance(self.rule, Calibrated):
            return bool(first.is_right) or is_drawn
        can_drop = isinstance(self.rule, FittedCalibrated) and self.rule.calibration.threshold is not None
        return can_drop and bool(first.is_right)


def _count_trials(rule: RowRule, example: Example) -> int:
    return int(rule.count_trials(len(example.options))) if hasattr(rule, "count_trials") else 1


def find_gap(example: Example, view: View) -> str | None:
    """Why a row is not asked through a view, as a slug; `None` where it has all that the view shows."""
    missing = find_missing(example, view)
    return None if missing is None else f"no_{missing}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What asking came to.

    Attributes:
        trials (`list[list[Trial]]`): at least one a row; the first carries what all of a row's trials say together.
        calls (`dict[str, int]`): answers that were `asked` for, `cached`, `failed`, and `saved` because a verdict
            stood without them; what a failed row was not asked any more is none of these.
        followed_share (`float`): see `Asking.find_followed_share`.
    """

    trials: list[list[Trial]]
    calls: dict[str, int]
    followed_share: float


def ask_rows(asking: Asking, examples: Sequence[Example], *, progress: bool = False) -> Asked:
    """Asks about every row until its verdict stands. What a model answers is looked up in, and kept in, `AnswerCache`.

    Args:
        asking (`Asking`): who, what and for which rule.
        examples (`Sequence[Example]`): N rows. One that cannot be judged whatever the answer is not asked about.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `Asked`: the trials of each row, in the order of the rows.

    Raises:
        `RuntimeError`: when a model would be asked from a process of `Dataset.map`.
        `CacheError`: when the cache cannot be used.

    Example:
        >>> from vidground_hf.rules import single_shot
        >>> example = Example(
        ...     id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue"), answer_index=1
        ... )
        >>> asking = Asking(answerers=(ConstantAnswerer("B"),), rule=single_shot(), view="text")
        >>> ask_rows(asking, [example]).trials[0][0].text
        'blue'
    """
    followed_share = asking.find_followed_share(len(examples))
    is_drawn = [share < followed_share for share in draw_shares(examples, asking.seed)]
    with open_cache(asking.answerers) as cache, AskingBar(total=0, show=progress) as bar:
        rows = ask_trials(asking, examples, is_drawn=is_drawn, cache=cache, bar=bar)
    calls = {name: bar.counts[name] for name in CALLS}
    return _weigh(asking, examples, rows, calls, followed_share)


def ask_trials(
    asking: Asking, examples: Sequence[Example], *, is_drawn: Sequence[bool], cache: AnswerStore | None, bar: AskingBar
) -> list[list[Trial]]:
    """Asks about some rows until their verdicts stand; a row's trials depend on that row alone.

    Args:
        asking (`Asking`): who, what and for which rule.
        examples (`Sequence[Example]`): N rows.
        is_drawn (`Sequence[bool]`): N; which rows are followed up even if their first answer is wrong.
        cache (`AnswerStore`, *optional*): where answers of models are looked up and kept; needed for models.
        bar (`AskingBar`): counts what is asked.

    Returns:
        `list[list[Trial]]`: of each row at least one, as they were answered; see `weigh_trials` for what they say
        together.
    """
    rows = [_find_obstacle(example, asking.view) for example in examples]
    waiting = [index for index, trials in enumerate(rows) if not trials]
    ways = [asking.find_way(answerer) for answerer in asking.answerers]
    plans = [
        [asking.list_trials(example, way) if not trials else [] for way in ways]
        for example, trials in zip(examples, rows, strict=True)
    ]
    limits = [[len(trials) for trials in plan] for plan in plans]
    bar.expect(asking.num_tries * sum(map(sum, limits)))
    wave = _Waves(asking, examples, rows, plans, limits, is_drawn, cache, bar)
    is_blind = asking.view in BLIND_VIEWS
    for part in [waiting] if is_blind else list_parts(asking.answerers, examples, waiting):
        wave.ask(part)
    return rows


def _find_obstacle(example: Example, view: View) -> list[Trial]:
    """What stands in place of answers to a row that is not asked about; nothing for the others."""
    error = find_gap(example, view) if example.defect is None else None
    if example.defect is None and error is None:
        return []
    return [Trial(score=None, error=error, num_options=example.num_distinct_options)]


def _weigh(
    asking: Asking,
    examples: Sequence[Example],
    rows: list[list[Trial]],
    calls: dict[str, int],
    followed_share: float,
) -> Asked:
    states = [trials[0].confidence is not None for trials in rows if trials[0].choice is not None]
    if states and all(states):
        followed_share = 1.0  # every wrong answer has a say, though none was asked for again
    is_calibrated = isinstance(asking.rule, (Calibrated, FittedCalibrated))
    confident = [is_calibrated and (len(trials) > 1 or followed_share == 1.0) for trials in rows]
    return Asked(weigh_trials(examples, rows, confident=confident), calls, followed_share)


def _list_left(number: int, turn: int, limits: Sequence[int]) -> list[int]:
    """The answerers of the trials that a row may still take."""
    own = [number] * max(limits[number] - turn, 0)
    return own + [later for later in range(number + 1, len(limits)) for _ in range(limits[later])]


def list_parts(answerers: Sequence[Answerer], examples: Sequence[Example], rows: Sequence[int]) -> list[list[int]]:
    """Rows with frames that are asked to the end together, so that what is kept of a clip serves all its questions.

    Args:
        answerers (`Sequence[Answerer]`): a model in this process says in `num_clips_kept` how many clips it keeps.
        examples (`Sequence[Example]`): N rows.
        rows (`Sequence[int]`): those to ask about.

    Returns:
        `list[list[int]]`: sorted by clip, so many clips a part; one part where no answerer keeps any.
    """
    ordered = sorted(rows, key=lambda index: examples[index].video or "")
    kept = [number for one in answerers if (number := getattr(one, "num_clips_kept", None)) is not None]
    if not kept:
        return [ordered]
    clips = {name: place for place, name in enumerate(dict.fromkeys(examples[index].video for index in ordered))}
    return [list(part) for _, part in groupby(ordered, lambda index: clips[examples[index].video] // min(kept))]


@dataclass(frozen=True, slots=True)
class _Waves:
    """What is needed to ask about rows until their verdicts stand; the trials are put into `rows`."""

    asking: Asking
    examples: Sequence[Example]
    rows: list[list[Trial]]
    plans: Sequence[Sequence[Sequence[tuple[tuple[int, ...], int]]]]
    limits: Sequence[Sequence[int]]
    is_drawn: Sequence[bool]
    cache: AnswerStore | None
    bar: AskingBar

    def ask(self, waiting: list[int]) -> None:
        """Asks one answerer after the other, each in waves of one trial a row."""
        for number, answerer in enumerate(self.asking.answerers):
            self.bar.model = answerer if isinstance(answerer, ModelAnswerer) else None
            for turn in range(max((self.limits[index][number] for index in waiting), default=0)):
                waiting = self._leave_settled(waiting, number, turn)
                asked = [index for index in waiting if turn < self.limits[index][number]]
                for index, trial in self._ask_wave(asked, number, turn):
                    self.rows[index].append(trial)

    def _leave_settled(self, waiting: list[int], number: int, turn: int) -> list[int]:
        still: list[int] = []
        for index in waiting:
            trials, left = self.rows[index], _list_left(number, turn, self.limits[index])
            if self.asking.wants_more(trials, left, self.is_drawn[index]):
                still.append(index)
            elif left:
                self.bar.add(len(left), "saved" if trials[-1].error is None else "skipped")
        return still

    def _ask_wave(self, asked: Sequence[int], number: int, turn: int) -> Iterator[tuple[int, Trial]]:
        answerer = self.asking.answerers[number]
        for start in range(0, len(asked), _PROMPTS_PER_PART):
            part = asked[start : start + _PROMPTS_PER_PART]
            shown = []
            for index in part:
                shown.append(self.asking.make_prompts(self.examples[index], *self.plans[index][number][turn]))
            prompts = [prompt for tries in shown for prompt in tries]
            answers = iter(_answer(answerer, prompts, self.cache, self.bar))
            for index, tries in zip(part, shown, strict=True):
                answer = find_surest([next(answers) for _ in tries])
                yield index, make_trial(self.examples[index], answer, tries[0].order, answerer=number)


def find_surest(answers: Sequence[Answer]) -> Answer:
    """The answer whose first choice is likeliest; the only one, where there is one.

    Which frame shows most is the model's own word: the gold answer has no say in it.
    """
    if len(answers) == 1:
        return answers[0]
    failed = [answer for answer in answers if answer.error is not None]
    if failed:
        return failed[0]
    if any(answer.option_logprobs is None for answer in answers):
        return Answer(text=None, error="the surest of several frames needs option probabilities; try one frame")
    return max(answers, key=lambda answer: max(answer.option_logprobs or ()))


def _answer(answerer: Answerer, prompts: Sequence[Prompt], cache: AnswerStore | None, bar: AskingBar) -> list[Answer]:
    if cache is not None and isinstance(answerer, ModelAnswerer):
        return answer_through_cache(answerer, prompts, cache, on_answer=bar.add)
    answers = [check_seen(*pair) for pair in zip(prompts, answerer.answer(prompts), strict=True)]
    for answer in answers:
        bar.add(1, "asked" if answer.error is None else "failed")
    return answers
