"""What a server's reply means: an answer, or what to do instead.

Sends nothing, and does not look for an option in a text; log-probabilities are read by `endpoint_letters.py`.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from huggingface_hub.errors import HfHubHTTPError

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint_letters import read_option_logprobs
from vidground_hf.answerers.endpoint_server import Server, blot_key

# Our guess: a refused key, an unknown model or an empty account will not get better by asking again.
_FATAL = {
    401: "does not accept the key",
    402: "asks for payment",
    403: "does not allow this key to use the model",
    404: "does not know the model or the address",
    405: "does not answer chat completions at this address",
}
_RETRIED = frozenset({408, 409, 425, 429})
_NOT_IMPLEMENTED = 501  # the server lacks what was asked for (RFC 9110, section 15.6.2); asking again is no use
_MAX_WAIT_SECONDS = 300.0  # our guess
_MAX_SAID = 20_000  # our guess: what of a message is looked at
_PIXELS = re.compile(r"[A-Za-z0-9+/=]{100,}")  # base64, which a server may say back
# How servers say that they take no frames or fewer of them; one that is too long for its context is another matter.
_UNSEEN = re.compile(r"image|vision|video|multi-?modal|modalit|mmproj", re.IGNORECASE)
_TOO_LONG = re.compile(r"length|tokens|context", re.IGNORECASE)
_UNSEEN_STATUSES = frozenset({400, 404, 415, 422, 500, 501})
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that gave no answer: try it again, leave the question, slow down, or stop asking altogether.

    A question that the server refused is left, too, but a server that refuses all is not asked on. One whose frames it
    refused is `unseen`.
    """

    then: Literal["retry", "leave", "refused", "unseen", "slow_down", "stop"]
    reason: str
    wait_seconds: float = 0.0
    num_prompt_tokens: int | None = None


def read_reply(reply: Any, options: tuple[str, ...], max_tokens: int) -> Answer | Failure:
    """Reads a chat completion.

    Args:
        reply (`ChatCompletionOutput`): as `huggingface_hub` parsed it.
        options, max_tokens: as in `read_choice`.

    Returns:
        `Answer` or `Failure`: as from `read_choice`, with the tokens that the server says it read and wrote.
    """
    outcome = read_choice(reply.choices[0], options, max_tokens)
    num_prompt_tokens = _read_count(reply.usage, "prompt_tokens")
    if isinstance(outcome, Failure):
        return replace(outcome, num_prompt_tokens=num_prompt_tokens)
    return replace(
        outcome,
        num_prompt_tokens=num_prompt_tokens,
        num_answer_tokens=_read_count(reply.usage, "completion_tokens"),
    )


def _read_count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count > 0 else None


def read_choice(choice: Any, options: tuple[str, ...], max_tokens: int) -> Answer | Failure:
    """Reads the choice of a chat completion.

    Args:
        choice (`ChatCompletionOutputComplete`): as `huggingface_hub` parsed it.
        options (`tuple[str, ...]`): as they were shown.
        max_tokens (`int`): what was asked for, for the message.

    Returns:
        `Answer` or `Failure`: an answer where there is text after what the model thought.
    """
    text, finish_reason = choice.message.content, choice.finish_reason
    if not isinstance(text, str) or not text.strip() or (finish_reason == "length" and _is_still_thinking(text)):
        if finish_reason == "length":
            reason = f"{max_tokens} tokens were written without an answer; a model that reasons needs more"
            return Failure("leave", reason)
        return Failure("retry", "the reply holds no text")
    content = choice.logprobs.content if choice.logprobs is not None else None
    logprobs = read_option_logprobs(content, text, options) if content else None
    return Answer(
        # A lone surrogate cannot be stored in a dataset.
        text=text.encode("utf-8", "replace").decode(),
        option_logprobs=logprobs,
        finish_reason=finish_reason,
    )


def _is_still_thinking(text: str) -> bool:
    return "<think>" in text and "</think>" not in text and "<answer>" not in text


def read_error(error: HfHubHTTPError, server: Server, key: str, num_frames: int | None = None) -> Failure:
    """Reads an HTTP error, without the key and the pixels if the server says them back.

    Args:
        error (`HfHubHTTPError`): what came.
        server (`Server`): that was asked.
        key (`str`): that was sent.
        num_frames (`int`, *optional*): how many the prompt shows.
    """
    status = error.response.status_code
    said = blot_key(error.server_message or error.response.text, key)
    said = " ".join(_PIXELS.sub("***", said[:_MAX_SAID])[:200].split())
    reason = f"the server said HTTP {status}" + (f": {said}" if said else "")
    if num_frames is not None and (refusal := _explain_refusal(status, said, reason, server, num_frames)) is not None:
        return refusal
    if status in _FATAL:
        return Failure("stop", f"{server.id} {_FATAL[status]} ({reason}). {server.advise(status)}")
    if status == _NOT_IMPLEMENTED or (status not in _RETRIED and status < 500):
        return Failure("refused", reason)
    wait_seconds = read_retry_after(error.response.headers.get("retry-after"))
    if wait_seconds > _MAX_WAIT_SECONDS:
        return Failure("stop", f"{reason} and asks to wait {wait_seconds:.0f} s; run again after that", wait_seconds)
    return Failure("slow_down" if status == 429 else "retry", reason, wait_seconds)


def _explain_refusal(status: int, said: str, reason: str, server: Server, num_frames: int) -> Failure | None:
    """What to do where a server takes no frames, or fewer of them; nothing where it is something else."""
    if status == _TOO_LARGE:
        advice = f"{num_frames} frames are too many bytes for it; lower --frames or --max-pixels"
        return Failure("refused", f"{reason}. {advice}")
    if status not in _UNSEEN_STATUSES or not _UNSEEN.search(said):
        return None
    if _TOO_LONG.search(said):
        return Failure("refused", f"{reason}. Lower --frames or --max-pixels")
    return Failure(
        "unseen",
        f"{server.id} refuses {num_frames} frames ({reason}). Ask a model that takes images or videos; if this one "
        "does, lower --frames or raise what its server takes in a prompt (vLLM: --limit-mm-per-prompt)",
    )


def read_retry_after(value: str | None) -> float:
    """Seconds to wait, from a `Retry-After` header (RFC 9110, section 10.2.3); 0 when it says nothing usable.

    Example:
        >>> read_retry_after("2"), read_retry_after("soon"), read_retry_after(None)
        (2.0, 0.0, 0.0)
    """
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except ValueError:
        return 0.0
