"""What every figure shares: colours, a card to draw on, text that the font can show, the same bytes every time.

What is drawn is in `figures.py` and `gap_report.py`.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Blue and vermilion stay apart under every common colour blindness (Okabe and Ito 2008). The card is light in both
# colour schemes, so that one picture serves the page, the dataset card and print.
CARD, INK, SOFT, LINE = "#f6f7f8", "#1b2026", "#5b6570", "#d5dade"
KEPT, DROPPED, UNDECIDED, LUCK = "#2f7ebc", "#d8741c", "#a3abb3", "#2b323a"
_FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same picture
_WIDTH_INCHES, _DOTS_PER_INCH = 8.0, 160


def open_figure(height_inches: float, bounds: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Makes an empty card with one quiet pair of axes at `(left, bottom, width, height)`, in shares of the card."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), dpi=_DOTS_PER_INCH, facecolor=CARD)
    axes = figure.add_axes(bounds, facecolor=CARD)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT, labelfontfamily=_FONT)
    return figure, axes


def write(on: Figure | Axes, x: float, y: float, text: str, *, color: str = INK, **properties: Any) -> None:
    """Writes plain text; a dollar sign in it is a dollar sign, not mathematics."""
    on.text(x, y, text, color=color, family=_FONT, parse_math=False, **properties)


def name_axes(axes: Axes, x_name: str, y_name: str) -> None:
    """Names both axes in the quiet colour."""
    axes.set_xlabel(x_name, color=SOFT, fontsize=10, family=_FONT)
    axes.set_ylabel(y_name, color=SOFT, fontsize=10, family=_FONT)


def write_key(figure: Figure, y: float, *entries: tuple[float, str, str, str]) -> None:
    """Writes `(x, marker, colour, meaning)` entries on one line; the words are grey, to be easy to read."""
    for x, marker, color, meaning in entries:
        write(figure, x, y, marker, color=color, size=11)
        write(figure, x + 0.02, y, meaning, color=SOFT, size=10)


def format_share(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as a percentage.

    Example:
        >>> format_share(0.5), format_share(0.567, digits=1)
        ('50 %', '56.7 %')
    """
    return f"{100 * share:.{digits}f} %"


def mark_percent(axis: Axis) -> None:
    """Marks an axis of shares in percent."""
    axis.set_major_formatter(lambda value, _: format_share(value))


def fit_font(text: str, max_characters: int) -> str:
    """A stranger's text as the font can draw it: what it lacks becomes a box, what is long loses its middle.

    Example:
        >>> fit_font("a long name of a group", 9), fit_font("色 red", 9)
        ('a lo…oup', '□ red')
    """
    half = max_characters // 2
    cut = text if len(text) <= max_characters else f"{text[:half]}…{text[1 - half :]}"
    known = _list_characters()
    return "".join(char if char.isprintable() and ord(char) in known else "□" for char in cut)


@cache
def _list_characters() -> frozenset[int]:
    path = font_manager.findfont(_FONT, fallback_to_default=False)
    return frozenset(font_manager.get_font(path).get_charmap())


def save_figure(figure: Figure) -> bytes:
    """Writes a PNG without date or program name."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
