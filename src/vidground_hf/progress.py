"""A bar on stderr that shows what asking a model has come to. It asks nothing itself."""

from __future__ import annotations

from collections import Counter

from tqdm.auto import tqdm

from vidground_hf.answerers.base import ModelAnswerer


class AskingBar:
    """Counts answers by where they came from, and shows them with the time left.

    Args:
        total (`int`): answers that may be needed at most.
        show (`bool`): whether to draw the bar; counting goes on without it.

    Attributes:
        model (`ModelAnswerer`, *optional*): who is asked now, for what is in flight.
        share (`float`): in (0, 1], of the whole that what is expected so far is for; the total is estimated by it.
        counts (`Counter`): `asked` (by the answerer now), `cached` (found, or the same as another), `failed`, and
            `saved` (not needed after all).

    Example:
        >>> with AskingBar(total=5, show=False) as bar:
        ...     bar.add(2, "asked")
        ...     bar.add(3, "saved")
        >>> dict(bar.counts)
        {'asked': 2, 'saved': 3}
    """

    def __init__(self, *, total: int, show: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.model: ModelAnswerer | None = None
        self.share = 1.0
        self._num_expected = total
        self._bar = tqdm(total=total, desc="Asking", unit=" answers", disable=not show)

    def __enter__(self) -> AskingBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def expect(self, number: int) -> None:
        """Raises the total: so many answers more may be needed."""
        self._num_expected += number
        self._bar.total = round(self._num_expected / self.share)
        self._bar.refresh()

    def add(self, number: int, source: str) -> None:
        """Counts some answers."""
        self.counts[source] += number
        if not self._bar.disable:
            in_flight = 0 if self.model is None else self.model.num_in_flight
            shown = {name: self.counts[name] for name in ("asked", "cached", "failed", "saved")}
            self._bar.set_postfix(shown | {"in flight": in_flight}, refresh=False)
        self._bar.update(number)
