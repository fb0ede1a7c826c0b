"""The toy world: seeded clips of coloured shapes whose every pixel, box, mask and time span is known.

It asks no questions (`toy_questions`) and writes no files (`toy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

ToyStyle = Literal["grid", "free"]
Role = Literal["still", "mover", "visitor"]
Trait = Literal["colour", "shape"]
Cell = tuple[int, ...]  # (row, column)

TOY_STYLES: tuple[ToyStyle, ...] = get_args(ToyStyle)
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 200, 0),
    "blue": (40, 80, 255),
    "yellow": (255, 230, 0),
    "purple": (180, 0, 230),
    "white": (255, 255, 255),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)
SHAPES: tuple[str, ...] = ("square", "circle", "triangle", "cross", "diamond", "ring")
DIRECTIONS: tuple[str, ...] = ("up", "right", "down", "left")  # clockwise
PLACES: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four")
CELL_NAMES: tuple[str, ...] = ("empty", *(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS))

GRID_CELLS = 4  # a side
NUM_PHASES = 4  # every clip has four phases: the mover stands on four cells in turn, and four visitors come and go
_BLOCK: tuple[Cell, ...] = ((0, 0), (0, 1), (1, 1), (1, 0))  # clockwise from the top left


@dataclass(frozen=True, slots=True)
class _StyleSizes:
    """The measures of a style. Grid: one cell is one 14-pixel patch, one move every two frames. All our guess."""

    num_frames: int
    fps: int
    cell_px: int
    object_sizes_px: tuple[int, ...]  # twice an odd number, so that shapes are symmetric and built of 2 x 2 blocks
    min_phase_frames: int
    is_off_grid: bool  # objects stand anywhere within their cell, on a noisy coloured ground


_SIZES: dict[ToyStyle, _StyleSizes] = {
    "grid": _StyleSizes(num_frames=8, fps=2, cell_px=14, object_sizes_px=(10,), min_phase_frames=2, is_off_grid=False),
    "free": _StyleSizes(
        num_frames=32, fps=4, cell_px=28, object_sizes_px=(14, 18, 22), min_phase_frames=4, is_off_grid=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyObject:
    """One coloured shape of a clip.

    Attributes:
        role (`str`): `"still"` never moves, `"mover"` jumps to a neighbouring cell at each new phase, `"visitor"` is
            there for one phase only.
        shape (`str`): one of `SHAPES`.
        colour (`str`): one of `COLOURS`.
        size_px (`int`): its width and height.
        corners (`tuple`): per frame `(x, y)` of its top left pixel, or `None` when it is not there.
    """

    role: Role
    shape: str
    colour: str
    size_px: int
    corners: tuple[tuple[int, int] | None, ...]

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        """Per frame the tight box `(x0, y0, x1, y1)` in pixels, far sides exclusive, or `None`."""
        size = self.size_px
        return tuple(None if at is None else (at[0], at[1], at[0] + size, at[1] + size) for at in self.corners)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One toy video: a still object, a mover that walks three sides of a small square, and four visitors in turn.

    Attributes:
        id (`str`): for example `"clip_0000"`.
        style (`str`): `"grid"` or `"free"`.
        seed (`int`): of the set; with `index` it fixes every pixel.
        index (`int`): position in the set.
        fps (`int`): frames a second.
        num_frames (`int`): in the whole clip.
        height_px (`int`), width_px (`int`): size of a frame.
        phase_starts (`tuple[int, ...]`): first frame of each phase, then `num_frames`.
        objects (`tuple[ToyObject, ...]`): the still one, the mover, the visitors in order of appearance; no two
            have the same shape and colour, and they never overlap.
        moves (`tuple[str, ...]`): the mover's three moves, of `DIRECTIONS`, at the starts of phases 1, 2 and 3.
        shared_trait (`str`): `"colour"` or `"shape"`, of which the visitors have one to four different values, each
            number as likely; in the other trait all four differ.
    """

    id: str
    style: ToyStyle
    seed: int
    index: int
    fps: int
    num_frames: int
    height_px: int
    width_px: int
    phase_starts: tuple[int, ...]
    objects: tuple[ToyObject, ...]
    moves: tuple[str, ...]
    shared_trait: Trait

    @property
    def video(self) -> str:
        """Path of its file within the set (`str`)."""
        return f"videos/{self.id}.mp4"

    @property
    def still(self) -> ToyObject:
        return self.objects[0]

    @property
    def mover(self) -> ToyObject:
        return self.objects[1]

    @property
    def visitors(self) -> tuple[ToyObject, ...]:
        return self.objects[2:]

    def phase_seconds(self, first: int, last: int) -> tuple[float, float]:
        """The half-open span in seconds from the start of phase `first` to the end of phase `last`."""
        return self.phase_starts[first] / self.fps, self.phase_starts[last + 1] / self.fps


def generate_clips(seed: int, num_clips: int, style: ToyStyle = "grid") -> list[Clip]:
    """Draws the clips of a toy set. Clip `k` depends on the seed, the style and `k` alone.

    Args:
        seed (`int`): not negative.
        num_clips (`int`): how many.
        style (`str`, *optional*, defaults to `"grid"`): `"grid"` keeps objects in the middle of 4 x 4 cells of 14
            pixels on black, 8 frames at 2 a second, four equal phases. `"free"` has 28-pixel cells, objects of
            several sizes anywhere within them, a noisy coloured ground, and 32 frames at 4 a second in four phases of
            4 to 16 frames.

    Returns:
        `list[Clip]`: without pixels; `render_clip` draws them.

    Example:
        >>> clip = generate_clips(seed=0, num_clips=1)[0]
        >>> clip.id, clip.num_frames, len(clip.visitors)
        ('clip_0000', 8, 4)
    """
    return [_generate_clip(seed, index, style) for index in range(num_clips)]


def _generate_clip(seed: int, index: int, style: ToyStyle) -> Clip:
    sizes = _SIZES[style]
    rng = np.random.default_rng([seed, index])
    starts = _draw_phase_starts(rng, sizes)
    path, moves = _draw_path(rng)
    shared_trait, looks = _draw_looks(rng)
    others = [cell for cell in np.ndindex(GRID_CELLS, GRID_CELLS) if cell not in path]
    still, *stops = (others[k] for k in rng.permutation(len(others))[: NUM_PHASES + 1])
    cells: list[list[Cell | None]] = [[still] * NUM_PHASES, [*path]]
    cells += [[stop if phase == visit else None for phase in range(NUM_PHASES)] for visit, stop in enumerate(stops)]
    visitors: list[Role] = ["visitor"] * NUM_PHASES
    roles: list[Role] = ["still", "mover", *visitors]
    return Clip(
        id=f"clip_{index:04d}",
        style=style,
        seed=seed,
        index=index,
        fps=sizes.fps,
        num_frames=sizes.num_frames,
        height_px=GRID_CELLS * sizes.cell_px,
        width_px=GRID_CELLS * sizes.cell_px,
        phase_starts=starts,
        objects=tuple(
            _place_object(rng, sizes, starts, role, *look, cell_of_phase)
            for role, look, cell_of_phase in zip(roles, looks, cells, strict=True)
        ),
        moves=moves,
        shared_trait=shared_trait,
    )


def _place_object(
    rng: np.random.Generator,
    sizes: _StyleSizes,
    starts: tuple[int, ...],
    role: Role,
    shape: str,
    colour: str,
    cell_of_phase: list[Cell | None],
) -> ToyObject:
    size = int(rng.choice(sizes.object_sizes_px))
    slack = sizes.cell_px - size
    right, down = rng.integers(0, slack + 1, 2).tolist() if sizes.is_off_grid else (slack // 2, slack // 2)
    corners: list[tuple[int, int] | None] = []
    for phase, cell in enumerate(cell_of_phase):
        at = None if cell is None else (cell[1] * sizes.cell_px + right, cell[0] * sizes.cell_px + down)
        corners += [at] * (starts[phase + 1] - starts[phase])
    return ToyObject(role=role, shape=shape, colour=colour, size_px=size, corners=tuple(corners))


def _draw_phase_starts(rng: np.random.Generator, sizes: _StyleSizes) -> tuple[int, ...]:
    """Splits the clip into phases of at least the least length and at most half the clip; none is favoured."""
    spare = sizes.num_frames - NUM_PHASES * sizes.min_phase_frames
    while True:
        cuts = np.sort(rng.integers(0, spare + 1, NUM_PHASES - 1))
        lengths = np.diff([0, *cuts, spare]) + sizes.min_phase_frames
        if lengths.max() <= sizes.num_frames // 2:
            return tuple(int(start) for start in np.concatenate([[0], np.cumsum(lengths)]))


def _draw_path(rng: np.random.Generator) -> tuple[list[Cell], tuple[str, ...]]:
    """Four cells of a 2 x 2 block, clockwise or not from any corner: the block alone does not tell which way."""
    row, column = (int(k) for k in rng.integers(0, GRID_CELLS - 1, 2))
    start, turn = int(rng.integers(4)), int(rng.choice((-1, 1)))
    corners = [_BLOCK[(start + turn * phase) % 4] for phase in range(NUM_PHASES)]
    names = {(-1, 0): "up", (0, 1): "right", (1, 0): "down", (0, -1): "left"}
    moves = tuple(names[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(corners))
    return [(row + r, column + c) for r, c in corners], moves


def _draw_looks(rng: np.random.Generator) -> tuple[Trait, list[tuple[str, str]]]:
    """The visitors' shared trait; then shape and colour of the still object, the mover and the visitors.

    The first two share neither shape nor colour with anything else.
    """
    looks = {"shape": rng.permutation(SHAPES).tolist(), "colour": rng.permutation(COLOURS).tolist()}
    shared: Trait = "shape" if rng.random() < 0.5 else "colour"
    num_values = int(rng.integers(1, NUM_PHASES + 1))
    values = rng.permutation([*range(num_values), *rng.integers(0, num_values, NUM_PHASES - num_values)])
    looks[shared][2:] = [looks[shared][2 + k] for k in values]
    return shared, list(zip(looks["shape"], looks["colour"], strict=True))


def draw_shape(shape: str, size_px: int) -> NDArray[np.bool_]:
    """A shape as a square mask that touches all four sides.

    Args:
        shape (`str`): one of `SHAPES`.
        size_px (`int`): twice an odd number; the mask consists of 2 x 2 blocks, which survive chroma subsampling.

    Returns:
        `bool[size_px, size_px]`.

    Example:
        >>> int(draw_shape("cross", 10).sum())
        36
    """
    num_blocks = size_px // 2
    steps = (2 * np.arange(num_blocks) + 1 - num_blocks) / num_blocks
    x, y = np.abs(steps)[None, :], steps[:, None]
    masks = {
        "square": np.ones((num_blocks, num_blocks), bool),
        "circle": x**2 + y**2 <= 1,
        "triangle": x <= (y + 1) / 2,
        "cross": (x <= 1 / 3) | (np.abs(y) <= 1 / 3),
        "diamond": x + np.abs(y) <= 1 - 1 / num_blocks + 1e-9,
        "ring": (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3),
    }
    return masks[shape].repeat(2, axis=0).repeat(2, axis=1)


def render_clip(clip: Clip) -> NDArray[np.uint8]:
    """Draws a clip.

    Returns:
        `uint8[num_frames, height_px, width_px, 3]`: RGB.

    Example:
        >>> render_clip(generate_clips(seed=0, num_clips=1)[0]).shape
        (8, 56, 56, 3)
    """
    frames = _draw_ground(clip)
    for thing in clip.objects:
        mask = draw_shape(thing.shape, thing.size_px)
        for frame, box in zip(frames, thing.boxes, strict=True):
            if box is not None:
                frame[box[1] : box[3], box[0] : box[2]][mask] = PALETTE[thing.colour]
    return frames


def _draw_ground(clip: Clip) -> NDArray[np.uint8]:
    ground = np.zeros((clip.height_px, clip.width_px, 3), np.uint8)
    if _SIZES[clip.style].is_off_grid:
        rng = np.random.default_rng([clip.seed, clip.index, 1])
        ground = np.clip(rng.integers(0, 81, 3) + rng.normal(0, 10, ground.shape), 0, 255).astype(np.uint8)
    return ground[None].repeat(clip.num_frames, axis=0)


def label_cells(clip: Clip) -> NDArray[np.int64]:
    """What stands in each cell of each frame.

    Returns:
        `int64[num_frames, 4, 4]`: positions in `CELL_NAMES`; 0 is an empty cell.

    Example:
        >>> clip = generate_clips(seed=0, num_clips=1)[0]
        >>> sorted({CELL_NAMES[k] for k in label_cells(clip)[0].flat} - {"empty"})
        ['blue cross', 'green triangle', 'white ring']
    """
    labels = np.zeros((clip.num_frames, GRID_CELLS, GRID_CELLS), np.int64)
    cell_px = clip.height_px // GRID_CELLS
    for thing in clip.objects:
        value = CELL_NAMES.index(f"{thing.colour} {thing.shape}")
        for frame, at in enumerate(thing.corners):
            if at is not None:
                labels[frame, at[1] // cell_px, at[0] // cell_px] = value
    return labels
