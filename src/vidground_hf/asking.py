"""Whom to ask what, and when to stop: the trials of every row, one wave of questions after the other.

A row is asked only as long as its verdict is open. What its answers mean is `judging.py`'s and `deciding.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from multiprocess import parent_process  # type: ignore[import-untyped]  # what `Dataset.map` makes its processes with

from vidground_hf.answerers.base import Answer, Answerer, ConstantAnswerer, ModelAnswerer
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.cache import AnswerCache, answer_through_cache, make_key
from vidground_hf.deciding import RowRule
from vidground_hf.judging import make_trial, weigh_trials
from vidground_hf.orders import draw_orders, draw_shares
from vidground_hf.progress import AskingBar
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.rules import AtMost, Circular, Majority, SingleShot
from vidground_hf.schema import Example, View
from vidground_hf.set_rules import FOLLOWED_SHARE, MAX_ROWS_FOLLOWED, Calibrated, DropFraction, FittedCalibrated
from vidground_hf.trials import Trial

# Our guess at a part of a wave that keeps any answerer busy and needs little memory.
_PROMPTS_PER_PART = 5000


def check_answerers(
    answerers: tuple[Answerer | TextBiasProbe, ...], rule: RowRule | None, samples: int | None
) -> None:
    """Refuses what could decide nothing, before anything is asked.

    Raises:
        `ValueError`: for no answerer, one named twice, a probe among others, and numbers that do not go with the rule.
    """
    has_probe = any(isinstance(one, TextBiasProbe) for one in answerers)
    if not answerers or (len(answerers) > 1 and has_probe):
        raise ValueError(f"got {len(answerers)} answerers; pass one or more models, or the probe alone")
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
        view (`str`): a blind view.
        samples (`int`, *optional*): trials a row and answerer at most; left out, as many as the rule takes.
        seed (`int`): of the orders, and of the rows that are followed up.
    """

    answerers: tuple[Answerer, ...]
    rule: RowRule
    view: View
    samples: int | None = None
    seed: int = 0

    def find_way(self, answerer: Answerer) -> Way:
        """How an answerer is asked; found once, since a model may have to look itself up to say so."""
        seed = None if isinstance(answerer, ConstantAnswerer) else self.seed
        samples = not isinstance(answerer, ModelAnswerer) or bool(answerer.sampling.get("temperature", 0))
        return Way(seed, samples)

    def list_trials(self, example: Example, way: Way) -> list[tuple[tuple[int, ...], int]]:
        """The trials that an answerer may take for a row.

        A model that does not sample answers an equal prompt the same way, which confirms nothing: it is asked once.

        Returns:
            `list[tuple[tuple[int, ...], int]]`: of each trial the order of the options, and which one it is of those
            with an equal prompt.
        """
        number = self.samples
        if number is None:
            number = self.rule.count_trials(len(example.options)) if hasattr(self.rule, "count_trials") else 1
        seen: Counter[tuple[str, ...]] = Counter()
        trials = []
        for order in draw_orders(example, number, way.seed):
            shown = tuple(example.options[position] for position in order)
            if way.samples or not seen[shown]:
                trials.append((order, seen[shown]))
            seen[shown] += 1
        return trials

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


def lacks_view(example: Example, view: View) -> bool:
    """Whether a row has not got what a view shows."""
    return view == "subtitles" and example.subtitles is None


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
    rows = [_find_obstacle(example, asking.view) for example in examples]
    waiting = [index for index, trials in enumerate(rows) if not trials]
    ways = [asking.find_way(answerer) for answerer in asking.answerers]
    limits = [
        [len(asking.list_trials(example, way)) if not trials else 0 for way in ways]
        for example, trials in zip(examples, rows, strict=True)
    ]
    followed_share = asking.find_followed_share(len(examples))
    is_drawn = [share < followed_share for share in draw_shares(examples, asking.seed)]
    with _open_cache(asking.answerers) as cache, AskingBar(total=sum(map(sum, limits)), show=progress) as bar:
        for number, answerer in enumerate(asking.answerers):
            bar.model = answerer if isinstance(answerer, ModelAnswerer) else None
            for turn in range(max((limits[index][number] for index in waiting), default=0)):
                still: list[int] = []
                for index in waiting:
                    left = _list_left(number, turn, limits[index])
                    if asking.wants_more(rows[index], left, is_drawn[index]):
                        still.append(index)
                    elif left:
                        bar.add(len(left), "saved" if rows[index][-1].error is None else "skipped")
                waiting = still
                asked = [index for index in waiting if turn < limits[index][number]]
                for index, trial in _ask_wave(asking, examples, asked, number, turn, cache, bar):
                    rows[index].append(trial)
    calls = {name: bar.counts[name] for name in ("asked", "cached", "failed", "saved")}
    return _weigh(asking, examples, rows, calls, followed_share)


def _find_obstacle(example: Example, view: View) -> list[Trial]:
    """What stands in place of answers to a row that is not asked about; nothing for the others."""
    if example.defect is None and not lacks_view(example, view):
        return []
    error = None if example.defect is not None else "no_subtitles"
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


def _open_cache(answerers: Sequence[Answerer]) -> AbstractContextManager[AnswerCache | None]:
    models = [answerer.id for answerer in answerers if isinstance(answerer, ModelAnswerer)]
    if not models:
        return nullcontext()
    if parent_process() is not None:
        raise RuntimeError(
            f"{models[0]} was asked from a process of map(..., num_proc=N); leave num_proc out: one process "
            "keeps the model busy. Or call ground_filter = ground_filter.fit(dataset) first, which asks; a map "
            "of the fitted rows only reads"
        )
    return AnswerCache()


def _list_left(number: int, turn: int, limits: Sequence[int]) -> list[int]:
    """The answerers of the trials that a row may still take."""
    own = [number] * max(limits[number] - turn, 0)
    return own + [later for later in range(number + 1, len(limits)) for _ in range(limits[later])]


def _ask_wave(
    asking: Asking,
    examples: Sequence[Example],
    asked: Sequence[int],
    number: int,
    turn: int,
    cache: AnswerCache | None,
    bar: AskingBar,
) -> Iterator[tuple[int, Trial]]:
    answerer = asking.answerers[number]
    way = asking.find_way(answerer)
    for start in range(0, len(asked), _PROMPTS_PER_PART):
        part = asked[start : start + _PROMPTS_PER_PART]
        prompts = []
        for index in part:
            order, trial_index = asking.list_trials(examples[index], way)[turn]
            prompts.append(make_prompt(examples[index], asking.view, order, trial_index))
        for index, prompt, answer in zip(part, prompts, _answer(answerer, prompts, cache, bar), strict=True):
            yield index, make_trial(examples[index], answer, prompt.order, answerer=number)


def _answer(answerer: Answerer, prompts: Sequence[Prompt], cache: AnswerCache | None, bar: AskingBar) -> list[Answer]:
    if cache is not None and isinstance(answerer, ModelAnswerer):
        return answer_through_cache(answerer, prompts, cache, on_answer=bar.add)
    answers = answerer.answer(prompts)
    for answer in answers:
        bar.add(1, "asked" if answer.error is None else "failed")
    return answers


def count_requests(asking: Asking, examples: Sequence[Example], cache: AnswerCache) -> dict[str, int | None]:
    """What asking would take, without asking.

    Returns:
        `dict`: `num_questions`; `num_cached`, answers that are there already; `min_requests`, one answer a question;
        `max_requests`, if no verdict stands early (both without tries that fail); `num_prompt_tokens` of the latter
        (about: four characters a token, our guess for English) and its `max_answer_tokens` (`None` where a model sets
        no bound).
    """
    rows = [example for example in examples if example.defect is None and not lacks_view(example, asking.view)]
    num_cached = min_requests = num_characters = 0
    missing: dict[bytes, int | None] = {}
    for number, answerer in enumerate(asking.answerers):
        if not isinstance(answerer, ModelAnswerer):
            continue
        sampling, way = answerer.sampling, asking.find_way(answerer)
        max_tokens = sampling.get("max_tokens")
        for start in range(0, len(rows), _PROMPTS_PER_PART):
            part = rows[start : start + _PROMPTS_PER_PART]
            asked = [[make_prompt(row, asking.view, *trial) for trial in asking.list_trials(row, way)] for row in part]
            keys = [[make_key(answerer.id, sampling, prompt) for prompt in prompts] for prompts in asked]
            found = cache.get_many([key for row in keys for key in row])
            num_cached += len(found)
            for row_keys, prompts in zip(keys, asked, strict=True):
                for key, prompt in zip(row_keys, prompts, strict=True):
                    if key not in found and key not in missing:
                        missing[key] = max_tokens
                        num_characters += len(prompt.text)
                        min_requests += number == 0 and key == row_keys[0]
    bounds = list(missing.values())
    return {
        "num_questions": len(rows),
        "num_cached": num_cached,
        "min_requests": min_requests,
        "max_requests": len(missing),
        "num_prompt_tokens": -(-num_characters // 4),
        "max_answer_tokens": None if None in bounds else sum(bound or 0 for bound in bounds),
    }
