"""What the toy model is told in training besides the letters: linear readers of its inner states, and their targets.

They lead it part by part: what a cell shows, where it is, where its thing was before, what comes first and last. They
are left behind when the model is saved. The model itself runs in `toy_vlm_training.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot, pad
from toy_vlm_data import MAX_FRAMES, TOPICS, UNKNOWN, Asked, Group

from vidground_hf.toy_questions import NUM_OPTIONS
from vidground_hf.toy_world import CELL_NAMES, COLOURS, DIRECTIONS, GRID_CELLS, SHAPES

# Behind which language layer what is read: each needs what the ones before it give.
PLACE_LAYER, MATCH_LAYER, TURN_LAYER, REPORT_LAYER, ANSWER_LAYER, VERDICT_LAYER = range(1, 7)
NUM_TRAITS = len(COLOURS) + len(SHAPES)
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # rows and columns, as DIRECTIONS
# Found by trying: what all else waits for counts more.
WEIGHTS = {
    "steps": 3.0,
    "returns": 3.0,
    "traits": 3.0,
    "sights": 5.0,
    "turns": 3.0,
    "topics": 3.0,
    "verdicts": 2.0,
    "letters": 2.0,
}


Name: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class Hints(nn.Module):
    """The readers.

    Args:
        width (`int`): of the model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.content = nn.Linear(width, len(CELL_NAMES))
        self.place = nn.Linear(width, 2 * GRID_CELLS + MAX_FRAMES)
        self.step = nn.Linear(width, len(DIRECTIONS) + 1)
        self.is_back = nn.Linear(width, 1)
        self.turn = nn.Linear(width, 2 * len(DIRECTIONS) + 2)
        self.traits = nn.Linear(width, 3 * NUM_TRAITS)
        self.quarter = nn.Linear(width, 4)
        self.heading = nn.Linear(width, 2 * len(DIRECTIONS))
        self.topic = nn.Linear(width, len(TOPICS))
        self.letter = nn.Linear(width, NUM_OPTIONS)
        self.verdict = nn.Linear(width, 2)

    def grade_clip(
        self, group: Group, visual: torch.Tensor, states: Sequence[torch.Tensor], is_visual: torch.Tensor, name: Name
    ) -> dict[str, torch.Tensor]:
        """Losses of what is to be known once the video has been seen.

        Args:
            group (`Group`): the clips.
            visual (`float[V, W]`): what the vision tower gives.
            states (sequence of `float[G, T, W]`): behind each language layer.
            is_visual (`bool[G, T]`): which tokens are visual.
            name (`Callable`): what states (`float[..., W]`) say, in words (`float[..., 26]`, as `VISUAL_ANSWERS`).
        """
        cells = group.cells
        losses = {"cells": cross_entropy(self.content(visual), cells.flatten())}
        grids = torch.meshgrid(*(torch.arange(n) for n in cells.shape[1:]), indexing="ij")
        time, row, column = (grid.expand(cells.shape).flatten() for grid in grids)
        found = self.place(states[PLACE_LAYER][is_visual]).split([GRID_CELLS, GRID_CELLS, MAX_FRAMES], dim=1)
        losses["places"] = sum(cross_entropy(f, t) for f, t in zip(found, (row, column, time), strict=True))
        late = states[TURN_LAYER][is_visual]
        marks = mark_traits(cells).flatten(0, 1)
        losses["traits"] = binary_cross_entropy_with_logits(self.traits(late), marks.flatten(1))
        if cells.shape[1] > 2:
            losses |= self._grade_motion(cells, states[MATCH_LAYER][is_visual], late)
        if (group.sights != UNKNOWN).any():
            # Each of the last cells says one of them: a question then needs but look at the right cell.
            reports = states[REPORT_LAYER][is_visual].view(len(cells), -1, visual.shape[1])
            losses["sights"] = cross_entropy(name(reports[:, -6:]).flatten(0, 1), group.sights.flatten())
        return losses

    def _grade_motion(self, cells: torch.Tensor, early: torch.Tensor, late: torch.Tensor) -> dict[str, torch.Tensor]:
        steps = find_steps(cells)
        is_back = find_returns(cells)
        losses = {"turns": cross_entropy(self.turn(late), find_turns(steps, is_back).flatten())}
        is_back = is_back.flatten()
        if (steps != UNKNOWN).any():
            losses["steps"] = cross_entropy(self.step(early), steps.flatten())
        is_known = is_back != UNKNOWN
        target = is_back[is_known].float()
        losses["returns"] = binary_cross_entropy_with_logits(self.is_back(early)[is_known, 0], target)
        return losses

    def grade_topics(self, asked: Asked, states: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of what each question asks for.

        Args:
            asked (`Asked`): the questions.
            states (`float[R, T, W]`): of their tokens.
        """
        if (asked.topics == UNKNOWN).all():
            return {}
        read = states[torch.arange(len(states)), asked.question_ends]
        return {"topics": cross_entropy(self.topic(read), asked.topics)}

    def grade_mentions(
        self, group: Group, early: torch.Tensor, late: torch.Tensor, name: Name
    ) -> dict[str, torch.Tensor]:
        """Losses of a thing that a question mentions by colour or shape: the other of both, where it is, its moves.

        Args:
            group (`Group`): clips and questions.
            early (`float[R, T, W]`), late (`float[R, T, W]`): states of the questions' tokens.
            name (`Callable`): see `grade_clip`.
        """
        rows, places, named = group.asked.mentions.T
        clips = rows // (len(group.asked.ids) // len(group.cells))
        looks = group.cells.flatten(2)[clips]  # M, F, 16
        num = len(COLOURS)
        is_colour = (named < num)[:, None, None]
        is_it = (looks > 0) & (
            torch.where(is_colour, (looks - 1) % num, (looks - 1) // num + num) == named[:, None, None]
        )
        look = torch.where(is_it, looks, 0).flatten(1).amax(1)
        is_plain = (is_it.sum(2) == 1).all(1) & ((looks == look[:, None, None]) == is_it).flatten(1).all(1)
        if not is_plain.any():
            return {}
        clips, look, is_it, is_colour = clips[is_plain], look[is_plain], is_it[is_plain], named[is_plain] < num
        early, late = early[rows, places][is_plain], late[rows, places][is_plain]
        other = torch.where(is_colour, (look - 1) // num + num, (look - 1) % num)
        losses = {"mentions": cross_entropy(name(early)[:, :NUM_TRAITS], other)}
        stays = (is_it == is_it[:, :1]).flatten(1).all(1)
        if stays.any():
            cell = is_it[stays, 0].float().argmax(1)
            row, column = cell // GRID_CELLS, cell % GRID_CELLS
            losses["quarters"] = cross_entropy(self.quarter(late[stays]), row // 2 * 2 + column // 2)
        is_ordered = (group.sights[clips, 0] != UNKNOWN) & ~stays
        if is_ordered.any():
            steps = find_steps(group.cells).flatten(2)[clips]
            first, last = (torch.where(is_it[:, t], steps[:, t], UNKNOWN).amax(1)[is_ordered] for t in (2, 6))
            found = self.heading(late[is_ordered]).view(-1, 2, len(DIRECTIONS)).flatten(0, 1)
            losses["headings"] = cross_entropy(found, torch.stack([first, last], 1).flatten())
        return losses


def find_steps(cells: torch.Tensor) -> torch.Tensor:
    """Where each thing went within two frames: to a neighbouring cell or nowhere.

    Args:
        cells (`int64[G, F, 4, 4]`): positions in `CELL_NAMES`.

    Returns:
        `int64[G, F, 4, 4]`: a position in `DIRECTIONS`, 4 for nowhere, `UNKNOWN` for what was elsewhere or not there.
    """
    steps = torch.full_like(cells, UNKNOWN)
    before, now = cells[:, :-2], cells[:, 2:]
    for k, (row, column) in enumerate((*STEPS, (0, 0))):
        came_from = pad(before, (1, 1, 1, 1))[..., 1 - row : 5 - row, 1 - column : 5 - column]
        steps[:, 2:][(came_from == now) & (now > 0)] = k
    return steps


def find_turns(steps: torch.Tensor, is_back: torch.Tensor) -> torch.Tensor:
    """What makes its first move or its last, and what comes last; also told of the second frame of a phase.

    Args:
        steps (`int64[G, F, 4, 4]`): see `find_steps`.
        is_back (`int64[G, F, 4, 4]`): see `find_returns`.

    Returns:
        `int64[G, F, 4, 4]`: a position in `DIRECTIONS` for the first move, 4 more for the last; 8 for what comes last,
        9 for all else; `UNKNOWN` for empty cells and the first two frames.
    """
    turns = torch.where(is_back == UNKNOWN, UNKNOWN, 2 * len(DIRECTIONS) + 1)
    turns[:, 6:][is_back[:, 6:] == 0] = 2 * len(DIRECTIONS)
    for offset, frames in ((0, slice(2, 4)), (len(DIRECTIONS), slice(6, 8))):
        is_move = (steps[:, frames] >= 0) & (steps[:, frames] < len(DIRECTIONS))
        turns[:, frames][is_move] = steps[:, frames][is_move] + offset
    return turns


def find_returns(cells: torch.Tensor) -> torch.Tensor:
    """Whether a thing was there two frames ago or before that, anywhere.

    Args:
        cells (`int64[G, F, 4, 4]`): positions in `CELL_NAMES`.

    Returns:
        `int64[G, F, 4, 4]`: 0 or 1; `UNKNOWN` for empty cells and the first two frames.
    """
    looks = cells.flatten(2)
    seen = one_hot(looks, len(CELL_NAMES)).amax(2).cummax(1).values
    is_back = torch.full_like(looks, UNKNOWN)
    is_back[:, 2:] = seen[:, :-2].gather(2, looks[:, 2:])
    return torch.where(looks > 0, is_back, UNKNOWN).view_as(cells)


def mark_traits(cells: torch.Tensor) -> torch.Tensor:
    """Which colours and shapes were seen up to each cell, as the model reads them: frame after frame, row after row.

    Args:
        cells (`int64[G, F, 4, 4]`): positions in `CELL_NAMES`.

    Returns:
        `float[G, F * 16, 3, 12]`: 1 where it was seen: in the first frame; later, on a thing that was not there two
        frames ago or before; on one that was.
    """
    looks = cells.flatten(2)
    traits = torch.stack([(looks - 1) % len(COLOURS), (looks - 1) // len(COLOURS) + len(COLOURS)], -1)
    marks = one_hot(traits.clamp(min=0), NUM_TRAITS).amax(3) * (looks > 0)[..., None]
    is_first = torch.zeros_like(looks)
    is_first[:, 0] = 1
    is_back = find_returns(cells).flatten(2)
    kinds = torch.stack([is_first, is_back == 0, is_back == 1], -1)
    return (marks[..., None, :] * kinds[..., None]).flatten(1, 2).cummax(1).values.float()
