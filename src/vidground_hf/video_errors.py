"""What a video that cannot be read raises, and how its source is called without giving a secret away.

Nothing is opened here.
"""

from __future__ import annotations

import re

_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)([^\s/@'\"]*@)?([^\s?#'\"<>]*)([?#][^\s'\"<>]*)?")
ADVICE = "check that the file is whole, or try another backend"
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?i:bearer)\s+\S+")


def hide_secrets(text: str) -> str:
    """A text without the logins, queries and tokens of the URLs in it.

    Example:
        >>> hide_secrets("cannot open https://me:pass@host/a.mp4?token=x today")
        'cannot open https://host/a.mp4 today'
    """
    return _TOKEN.sub("***", _URL.sub(r"\1\3", text))


class VideoReadError(RuntimeError):
    """A video, or a frame of it, that cannot be read.

    Attributes:
        path (`str`): the path or URL, without login and query, or what the bytes are called.
        backend (`str`, *optional*): who was to decode; `None` where it did not come to that.
        cause (`str`): what went wrong, in one line.
    """

    def __init__(self, path: str, backend: str | None, cause: str, advice: str = ADVICE) -> None:
        self.path = hide_secrets(path)
        self.backend = backend
        self.cause = " ".join(hide_secrets(cause).split())
        self.advice = advice
        super().__init__(f"{self.path} cannot be read by {backend or 'any backend'}: {self.cause}; {advice}")

    def __reduce__(self) -> tuple[type[VideoReadError], tuple[str, str | None, str, str]]:
        return type(self), (self.path, self.backend, self.cause, self.advice)


def describe_cause(error: BaseException) -> str:
    """The words of an error in one line, with its type.

    Example:
        >>> describe_cause(ValueError("no such\\nthing"))
        'ValueError: no such thing'
    """
    words = [getattr(error, "strerror", None) or str(error)]
    words += [line[2] for line in [getattr(error, "log", None)] if line]  # FFmpeg's own last message
    return f"{type(error).__name__}: {' '.join(' '.join(words).split())}".removesuffix(": ")
