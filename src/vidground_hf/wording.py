"""A curation report in words: the sentences and rows that both its page and its card print.

Escapes nothing: the texts are plain, and those of the data are as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vidground_hf.rendering import format_count, format_interval, format_percent, format_slug

GROUPINGS = {"problem_type": "problem type", "source": "source", "category": "category"}

_RULES = {
    "calibrated": "A question is dropped when the text-only answer is right and at least as sure as a threshold. "
    "Wrong answers that are as sure tell how many of the right ones are luck; the threshold is the lowest that keeps "
    "that share small.",
    "majority": "A question is dropped when enough models are right in more than half of their tries.",
    "at_most": "A question is dropped when it is answered right more often than the stated limit.",
    "circular": "A question is dropped when it is answered right under every rotation of its options.",
    "single_shot": "A question is dropped when one text-only answer is right, which is VidGround's rule. Lucky "
    "guesses are dropped with it.",
    "bias_at_least": "A question is dropped when its text gives the gold answer at least the stated probability.",
    "drop_fraction": "The stated share of the questions is dropped, those whose text gives most away first; what is "
    "left is judged afresh after every batch.",
}


class Fact(NamedTuple):
    """One line of the table of figures: a name, the figure as text, and what it means."""

    name: str
    value: str
    meaning: str


class Picture(NamedTuple):
    """What a picture shows, for those who cannot see it, and how to read it."""

    alt: str
    caption: str


def describe_split(report: Mapping[str, Any]) -> str:
    """The whole report in one sentence."""
    num_rows, num_dropped, num_undecided = (
        report[key] for key in ("num_rows", "num_text_answerable", "num_undecided")
    )
    share = f" ({format_percent(num_dropped / num_rows)})" if num_rows else ""
    undecided = f", and {format_count(num_undecided)} could not be judged" if num_undecided else ""
    return (
        f"Of {format_count(num_rows)} questions, text alone answers {format_count(num_dropped)}{share}; "
        f"{format_count(report['num_grounded'])} are kept{undecided}."
    )


def list_facts(report: Mapping[str, Any]) -> list[Fact]:
    """The figures of the whole set in reading order; those that do not apply are left out.

    Args:
        report (`dict`): a curation report, as in `report.json`.

    Returns:
        `list[Fact]`: name, figure as text, and what it means.
    """
    return _list_accuracies(report) + _list_luck(report) + _list_checks(report) + _list_calls(report)


def _list_accuracies(report: Mapping[str, Any]) -> list[Fact]:
    """Blind accuracy beside what needs no model, then what is left of it after curation."""
    blind, floors = "Right without the video", report["floors"]
    heldout, control = report["heldout_blind_accuracy"], report["random_removal_control"]
    shares = (
        ("Chance", report["chance"], "guessing among the options"),
        ("Best fixed position", floors["constant_option"], "always choosing the same position"),
        ("Longest option", floors["longest_option"], "always choosing the longest option"),
        ("Shortest option", floors["shortest_option"], "always choosing the shortest option"),
    )
    facts = [Fact(blind, format_interval(report["blind_accuracy"]), "blind accuracy, with its 95 % interval")]
    facts += _list_shares(*shares)
    after = "the same for the kept questions, by answers that the decision did not read"
    facts.append(Fact(f"{blind}, once curated", format_interval(heldout) if heldout else "not measured", after))
    if control is not None:
        random = "the same, had as many questions been removed at random"
        facts.append(Fact(f"{blind}, random removal", format_interval(control), random))
    return facts


def _list_luck(report: Mapping[str, Any]) -> list[Fact]:
    """How many decisions are expected to be wrong."""
    single = report["single_shot"]
    lucky = (
        ("Lucky drops", report["expected_lucky_drops"], report["num_text_answerable"], "dropped, though only guessed"),
        (
            "Lucky drops of one try",
            single["expected_lucky_drops"],
            single["num_drops"],
            "the same if every right answer were dropped, as VidGround does",
        ),
    )
    facts = [
        Fact(name, f"{format_count(count)} of {format_count(total)}", f"{meaning} (expected number)")
        for name, count, total, meaning in lucky
        if count is not None
    ]
    if report["expected_missed"] is not None:
        missed = "kept, though text answers it: cannot be told from a guess (expected number)"
        facts.append(Fact("Missed", format_count(report["expected_missed"]), missed))
    return facts


def _list_checks(report: Mapping[str, Any]) -> list[Fact]:
    return _list_shares(
        (
            "Label check",
            report["label_invariance"],
            "answers that stay the same when the gold answers hidden from the answerer are shuffled; all should",
        ),
        ("Precision of the drop", report["precision"], "of the dropped questions, those made to need only their text"),
        ("Recall of the drop", report["recall"], "of the questions made to need only their text, those dropped"),
    )


def _list_calls(report: Mapping[str, Any]) -> list[Fact]:
    """What asking models took, and what they said of their own answers."""
    facts = []
    if len(report["answerers"]) > 1:
        for one in report["answerers"]:
            accuracy = one["blind_accuracy"]
            shown = format_interval(accuracy) if accuracy else "not asked about every question"
            facts.append(Fact(f"Right, {one['id']}", shown, "first answers of this model alone"))
    calls = report["calls"]
    if calls is not None:
        meaning = (
            f"{format_count(calls['cached'])} more were known, {format_count(calls['failed'])} failed, "
            f"{format_count(calls['saved'])} were saved because a verdict stood without them; the fewest that lead to "
            f"these verdicts are {format_count(calls['minimum'])}"
        )
        facts.append(Fact("Answers asked for", format_count(calls["asked"]), meaning))
    for kind, count in (report["shortcut_kinds"] or {}).items():
        meaning = "of the dropped questions, by the model's own account why it could answer"
        facts.append(Fact(f"Kind: {format_slug(kind)}", format_count(count), meaning))
    return facts


def _list_shares(*shares: tuple[str, float | None, str]) -> list[Fact]:
    return [Fact(name, format_percent(share), meaning) for name, share, meaning in shares if share is not None]


def describe_rule(report: Mapping[str, Any]) -> list[str]:
    """What was dropped, and at what error, as sentences; a rule of the user's own has no words here."""
    name = report["rule"].partition("(")[0]
    sentences = [_RULES[name]] if name in _RULES else []
    calibration = report["calibration"]
    if calibration is None:
        return sentences
    alpha = format_percent(calibration["alpha"])
    if calibration["threshold"] is None:
        sentences.append(f"No threshold keeps the share of luck at {alpha} or less, so nothing is dropped.")
    else:
        ends = {"value": "estimated_error", "low": "estimated_error_low", "high": "estimated_error_high"}
        error = format_interval({end: calibration[key] for end, key in ends.items()})
        sentences.append(f"At most {alpha} of luck was allowed. The estimate is {error}, with its 95 % interval.")
    return sentences + ([calibration["note"]] if calibration["note"] else [])


def list_groupings(report: Mapping[str, Any], max_groups: int) -> list[dict[str, Any]]:
    """Groups of each grouping, largest first; a grouping with one group says nothing new and is left out.

    Args:
        report (`dict`): a curation report, as in `report.json`.
        max_groups (`int`): of one grouping; the others are counted.

    Returns:
        `list[dict]`: `title`, `groups` (pairs of name and figures) and `num_left_out` of each grouping.
    """
    groupings = []
    for key, title in GROUPINGS.items():
        groups = sorted(report["groups"].get(key, {}).items(), key=lambda item: -item[1]["num_rows"])
        if len(groups) > 1:
            num_left_out = max(0, len(groups) - max_groups)
            groupings.append({"title": title, "groups": groups[:max_groups], "num_left_out": num_left_out})
    return groupings


def list_provenance(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what one needs to make the report again."""
    source, types = report["source"], report["groups"].get("problem_type", {})
    rows = (
        ("Source", source["id"]),
        ("Revision", source["revision"]),
        ("Fingerprint", source["fingerprint"]),
        ("License", report["license"]),
        ("Problem types", ", ".join(f"{format_slug(k)} {format_count(v['num_rows'])}" for k, v in types.items())),
        ("Answerer", report["answerer"]),
        ("View", format_slug(report["view"])),
        ("Rule", report["rule"]),
        ("Seed", str(report["seed"])),
        ("Versions", ", ".join(f"{package} {version}" for package, version in report["versions"].items())),
        ("Time", f"{report['seconds']:,.1f} seconds"),
    )
    return [(name, value or "unknown") for name, value in rows]


def list_limits(report: Mapping[str, Any]) -> list[str]:
    """What the figures do not say."""
    limits = [
        "What was dropped is a lower bound: a stronger answerer may answer more of the kept questions from text.",
        "A kept question is not proven to need the video: it may be ambiguous, or wrong, or beyond the answerer.",
        f"Only the view “{format_slug(report['view'])}” was tried; with other evidence, such as subtitles or a "
        "single frame, more may be answered.",
    ]
    if report["calibration"] is not None:
        limits.append(
            "The share of luck is an estimate. It takes for granted that, where the text says nothing, every option "
            "is as likely to be the gold answer as any other."
        )
    if report["num_unscored"]:
        limits.append(f"{format_count(report['num_unscored'])} questions have no score; no accuracy counts them.")
    return limits


def describe_figures(report: Mapping[str, Any]) -> dict[str, Picture]:
    """Alternative text and caption of each picture, by name."""
    accuracy = format_interval(report["blind_accuracy"])
    return {
        "split": Picture(
            f"A bar split in three. {describe_split(report)}",
            "Kept means that text alone was not shown to answer it, not that the video is proven to be needed.",
        ),
        "groups": Picture(
            f"Blind accuracy by group beside chance and floors; for all questions {accuracy}.",
            "How often the answer is right without the video. The further a dot is from the grey marks, the more the "
            "questions give away.",
        ),
        "confidence": Picture(
            "Histogram of how sure the right answers were, and how many of them luck explains.",
            "Right answers by how sure they were. Wrong answers tell how many of them to expect by luck.",
        ),
        "error": Picture(
            "Line of the share of luck among the dropped questions against how many are dropped.",
            "The more is dropped, the more of it is luck.",
        ),
    }
