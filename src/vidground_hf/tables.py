"""A report as plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_table(report: Mapping[str, Any]) -> str:
    """The report in a few lines of plain text, for the terminal."""
    accuracy, floors, single = report["blind_accuracy"], report["floors"], report["single_shot"]
    num_dropped = report["num_text_answerable"]
    lines = [
        f"{report['num_rows']:,} questions, answered by {report['answerer']} without the video, rule {report['rule']}",
        "",
        f"  grounded (needs the video)   {_share(report, 'num_grounded')}",
        f"  text_answerable              {_share(report, 'num_text_answerable')}",
        f"  undecided                    {_share(report, 'num_undecided')}",
        "",
        f"  blind accuracy               {_percent(accuracy)}   ({report['num_unscored']:,} unscored)",
        f"  chance                       {_percent(report['chance'])}",
        f"  best constant option         {_percent(floors['constant_option'])}",
        f"  longest option               {_percent(floors['longest_option'])}",
        f"  blind accuracy of the kept   {_percent(report['heldout_blind_accuracy'])}",
        f"  after random removal         {_percent(report['random_removal_control'])}",
        "",
        f"  drops that may be luck       {_number(report['expected_lucky_drops'])} of {num_dropped:,}",
        f"  the same, single_shot        {_number(single['expected_lucky_drops'])} of {single['num_drops']:,}",
    ]
    lines += _format_calls(report)
    if report["calibration"] is not None and report["calibration"]["note"] is not None:
        lines += ["", "  " + report["calibration"]["note"]]
    if report["leaks"]["num_questions"]:
        splits = ", ".join(report["leaks"]["splits"])
        lines += [
            "",
            f"  leak: {report['leaks']['num_questions']:,} questions stand in more than one split ({splits})",
        ]
    lines += [f"  {name:29}{count:,} rows" for name, count in report["reasons"]["undecided"].items()]
    lines += _format_groups(report["groups"])
    if report["precision"] is not None:
        lines += ["", f"  against the planted truth: precision {_percent(report['precision'])}, "
                  f"recall {_percent(report['recall'])}"]  # fmt: skip
    return "\n".join(lines)


def _format_calls(report: Mapping[str, Any]) -> list[str]:
    lines = []
    if len(report["answerers"]) > 1:
        lines += ["", *(f"  {one['id'][:28]:29}{_percent(one['blind_accuracy'])}" for one in report["answerers"])]
    calls = report["calls"]
    if calls is not None:
        lines += [
            "",
            f"  answers asked for            {calls['asked']:,} ({calls['cached']:,} more were known, "
            f"{calls['failed']:,} failed, {calls['saved']:,} saved; at least {calls['minimum']:,} needed)",
        ]
    if report["shortcut_kinds"] is not None:
        lines += ["", *(f"  {kind.replace('_', ' '):29}{n:,} dropped" for kind, n in report["shortcut_kinds"].items())]
    return lines


def _format_groups(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    lines = []
    for key, parts in groups.items():
        if len(parts) < 2:
            continue
        lines += ["", f"  {key:22} {'rows':>8} {'dropped':>8} {'blind':>7} {'chance':>7}"]
        lines += [
            f"  {name[:22]:22} {part['num_rows']:>8,} {part['num_text_answerable']:>8,} "
            f"{_percent(part['blind_accuracy']['value']):>7} {_percent(part['chance']):>7}"
            for name, part in parts.items()
        ]
    return lines


def _share(report: Mapping[str, Any], key: str) -> str:
    return f"{report[key]:>8,}   {100 * report[key] / report['num_rows']:5.1f} %"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _percent(value: Any) -> str:
    if value is None:
        return "unknown"
    if not isinstance(value, Mapping):
        return f"{100 * value:.1f} %"
    if value["low"] is None:
        return _percent(value["value"])
    return f"{100 * value['value']:.1f} %  [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
