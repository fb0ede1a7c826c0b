"""Stage one of a curation: a shard of rows to a table of trials, by whatever engine runs it.

`ask_shard` knows one shard and nothing else; what needs the whole set is done with the tables, in `judgement.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from vidground_hf.answerers.base import Answer, ModelAnswerer
from vidground_hf.asking import CALLS, Asking, ask_trials, open_cache
from vidground_hf.cache import AnswerStore
from vidground_hf.environment import read_version
from vidground_hf.facts import Facts
from vidground_hf.judging import list_errors, make_trial, weigh_trials
from vidground_hf.orders import draw_shares
from vidground_hf.progress import AskingBar
from vidground_hf.reading import RowSource
from vidground_hf.schema import Example
from vidground_hf.set_rules import Calibrated, FittedCalibrated
from vidground_hf.shards import ShardFolder, count_shards, find_bounds
from vidground_hf.trial_tables import has_errors, pack_trials, unpack_trials
from vidground_hf.trials import Trial


def ask_shard(
    asking: Asking,
    examples: Sequence[Example],
    *,
    num_before: Sequence[int],
    followed_share: float,
    cache: AnswerStore | None,
    bar: AskingBar,
) -> pa.Table:
    """Asks about the rows of one shard until their verdicts stand.

    What it gives depends on its arguments alone, and for a row on that row alone, but for the last bit of a
    confidence: so it may run anywhere, in any order, as long as shards are cut in the same places.

    Args:
        asking (`Asking`): who, what and for which rule.
        examples (`Sequence[Example]`): the N rows of the shard.
        num_before (`Sequence[int]`): for each, how many rows with the same question and options came before it in the
            whole set: `Facts.num_before`.
        followed_share (`float`): `asking.find_followed_share` of the number of rows of the whole set.
        cache (`AnswerStore`, *optional*): where answers are looked up and kept; needed for models.
        bar (`AskingBar`): counts what is asked.

    Returns:
        `pa.Table`: N rows with `TRIAL_SCHEMA`.

    Example:
        >>> from vidground_hf.answerers.base import ConstantAnswerer
        >>> from vidground_hf.rules import single_shot
        >>> example = Example(
        ...     id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue"), answer_index=1
        ... )
        >>> asking = Asking(answerers=(ConstantAnswerer("B"),), rule=single_shot(), view="text")
        >>> bar = AskingBar(total=0, show=False)
        >>> table = ask_shard(asking, [example], num_before=[0], followed_share=1.0, cache=None, bar=bar)
        >>> table["trials"][0][0]["text"].as_py()
        'blue'
    """
    is_drawn = draw_followed(asking, examples, num_before, followed_share)
    return weigh_shard(asking, examples, ask_trials(asking, examples, is_drawn=is_drawn, cache=cache, bar=bar))


def draw_followed(
    asking: Asking, examples: Sequence[Example], num_before: Sequence[int], followed_share: float
) -> list[bool]:
    """Which of some rows are followed up even if their first answer is wrong; see `ask_shard`."""
    shares = draw_shares(examples, asking.seed, num_before=num_before)
    return [share < followed_share for share in shares]


def weigh_shard(asking: Asking, examples: Sequence[Example], rows: Sequence[Sequence[Trial]]) -> pa.Table:
    """What `ask_shard` makes of the trials of its rows."""
    is_calibrated = isinstance(asking.rule, (Calibrated, FittedCalibrated))
    states = [trials[0].confidence is not None for trials in rows]
    return pack_trials(weigh_trials(examples, rows, confident=[is_calibrated] * len(rows)), states)


def ask_source(
    asking: Asking, source: RowSource, facts: Facts, folder: ShardFolder, *, progress: bool
) -> dict[str, int]:
    """Asks about every shard that a folder lacks, one after the other, and keeps each as soon as it is whole.

    A shard with a row that got no answer is kept for this run alone.

    Returns:
        `dict[str, int]`: the calls of all shards; see `asking.Asked`.
    """
    shards = range(count_shards(len(source)))
    found = {shard: calls for shard in shards if (calls := folder.find_calls(shard)) is not None}
    total = dict.fromkeys(CALLS, 0)
    followed_share = asking.find_followed_share(len(source))
    num_left = sum(len(range(*find_bounds(shard, len(source)))) for shard in shards if shard not in found)
    num_shown = 0
    with open_cache(asking.answerers) as cache, AskingBar(total=0, show=progress) as bar:
        for shard in shards:
            if shard not in found:
                start, stop = find_bounds(shard, len(source))
                num_shown += stop - start
                bar.share = num_shown / num_left
                before = {name: bar.counts[name] for name in CALLS}
                table = ask_shard(
                    asking, source.read(start, stop), num_before=facts.num_before[start:stop].tolist(),
                    followed_share=followed_share, cache=cache, bar=bar,
                )  # fmt: skip
                found[shard] = {name: bar.counts[name] - before[name] for name in CALLS}
                folder.write(shard, table, found[shard], is_finished=not found[shard]["failed"])
            for name in CALLS:
                total[name] += found[shard][name]
    return total


def describe_asking(asking: Asking, source: RowSource, facts: Facts, rule_name: str) -> dict[str, Any]:
    """Everything that the trials of a set depend on, as JSON, for the manifest of a `ShardFolder`."""
    return {
        "version": read_version("vidground-hf"),
        "content": facts.fingerprint,
        "num_rows": len(source),
        "adapter": source.adapter.name,
        "columns": list(source.adapter.columns),
        "roles": dict(source.adapter.roles),
        "answerers": [describe_answerer_key(one) for one in asking.answerers],
        "rule": rule_name,
        "view": asking.view,
        "samples": asking.samples,
        "seed": asking.seed,
    }


def describe_answerer_key(answerer: Any) -> Mapping[str, Any]:
    """Who is asked and how, as far as it changes answers."""
    sampling = answerer.sampling if isinstance(answerer, ModelAnswerer) else {}
    return {"id": answerer.id, "sampling": dict(sampling)}


def find_errors(folder: ShardFolder, num_rows: int) -> list[str]:
    """Why rows lack an answer that was asked for, one reason a row; reads every shard."""
    tables = (folder.read(shard) for shard in range(count_shards(num_rows)))
    return [error for table in tables if has_errors(table) for error in list_errors(unpack_trials(table))]


def keep_answers(answered: Iterable[tuple[Example, Answer]], num_rows: int, folder: ShardFolder) -> None:
    """Keeps the answers of a probe as the trials of its set; one a row, in the order of the rows."""
    remaining = iter(answered)
    for shard in range(count_shards(num_rows)):
        start, stop = find_bounds(shard, num_rows)
        own = list(islice(remaining, stop - start))
        states = [answer.confidence is not None for _, answer in own]
        folder.write(shard, pack_trials([[make_trial(*row)] for row in own], states), {}, is_finished=True)
