"""Hands pixels to the model in each of its calls, and makes sure that they arrive.

What is shown is prepared in `grpo_prompts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from vidground_hf.grpo_prompts import ShownPrompt, SightError, collate, collate_types
from vidground_hf.grpo_sharing import SharedClips


class SeeingModel:
    """Stands for a model in a pass over a batch, and adds to each call what its rows show.

    Args:
        model (`Callable`): the model, wrapped or not.
        bare_model (`PreTrainedModel`): the same without wrappers.
        prompts (`Sequence[ShownPrompt]`): one for each row of the batch, in order.
        prompt_length (`int`): columns of the prompts, padded on the left.
    """

    def __init__(self, model: Any, bare_model: Any, prompts: Sequence[ShownPrompt], prompt_length: int) -> None:
        self.model, self.bare_model = model, bare_model
        self.prompts, self.prompt_length = prompts, prompt_length
        self.num_seen = 0

    def __call__(self, *, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """Calls the model with the next rows.

        Raises:
            `SightError`: when rows hold other prompts than expected, or their pixels did not go through the model.
        """
        prompts = self.prompts[self.num_seen : self.num_seen + len(input_ids)]
        self.num_seen += len(input_ids)
        self._check_tokens(input_ids, prompts)
        shown = collate(prompts) | collate_types(prompts, self.prompt_length, input_ids.shape[1])
        shown = {key: value.to(input_ids.device) for key, value in shown.items()}
        with watch_pixels(self.bare_model, prompts):
            return self.model(input_ids=input_ids, **inputs, **shown)

    def check_done(self) -> None:
        """Makes sure that all rows came by.

        Raises:
            `SightError`: when some did not.
        """
        if self.num_seen != len(self.prompts):
            raise SightError(
                f"the model was called with {self.num_seen} of {len(self.prompts)} rows; this version of TRL calls it "
                "in a way that is not known, so that pixels may not reach it"
            )

    def _check_tokens(self, input_ids: torch.Tensor, prompts: Sequence[ShownPrompt]) -> None:
        for row, prompt in zip(input_ids[:, : self.prompt_length].tolist(), prompts, strict=True):
            if row[len(row) - len(prompt.ids) :] != prompt.ids:
                raise SightError(
                    "a row of the batch holds another prompt than the one whose pixels go with it; they were "
                    "reordered apart, and training would show rows the wrong videos"
                )


@contextmanager
def watch_pixels(model: Any, prompts: Sequence[ShownPrompt]) -> Iterator[None]:
    """Has the vision tower run once for each different clip in this block, and makes sure that it does run.

    Args:
        model (`PreTrainedModel`): without wrappers.
        prompts (`Sequence[ShownPrompt]`): what it is shown.

    Raises:
        `SightError`: when it did not run although prompts have pixels, or there is none.
    """
    num_shown = sum(bool(prompt.tensors) for prompt in prompts)
    if not num_shown:
        yield
        return
    tower = model.get_encoder(modality="video")
    if tower is model:
        raise SightError(f"{type(model).__name__} has no vision tower that transformers knows; pixels cannot reach it")
    runs: list[bool] = []
    shared = SharedClips(prompts)
    with ExitStack() as hooks:
        if shared.is_useful:
            hooks.callback(tower.register_forward_pre_hook(shared.cut, with_kwargs=True).remove)
            hooks.callback(tower.register_forward_hook(shared.spread, with_kwargs=True).remove)
        hooks.callback(tower.register_forward_hook(lambda *details: runs.append(True)).remove)
        yield
    if not runs:
        raise SightError(
            f"the pixels of {num_shown} rows did not reach the model: its vision tower did not run, so that it would "
            "be trained blind"
        )
