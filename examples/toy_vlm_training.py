"""How the toy model learns: one pass over the video for several questions, and hints beside the letters.

What is learned from is drawn in `toy_vlm_data.py`, the hints are in `toy_vlm_hints.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss
from toy_vlm_data import FPS, UNKNOWN, Asked, Group, find_letter_ids
from toy_vlm_hints import (
    ANSWER_LAYER,
    MATCH_LAYER,
    NUM_TRAITS,
    PLACE_LAYER,
    REPORT_LAYER,
    TURN_LAYER,
    VERDICT_LAYER,
    WEIGHTS,
    Hints,
)

from vidground_hf.toy_questions import NUM_OPTIONS, VISUAL_ANSWERS
from vidground_hf.toy_world import COLOURS

GUESS_WEIGHT = 0.3


class Seen(NamedTuple):
    """What has been run before the questions.

    Attributes:
        cache (`Cache`): of the language model.
        end (`int`): the next position.
        visual (`float[V, W]`), states (sequence of `float[G, T, W]`), is_visual (`bool[G, T]`), *optional*: of a
            video, as `Hints.grade_clip` takes them.
    """

    cache: Any
    end: int
    visual: torch.Tensor | None = None
    states: Any = None
    is_visual: torch.Tensor | None = None


class Learner(nn.Module):
    """The model with its hints; called with a group, it gives the loss.

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

    def forward(self, group: Group) -> tuple[torch.Tensor, float | None]:
        """The weighted sum of all losses, and the share of known answers that are right (`None` without any)."""
        losses, right = self.grade(group)
        return sum(WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()), right

    def grade(self, group: Group) -> tuple[dict[str, torch.Tensor], float | None]:
        """The losses by name, each a mean, and the share of known answers that are right."""
        seen = self._watch(group)
        losses: dict[str, torch.Tensor] = {}
        if seen.visual is not None:
            losses |= self.hints.grade_clip(group, seen.visual, seen.states, seen.is_visual, self._name)
            losses |= self._grade_words(group.cells.flatten(), seen.visual)
        if group.asked is None:
            return losses, None
        out = self._ask(group, seen)
        graded, right = self._grade_answers(group.asked, out.last_hidden_state, out.hidden_states)
        losses |= self.hints.grade_topics(group.asked, out.hidden_states[TURN_LAYER])
        if seen.visual is not None and len(group.asked.mentions):
            early, late = (out.hidden_states[layer] for layer in (MATCH_LAYER, REPORT_LAYER))
            losses |= self.hints.grade_mentions(group, early, late, self._name)
        return losses | graded, right

    def read_tokens(self, group: Group) -> torch.Tensor:
        """The log-probability of each token as the answer's first (`float[R, V]`)."""
        last = self._ask(group, self._watch(group)).last_hidden_state
        return log_softmax(self.model.lm_head(last[torch.arange(len(last)), group.asked.ends]), dim=-1)

    def _ask(self, group: Group, seen: Seen) -> Any:
        """Runs the questions behind what was seen."""
        inner, ids = self.model.model, group.asked.ids
        seen.cache.batch_repeat_interleave(len(ids) // len(group.frames))
        return inner.language_model(
            inputs_embeds=inner.get_input_embeddings()(ids),
            position_ids=torch.arange(seen.end, seen.end + ids.shape[1]).expand(3, len(ids), -1),
            past_key_values=seen.cache,
            output_hidden_states=True,
        )

    def _watch(self, group: Group) -> Seen:
        """Runs what comes before the questions."""
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
            return Seen(out.past_key_values, embeds.shape[1])
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
        return Seen(out.past_key_values, int(positions[0, 0, -1]) + 1, visual, out.hidden_states, is_visual)

    def _grade_words(self, cells: torch.Tensor, visual: torch.Tensor) -> dict[str, torch.Tensor]:
        """A visual token shall look like the words for its colour and shape."""
        seen, looks = visual[cells > 0], cells[cells > 0] - 1
        words = self._embed_answers()[:NUM_TRAITS]
        colours, shapes = words.split(len(COLOURS))
        return {
            "colours": cross_entropy(seen @ colours.T, looks % len(COLOURS)),
            "shapes": cross_entropy(seen @ shapes.T, looks // len(COLOURS)),
        }

    def _name(self, states: torch.Tensor) -> torch.Tensor:
        """What inner states say of each answer, read as the model's last layer is: hints and words share one space."""
        return self.model.model.language_model.norm(states) @ self._embed_answers().T

    def _embed_answers(self) -> torch.Tensor:
        """The mean embedding of the words of each answer."""
        embeds = self.model.get_input_embeddings()(self.answer_ids)
        return (embeds * self.answer_mask).sum(1) / self.answer_mask.sum(1)

    def _grade_answers(
        self, asked: Asked, last: torch.Tensor, states: Any
    ) -> tuple[dict[str, torch.Tensor], float | None]:
        rows = torch.arange(len(asked.ids))
        losses = {}
        right = None
        is_seen = asked.answers != UNKNOWN
        if is_seen.any():
            middle = states[ANSWER_LAYER]
            read = torch.stack([middle[rows, asked.question_ends], middle[rows, asked.ends]])[:, is_seen]
            found = self._name(read)
            losses["answers"] = cross_entropy(found.flatten(0, 1), asked.answers[is_seen].repeat(2))
            right = float((found[0].argmax(1) == asked.answers[is_seen]).float().mean())
        if asked.option_ends is None:
            return losses, right
        letters = log_softmax(self.model.lm_head(last[rows, asked.ends]), dim=-1)[:, self.letter_ids]
        named = self.hints.letter(states[PLACE_LAYER][rows[:, None], asked.option_ends])
        losses["names"] = cross_entropy(named.flatten(0, 1), torch.arange(NUM_OPTIONS).repeat(len(rows)))
        is_known = asked.gold != UNKNOWN
        if is_known.any():
            gold = asked.gold[is_known]
            verdicts = self.hints.verdict(states[VERDICT_LAYER][rows[:, None], asked.option_ends])[is_known]
            is_gold = (torch.arange(NUM_OPTIONS) == gold[:, None]).long()
            losses["verdicts"] = cross_entropy(verdicts.flatten(0, 1), is_gold.flatten())
            losses["letters"] = nll_loss(letters[is_known], gold)
            right = float((letters[is_known].argmax(1) == gold).float().mean())
        if not is_known.all():
            losses["guesses"] = -GUESS_WEIGHT * letters[~is_known].mean()
        return losses, right
