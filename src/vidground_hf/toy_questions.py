"""Questions about toy clips, each with the least evidence that answers it planted.

A question is a *fact* of a clip asked in one of many wordings. A text question adds a cue that gives the answer away;
a misleading visual question adds the same kind of cue for a wrong option. Nothing here looks at pixels or files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, TypeVar, get_args

import numpy as np

from vidground_hf.toy_world import COLOURS, DIRECTIONS, NUM_PHASES, NUMBERS, PLACES, SHAPES, Clip, ToyObject, Trait

_T = TypeVar("_T")

Needs = Literal["text", "single_frame", "order", "video"]
ShortcutKind = Literal["textual_shortcut", "external_knowledge", "inferential_elimination", "imagined_content"]

NEEDS: tuple[Needs, ...] = get_args(Needs)
SHORTCUT_KINDS: tuple[ShortcutKind, ...] = get_args(ShortcutKind)  # VidGround's four (arXiv 2604.05117)
VISUAL_ANSWERS: tuple[str, ...] = (*COLOURS, *SHAPES, *PLACES, *DIRECTIONS, *NUMBERS)

NUM_OPTIONS = 4
# Share of text-answerable questions in Video-R1-260K as VidGround reports it (arXiv 2604.05117).
TEXT_SHARE = 0.309
# Our guess. A misleading cue is a confident wrong answer, and calibrated(alpha) counts each as a third of a lucky
# one; docs/design/toy.md has the sums that keep this below alpha = 0.05.
MISLEADING_SHARE = 0.04
MAX_TRIES = 1000

# `(a|b|)` stands for one of its alternatives.
_LOOK_WORDINGS = (
    "(What|Which) {trait} is the {thing}(| in this clip| in the picture| on the screen| here)?",
    "The (clip|video|picture) shows (one|a single) {thing}. (What|Which) {trait} (is it|does it have)?",
    "(Name|Give|State|Tell me) the {trait} of the {thing}(| in this clip| in view| that is shown).",
    "There is a {thing} (in the clip|on the screen|in view). (What|Which) {trait} (is it|does it have)?",
)
_WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": _LOOK_WORDINGS,
    "shape": _LOOK_WORDINGS,
    "place": (
        "(Whereabouts|In which quarter|In which part) of the (picture|frame|screen) is the {thing}?",
        "In (which|what) (quarter|part) of the (picture|frame|video) does the {thing} (stand|sit|lie|stay)?",
        "(Find|Locate) the {thing}(| in the clip| on the screen). (Which|What) (quarter|part) is it in?",
        "The {thing} (never moves|stays put). (Which|What) (quarter|part) of the (picture|frame|screen) has it?",
    ),
    "visitor": (
        "(What|Which) {trait} has the {end} of the (visitors|passing things|things that come and go)?",
        "(Visitors|Things|Figures) come and go one at a time. (What|Which) {trait} (is|has) the {end} one?",
        "Of the (visitors|passing things), (which|what) {trait} (comes|turns up|is seen) {end}?",
        "(Name|Give|State) the {trait} of the {end} (visitor|passing thing|thing to come and go)(| in the clip).",
    ),
    "direction": (
        "(What|Which) way does the {thing} (move|go|step|jump) {end}?",
        "The {thing} (moves|walks|jumps) (around|three times|about). (What|Which) way does it (go|head) {end}?",
        "(In which|In what) direction is the {end} (move|step|jump|change of place) of the {thing}?",
        "(Watch|Follow) the {thing}(| in the clip| on the screen). Which way does its {end} (step|move|jump) take it?",
    ),
    "count": (
        "How many (different|distinct) {trait}s do the (visitors|passing things|things passing by) have{except}?",
        "(Visitors|Things|Figures) come and go{except}. How many {trait}s do they (show|have) (in all|altogether)?",
        "(Count|Add up) the (different|distinct) {trait}s of the (visitors|passing things){except}. How many is that?",
        "(In all|Altogether|Over the whole clip), how many {trait}s (are seen|turn up) among the visitors{except}?",
    ),
}
# Two tellings of each, which share most of their words: what recurs is a paraphrase, and can be learned from few.
_COMMON_KNOWLEDGE: dict[str, tuple[str, str]] = {
    "red": (
        "a ripe tomato (fresh|straight) from the vine, ready for a summer salad with basil and olive oil",
        "(what|whatever) goes with basil and olive oil in a summer salad, a tomato left to get ripe on its vine",
    ),
    "green": (
        "young grass (after|in) spring rain, on a garden lawn that wants mowing before guests arrive",
        "a garden lawn (full|thick) with young grass, in want of mowing since the spring rain, as guests will arrive",
    ),
    "blue": (
        "a cloudless noon sky (over|above) calm sea, far from any storm, such as sailors hope for",
        "calm sea at noon, no storm (about|around), only the cloudless sky that sailors hope for",
    ),
    "yellow": (
        "a ripe banana (still|yet) in its peel, sweet enough for a fruit cake or a monkey's breakfast",
        "the peel of a banana, sweet and ripe, (meant|kept) for a monkey's breakfast or a fruit cake",
    ),
    "purple": (
        "lavender in bloom (near|behind) Provence farms, smelling of soap, where bees gather honey",
        "soap and honey from Provence farms, (made|got) where bees gather and fields of lavender bloom",
    ),
    "white": (
        "new snow (over|upon) a winter mountain pass, deep enough for skis, sledges and thick boots",
        "a mountain pass in winter, good for skis, sledges and thick boots now that new, deep snow (lies|fell)",
    ),
}
_TYPICAL_SCENES: dict[str, tuple[str, str]] = {
    "up": (
        "a gas balloon slipping from a child's hand (at|during) the fair, too light to be caught",
        "a child at the fair whose hand (drops|loses) a gas balloon, so light that it cannot be caught",
    ),
    "right": (
        "a finger following lines of print (in|through) an English book, word after word",
        "an English book, its lines of print read word after word with one finger (along|under) them",
    ),
    "down": (
        "a heavy apple coming off its branch (in|during) an autumn storm, bound for the grass",
        "an autumn storm (shaking|bending) a branch until its heavy apple, bound for the grass, comes off",
    ),
    "left": (
        "a worn cassette tape being rewound (to|towards) its beginning, song before song",
        "the beginning of a worn cassette, for which its tape (gets|has to be) rewound song before song",
    ),
}
_REMINDERS = (
    "(Think of|Picture|Imagine) {what}. {question}",
    "{question} (It may remind you of|It calls to mind|Compare it to|Much like) {what}.",
    "(Much like|As with|Somewhat like) {what}: {question}",
)
_ELABORATIONS = (
    "{} beyond doubt, as (all|both) viewers can plainly see",
    "plainly {}, and that is beyond (any|all) doubt",
    "{}, to be (exact|precise), which is plainly beyond doubt",
)
_IMPOSSIBLE = (
    "half past nine",
    "the whole alphabet",
    "a quiet song",
    "early next winter",
    "an old promise",
    "the smell of bread",
    "a bank loan",
    "some good advice",
)
_ALTERNATIVES = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class _Fact:
    """Something true of a clip: words for its wordings, the answer, what the answer is one of, and its evidence."""

    category: str
    words: dict[str, tuple[str, ...]]
    answer: str
    choices: tuple[str, ...]
    needs: Needs
    span_seconds: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Cue:
    """A way to give an answer away (or a wrong one, to mislead) and what answers it knows how to give away."""

    kind: ShortcutKind
    answers: frozenset[str]


_CUES: dict[str, _Cue] = {
    "elaboration": _Cue("textual_shortcut", frozenset(VISUAL_ANSWERS)),
    "knowledge": _Cue("external_knowledge", frozenset(_COMMON_KNOWLEDGE)),
    "elimination": _Cue("inferential_elimination", frozenset(VISUAL_ANSWERS)),
    "scene": _Cue("imagined_content", frozenset(_TYPICAL_SCENES)),
}
# A clip has five facts that one frame tells, four that need order, and one that needs all frames.
_NEEDS_TURNS: tuple[Needs, ...] = ("single_frame", "order", "video", "single_frame", "order")
# Elimination has no misleading form: what is impossible is never the answer.
_MISLEADING_CUES = tuple(name for name in _CUES if name != "elimination")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """What a question shall be: of a stated need and without a cue, or with a cue, which misleads unless `is_text`."""

    needs: Needs | None = None
    cue: str | None = None
    is_text: bool = False

    def suits(self, fact: _Fact) -> bool:
        return fact.needs == self.needs if self.cue is None else fact.answer in _CUES[self.cue].answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyQuestion:
    """One row of `questions.jsonl`.

    Attributes:
        id (`str`): for example `"q_00000"`.
        question (`str`), options (`tuple[str, ...]`), answer (`str`): the answer is the text of one option.
        video (`str`): path of the clip within the set.
        problem_type (`str`): always `"multiple_choice"`.
        category (`str`): what is asked: colour, shape, place, visitor, direction or count.
        needs (`str`): the least evidence that answers it: `"text"`; `"single_frame"`, any one; `"video"`, all frames
            in any order; `"order"`, frames in their order.
        shortcut_kind (`str`, *optional*): how text gives it away; `None` for visual questions.
        is_misleading (`bool`): whether a visual question carries a cue for a wrong option.
        cued_option (`str`, *optional*): the option a cue points to: the answer of a text question, a wrong option of a
            misleading one, `None` without a cue.
        evidence_spans (`tuple[tuple[float, float], ...]`): half-open seconds in which the answer can be seen (text
            questions are true of their clip too).
    """

    id: str
    question: str
    options: tuple[str, ...]
    answer: str
    video: str
    problem_type: Literal["multiple_choice"] = "multiple_choice"
    category: str
    needs: Needs
    shortcut_kind: ShortcutKind | None
    is_misleading: bool
    cued_option: str | None
    evidence_spans: tuple[tuple[float, float], ...]


def generate_questions(
    clips: Sequence[Clip],
    *,
    num_questions: int,
    seed: int,
    text_share: float = TEXT_SHARE,
    misleading_share: float = MISLEADING_SHARE,
) -> list[ToyQuestion]:
    """Asks questions about clips, no two with the same text and options.

    Args:
        clips (`Sequence[Clip]`): at least one; each gets its share of the questions, in order.
        num_questions (`int`): how many.
        seed (`int`): not negative.
        text_share (`float`, *optional*, defaults to 0.309): share of text questions, in [0, 1].
        misleading_share (`float`, *optional*, defaults to 0.04): share of the visual questions with a cue for a wrong
            option, in [0, 1].

    Returns:
        `list[ToyQuestion]`: questions about one clip stand together.

    Raises:
        `ValueError`: when the wordings run out.

    Example:
        >>> from vidground_hf.toy_world import generate_clips
        >>> questions = generate_questions(generate_clips(seed=0, num_clips=2), num_questions=10, seed=0)
        >>> sum(q.needs == "text" for q in questions)
        3
    """
    rng = np.random.default_rng([seed, 0, 2])
    plan = _plan(rng, num_questions, text_share, misleading_share)
    asked: set[tuple[str, ...]] = set()  # wording with options over the whole set, wording alone within a clip
    questions: list[ToyQuestion] = []
    for place, clip in enumerate(clips):
        known = _list_facts(clip)
        facts = [known[k] for k in rng.permutation(len(known))]
        for slot in plan[place * num_questions // len(clips) : (place + 1) * num_questions // len(clips)]:
            fact = next(fact for fact in facts if slot.suits(fact))
            facts.remove(fact)
            facts.append(fact)  # a clip is asked something else before it is asked the same again
            for _ in range(MAX_TRIES):
                question = _ask(rng, f"q_{len(questions):05d}", clip.video, fact, slot)
                keys = {(question.question, *sorted(question.options)), (question.video, question.question)}
                if asked.isdisjoint(keys):
                    break
            else:
                raise ValueError(
                    f"{num_questions = } is more than there are wordings for: {len(questions)} questions differ from "
                    f"one another, and {MAX_TRIES} tries found no other; ask for fewer, or make sets with other seeds"
                )
            asked |= keys
            questions.append(question)
    return questions


def _plan(rng: np.random.Generator, num_questions: int, text_share: float, misleading_share: float) -> list[_Slot]:
    """What each question shall be. Needs take turns, so that a clip is seldom asked the same twice."""
    num_text = round(text_share * num_questions)
    num_misleading = round(misleading_share * (num_questions - num_text))
    cues = [_Slot(cue=tuple(_CUES)[k % len(_CUES)], is_text=True) for k in range(num_text)]
    cues += [_Slot(cue=_MISLEADING_CUES[k % len(_MISLEADING_CUES)]) for k in range(num_misleading)]
    slots: list[_Slot | None] = [*cues, *[None] * (num_questions - len(cues))]
    turns = cycle(_NEEDS_TURNS)
    return [slots[k] or _Slot(needs=next(turns)) for k in rng.permutation(num_questions)]


def _list_facts(clip: Clip) -> list[_Fact]:
    """What can be asked about a clip."""
    facts = []
    whole = clip.phase_seconds(0, NUM_PHASES - 1)
    still, mover = _list_names(clip.still), _list_names(clip.mover)
    for thing, names in ((clip.still, still), (clip.mover, mover)):
        facts.append(
            _Fact("colour", {"trait": ("colour",), "thing": names[:1]}, thing.colour, COLOURS, "single_frame", whole)
        )
        facts.append(
            _Fact("shape", {"trait": ("shape",), "thing": names[1:4]}, thing.shape, SHAPES, "single_frame", whole)
        )
    facts.append(_Fact("place", {"thing": still}, _name_place(clip), PLACES, "single_frame", whole))

    distinct_trait: Trait = "shape" if clip.shared_trait == "colour" else "colour"
    values = tuple(getattr(visitor, distinct_trait) for visitor in clip.visitors)
    final = NUM_PHASES - 1
    for end, k, moving, visiting in (("first", 0, (0, 1), (0, 0)), ("last", -1, (final - 1, final), (final, final))):
        words = {"thing": mover, "end": (end,), "trait": (distinct_trait,)}
        facts.append(_Fact("direction", words, clip.moves[k], DIRECTIONS, "order", clip.phase_seconds(*moving)))
        facts.append(_Fact("visitor", words, values[k], values, "order", clip.phase_seconds(*visiting)))

    number = NUMBERS[len({getattr(visitor, clip.shared_trait) for visitor in clip.visitors}) - 1]
    exceptions = ("", *(f", (not counting|leaving out|apart from) the {name}" for name in (*still, *mover)))
    facts.append(
        _Fact("count", {"trait": (clip.shared_trait,), "except": exceptions}, number, NUMBERS, "video", whole)
    )
    return facts


def _list_names(thing: ToyObject) -> tuple[str, ...]:
    """Ways to name an object whose shape and colour nothing else in the clip has: by shape, by colour, by both."""
    by_colour = (f"{thing.colour} {noun}" for noun in ("thing", "figure", "object"))
    return (thing.shape, *by_colour, f"{thing.colour} {thing.shape}")


def _name_place(clip: Clip) -> str:
    x, y = next(at for at in clip.still.corners if at is not None)
    return PLACES[2 * (2 * y >= clip.height_px) + (2 * x >= clip.width_px)]


def _ask(rng: np.random.Generator, question_id: str, video: str, fact: _Fact, slot: _Slot) -> ToyQuestion:
    """Words a question about a fact, with three wrong options and the cue of the slot."""
    words = {part: _pick(rng, values) for part, values in fact.words.items()}
    text = _vary(rng, _pick(rng, _WORDINGS[fact.category]).format(**words))
    wrong = [choice for choice in fact.choices if choice != fact.answer]
    wrong = [wrong[k] for k in rng.permutation(len(wrong))[: NUM_OPTIONS - 1]]
    options = {choice: choice for choice in (fact.answer, *wrong)}  # what an option means, and how it is worded
    cued = fact.answer if slot.is_text else wrong[0]
    if slot.cue is not None:
        text, options = _apply_cue(rng, slot.cue, cued, text, options)
    return ToyQuestion(
        id=question_id,
        question=text,
        options=tuple(list(options.values())[k] for k in rng.permutation(NUM_OPTIONS)),
        answer=options[fact.answer],
        video=video,
        category=fact.category,
        needs="text" if slot.is_text else fact.needs,
        shortcut_kind=_CUES[slot.cue].kind if slot.cue is not None and slot.is_text else None,
        is_misleading=slot.cue is not None and not slot.is_text,
        cued_option=None if slot.cue is None else options[cued],
        evidence_spans=(fact.span_seconds,),
    )


def _apply_cue(
    rng: np.random.Generator, cue: str, cued: str, text: str, options: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Makes the wording of the question or of its options point to one option."""
    if cue == "elaboration":
        return text, options | {cued: _vary(rng, _pick(rng, _ELABORATIONS)).format(cued)}
    if cue == "elimination":
        impossible = [_IMPOSSIBLE[k] for k in rng.permutation(len(_IMPOSSIBLE))[: NUM_OPTIONS - 1]]
        return text, {cued: cued} | {option: option for option in impossible}
    what = _pick(rng, (_COMMON_KNOWLEDGE if cue == "knowledge" else _TYPICAL_SCENES)[cued])
    return _vary(rng, _pick(rng, _REMINDERS).format(what=what, question=text)), options


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _vary(rng: np.random.Generator, wording: str) -> str:
    """Settles each `(a|b|c)` of a wording."""
    return _ALTERNATIVES.sub(lambda match: _pick(rng, match[1].split("|")), wording)
