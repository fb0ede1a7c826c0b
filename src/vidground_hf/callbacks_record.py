"""What a model answered at the evaluations of a training, kept by its weights: a resumed run does not ask again.

Nobody is asked here; that is `callbacks_gap.py`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vidground_hf.callbacks_rows import Asked, GapRow

RECORD_NAME = "_gap_answers.jsonl"
"""Beside the checkpoints; `Trainer.push_to_hub` leaves out names that begin so."""


class AnswerRecord:
    """A file with one line an evaluation: which weights chose which options of which rows.

    Args:
        path (`Path`): of the file, made with the first evaluation.
        rows (`Sequence[GapRow]`): all that may be asked; other rows, prompts or frames find nothing.
    """

    def __init__(self, path: Path, rows: Sequence[GapRow]) -> None:
        self.path = path
        self.rows_name = hashlib.sha256(repr([row.prompts for row in rows]).encode("utf-8", "surrogatepass"))
        self.known: dict[str, list[Asked]] | None = None

    def name(self, model: Any) -> str:
        """Names the answers of a model by its weights and the rows."""
        return hashlib.sha256(self.rows_name.digest() + digest_weights(model)).hexdigest()

    def find(self, name: str) -> list[Asked]:
        """The answers under a name; none where there are none."""
        if self.known is None:
            self.known = dict(map(_read_line, self._read_lines()))
        return self.known.get(name, [])

    def keep(self, name: str, asked: Sequence[Asked]) -> None:
        """Writes answers down."""
        self.find(name)
        self.known = {**(self.known or {}), name: list(asked)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "asked": asked}) + "\n")

    def _read_lines(self) -> list[str]:
        """All lines but what a crash cut off, which is ended so that the next one begins anew."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole, end, cut = text.rpartition("\n")
        if cut:
            self.path.write_text(whole + end, encoding="utf-8")
        return whole.splitlines()


def digest_weights(model: Any) -> bytes:
    """Tells a model from what it was a step before, in a fraction of the time that reading its weights out takes.

    Args:
        model (`torch.nn.Module`): whole in this process.

    Returns:
        `bytes`: 32 of them.
    """
    import torch

    digest = hashlib.sha256()
    for name, weight in chain(model.named_parameters(), model.named_buffers()):
        values = weight.detach() if weight.is_cuda else weight.detach().cpu()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        if values.numel():
            # Row by row: within one, it does not count where a value stands, nor what is there twice.
            rows = values.reshape(values.shape[0] if values.dim() > 1 else 1, -1)
            digest.update(torch.hash_tensor(rows, 1).cpu().numpy().tobytes())
    return digest.digest()


def _read_line(line: str) -> tuple[str, list[Asked]]:
    kept = json.loads(line)
    return kept["name"], [Asked(*values) for values in kept["asked"]]
