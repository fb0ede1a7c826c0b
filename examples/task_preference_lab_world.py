"""The clips of the task preference lab and what is asked about them: the toy world off its grid, rows of every task.

No model is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidground_hf.task_preference.row_masks import encode_mask
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.toy_world import (
    GRID_CELLS,
    NUM_PHASES,
    PLACES,
    Clip,
    ToyObject,
    draw_shape,
    generate_clips,
    render_clip,
)

CELL_PX, OBJECT_PX = 16, 10
OFFSETS_PX = (0, 2, 4, 6)  # of an object in its cells; even ones survive chroma subsampling
SIDE_PX = GRID_CELLS * CELL_PX
FPS, NUM_FRAMES, MIN_PHASE_FRAMES = 4, 16, 3
NUM_SHOWN = 8  # every second frame
SHOWN = range(1, NUM_FRAMES, NUM_FRAMES // NUM_SHOWN)
TURNS = ("first", "second", "third", "fourth")
# Our wordings; the word that refers comes last, where a small model binds it best.
DIALOGUE = {
    "colour": ("Name the colour of this: {}", "Which colour has this? {}"),
    "shape": ("Name the shape of this: {}", "Which shape has this? {}"),
    "quarter": ("Name the quarter that has this: {}", "In which quarter of the video is this? {}"),
    "turn": ("As which of four visitors comes this? {}", "Say when it is the turn of this visitor: {}"),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that can be asked for.

    Attributes:
        name (`str`): its words.
        thing (`ToyObject`): the object.
        place (`str`, *optional*): one of `PLACES`, where only one stop of the mover is meant.
        frames (`range`): when it is there (or at its place).
    """

    name: str
    thing: ToyObject
    place: str | None
    frames: range


def generate_lab_clips(seed: int, num_clips: int) -> list[Clip]:
    """Draws clips of the toy world and moves them off its grid, in space and time."""
    return [_move_clip(clip, np.random.default_rng([seed, clip.index, 2])) for clip in generate_clips(seed, num_clips)]


def _move_clip(clip: Clip, rng: np.random.Generator) -> Clip:
    """The same objects and moves; the mover goes through the quarters of the picture, phases have other lengths."""
    starts = _draw_phase_starts(rng)
    at = np.array([clip.mover.corners[start] for start in clip.phase_starts[:NUM_PHASES]])[:, ::-1]
    quarters = (at - at.min(0)) // (at.max(0) - at.min(0))  # 0 or 1 down and across
    stops = [(int(row), int(column)) for row, column in 2 * quarters + rng.integers(0, 2, (NUM_PHASES, 2))]
    free = [cell for cell in np.ndindex(GRID_CELLS, GRID_CELLS) if cell not in stops]
    still, *visits = (free[k] for k in rng.permutation(len(free))[: NUM_PHASES + 1])
    cells = [[still] * NUM_PHASES, stops]
    cells += [[cell if phase == turn else None for phase in range(NUM_PHASES)] for turn, cell in enumerate(visits)]
    return replace(
        clip,
        fps=FPS,
        num_frames=NUM_FRAMES,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        phase_starts=starts,
        objects=tuple(_place(thing, own, starts, rng) for thing, own in zip(clip.objects, cells, strict=True)),
    )


def _draw_phase_starts(rng: np.random.Generator) -> tuple[int, ...]:
    """Four phases, every cutting as likely; the longest that is possible is under half of the clip."""
    spare = NUM_FRAMES - NUM_PHASES * MIN_PHASE_FRAMES
    bars = np.sort(rng.choice(spare + NUM_PHASES - 1, NUM_PHASES - 1, replace=False)) - np.arange(NUM_PHASES - 1)
    lengths = np.diff([0, *bars, spare]) + MIN_PHASE_FRAMES
    return tuple(int(start) for start in np.concatenate([[0], np.cumsum(lengths)]))


def _place(thing: ToyObject, cells: Sequence[Any], starts: Sequence[int], rng: np.random.Generator) -> ToyObject:
    across, down = (int(k) for k in rng.choice(OFFSETS_PX, 2))
    corners: list[tuple[int, int] | None] = []
    for phase, cell in enumerate(cells):
        at = None if cell is None else (CELL_PX * cell[1] + across, CELL_PX * cell[0] + down)
        corners += [at] * (starts[phase + 1] - starts[phase])
    return replace(thing, size_px=OBJECT_PX, corners=tuple(corners))


def list_references(clip: Clip) -> list[Reference]:
    """The still object, the visitors, the mover at each of its places, and the mover as such, which comes last."""
    whole = [(clip.still, range(clip.num_frames))]
    whole += [(thing, _find_phase(clip, turn)) for turn, thing in enumerate(clip.visitors)]
    found = [Reference(_name(thing), thing, None, frames) for thing, frames in whole]
    for phase in range(NUM_PHASES):
        across, down = clip.mover.corners[clip.phase_starts[phase]] or (0, 0)
        place = PLACES[2 * (down >= SIDE_PX // 2) + (across >= SIDE_PX // 2)]
        found.append(Reference(f"{place} {_name(clip.mover)}", clip.mover, place, _find_phase(clip, phase)))
    return [*found, Reference(_name(clip.mover), clip.mover, None, range(clip.num_frames))]


def _find_phase(clip: Clip, phase: int) -> range:
    return range(clip.phase_starts[phase], clip.phase_starts[phase + 1])


def _name(thing: ToyObject) -> str:
    return f"{thing.colour} {thing.shape}"


def draw_masks(thing: ToyObject, frames: range) -> list[NDArray[np.bool_]]:
    """The pixels of an object in each shown frame; none outside `frames`."""
    masks = np.zeros((NUM_SHOWN, SIDE_PX, SIDE_PX), bool)
    for mask, frame in zip(masks, SHOWN, strict=True):
        box = thing.boxes[frame]
        if box is not None and frame in frames:
            mask[box[1] : box[3], box[0] : box[2]] = draw_shape(thing.shape, thing.size_px)
    return list(masks)


def make_rows(clip: Clip, folder: Path) -> list[TaskRow]:
    """All rows of all tasks that a clip gives.

    The id is the clip's, the task, for dialogue the kind of question, and a number.
    """
    *single, mover = list_references(clip)
    rows = [_make_row(clip, folder, "moment", k, ref) for k, ref in enumerate(single) if ref.thing is not clip.still]
    rows += [_make_row(clip, folder, "box", k, reference) for k, reference in enumerate(single)]
    rows += [_make_row(clip, folder, "mask", k, reference) for k, reference in enumerate([*single, mover])]
    for k, (kind, word, answer) in enumerate(_list_dialogue(clip)):
        wordings = DIALOGUE[kind]
        question = wordings[(clip.index + k) % len(wordings)].format(word)
        name = f"{clip.id}-dialogue-{kind}-{k}"
        rows.append(TaskRow(id=name, task="dialogue", question=question, answer=answer, **_show(clip, folder)))
    return rows


def _make_row(clip: Clip, folder: Path, task: str, number: int, reference: Reference) -> TaskRow:
    frames = reference.frames
    labels: dict[str, Any] = {}
    if task == "moment":
        labels["spans"] = ((frames.start / clip.fps, frames.stop / clip.fps),)
    elif task == "box":
        labels["box"] = reference.thing.boxes[frames.start]
    else:
        labels["masks"] = tuple(encode_mask(mask) or None for mask in draw_masks(reference.thing, frames))
        labels["mask_seconds"] = tuple(frame / clip.fps for frame in SHOWN)
    name = f"{clip.id}-{task}-{number}"
    return TaskRow(id=name, task=task, question=reference.name, **labels, **_show(clip, folder))


def _show(clip: Clip, folder: Path) -> dict[str, Any]:
    return {
        "video": str(folder / clip.video),
        "duration_seconds": clip.num_frames / clip.fps,
        "width_px": clip.width_px,
        "height_px": clip.height_px,
    }


def _list_dialogue(clip: Clip) -> Iterator[tuple[str, str, str]]:
    """Kind of question, referring words and answer."""
    for thing in (clip.still, clip.mover):
        yield "colour", thing.shape, thing.colour
        yield "shape", thing.colour, thing.shape
    for thing in (clip.still, *clip.visitors):
        across, down = next(at for at in thing.corners if at is not None)
        yield "quarter", _name(thing), PLACES[2 * (down >= SIDE_PX // 2) + (across >= SIDE_PX // 2)]
    for turn, thing in enumerate(clip.visitors):
        yield "turn", _name(thing), TURNS[turn]


def write_clips(folder: Path, seed: int, num_clips: int) -> list[Clip]:
    """Draws clips and writes their videos, unless they are there; a folder with `whole` has them all."""
    clips = generate_lab_clips(seed, num_clips)
    if not (folder / "whole").exists():
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        for clip in clips:
            _write_video(folder / clip.video, render_clip(clip))
        (folder / "whole").touch()
    return clips


def _write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def sample_rows(rows: Sequence[TaskRow], counts: dict[str, int], rng: np.random.Generator) -> list[TaskRow]:
    """So many rows of each task, or all it has, drawn at random."""
    drawn: list[TaskRow] = []
    for task, count in counts.items():
        own = [row for row in rows if row.task == task]
        drawn += [own[k] for k in rng.permutation(len(own))[:count]]
    return drawn
