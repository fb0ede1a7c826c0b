"""`Traffic`: what an answerer has sent in all its runs, and why it sends no more.

Sends nothing, and does not decide when to stop; see `endpoint_run.py`.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """The requests of all runs of one answerer, and why no more are sent, once there is a reason.

    Attributes:
        max_requests (`int`, *optional*): what may be sent in all.
        num_sent (`int`): tries included.
        num_in_flight (`int`): sent and not yet answered.
        num_answered (`int`): answers that came.
        num_failed_in_a_row (`int`): questions given up since the last answer.
        num_refused (`int`): questions that the server refused.
        stop_reason (`str`, *optional*): holds for later runs as well, until `begin_run` forgets it.
    """

    max_requests: int | None
    num_sent: int = 0
    num_in_flight: int = 0
    num_answered: int = 0
    num_failed_in_a_row: int = 0
    num_refused: int = 0
    stop_reason: str | None = None
    _stopped_until: float = math.inf
    _key_digest: str | None = field(default=None, repr=False)

    def begin_run(self, key: str) -> None:
        """Forgets why the last run stopped if the key is another one now, or the time is over."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        if digest != self._key_digest or time.monotonic() >= self._stopped_until:
            self.stop_reason = None
            self.num_failed_in_a_row = self.num_refused = 0
        self._key_digest = digest

    def stop(self, reason: str, seconds: float) -> None:
        """Sends nothing more for some time; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stopped_until = time.monotonic() + seconds
