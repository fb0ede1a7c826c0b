"""In which orders the options of a question are shown, one order a trial.

The data's own order is nobody's choice: it mixes a model's habit of preferring letters with where the gold was put.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from vidground_hf.schema import Example


def draw_orders(example: Example, num_trials: int, seed: int | None = 0) -> list[tuple[int, ...]]:
    """Draws the orders of a row's trials.

    The first is a random rotation of the options, then come the other rotations, and then random permutations. They
    depend on the seed and on the words of the row, not on its place in a dataset, and more trials begin with the
    same orders.

    Args:
        example (`Example`): N options.
        num_trials (`int`): how many orders, at least 0.
        seed (`int`, *optional*, defaults to 0): another seed, other orders; `None` begins with the data's own order.

    Returns:
        `list[tuple[int, ...]]`: `num_trials` permutations of 0 to N - 1; of a question without options `()` each.

    Example:
        >>> example = Example(id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue", "sea"))
        >>> draw_orders(example, 4)
        [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    """
    return list(islice(iterate_orders(example, seed), num_trials))


def iterate_orders(example: Example, seed: int | None) -> Iterator[tuple[int, ...]]:
    """Yields the orders that `draw_orders` lists, without end."""
    num_options = len(example.options)
    rng = _make_generator(example, "orders", 0 if seed is None else seed)
    first = rng.randrange(num_options) if num_options and seed is not None else 0
    for trial in range(max(num_options, 1)):
        yield tuple((first + trial + k) % num_options for k in range(num_options))
    while True:
        yield tuple(rng.sample(range(num_options), num_options))


def count_orders(options: Sequence[str]) -> int:
    """In how many ways options can be shown, where equal ones cannot be told apart.

    Example:
        >>> count_orders(["red", "blue", "sea"]), count_orders(["red", "red", "sea"]), count_orders([])
        (6, 3, 1)
    """
    return math.factorial(len(options)) // math.prod(map(math.factorial, Counter(options).values()))


def draw_shares(examples: Sequence[Example], seed: int = 0, *, num_before: Sequence[int] | None = None) -> list[float]:
    """Draws a number in [0, 1) for each row, from the seed and the words of the row.

    Rows with the same words have numbers of their own: each is told how many of them came before.

    Args:
        examples (`Sequence[Example]`): N rows.
        seed (`int`, *optional*, defaults to 0): another seed, other numbers.
        num_before (`Sequence[int]`, *optional*): for each of the N rows, how many with the same words came before it
            in the whole set; counted among the N when left out.

    Example:
        >>> example = Example(id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue", "sea"))
        >>> [round(share, 3) for share in draw_shares([example, example])]
        [0.533, 0.624]
    """
    if num_before is None:
        seen: Counter[tuple[str, ...]] = Counter()
        num_before = []
        for example in examples:
            words = (example.question, *example.options)
            num_before.append(seen[words])
            seen[words] += 1
    rows = zip(examples, num_before, strict=True)
    return [_make_generator(example, f"share {number}", seed).random() for example, number in rows]


def _make_generator(example: Example, purpose: str, seed: int) -> random.Random:
    content = "\x1f".join([purpose, str(seed), example.question, *example.options])
    return random.Random(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest())
