"""How the toy model learns: one pass over the video for several questions, and dense hints beside the letters.

What is learned from is drawn in `toy_vlm_data.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss
from toy_vlm_data import FPS, MAX_FRAMES, UNKNOWN, Asked, Group, find_letter_ids

from vidground_hf.toy_questions import NUM_OPTIONS, VISUAL_ANSWERS
from vidground_hf.toy_world import CELL_NAMES, COLOURS, GRID_CELLS, SHAPES

GUESS_WEIGHT = 0.3


class Hints(nn.Module):
    """Linear readers of the model's inner states, needed in training only.

    Args:
        width (`int`): of the model.
        place_layer (`int`, *optional*, defaults to 1): behind which language layer is read where and when a visual
            token is.
        scene_layer (`int`, *optional*, defaults to 2): the same for colours and shapes of frames, behind the video,
            and for things that a question mentions. One layer before the answer it is read which visitors came.
        answer_layer (`int`, *optional*, defaults to 4), verdict_layer (`int`, *optional*, defaults to 5): the same for
            the answer of a question, and for whether an option is the right one.
    """

    def __init__(
        self, width: int, place_layer: int = 1, scene_layer: int = 2, answer_layer: int = 4, verdict_layer: int = 5
    ) -> None:
        super().__init__()
        self.place_layer, self.answer_layer, self.verdict_layer = place_layer, answer_layer, verdict_layer
        self.scene_layer = scene_layer
        self.sets = nn.Linear(width, 5 * (len(COLOURS) + len(SHAPES)))
        self.sights = nn.Linear(width, 4 * 6 + 2 * 4)
        self.whereabouts = nn.Linear(width, 4 * 2 * GRID_CELLS)
        self.content = nn.Linear(width, len(CELL_NAMES))
        self.place = nn.Linear(width, 2 * GRID_CELLS + MAX_FRAMES)
        self.letter = nn.Linear(width, NUM_OPTIONS)
        self.verdict = nn.Linear(width, 2)


class Learner(nn.Module):
    """The model with its hints; called with a group, it gives the losses.

    Args:
        model (`Qwen2_5_VLForConditionalGeneration`): to be trained.
        processor (`Qwen2_5_VLProcessor`): of the model.
        hints (`Hints`): trained along.
    """

    def __init__(self, model: Any, processor: Any, hints: Hints) -> None:
        super().__init__()
        self.model, self.hints, self.processor = model, hints, processor
        self.letter_ids = find_letter_ids(processor)
        words = processor.tokenizer([*VISUAL_ANSWERS], padding=True)
        self.answer_ids = torch.tensor(words["input_ids"])
        self.answer_mask = torch.tensor(words["attention_mask"])[..., None]

    def forward(self, group: Group) -> tuple[dict[str, torch.Tensor], float | None]:
        """The losses by name, each a mean, and the share of known answers that are right (`None` without any)."""
        inner = self.model.model
        cache, start, losses = self._watch(group)
        if group.asked is None:
            return losses, None
        ids = group.asked.ids
        cache.batch_repeat_interleave(len(ids) // len(group.frames))
        positions = torch.arange(start, start + ids.shape[1]).expand(3, len(ids), -1)
        out = inner.language_model(
            inputs_embeds=inner.get_input_embeddings()(ids),
            position_ids=positions,
            past_key_values=cache,
            output_hidden_states=True,
        )
        graded, right = self._grade(group.asked, out.last_hidden_state, out.hidden_states)
        if group.frames.shape[1] and len(group.asked.mentions):
            losses |= self._grade_mentions(group, out.hidden_states[self.hints.scene_layer])
        return losses | graded, right

    def _watch(self, group: Group) -> tuple[Any, int, dict[str, torch.Tensor]]:
        """Runs what comes before the questions: its cache, the next position, and the losses of what was seen."""
        inner = self.model.model
        content: list[dict[str, str]] = [{"type": "text", "text": "\0"}]
        num_frames = group.frames.shape[1]
        if num_frames:
            content.insert(0, {"type": "video"})
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        head = text.split("\0")[0]
        if not num_frames:
            inputs = self.processor(text=[head] * len(group.frames), return_tensors="pt")
            embeds = inner.get_input_embeddings()(inputs["input_ids"])
            out = inner.language_model(inputs_embeds=embeds, use_cache=True)
            return out.past_key_values, embeds.shape[1], {}
        metadata = {"fps": FPS, "total_num_frames": num_frames, "frames_indices": list(range(num_frames))}
        inputs = self.processor(
            text=[head] * len(group.frames),
            videos=list(group.frames),
            video_metadata=[metadata] * len(group.frames),
            do_sample_frames=False,
            return_tensors="pt",
        )
        visual = inner.visual(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"]).pooler_output
        is_visual = inputs["input_ids"] == self.model.config.video_token_id
        embeds = inner.get_input_embeddings()(inputs["input_ids"]).masked_scatter(is_visual[..., None], visual)
        names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
        positions, _ = inner.get_rope_index(**{name: inputs[name] for name in names})
        out = inner.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=True, output_hidden_states=True
        )
        places = out.hidden_states[self.hints.place_layer][is_visual]
        losses = self._grade_cells(group.cells, visual, places)
        losses |= self._grade_sets(group.cells, out.hidden_states[self.hints.scene_layer][:, -1])
        losses |= self._grade_sights(group.sights, out.hidden_states[self.hints.answer_layer - 1][:, -1])
        return out.past_key_values, int(positions[0, 0, -1]) + 1, losses

    def _grade_cells(self, cells: torch.Tensor, visual: torch.Tensor, places: torch.Tensor) -> dict[str, torch.Tensor]:
        words = self._embed_answers()
        is_full = cells.flatten() > 0
        looks = cells.flatten()[is_full] - 1
        grids = torch.meshgrid(*(torch.arange(n) for n in cells.shape[1:]), indexing="ij")
        time, row, column = (grid.expand(cells.shape).flatten() for grid in grids)
        found = self.hints.place(places).split([GRID_CELLS, GRID_CELLS, MAX_FRAMES], dim=1)
        return {
            "cells": cross_entropy(self.hints.content(visual), cells.flatten()),
            "colours": cross_entropy(visual[is_full] @ words[: len(COLOURS)].T, looks % len(COLOURS)),
            "shapes": cross_entropy(
                visual[is_full] @ words[len(COLOURS) : len(COLOURS) + len(SHAPES)].T, looks // len(COLOURS)
            ),
            "places": sum(cross_entropy(f, t) for f, t in zip(found, (row, column, time), strict=True)),
        }

    def _grade_sets(self, cells: torch.Tensor, ends: torch.Tensor) -> dict[str, torch.Tensor]:
        marks = mark_traits(cells)
        found = self.hints.sets(ends).view(len(ends), 5, -1)[:, -marks.shape[1] :]
        return {"sets": nn.functional.binary_cross_entropy_with_logits(found, marks)}

    def _grade_sights(self, sights: torch.Tensor, ends: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.hints.sights(ends).split([6, 6, 6, 6, 4, 4], dim=1)
        known = [(f, target) for f, target in zip(found, sights.T, strict=True) if (target != UNKNOWN).any()]
        return {"sights": sum(cross_entropy(f, target) for f, target in known) / 4} if known else {}

    def _grade_mentions(self, group: Group, states: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of a thing that a question mentions by colour or shape: the other of the two, and where it stands when."""
        rows, places, words = group.asked.mentions.T
        looks = group.cells.flatten(2)[rows // (len(group.asked.ids) // len(group.cells))]
        num = len(COLOURS)
        is_colour = words < num
        traits = torch.where(is_colour[:, None, None], (looks - 1) % num, (looks - 1) // num + num)
        is_it = (looks > 0) & (traits == words[:, None, None])
        first = torch.where(is_it, looks, 0).flatten(1).max(1).values
        is_there = (
            is_it.any(2).all(1)
            & (is_it.sum(2) == 1).all(1)
            & ((looks == first[:, None, None]) == is_it).flatten(1).all(1)
        )
        if not is_there.any():
            return {}
        read = states[rows, places][is_there]
        other = torch.where(is_colour, (first - 1) // num + num, (first - 1) % num)[is_there]
        found = self.model.model.language_model.norm(read) @ self._embed_answers()[: 2 * num].T
        slots = list_slots(looks.shape[1])
        cells = is_it[is_there][:, slots].float().argmax(2)
        where = self.hints.whereabouts(read).view(-1, 4, 2, GRID_CELLS)[:, : len(slots)]
        target = torch.stack([cells // GRID_CELLS, cells % GRID_CELLS], 2)
        return {
            "mentions": cross_entropy(found, other),
            "whereabouts": cross_entropy(where.flatten(0, 2), target.flatten()),
        }

    def _embed_answers(self) -> torch.Tensor:
        """The mean embedding of the words of each answer: hints and words share one space."""
        embeds = self.model.get_input_embeddings()(self.answer_ids)
        return (embeds * self.answer_mask).sum(1) / self.answer_mask.sum(1)

    def _grade(self, asked: Asked, last: torch.Tensor, states: Any) -> tuple[dict[str, torch.Tensor], float | None]:
        rows = torch.arange(len(asked.ids))
        losses = {}
        right = None
        is_seen = asked.answers != UNKNOWN
        if is_seen.any():
            middle = states[self.hints.answer_layer]
            read = torch.stack([middle[rows, asked.question_ends], middle[rows, asked.ends]])[:, is_seen]
            found = self.model.model.language_model.norm(read) @ self._embed_answers().T
            losses["answers"] = cross_entropy(found.flatten(0, 1), asked.answers[is_seen].repeat(2))
            right = float((found[0].argmax(1) == asked.answers[is_seen]).float().mean())
        if asked.option_ends is None:
            return losses, right
        letters = log_softmax(self.model.lm_head(last[rows, asked.ends]), dim=-1)[:, self.letter_ids]
        named = self.hints.letter(states[self.hints.place_layer][rows[:, None], asked.option_ends])
        losses["names"] = cross_entropy(named.flatten(0, 1), torch.arange(NUM_OPTIONS).repeat(len(rows)))
        is_known = asked.gold != UNKNOWN
        if is_known.any():
            gold = asked.gold[is_known]
            verdicts = self.hints.verdict(states[self.hints.verdict_layer][rows[:, None], asked.option_ends])[is_known]
            is_gold = (torch.arange(NUM_OPTIONS) == gold[:, None]).long()
            losses["verdicts"] = cross_entropy(verdicts.flatten(0, 1), is_gold.flatten())
            losses["letters"] = nll_loss(letters[is_known], gold)
            right = float((letters[is_known].argmax(1) == gold).float().mean())
        if not is_known.all():
            losses["guesses"] = -GUESS_WEIGHT * letters[~is_known].mean()
        return losses, right


def list_slots(num_frames: int) -> list[int]:
    """One frame of each phase; all that there are of fewer."""
    return [0, 2, 5, 7] if num_frames == MAX_FRAMES else list(range(num_frames))


def mark_traits(cells: torch.Tensor) -> torch.Tensor:
    """Which colours and shapes are in a frame of each phase, and which anywhere.

    Args:
        cells (`int64[G, F, 4, 4]`): positions in `CELL_NAMES`.

    Returns:
        `float[G, S + 1, 12]`: 1 where it is there; the last of the S + 1 is for all frames.
    """
    looks = cells.flatten(2)
    traits = torch.stack([(looks - 1) % len(COLOURS), (looks - 1) // len(COLOURS) + len(COLOURS)], -1)
    marks = nn.functional.one_hot(traits.clamp(min=0), len(COLOURS) + len(SHAPES)) * (looks > 0)[..., None, None]
    marks = marks.amax((2, 3))
    return torch.cat([marks[:, list_slots(cells.shape[1])], marks.amax(1, keepdim=True)], 1).float()
