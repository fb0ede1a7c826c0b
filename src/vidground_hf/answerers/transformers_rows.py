"""From texts behind what a model has seen to answers, in batches: letters from one forward pass, or in writing.

How clips are seen is `transformers_visual.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_batches import Batch, Cluster, find_clusters, pack
from vidground_hf.answerers.transformers_engine import Engine, OnAnswer, add_costs, name_question
from vidground_hf.answerers.transformers_forward import gather_letters, run_in_halves
from vidground_hf.answerers.transformers_generation import make_seed, write_answers
from vidground_hf.answerers.transformers_sight import Seen, extend, read_seen_logits
from vidground_hf.answerers.transformers_tokens import Ids, TextEncoder
from vidground_hf.prompts import Prompt

# A column that is read from memory beside one that is computed; our guess.
_KEPT_PER_COMPUTED = 16


class Row(NamedTuple):
    """One text behind what its prompts have seen.

    Attributes:
        seen (`Seen`): the frames and all before the text.
        ids (`int64[T]`): the text and what the template puts behind it.
        owners (`list[int]`): the prompts that ask exactly this.
        seconds (`float`): a prompt's share of the time that seeing took.
    """

    seen: Seen
    ids: Ids
    owners: list[int]
    seconds: float

    @property
    def size(self) -> int:
        """In tokens that are computed."""
        return len(self.ids) + len(self.seen.ids) // _KEPT_PER_COMPUTED


class RowEngine:
    """Answers rows of text.

    Args:
        engine (`Engine`): the model and how it is asked.
        encoder (`TextEncoder`): of the texts.
        keeps_layers (`bool`): whether rows may go together; see `transformers_sight.can_keep`.
    """

    def __init__(self, engine: Engine, encoder: TextEncoder, *, keeps_layers: bool) -> None:
        self.engine = engine
        self.encoder = encoder
        self.keeps_layers = keeps_layers

    def make_rows(
        self,
        prompts: Sequence[Prompt],
        texts: Mapping[int, Ids],
        owners: Sequence[int],
        seen: Seen | str,
        seconds: float,
        on_answer: OnAnswer,
    ) -> list[Row]:
        """Puts texts behind what was seen, equal ones once."""
        rows: dict[Hashable, Row] = {}
        for index in owners:
            ids = texts[index]
            error = seen if isinstance(seen, str) else self.engine.find_error(prompts[index], len(seen.ids) + len(ids))
            if isinstance(seen, str) or error is not None:
                on_answer(index, Answer(text=None, error=error))
                continue
            is_scored = self.engine.is_scored(prompts[index])
            trial = prompts[index].trial_index if self.engine.temperature > 0 and not is_scored else 0
            rows.setdefault((ids.tobytes(), trial, is_scored), Row(seen, ids, [], seconds)).owners.append(index)
        return list(rows.values())

    def answer_rows(self, prompts: Sequence[Prompt], rows: Sequence[Row], on_answer: OnAnswer) -> None:
        scored = [row for row in rows if self.engine.is_scored(prompts[row.owners[0]])]
        written = [row for row in rows if not self.engine.is_scored(prompts[row.owners[0]])]
        keys = [(id(row.seen), name_question(prompts[row.owners[0]])) for row in scored]
        self._run(prompts, scored, find_clusters([row.ids for row in scored], keys), self._score, on_answer)
        alone = [Cluster((number,), 0, len(row.ids) + self.engine.num_written) for number, row in enumerate(written)]
        self._run(prompts, written, alone, self._write, on_answer)

    def _run(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[Row],
        clusters: list[Cluster],
        ask: Callable[[Sequence[Prompt], Sequence[Row], Batch], list[list[Answer]]],
        on_answer: OnAnswer,
    ) -> None:
        """Asks in batches, and hands the answers over with what they took."""

        def run(batch: Batch) -> None:
            chosen = [rows[number] for number in batch.rows]
            self.engine.num_in_flight, start = sum(len(row.owners) for row in chosen), perf_counter()
            answers = ask(prompts, rows, batch)
            seconds = (perf_counter() - start) / self.engine.num_in_flight
            for row, row_answers in zip(chosen, answers, strict=True):
                for index, answer in zip(row.owners, row_answers, strict=True):
                    on_answer(index, _add_sight(answer, row, seconds))

        def give_up(batch: Batch) -> None:
            for row in (rows[number] for number in batch.rows):
                error = f"the prompt's {len(row.seen.ids) + len(row.ids)} tokens do not fit in the memory"
                for index in row.owners:
                    on_answer(index, Answer(text=None, error=error))

        if not self.keeps_layers:
            clusters = [Cluster((number,), 0, len(row.ids)) for number, row in enumerate(rows)]
        sized = [_add_size(cluster, rows) for cluster in clusters]
        run_in_halves(pack(sized, self.engine.max_batch_tokens if self.keeps_layers else 1), run, give_up)

    def _score(self, prompts: Sequence[Prompt], rows: Sequence[Row], batch: Batch) -> list[list[Answer]]:
        seen: list[Seen] = []
        texts: list[Ids] = []
        for cluster in batch.clusters:
            first = rows[cluster.rows[0]]
            shared = first.ids[: cluster.num_shared]
            begun = extend(self.engine.loaded, first.seen, shared) if len(shared) else first.seen
            seen += [begun] * len(cluster.rows)
            texts += [rows[number].ids[cluster.num_shared :] for number in cluster.rows]
        logits = gather_letters(read_seen_logits(self.engine.loaded, seen, texts), self.engine.columns)
        return [
            [self.engine.choose(prompts[index], row_logits) for index in rows[number].owners]
            for number, row_logits in zip(batch.rows, logits, strict=True)
        ]

    def _write(self, prompts: Sequence[Prompt], rows: Sequence[Row], batch: Batch) -> list[list[Answer]]:
        chosen = [rows[number] for number in batch.rows]
        firsts = [prompts[row.owners[0]] for row in chosen]
        answers = write_answers(
            self.engine.loaded,
            self.encoder,
            [row.ids for row in chosen],
            seeds=[make_seed(prompt.text, prompt.trial_index) for prompt in firsts],
            max_tokens=self.engine.max_tokens,
            temperature=self.engine.temperature,
            reasoning_tokens=self.engine.reasoning_tokens,
            seen=[row.seen for row in chosen],
        )
        return [[answer] * len(row.owners) for row, answer in zip(chosen, answers, strict=True)]


def _add_size(cluster: Cluster, rows: Sequence[Row]) -> Cluster:
    """Counts what is read from memory as tokens of each row, so that batches stay bounded."""
    num_kept = len(rows[cluster.rows[0]].seen.ids) // _KEPT_PER_COMPUTED
    return cluster._replace(num_own=cluster.num_own + num_kept)


def _add_sight(answer: Answer, row: Row, seconds: float) -> Answer:
    return add_costs(
        answer,
        num_frames=row.seen.num_frames,
        num_visual_tokens=row.seen.num_visual_tokens,
        num_prompt_tokens=len(row.seen.ids) + len(row.ids),
        seconds=row.seconds + seconds,
        decoder=row.seen.decoder,
    )
