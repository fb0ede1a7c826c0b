"""Prints values into HTML and Markdown templates so that a stranger's text stays text.

Knows nothing of what the pages say.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

MAX_CHARACTERS = 300
MISSING = "–"

_SPACES = re.compile(r"\s+")
_JOINERS = "\u200c\u200d"  # invisible, harmless, and needed to write Persian, Hindi and many emoji
# Python takes these for printable, but nothing is seen of them.
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
# Accents on one letter before further ones are shown by number: our guess. Hebrew of the Bible needs four.
_MAX_MARKS = 5
# To every renderer a reference such as &#60; is text; a backslash reads better, and is used where all agree on it.
_MARKDOWN = str.maketrans({c: f"&#{ord(c)};" for c in "&<>\\`|$@[]"} | {c: f"\\{c}" for c in "*_{}#~"})
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])(?=\s|$|\2)")
_LINK_START = re.compile(r"(?<=www)\.|/(?=/)", re.IGNORECASE)


def clean_text(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Makes a stranger's text fit to be shown on one line.

    Runs of white space become one space. Control characters, marks that turn the direction of the text around it,
    other characters without a picture, and accents piled up until they cover other lines are shown by number. Long
    texts are cut and say by how much.

    Args:
        text (`str`): any text.
        max_characters (`int`, *optional*, defaults to 300): longer texts are cut after as many (our guess at what
            still reads well in a list).

    Returns:
        `str`: the text without line breaks, fit for UTF-8; not escaped.

    Example:
        >>> clean_text("gold is \\u202e B\\n\\x00")
        'gold is ‹U+202E› B ‹U+0000›'
        >>> clean_text("tree" * 10, max_characters=4)
        'tree… (36 more characters)'
    """
    shown = _SPACES.sub(" ", text[:max_characters]).strip()
    shown = _show_by_number(shown)
    num_cut = max(0, len(text) - max_characters)
    return f"{shown}… ({num_cut:,} more characters)" if num_cut else shown


def _show_by_number(text: str) -> str:
    shown, num_marks = [], 0
    for char in text:
        if char not in _JOINERS:
            num_marks = num_marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        is_seen = (char.isprintable() and char not in _BLANKS) or char in _JOINERS
        shown.append(char if is_seen and num_marks <= _MAX_MARKS else f"‹U+{ord(char):04X}›")
    return "".join(shown)


def escape_markdown(text: str) -> str:
    """Cleans a text and escapes it, so that Markdown shows it as it is: in a paragraph, a list or a table cell.

    Args:
        text (`str`): any text.

    Returns:
        `str`: Markdown on one line without markup, links, HTML, mathematics or table bars.

    Example:
        >>> escape_markdown("# <b>5</b> | `x` *y*")
        '\\\\# &#60;b&#62;5&#60;/b&#62; &#124; &#96;x&#96; \\\\*y\\\\*'
    """
    escaped = clean_text(text).translate(_MARKDOWN)
    escaped = _LINK_START.sub(lambda found: f"&#{ord(found[0])};", escaped)
    return _BLOCK_START.sub(lambda found: f"{found[1]}&#{ord(found[2])};", escaped)


def format_count(count: float | None) -> str:
    """A number of questions, expected ones rounded; `–` when missing.

    Example:
        >>> format_count(1662), format_count(24.7), format_count(None)
        ('1,662', '25', '–')
    """
    return MISSING if count is None else f"{count:,.0f}"


def format_percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage; `–` when missing.

    Example:
        >>> format_percent(0.5656)
        '56.6 %'
    """
    return MISSING if share is None else f"{100 * share:.1f} %"


def format_interval(estimate: dict[str, float | None] | None) -> str:
    """A share with its interval, given as `value`, `low` and `high`; `–` when missing.

    Example:
        >>> format_interval({"value": 0.5656, "low": 0.545, "high": 0.586})
        '56.6 % (54.5 to 58.6)'
    """
    if estimate is None or estimate["value"] is None:
        return MISSING
    if estimate["low"] is None or estimate["high"] is None:
        return format_percent(estimate["value"])
    return f"{format_percent(estimate['value'])} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def format_slug(slug: str) -> str:
    """A slug in words.

    Example:
        >>> format_slug("gold_not_among_options")
        'gold not among options'
    """
    return slug.replace("_", " ")


def render_html_page(template: str, values: dict[str, Any]) -> str:
    """Fills an HTML template; every text in `values` is cleaned and escaped where it is printed.

    Templates print values one by one: a filter that joins or marks texts as safe would go round the cleaning.

    Args:
        template (`str`): its file name under `templates/`; it extends `base.html.j2`.
        values (`dict`): what the template names; a missing name is an error.

    Returns:
        `str`: the page.

    Raises:
        `jinja2.UndefinedError`: when the template names a value that is not there.
    """
    return _HTML.get_template(template).render(values)


def render_markdown(template: str, values: dict[str, Any]) -> str:
    """Fills a Markdown template, as `render_html_page` fills an HTML one."""
    return _MARKDOWN_ENVIRONMENT.get_template(template).render(values)


def _print_html(value: Any) -> Any:
    """Cleans a text; jinja2 escapes it afterwards. A number stays on one line with its percent sign."""
    return clean_text(value).replace(" %", "\u00a0%") if _is_text(value) else _name_missing(value)


def _print_markdown(value: Any) -> Any:
    return escape_markdown(value) if _is_text(value) else _name_missing(value)


def _is_text(value: Any) -> bool:
    """Whether a value is a text that did not come out of our own templates and code as `Markup`."""
    return isinstance(value, str) and not isinstance(value, Markup)


def _name_missing(value: Any) -> Any:
    return MISSING if value is None else value


def _make_environment(**settings: Any) -> Environment:
    environment = Environment(
        loader=PackageLoader("vidground_hf"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **settings,
    )
    environment.filters |= {
        "number": format_count,
        "percent": format_percent,
        "interval": format_interval,
        "slug": format_slug,
    }
    return environment


_HTML = _make_environment(autoescape=True, finalize=_print_html)
_MARKDOWN_ENVIRONMENT = _make_environment(autoescape=False, finalize=_print_markdown)
