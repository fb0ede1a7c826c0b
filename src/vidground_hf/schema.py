"""The words every other module shares: an example, how it is asked, how it is answered, and the columns we add.

Nothing here reads files or decides anything.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

ProblemType = Literal["multiple_choice", "numerical", "ocr", "free_form", "regression"]
View = Literal["options_only", "text", "subtitles", "single_frame", "shuffled_frames", "video", "wrong_video"]

PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)
VIEWS: tuple[View, ...] = get_args(View)
BLIND_VIEWS: tuple[View, ...] = ("options_only", "text", "subtitles")
LADDER_VIEWS: tuple[View, ...] = VIEWS[:-1]  # from the least evidence to the most; another row's clip is none

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What options are called when they are shown."""


def normalize_text(text: str) -> str:
    """Folds what does not distinguish two answers: case, Unicode form, surrounding punctuation, runs of spaces.

    Args:
        text (`str`): any text.

    Returns:
        `str`: the folded text; may be empty.

    Example:
        >>> normalize_text("  The RED  one. ")
        'the red one'
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    folded = " ".join(plain.split())
    return folded.strip(" .,;:!?\"'") or folded


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one video (or image).

    Attributes:
        id (`str`): names the row within its dataset; not assumed unique.
        question (`str`): the question without its options.
        problem_type (`str`): one of `PROBLEM_TYPES`.
        options (`tuple[str, ...]`): option texts in the data's order, letter prefixes removed, duplicates and
            empty ones kept; empty for open-ended questions.
        answer (`str`, *optional*): the gold answer as text; for multiple choice the text of the gold option.
        answer_index (`int`, *optional*): position of the (first) gold option; `None` for open-ended questions.
        video (`str`, *optional*): path, URL or id of the media, as the row gives it.
        media_content (`bytes`, `memoryview` or `pyarrow.Buffer`, *optional*): the bytes of its file, where the row
            holds them and pixels were asked for.
        start_seconds (`float`, *optional*), end_seconds (`float`, *optional*): the half-open part of the video that
            the question is about; the whole where they are left out.
        frame_rate (`float`, *optional*): images a second, where the media is a folder of images.
        media_root (`str`, *optional*): folder that a relative `video` starts from.
        group (`str`, *optional*): rows of one group share a fold; `None` means the row is its own group.
        category (`str`, *optional*): the dataset's own question category.
        source (`str`, *optional*): the dataset the row was collected from.
        subtitles (`str`, *optional*): what is said in the video.
        evidence_spans (`tuple[tuple[float, float], ...]`): half-open `[start, end)` seconds in which the answer
            can be seen; empty where the set has none.
        defect (`str`, *optional*): why the row cannot be judged, as a slug; `None` when it can.
        flags (`tuple[str, ...]`): what is odd about a row that can still be judged.
    """

    id: str
    question: str
    problem_type: ProblemType
    options: tuple[str, ...] = ()
    answer: str | None = None
    answer_index: int | None = None
    video: str | None = None
    media_content: Any = field(default=None, repr=False, compare=False)
    start_seconds: float | None = None
    end_seconds: float | None = None
    frame_rate: float | None = None
    media_root: str | None = None
    group: str | None = None
    category: str | None = None
    source: str | None = None
    subtitles: str | None = None
    evidence_spans: tuple[tuple[float, float], ...] = ()
    defect: str | None = None
    flags: tuple[str, ...] = ()

    @cached_property
    def option_classes(self) -> tuple[int, ...]:
        """For each option, the position of the first option with the same normalised text (`int`)."""
        return classify_options(self.options)

    @cached_property
    def num_distinct_options(self) -> int:
        """How many different answers the options offer (0 for open-ended questions)."""
        return len(set(self.option_classes))


def classify_options(options: tuple[str, ...]) -> tuple[int, ...]:
    """Maps each option to the position of the first option with the same normalised text.

    Example:
        >>> classify_options(("Red", "blue", "red."))
        (0, 1, 0)
    """
    first: dict[str, int] = {}
    return tuple(first.setdefault(normalize_text(option), index) for index, option in enumerate(options))


class Verdict(NamedTuple):
    """What a rule decides about one example.

    Attributes:
        is_visually_grounded (`bool`, *optional*): `True` keeps it (needs the video), `False` means text alone
            answers it, `None` means it could not be judged.
        reason (`str`): a slug that says why.
    """

    is_visually_grounded: bool | None
    reason: str
