"""Which server is asked, and with which key.

Sends nothing. A key is read when it is needed and is part of no name, message, pickle or file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from huggingface_hub import get_token

KEY_VARIABLE = "VIDGROUND_ENDPOINT_KEY"
_NO_KEY = "none"


@dataclass(frozen=True, slots=True)
class Server:
    """A model behind a chat-completion server.

    Args:
        model (`str`): as the server calls it.
        base_url (`str`, *optional*): an OpenAI-compatible server, without a slash at the end.
        provider (`str`, *optional*): an Inference Provider, or `"auto"`. Exactly one of the two is given.

    Raises:
        `ValueError`: for no model, none or both of the two, and a URL that holds a password or is none.
    """

    model: str
    base_url: str | None
    provider: str | None

    def __post_init__(self) -> None:
        if (self.base_url is None) == (self.provider is None):
            raise ValueError(
                "one of base_url and provider is needed, got "
                f"base_url = {self.base_url!r} and provider = {self.provider!r}"
            )
        if not self.model or "://" in self.model:
            raise ValueError(
                f"model = {self.model!r} is no model; pass its name, and the address of the server as base_url"
            )
        if self.base_url is not None:
            _check_url(self.base_url)

    @property
    def id(self) -> str:
        if self.base_url is not None:
            return f"endpoint:{self.model}@{self.base_url}"
        return f"provider:{self.model}@{self.provider}"

    def read_key(self) -> str:
        """The key to send (`str`): of the Hub for a provider, else `$VIDGROUND_ENDPOINT_KEY` or the word `none`.

        Raises:
            `ValueError`: when there is no Hub token, or the key cannot be sent.
        """
        if self.base_url is None:
            token = get_token()
            if token is None:
                raise ValueError(f"{self.id} needs a Hub token, none is stored; run `hf auth login` or set HF_TOKEN")
            return token
        # Given no key the client would send the user's Hub token to whoever runs this server.
        key = os.environ.get(KEY_VARIABLE, "").strip() or _NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"{KEY_VARIABLE} holds characters that no header can carry; set it again")
        return key

    def advise(self, status: int) -> str:
        """What to do (`str`) about an HTTP status that will not get better."""
        if status in (404, 405):
            return "Check the name of the model and the address"
        if self.base_url is None:
            return "Run `hf auth login`, or set HF_TOKEN to a token that may call Inference Providers"
        return f"Set {KEY_VARIABLE} to a key of this server"


def blot_key(text: str, key: str) -> str:
    """Replaces a key that a server says back."""
    return text if key == _NO_KEY else text.replace(key, "***")


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url = {url!r} is no address of a server; pass one like http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        # The address is part of names, reports and the cache.
        raise ValueError(f"base_url holds a password or a query; leave it out and set {KEY_VARIABLE} to the key")
