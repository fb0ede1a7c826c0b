"""From texts to token ids: the chat template around a text, whose control tokens are read as plain text.

Models are not run here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
_PLAIN_TAIL = "\nAnswer:"
SENTINEL = "Question: sentinel"
"""Stands where the question goes while the template is read."""


class TextEncoder:
    """Puts the chat template around texts and tokenises them, many at once.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the model.
        head (`str`), tail (`str`): what the template puts before and after a text.
        has_template (`bool`, *optional*, defaults to `True`): whether there is one.
        before (`int64[T]`, *optional*): tokens that stand before the head and are not encoded here.
    """

    def __init__(
        self, tokenizer: Any, head: str, tail: str, *, has_template: bool = True, before: Ids | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.head, self.tail = head, tail
        self.has_template = has_template
        sample = self._tokenize([self._wrap(SENTINEL)])
        self.sample = sample[0]
        # Some chat formats are made of added tokens that are not marked as special.
        used = {*self.sample.tolist(), *([] if before is None else before.tolist())}
        added = tokenizer.added_tokens_decoder.items()
        control = {key: str(token) for key, token in added if token.special or (key in used and str(token).strip())}
        self._control_ids = np.array(sorted(control), np.int64)
        self._control = re.compile(f"(?={'|'.join(map(re.escape, control.values()))})" if control else r"(?!)")
        self._num_control = self._count_control(sample)[0]

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Tokenises texts inside the template.

        Args:
            texts (`Sequence[str]`): N texts of valid Unicode.

        Returns:
            `list[int64[T]]`: the ids that `apply_chat_template` gives, but that control tokens in a text are tokenised
            as what they look like.
        """
        rows = self._tokenize([self._wrap(text) for text in texts])
        for index in np.flatnonzero(self._count_control(rows) != self._num_control).tolist():
            rows[index] = self._encode_hostile(texts[index])
        return rows

    def encode_plain(self, text: str) -> Ids:
        """Tokenises a text by itself."""
        return self._tokenize([text], add_special_tokens=False)[0]

    def decode(self, rows: Sequence[Ids]) -> list[str]:
        """The texts of completions, without control tokens."""
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    def encode_behind(self, endings: Sequence[str]) -> list[int | None]:
        """The one token that each ending adds to a prompt (`int`); `None` where it is not exactly one more."""
        context = self._wrap(SENTINEL)
        before, *after = self._tokenize([context, *(context + ending for ending in endings)])
        is_one = [len(row) == len(before) + 1 and np.array_equal(row[:-1], before) for row in after]
        return [int(row[-1]) if one else None for row, one in zip(after, is_one, strict=True)]

    def _wrap(self, text: str) -> str:
        return f"{self.head}{text}{self.tail}"

    def _tokenize(self, texts: Sequence[str], **settings: Any) -> list[Ids]:
        # A template brings its own first token.
        settings.setdefault("add_special_tokens", not self.has_template)
        found = self.tokenizer(list(texts), return_attention_mask=False, verbose=False, **settings)
        return [np.asarray(row, np.int64) for row in found["input_ids"]]

    def _count_control(self, rows: list[Ids]) -> Ids:
        is_control = np.isin(np.concatenate(rows), self._control_ids)
        starts = np.cumsum([0, *map(len, rows[:-1])])
        return np.add.reduceat(is_control, starts, dtype=np.int64)

    def _encode_hostile(self, text: str) -> Ids:
        if not self.has_template:
            return self._tokenize([self._wrap(text)], split_special_tokens=True)[0]
        # Cut behind its first character, a control token is none.
        starts = [0, *(match.start() + 1 for match in self._control.finditer(text))]
        parts = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        head, tail = self._tokenize([self.head, self.tail])
        return np.concatenate([head, *self._tokenize(parts, split_special_tokens=True), tail])


def make_text_encoder(tokenizer: Any, template: str | None, *, reasoning: bool) -> TextEncoder:
    """The encoder of prompts without pictures.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the model.
        template (`str`, *optional*): its chat template; without one a text is followed by "Answer:".
        reasoning (`bool`): whether the model is asked to think first.

    Raises:
        `ValueError`: when the template does not show the text exactly once.
    """
    if template is None:
        return TextEncoder(tokenizer, "", "\n" if reasoning else _PLAIN_TAIL, has_template=False)
    return TextEncoder(tokenizer, *_split_template(tokenizer, template, reasoning))


def _split_template(tokenizer: Any, template: str, reasoning: bool) -> tuple[str, str]:
    """What a chat template puts before and after a user's text."""
    contents: list[Any] = [SENTINEL, [{"type": "text", "text": SENTINEL}]]  # of language models; of some VLMs
    for content in contents:
        parts = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=reasoning,
        ).split(SENTINEL)
        if len(parts) == 2:
            return parts[0], parts[1]
    raise ValueError("the model's chat template does not show what the user says exactly once; it cannot be used")
