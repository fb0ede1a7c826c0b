"""A model in its warm-up, with hints beside the answers: linear readers of its inner states and their targets.

Questions of a clip share one pass over its frames. What is asked when is in `task_preference_lab_warmup.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from task_preference_lab_model import WIDTH
from task_preference_lab_world import NUM_SHOWN, OFFSETS_PX
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm

from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.toy_world import CELL_NAMES, COLOURS, GRID_CELLS, NUM_PHASES, PLACES, SHAPES

# Behind which language layer what is read: each needs what the ones before it give.
PLACE_LAYER, PHASE_LAYER, REFERENCE_LAYER = 1, 2, 3
ANSWER_LAYERS = (2, 3)
NUM_REFERENCE_TOKENS = 3  # the last ones of a prompt say what it refers to
NUM_TOLD_TOKENS = 2  # and so do the first ones behind it, whatever they are
NOISE = 1.0  # beside normed features
TRAITS = (("", *PLACES), COLOURS, SHAPES, TASKS)
UNKNOWN = -100  # as PyTorch's cross entropy leaves a target out


@dataclass(frozen=True, slots=True)
class Lessons:
    """Clips in memory, with what is known of each cell.

    Attributes:
        frames (`uint8[N, 8, 64, 64, 3]`): the shown ones, decoded.
        cells (`int64[N, 8, 4, 4]`): positions in `CELL_NAMES`.
        offsets (`int64[N, 8, 4, 4, 2]`): across and down, positions in `OFFSETS_PX`; `UNKNOWN` of empty cells.
        phases (`int64[N, 8]`): which phase each frame is in.
        rows (`list[list[TaskRow]]`): of each clip its dialogue.
    """

    frames: NDArray[np.uint8]
    cells: Tensor
    offsets: Tensor
    phases: Tensor
    rows: list[list[TaskRow]]


class Asked(NamedTuple):
    """A question of the warm-up.

    Attributes:
        question (`str`): as it is worded.
        answer (`str`): of dialogue; words of no meaning where traits are known: they are not learned.
        traits (`tuple[int, ...]`): place, colour and shape that the words refer to, and the task that asks so,
            positions in `TRAITS`; of dialogue `UNKNOWN`.
    """

    question: str
    answer: str
    traits: tuple[int, ...] = (UNKNOWN,) * len(TRAITS)


class View(NamedTuple):
    """Clips of a step, and which of their frames are shown."""

    clips: Sequence[int]
    frames: Sequence[int]

    def pick(self, values: Any) -> Any:
        """Of what is known of each frame (`[N, 8, ...]`) the part that is shown."""
        return values[list(self.clips)][:, list(self.frames)]


class Learner(nn.Module):
    """The model with its hints.

    Args:
        model (`Qwen2_5_VLForConditionalGeneration`): to be trained.
        processor (`Qwen2_5_VLProcessor`): of the model.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model, self.processor = model, processor
        self.content = nn.Linear(WIDTH, len(CELL_NAMES))
        self.offset = nn.Linear(WIDTH, 2 * len(OFFSETS_PX))
        self.place = nn.Linear(WIDTH, 2 * GRID_CELLS + NUM_SHOWN)
        self.phase = nn.Linear(WIDTH, NUM_PHASES)
        self.traits, self.told_traits = (
            nn.ModuleList(nn.Linear(WIDTH, len(names)) for names in TRAITS) for _ in range(2)
        )
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "\0"}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        self.before, self.behind = text.split("\0")
        words = processor.tokenizer([*COLOURS, *SHAPES], add_special_tokens=False)
        self.word_ids = torch.tensor(words["input_ids"])[:, 0]

    def look(self, lessons: Lessons, view: View) -> tuple[dict[str, Tensor], Tensor, Any]:
        """Runs the vision tower: losses of what each cell shows, what it gives, and the processor's inputs."""
        num_frames = len(view.frames)
        about = {"fps": 2.0, "total_num_frames": num_frames, "frames_indices": list(range(num_frames))}
        inputs = self.processor(
            text=[self.before] * len(view.clips),
            videos=list(view.pick(lessons.frames)),
            video_metadata=[about] * len(view.clips),
            do_sample_frames=False,
            return_tensors="pt",
        )
        tower = self.model.model.visual
        visual = tower(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"]).pooler_output
        cells = view.pick(lessons.cells).flatten()
        # Through noise: what is to be read is then a large part of what the tower gives, and heads find it.
        blurred = layer_norm(visual, visual.shape[1:]) + NOISE * torch.randn_like(visual)
        found = self.offset(blurred).unflatten(1, (2, -1))
        seen, looks = visual[cells > 0], cells[cells > 0] - 1
        colours, shapes = self.model.get_input_embeddings()(self.word_ids).split([len(COLOURS), len(SHAPES)])
        losses = {
            "content": cross_entropy(self.content(blurred), cells),
            "offset": cross_entropy(found.flatten(0, 1), view.pick(lessons.offsets).flatten()),
            # A cell shall look like the words for its colour and shape.
            "colour": cross_entropy(seen @ colours.T, looks % len(COLOURS)),
            "shape": cross_entropy(seen @ shapes.T, looks // len(COLOURS)),
        }
        return losses, visual, inputs

    def talk(self, lessons: Lessons, view: View, asked: Sequence[Asked]) -> tuple[dict[str, Tensor], float]:
        """Asks the same number of questions of each clip; losses, and the share of first words that are right."""
        losses, visual, inputs = self.look(lessons, view)
        inner = self.model.model
        is_visual = inputs["input_ids"] == self.model.config.video_token_id
        embeds = inner.get_input_embeddings()(inputs["input_ids"]).masked_scatter(is_visual[..., None], visual)
        names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
        positions, _ = inner.get_rope_index(**{name: inputs[name] for name in names})
        out = inner.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=True, output_hidden_states=True
        )
        losses |= self._grade_places(lessons, view, [state[is_visual] for state in out.hidden_states])
        cache, start = out.past_key_values, int(positions[0, 0, -1]) + 1
        cache.batch_repeat_interleave(len(asked) // len(view.clips))
        graded, right = self._grade_answers(cache, start, asked)
        return losses | graded, right

    def _grade_places(self, lessons: Lessons, view: View, states: Sequence[Tensor]) -> dict[str, Tensor]:
        shape = view.pick(lessons.cells).shape
        grids = torch.meshgrid(*(torch.arange(length) for length in shape[1:]), indexing="ij")
        time, row, column = (grid.expand(shape).flatten() for grid in grids)
        found = self.place(states[PLACE_LAYER]).split([GRID_CELLS, GRID_CELLS, NUM_SHOWN], dim=1)
        losses = {
            "place": torch.stack([cross_entropy(f, t) for f, t in zip(found, (row, column, time), strict=True)]).sum()
        }
        if len(view.frames) == NUM_SHOWN:
            phases = view.pick(lessons.phases)[..., None, None].expand(shape).flatten()
            losses["phase"] = cross_entropy(self.phase(states[PHASE_LAYER]), phases)
        return losses

    def _grade_answers(self, cache: Any, start: int, asked: Sequence[Asked]) -> tuple[dict[str, Tensor], float]:
        tokenizer, inner = self.processor.tokenizer, self.model.model
        texts = (
            [one.question for one in asked],
            [one.question + self.behind for one in asked],
            [one.question + self.behind + f"{one.answer}<|im_end|>" for one in asked],
        )
        questions, prompts, whole = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in texts)
        length = max(map(len, whole))
        ids = torch.tensor([own + [tokenizer.pad_token_id] * (length - len(own)) for own in whole])
        labels = torch.full_like(ids, UNKNOWN)
        is_answered = torch.tensor([one.traits[0] == UNKNOWN for one in asked])
        rows = is_answered.nonzero()[:, 0]
        for row in rows.tolist():
            answer = slice(len(prompts[row]), len(whole[row]))
            labels[row, answer] = ids[row, answer]
        out = inner.language_model(
            inputs_embeds=inner.get_input_embeddings()(ids),
            position_ids=torch.arange(start, start + length).expand(3, len(ids), -1),
            past_key_values=cache,
            output_hidden_states=True,
        )
        is_next = labels[:, 1:] != UNKNOWN
        logits = self.model.lm_head(out.last_hidden_state[:, :-1][is_next])
        firsts, ends = (
            torch.tensor([len(part) for part in parts])[rows] for parts in (prompts, questions)
        )  # first token behind each
        early = torch.cat([out.hidden_states[layer][rows, ends - 1] for layer in ANSWER_LAYERS])
        wanted = ids[rows, firsts]
        said = self.model.lm_head(out.last_hidden_state[rows, firsts - 1]).argmax(1)
        losses = {
            "answers": cross_entropy(logits, labels[:, 1:][is_next]),
            "early": cross_entropy(
                self.model.lm_head(inner.language_model.norm(early)), wanted.repeat(len(ANSWER_LAYERS))
            ),
        }
        if not is_answered.all():
            losses["reference"] = self._grade_references(out, prompts, asked)
        return losses, float((said == wanted).float().mean())

    def _grade_references(self, out: Any, prompts: Sequence[list[int]], asked: Sequence[Asked]) -> Tensor:
        """What is referred to, at the last tokens of the prompt and, in the last states, at any words behind it."""
        ends = torch.tensor([len(prompt) for prompt in prompts])[:, None]
        rows = torch.arange(len(asked))[:, None]
        last = out.hidden_states[REFERENCE_LAYER][rows, ends - torch.arange(1, NUM_REFERENCE_TOKENS + 1)]
        behind = out.last_hidden_state[rows, ends + torch.arange(NUM_TOLD_TOKENS)]
        wanted = torch.tensor([one.traits for one in asked])[:, None]
        terms = [
            cross_entropy(reader(read).flatten(0, 1), wanted[..., k].expand(read.shape[:2]).flatten())
            for readers, read in ((self.traits, last), (self.told_traits, behind))
            for k, reader in enumerate(readers)
        ]
        return torch.stack(terms).sum()
