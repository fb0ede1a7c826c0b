"""One model asked the questions of a benchmark through several views and frame budgets.

What the answers come to is `benchmark_table.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from vidground_hf.answerers.base import Answer, Answerer, ModelAnswerer, check_seen, takes_frames
from vidground_hf.asking import list_parts
from vidground_hf.benchmark_data import list_missing_files
from vidground_hf.benchmark_settings import BenchmarkSettings
from vidground_hf.cache import AnswerCache, answer_through_cache
from vidground_hf.judging import AnswerError, make_trial
from vidground_hf.media import FrameBudget
from vidground_hf.progress import AskingBar
from vidground_hf.prompts import OURS, Prompt, Wording, find_missing, make_prompt
from vidground_hf.schema import BLIND_VIEWS, VIEWS, Example, View
from vidground_hf.trials import Trial
from vidground_hf.wrong_videos import assign_wrong_videos


@dataclass(frozen=True, slots=True)
class Showing:
    """What is shown of every question: a view, and how much of the clip.

    Attributes:
        view (`str`): one of `schema.VIEWS`.
        budget (`FrameBudget`, *optional*): `None` for the blind views.
    """

    view: View
    budget: FrameBudget | None = None

    @property
    def name(self) -> str:
        """For files and tables (`str`): `"text"`, `"single_frame"`, `"video-16"` or `"video-2fps"`."""
        if self.budget is None or self.view == "single_frame":
            return self.view
        return f"{self.view}-{self.budget.num_frames or f'{self.budget.fps:g}fps'}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question under one showing.

    Attributes:
        missing (`str`, *optional*): what the row lacks and was not asked for that reason, `"video"` or `"subtitles"`.
        answer (`Answer`, *optional*): `None` for a row that was not asked.
        trial (`Trial`, *optional*): the answer, scored.
    """

    missing: str | None
    answer: Answer | None = None
    trial: Trial | None = None

    @property
    def score(self) -> float | None:
        """In [0, 1]; `None` without an answer or a readable reference."""
        return None if self.trial is None else self.trial.score


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """How questions are worded: one wording for all, or those of a benchmark."""

    settings: BenchmarkSettings | None = None
    wording: Wording | None = None
    with_subtitles: bool = False

    def find(self, example: Example, view: View) -> Wording:
        """The wording of one question (`Wording`)."""
        if self.wording is not None or self.settings is None:
            return self.wording or OURS
        return self.settings.find_wording(example, with_subtitles=self.shows_subtitles(example, view))

    def shows_subtitles(self, example: Example, view: View) -> bool:
        """Whether subtitles are shown with a question."""
        return view == "subtitles" or (
            self.with_subtitles and view not in BLIND_VIEWS and example.subtitles is not None
        )


def list_showings(views: Sequence[View], budgets: Sequence[FrameBudget]) -> list[Showing]:
    """Every view at every budget; blind views and single frames are shown once.

    Raises:
        `ValueError`: for no view, an unknown one, or no budget for a view with pixels.

    Example:
        >>> [one.name for one in list_showings(["text", "video"], [FrameBudget(num_frames=n) for n in (16, 32)])]
        ['text', 'video-16', 'video-32']
    """
    unknown = [view for view in views if view not in VIEWS]
    if unknown or not views:
        raise ValueError(f"got the views {', '.join(views) or 'none'}; allowed are {', '.join(VIEWS)}")
    if any(view not in BLIND_VIEWS for view in views) and not budgets:
        raise ValueError("a view with pixels needs a frame budget; pass budgets=[FrameBudget(num_frames=32)]")
    showings = []
    for view in dict.fromkeys(views):
        amounts = [None] if view in BLIND_VIEWS else list(budgets[:1] if view == "single_frame" else budgets)
        showings += [Showing(view, amount) for amount in amounts]
    names = [showing.name for showing in showings]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is asked for twice; give every frame budget another number of frames")
    return showings


def ask_benchmark(
    examples: Sequence[Example],
    answerer: Answerer,
    showings: Sequence[Showing],
    wordings: Wordings,
    *,
    on_error: Literal["raise", "undecided"] = "raise",
    seed: int = 0,
    progress: bool = False,
) -> list[list[Outcome]]:
    """Asks every question under every showing, options in the data's own order.

    Blind questions come first; then clip after clip, each under all showings. Answers of models are looked up in, and
    kept in, `AnswerCache`.

    Args:
        examples (`Sequence[Example]`): N rows; one that cannot be scored whatever the answer is not asked about.
        answerer (`Answerer`): who is asked.
        showings (`Sequence[Showing]`): S of them.
        wordings (`Wordings`): how questions are worded.
        on_error (`str`, *optional*, defaults to `"raise"`): with `"undecided"`, a question without an answer keeps its
            error.
        seed (`int`, *optional*, defaults to 0): of shuffled frames and wrong videos.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `list[list[Outcome]]`: S lists of N outcomes.

    Raises:
        `ValueError`: when a text-only answerer is to be shown frames.
        `AnswerError`: with `on_error="raise"`, before anything is asked when clips are not on the disk, and in the end
            when answers are missing.
    """
    looking = [showing.view for showing in showings if showing.budget is not None]
    if looking and not takes_frames(answerer):
        raise ValueError(
            f"view = {looking[0]!r} shows frames, and {answerer.id} reads text only; pass a vision-language model, or "
            f"views of {', '.join(BLIND_VIEWS)}"
        )
    absent = list_missing_files(examples) if looking else {}
    download = None if wordings.settings is None else wordings.settings.download
    if absent and on_error == "raise":
        raise AnswerError(_describe_absent(absent, len(examples), download))
    wrong = assign_wrong_videos(examples, seed) if "wrong_video" in looking else examples
    outcomes: list[list[Outcome]] = [[Outcome(find_missing(e, one.view)) for e in examples] for one in showings]
    can_score = [example.defect is None for example in examples]
    total = sum(can_score[index] and one.missing is None for row in outcomes for index, one in enumerate(row))
    with _Asker(answerer, progress, total) as asker:
        for part in _list_parts(answerer, examples, showings):
            prompts, places = [], []
            for number, index in part:
                showing, example = showings[number], examples[index]
                if outcomes[number][index].missing is not None or not can_score[index]:
                    continue
                shown = wrong[index] if showing.view == "wrong_video" else example
                if showing.budget is not None and (path := absent.get(index)) is not None:
                    outcomes[number][index] = _make_outcome(example, _refuse_clip(path, download))
                    asker.bar.add(1, "failed")
                else:
                    prompts.append(_make_prompt(shown, showing, wordings, seed))
                    places.append((number, index))
            for (number, index), answer in zip(places, asker.answer(prompts), strict=True):
                outcomes[number][index] = _make_outcome(examples[index], answer)
    if on_error == "raise":
        _check_outcomes(examples, showings, outcomes)
    return outcomes


def _make_prompt(example: Example, showing: Showing, wordings: Wordings, seed: int) -> Prompt:
    return make_prompt(
        example,
        showing.view,
        budget=showing.budget,
        shuffle_seed=seed,
        with_subtitles=showing.budget is not None and wordings.shows_subtitles(example, showing.view),
        wording=wordings.find(example, showing.view),
    )


def _make_outcome(example: Example, answer: Answer) -> Outcome:
    return Outcome(None, answer, make_trial(example, answer, tuple(range(len(example.options)))))


def _describe_absent(absent: Mapping[int, str], num_rows: int, download: str | None) -> str:
    first = _refuse_clip(next(iter(absent.values())), download).error
    return (
        f"{len(absent):,} of {num_rows:,} questions have no clip: {first}. Or pass --on-error undecided (in Python "
        "on_error='undecided') to leave such questions out"
    )


def _check_outcomes(
    examples: Sequence[Example], showings: Sequence[Showing], outcomes: Sequence[Sequence[Outcome]]
) -> None:
    failed = [
        (showing.name, example.id, one.answer.error)
        for showing, row in zip(showings, outcomes, strict=True)
        for example, one in zip(examples, row, strict=True)
        if one.answer is not None and one.answer.error is not None
    ]
    if failed:
        name, question, error = failed[0]
        raise AnswerError(
            f"{len(failed):,} answers are missing, the first one ({name}, question {question}) because: {error}. What "
            "was answered is kept: run again to ask for the rest, or pass --on-error undecided (in Python "
            "on_error='undecided') to leave such questions out"
        )


def _list_parts(
    answerer: Answerer, examples: Sequence[Example], showings: Sequence[Showing]
) -> list[list[tuple[int, int]]]:
    """What is asked together, as (showing, row): all blind questions, then some clips at a time."""
    blind = [number for number, showing in enumerate(showings) if showing.budget is None]
    looking = [number for number, showing in enumerate(showings) if showing.budget is not None]
    parts = [[(number, index) for number in blind for index in range(len(examples))]] if blind else []
    for rows in list_parts([answerer], examples, range(len(examples))) if looking else []:
        parts.append([(number, index) for index in rows for number in looking])
    return parts


def _refuse_clip(path: str, download: str | None) -> Answer:
    remedy = f"download and unpack {download}, and " if download else ""
    return Answer(text=None, error=f"no file {path}; {remedy}name the folder with --media-root (media_root='...')")


class _Asker:
    """Asks through the cache where the answerer is a model, and counts on a bar."""

    def __init__(self, answerer: Answerer, progress: bool, total: int) -> None:
        self.answerer = answerer
        self.bar = AskingBar(total=total, show=progress)
        self._stack = ExitStack()
        self._cache: AnswerCache | None = None

    def __enter__(self) -> _Asker:
        self._stack.enter_context(self.bar)
        if isinstance(self.answerer, ModelAnswerer):
            self.bar.model = self.answerer
            self._cache = self._stack.enter_context(AnswerCache())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        if self._cache is not None and isinstance(self.answerer, ModelAnswerer):
            return answer_through_cache(self.answerer, prompts, self._cache, on_answer=self.bar.add)
        answers = self.answerer.answer(prompts)
        for answer in answers:
            self.bar.add(1, "asked" if answer.error is None else "failed")
        return [check_seen(*pair) for pair in zip(prompts, answers, strict=True)]
