"""`VideoGRPOTrainer`: TRL's GRPO with videos and images that reach generation and every log-probability.

What rows show is prepared in `grpo_prompts.py`; settings to train with are in `grpo_recipe.py`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

try:
    import trl
    from accelerate.utils import is_peft_model
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ImportError as error:
    raise ImportError("VideoGRPOTrainer needs TRL: pip install 'vidground-hf[train]'") from error

from vidground_hf.grpo_checks import check_arguments, check_trl
from vidground_hf.grpo_media import MEDIA_COLUMNS, Row, RowView, keep_encoded, view_rows
from vidground_hf.grpo_prompts import PromptShower, ShownPrompt, collate
from vidground_hf.grpo_recipe import TRAINING_FRAMES
from vidground_hf.grpo_sight import SeeingModel, watch_pixels
from vidground_hf.grpo_vllm import send_media
from vidground_hf.media import FrameBudget

check_trl(version("trl"))

ROW_WEIGHTS_NAME = "row_weights.json"
_SHOWN = "shown_prompts"


class VideoGRPOTrainer(trl.GRPOTrainer):
    """Trains a vision-language model with GRPO on rows with videos, images or text alone, in any mixture.

    Rows have a `prompt` (messages), and `video` (path, URL, bytes, or a cell of a `datasets.Video` column; a part of
    it with `start_seconds` and `end_seconds`), or `images` or `image`, or neither. It is shown before the text of the
    last user message. Other columns go to the rewards. Each clip of a batch is decoded once, as the budget says, in
    `args.dataloader_num_workers` processes, and goes through the vision tower once in each call of the model. What a
    row shows goes with its completions through generation and through the old, the reference and the current
    log-probabilities; a batch whose pixels do not reach the model stops the run.

    A checkpoint resumes exactly where a new generation starts after it, which is at every step unless
    `num_iterations` or `steps_per_generation` makes completions last longer.

    Args:
        model (`str` or `PreTrainedModel`): a vision-language model.
        reward_funcs (`Callable` or `list`): as TRL takes them.
        args (`trl.GRPOConfig`, *optional*): settings; `vidground_recipe()` gives those of VidGround.
        train_dataset (`Dataset` or `IterableDataset`, *optional*): rows as above.
        eval_dataset (`Dataset`, `IterableDataset` or `dict` of these, *optional*): rows as above.
        frame_budget (`FrameBudget`, *optional*): how much of a video is shown; defaults to `TRAINING_FRAMES`.
        kwargs: the others of `trl.GRPOTrainer`, but for tools, environments and `rollout_func`.

    Attributes:
        row_weights (`dict[str, float]`): by the `id` of a row, what its advantages are multiplied with; 1 where there
            is none. Saved in checkpoints, and restored from them.

    Raises:
        `ValueError`: for arguments that pixels could not go through, or a model without a processor.

    Example:
        >>> from trl import GRPOConfig
        >>> trainer = VideoGRPOTrainer(  # doctest: +SKIP
        ...     "Qwen/Qwen2.5-VL-3B-Instruct",
        ...     reward_funcs=reward_accuracy,
        ...     args=GRPOConfig("out", **vidground_recipe()),
        ...     train_dataset=rows,
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        frame_budget: FrameBudget = TRAINING_FRAMES,
        **kwargs: Any,
    ) -> None:
        check_arguments(args, kwargs)
        self.row_weights: dict[str, float] = {}
        self._batch_rows: Sequence[Row] = []
        self._batch: list[ShownPrompt] = []  # what each row shows whose log-probabilities are computed next
        self._shown: dict[str, list[ShownPrompt]] = {}  # of the last generation, in training and in evaluation
        super().__init__(
            model,
            reward_funcs,
            args=args,
            train_dataset=keep_encoded(train_dataset),
            eval_dataset=keep_encoded(eval_dataset),
            **kwargs,
        )
        if not self._is_vlm:
            raise ValueError(
                f"{type(self.processing_class).__name__} takes text only; pass the model's AutoProcessor, or train "
                "with trl.GRPOTrainer"
            )
        self.shower = PromptShower(
            self.processing_class,
            self._render,
            list(inspect.signature(self._bare(self.model).forward).parameters),
            frame_budget,
            self.args.dataloader_num_workers,
        )
        if self.use_vllm:
            self.vllm_generation.llm.generate = send_media(self.vllm_generation.llm.generate)
        else:
            self._suppress_placeholders()

    def sample_completions(self, rows: Sequence[Row], *, view: RowView, num_generations: int) -> list[list[str]]:
        """Samples the current policy's completions, leaving training as it was.

        Under several processes each calls it with as many rows of its own. The random numbers are drawn from the state
        of training, which is put back: asked twice in one place, or under two views, it draws the same ones.

        Args:
            rows (`Sequence[Mapping]`): N rows as the trainer takes them.
            view (`"video"`, `"text"` or `"wrong_video"`): as they are; without what they show; or each with what
                another row of this call shows.
            num_generations (`int`): how many of each row, at least 1.

        Returns:
            `list[list[str]]`: of each row its completions.

        Raises:
            `ValueError`: for another view or number, or for a wrong video where all rows show the same.

        Example:
            >>> trainer.sample_completions(rows[:2], view="text", num_generations=3)  # doctest: +SKIP
            [['A', 'B', 'A'], ['D', 'D', 'D']]
        """
        if num_generations < 1:
            raise ValueError(f"num_generations = {num_generations} is out of range; it is at least 1")
        shown = self.shower.show(view_rows(rows, view, self.shower.budget))
        repeated = [prompt for prompt in shown for _ in range(num_generations)]
        most = max(self.args.per_device_train_batch_size * self.args.steps_per_generation, num_generations)
        most -= most % num_generations  # whole groups, of which vLLM's server mode takes the first
        device = self.accelerator.device
        texts: list[str] = []
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            torch.manual_seed(int(torch.randint(2**62, ())))
            for start in range(0, len(repeated), most):
                sampled, _ = self._sample(repeated[start : start + most], num_generations)
                texts += self.processing_class.batch_decode(sampled, skip_special_tokens=True)
        return [texts[start : start + num_generations] for start in range(0, len(texts), num_generations)]

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns: list[str] = list(dict.fromkeys([*self._signature_columns, "id", *MEDIA_COLUMNS]))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        self._batch_rows = inputs
        # TRL would prepare images once more, by rows that have them and rows that do not.
        bare = [{key: value for key, value in row.items() if key not in ("images", "image")} for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(bare)
        self._shown[mode] = list(dict.fromkeys(self._batch))
        places = {prompt: place for place, prompt in enumerate(self._shown[mode])}
        device = output["advantages"].device
        output[_SHOWN] = torch.tensor([places[prompt] for prompt in self._batch], device=device)
        weights = [self.row_weights.get(str(row.get("id")), 1.0) for row in inputs]
        output["advantages"] = output["advantages"] * torch.tensor(weights, device=device)
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        return super()._calculate_rewards(self._batch_rows, prompts, completions, completion_ids_list)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        self._batch = self.shower.show(self._batch_rows)
        return [prompt.ids for prompt in self._batch], None, {}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int
    ) -> tuple[Any, Any]:
        return self._sample(self._batch, num_generations)

    def _sample(self, prompts: Sequence[ShownPrompt], num_generations: int) -> tuple[Any, Any]:
        ids = [prompt.ids for prompt in prompts]
        if self.use_vllm:
            media = [[prompt.vllm_media] if prompt.vllm_media else None for prompt in prompts]
            return super()._generate_single_turn(ids, media, {}, num_generations)
        fields: dict[str, Any] = dict(collate(prompts))
        if any(any(prompt.types) for prompt in prompts):
            fields["mm_token_type_ids"] = [prompt.types for prompt in prompts]
        with watch_pixels(self._bare(self.model), prompts):
            return super()._generate_single_turn(ids, None, fields, num_generations)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        shown = self._shown["train" if self.model.training else "eval"]
        self._batch = [shown[place] for place in inputs[_SHOWN].tolist()]
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **kwargs: Any
    ) -> Any:
        seeing = SeeingModel(model, self._bare(model), self._batch, input_ids.shape[1] - logits_to_keep)
        found = super()._get_per_token_logps_and_entropies(seeing, input_ids, attention_mask, logits_to_keep, **kwargs)
        seeing.check_done()
        return found

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder = Path(self._get_output_dir(trial=trial)) / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ROW_WEIGHTS_NAME).write_text(json.dumps(self.row_weights), encoding="utf-8")
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        if not self._load_weights(checkpoint):
            super()._load_from_checkpoint(checkpoint, model)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_weights(self.state.best_model_checkpoint)

    def _load_weights(self, checkpoint: str) -> bool:
        """Loads weights by whatever names they are saved under, unless they are an adapter's or sharded."""
        bare = self.accelerator.unwrap_model(self.model)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or is_peft_model(bare):
            return False
        # The Trainer itself leaves out weights whose names it does not find, and goes on from the first ones
        # (transformers issue 43701).
        bare.load_state_dict(type(bare).from_pretrained(checkpoint, dtype=bare.dtype).state_dict())
        return True

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        epochs, steps = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial
        )
        if checkpoint is not None:
            path = Path(checkpoint) / ROW_WEIGHTS_NAME
            self.row_weights = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            # TRL counts calls to know when to generate, and draws the order of each epoch after that of the last.
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
            for _ in range(epochs if self.shuffle_dataset else 0):
                torch.randperm(self._train_sampler.num_samples, generator=self._train_sampler.generator)
        return epochs, steps

    def _render(self, messages: list[dict[str, Any]]) -> str:
        text: str = self.processing_class.apply_chat_template(
            messages,
            chat_template=self.chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **self.chat_template_kwargs,
        )
        return text

    def _bare(self, model: Any) -> Any:
        bare = self.accelerator.unwrap_model(model)
        return bare.get_base_model() if is_peft_model(bare) else bare

    def _suppress_placeholders(self) -> None:
        """Keeps sampled text free of placeholders: each would ask for pixels that nobody has."""
        config = self._bare(self.model).config
        found = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        given = self.generation_kwargs.get("suppress_tokens") or []
        tokens = sorted({int(token) for token in (*found, *given) if token is not None})
        self.generation_kwargs["suppress_tokens"] = tokens
        self.generation_config.suppress_tokens = tokens
