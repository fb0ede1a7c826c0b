"""A bounded store of what was worked out lately: the oldest goes when there is too much of it.

It lives in memory and is not shared; answers are kept in `cache.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The values that were used last, up to a number of bytes; one larger than all is not kept.

    Args:
        max_bytes (`int`): how much is kept.

    Example:
        >>> recent = Recent(10)
        >>> for name in "ab":
        ...     recent.put(name, name.upper(), 6)
        >>> recent.get("a"), recent.get("b")
        (None, 'B')
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """The value of a key, which is the last to go from now on; `None` where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: T, num_bytes: int) -> None:
        """Keeps a value under a key that is not there."""
        if num_bytes > self.max_bytes:
            return
        self._values[key] = value, num_bytes
        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forgets all."""
        self._values.clear()
        self.num_bytes = 0
