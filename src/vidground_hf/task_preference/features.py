"""What the heads see of the media: a padded grid of vision features with the times of its frames.

Running a vision tower is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

_MAX_CYCLES = 64.0  # our guess: its finest wave tells apart the neighbours among 128 frames


@dataclass(frozen=True, slots=True)
class VisionFeatures:
    """Features of N images or clips, padded to one size.

    The valid part of a row is its first frames, and in each the first rows and columns. A precomputed extractor with
    one vector per clip gives H = W = 1.

    Attributes:
        grid (`Tensor`): `float[N, T, H, W, D]`, zero where padded.
        is_valid (`Tensor`): `bool[N, T, H, W]`.
        times_seconds (`Tensor`): `float[N, T]`, of the middle of each temporal patch.
        duration_seconds (`Tensor`): `float[N]`; an image has T = 1 and duration 0.

    Raises:
        ValueError: for shapes that do not fit together.

    Example:
        >>> features = stack_features([torch.ones(2, 1, 1, 4)], [torch.tensor([1.0, 3.0])], [4.0])
        >>> tuple(features.grid.shape), features.time_fractions().tolist()
        ((1, 2, 1, 1, 4), [[0.25, 0.75]])
    """

    grid: Tensor
    is_valid: Tensor
    times_seconds: Tensor
    duration_seconds: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.grid.shape)
        wanted = {"is_valid": shape[:4], "times_seconds": shape[:2], "duration_seconds": shape[:1]}
        got = {name: tuple(getattr(self, name).shape) for name in wanted}
        if len(shape) != 5 or got != wanted:
            raise ValueError(
                f"Got a grid of shape {shape} with {got}; allowed is a grid [N, T, H, W, D] with is_valid "
                "[N, T, H, W], times_seconds [N, T] and duration_seconds [N]. Make them with stack_features."
            )

    def __len__(self) -> int:
        return len(self.grid)

    def select(self, rows: Tensor) -> VisionFeatures:
        """The features of some rows, in the order asked for.

        Args:
            rows (`Tensor`): `long[M]`; a row may come several times.
        """
        return VisionFeatures(
            self.grid[rows], self.is_valid[rows], self.times_seconds[rows], self.duration_seconds[rows]
        )

    def to(self, device: torch.device | str) -> VisionFeatures:
        """The same features on a device."""
        return VisionFeatures(*(getattr(self, part.name).to(device) for part in fields(self)))

    def frames_valid(self) -> Tensor:
        """Which frames are not padding, `bool[N, T]`."""
        return self.is_valid.flatten(2).any(2)

    def time_fractions(self) -> Tensor:
        """Where in its clip each frame is, `float32[N, T]` in [0, 1]; an image is in the middle, at 0.5."""
        duration = self.duration_seconds.float()[:, None]
        fractions = self.times_seconds.float() / torch.where(duration > 0, duration, 1.0)
        return torch.where(duration > 0, fractions, 0.5).clamp(0, 1)

    def positions(self) -> Tensor:
        """Where the middle of each cell is: left to right, top to bottom and in time.

        Returns:
            `float32[N, T, H, W, 3]`: in [0, 1] of each row's own width, height and duration.
        """
        down = _find_middles(self.is_valid.any(3).any(1))[:, None, :, None]
        across = _find_middles(self.is_valid.any(2).any(1))[:, None, None, :]
        times = self.time_fractions()[:, :, None, None]
        return torch.stack([part.expand(self.is_valid.shape) for part in (across, down, times)], dim=-1)


def _find_middles(is_valid: Tensor) -> Tensor:
    """Of equal parts of [0, 1], one for each valid entry of a row of `bool[N, S]`."""
    counts = is_valid.float()
    return ((counts.cumsum(1) - 0.5) / counts.sum(1, keepdim=True).clamp(min=1)).clamp(0, 1)


def stack_features(
    grids: Sequence[Tensor], times_seconds: Sequence[Tensor], durations_seconds: Sequence[float]
) -> VisionFeatures:
    """Pads the features of several images or clips to one size.

    Args:
        grids (`Sequence[Tensor]`): one `float[T, H, W, D]` a row, of any T, H and W and one D.
        times_seconds (`Sequence[Tensor]`): one `float[T]` a row.
        durations_seconds (`Sequence[float]`): one a row; 0 for an image.

    Raises:
        ValueError: for no rows, columns of different lengths, widths that differ, or as many times as not frames.

    Example:
        >>> grids = [torch.ones(2, 1, 1, 4), torch.ones(1, 3, 2, 4)]
        >>> features = stack_features(grids, [torch.tensor([1.0, 3.0]), torch.zeros(1)], [4.0, 0.0])
        >>> tuple(features.grid.shape), features.is_valid.flatten(1).sum(1).tolist()
        ((2, 2, 3, 2, 4), [2, 6])
    """
    shapes = [tuple(grid.shape) for grid in grids]
    num_times = [len(times) for times in times_seconds]
    fits = len(grids) == len(times_seconds) == len(durations_seconds) and len(grids) > 0
    fits = fits and all(len(shape) == 4 and shape[3] == shapes[0][3] for shape in shapes)
    if not fits or num_times != [shape[0] for shape in shapes]:
        raise ValueError(
            f"Got grids of shapes {shapes} with {num_times} times and {len(durations_seconds)} durations; allowed "
            "is one row or more, each a grid [T, H, W, D] of the same D, T times and a duration. Give all three."
        )
    size = [max(shape[axis] for shape in shapes) for axis in range(3)]
    padded = [_pad(grid, [*size, grid.shape[3]]) for grid in grids]
    valid = [_pad(torch.ones(shape[:3], dtype=torch.bool, device=grids[0].device), size) for shape in shapes]
    times = [_pad(row.to(grids[0].device, torch.float32), [size[0]]) for row in times_seconds]
    durations = torch.tensor(list(durations_seconds), dtype=torch.float32, device=grids[0].device)
    return VisionFeatures(torch.stack(padded), torch.stack(valid), torch.stack(times), durations)


def _pad(values: Tensor, size: Sequence[int]) -> Tensor:
    missing = [length - have for length, have in zip(size, values.shape, strict=True)]
    return functional.pad(values, [part for amount in reversed(missing) for part in (0, amount)])


def encode_waves(positions: Tensor, width: int) -> Tensor:
    """Writes positions as sines and cosines, from half a wave in [0, 1] to 64.

    Args:
        positions (`Tensor`): `float[..., P]`, in [0, 1].
        width (`int`): how many numbers a position becomes; even.

    Returns:
        `float32[..., P * width]`.

    Example:
        >>> encode_waves(torch.tensor([0.5]), 2).round().tolist()
        [1.0, -0.0]
    """
    steps = torch.arange(width // 2, device=positions.device, dtype=torch.float32) / max(width // 2 - 1, 1)
    angles = positions.float()[..., None] * torch.pi * (2 * _MAX_CYCLES) ** steps
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
