"""`BlindGapCallback`: the blind-visual gap of a model at every evaluation of its training, at a bounded price.

How the model is asked is `callbacks_asking.py`'s; what the gap says at the end is written by `callbacks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from vidground_hf.callbacks_clock import TrainingClock
from vidground_hf.callbacks_rows import Asked, draw_rows, report_rows, summarize_rows
from vidground_hf.media import FrameBudget

LEAST_ROWS = 16
"""Are asked however short the time is: with fewer, an accuracy says nothing. Our guess."""

_log = logging.getLogger(__name__)


class BlindGapCallback(TrainerCallback):
    """Adds accuracy with the video, without it, and the gap to the metrics of every evaluation.

    `trainer.add_callback(BlindGapCallback(trainer))` works with transformers' `Trainer` and every trainer of TRL.
    Multiple-choice rows are drawn by the seed and answered by the probabilities of the option letters, in evaluation
    mode; options are shown in an order drawn for each row. `metric_for_best_model="eval_gap"` may name one of:

    | metric | what |
    |---|---|
    | `eval_visual_accuracy`, `eval_blind_accuracy`, `eval_gap` | on all rows asked |
    | `eval_vg_visual_accuracy`, ... | on rows that need the video, where rows say so; `eval_ta_...` on the others |
    | `eval_gap_num_rows`, `eval_gap_num_unanswered` | rows behind these figures, and rows left out of them |
    | `eval_gap_seconds`, `eval_gap_time_share` | of this evaluation; of all so far, of the time since training began |

    Frames, and what the processor makes of them, are kept between evaluations. In a distributed run every process asks
    its part of the rows.

    Args:
        trainer (`transformers.Trainer`): whose model is asked, and which logs. Its model lies whole in every process.
        dataset (`Dataset`, *optional*): rows as `to_trl` makes them, or in any layout that `curate` knows; defaults to
            the trainer's `eval_dataset`.
        processor (`ProcessorMixin`, *optional*): defaults to the trainer's `processing_class`.
        num_rows (`int`, *optional*, defaults to 128): how many are drawn, at least 1. Our guess: a gap is then
            known to about 5 points.
        max_time_share (`float`, *optional*, defaults to 0.05): of the training time, in (0, 1]. The time of the whole
            run is estimated from the steps done, and fewer rows are asked, at least 16, where they would take more; a
            log line says so. Compare evaluations of one `eval_gap_num_rows`. Outside training nothing is bounded.
        budget (`FrameBudget`, *optional*): what is shown of a clip; defaults to its defaults.
        verdict_column (`str`, *optional*): `"is_visually_grounded"` or `"needs"`; defaults to the first that is there.
        adapter, columns, media_root: how rows are read, as in `curate`.
        seed (`int`, *optional*, defaults to 0): of the rows and the orders of their options.
        num_workers (`int`, *optional*, defaults to 1): processes that decode videos; 0 decodes in between.

    Attributes:
        asked (`list[Asked]`): the answers of the last evaluation.

    Raises:
        `ValueError`: for settings out of range, a processor without videos, a sharded model, and rows that cannot be
            asked.

    Example:
        >>> callback = BlindGapCallback(trainer, num_rows=64)  # doctest: +SKIP
        >>> trainer.add_callback(callback)  # doctest: +SKIP
        >>> trainer.add_callback(GapCardCallback(callback.report, base_model="user/base"))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: Dataset | None = None,
        *,
        processor: Any = None,
        num_rows: int = 128,
        max_time_share: float = 0.05,
        budget: FrameBudget | None = None,
        verdict_column: str | None = None,
        adapter: str | None = None,
        columns: Mapping[str, str] | None = None,
        media_root: str | None = None,
        seed: int = 0,
        num_workers: int = 1,
    ) -> None:
        if num_rows < 1 or not 0 < max_time_share <= 1:
            raise ValueError(f"{num_rows = } or {max_time_share = } is out of range; allowed are 1 or more, (0, 1]")
        check_whole(trainer)
        self.processor = trainer.processing_class if processor is None else processor
        if getattr(self.processor, "video_processor", None) is None:
            raise ValueError(
                f"{type(self.processor).__name__} prepares no videos; pass the model's own as processor=, from "
                "AutoProcessor.from_pretrained"
            )
        found = trainer.eval_dataset if dataset is None else dataset
        if not isinstance(found, Dataset):
            raise ValueError(
                f"the rows to ask are a {type(found).__name__}; pass one Dataset, not streamed, as dataset="
            )
        self.rows = draw_rows(
            found, num_rows, budget=budget, verdict_column=verdict_column, adapter=adapter, columns=columns,
            media_root=media_root, seed=seed,
        )  # fmt: skip
        self.trainer = trainer
        self.num_workers = num_workers
        self.clock = TrainingClock(max_time_share)
        self.asked: list[Asked] = []
        self._live: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.clock.start(perf_counter())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops it: what is evaluated by hand afterwards is not training time."""
        self.clock.began = None

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: dict[str, float], **kwargs: Any) -> None:
        """Asks, adds to the metrics, and logs them through the trainer."""
        if self._is_repeated(metrics):
            return
        found = self.measure(None if self.clock.began is None else state.global_step / state.max_steps)
        metrics.update(found)
        # Not the trainer's own `log`: those of TRL would print and empty what they gather between two of theirs.
        Trainer.log(self.trainer, dict(found))

    def measure(self, progress: float | None = None) -> dict[str, float]:
        """Asks the model as it is now.

        Args:
            progress (`float`, *optional*): how much of the run is done, in [0, 1]; bounds the time.

        Returns:
            `dict[str, float]`: the metrics; those that rows say nothing about are not in it.

        Raises:
            `RuntimeError`: when no row got both answers; says why the first one did not.
        """
        start = perf_counter()
        model = unwrap_model(self.trainer)
        was_training = model.training
        model.eval()
        try:
            with self.trainer.accelerator.autocast():
                if self._live is None or self._live.model is not model:
                    self._live = _make_live(model, self.processor, self.num_workers)
                self.asked = (
                    self._ask(range(len(self.rows))) if progress is None else self._ask_within(progress, start)
                )
        finally:
            model.train(was_training)
        now = perf_counter()
        self.clock.add(now - start)
        metrics = summarize_rows(self.asked, [row.is_grounded for row in self.rows])
        metrics["eval_gap_seconds"] = now - start
        share = self.clock.measure_share(now)
        return metrics if share is None else metrics | {"eval_gap_time_share": share}

    def report(self, model: Any = None) -> dict[str, dict[str, Any]]:
        """The last evaluation as `measure_gap` puts it, for `GapCardCallback`; asks where there was none.

        Args:
            model (`PreTrainedModel`, *optional*): not used; the trainer's is asked.

        Returns:
            `dict[str, dict]`: one gap report, under the name `"evaluation rows"`.
        """
        if not self.asked:
            self.measure()
        return {"evaluation rows": report_rows(self.rows, self.asked)}

    def _is_repeated(self, metrics: Mapping[str, float]) -> bool:
        """Whether this is another of several evaluation sets, each of which is evaluated with the same model."""
        sets = self.trainer.eval_dataset
        names = list(sets)[1:] if isinstance(sets, dict) else []
        return any(f"eval_{name}_runtime" in metrics for name in names)

    def _ask_within(self, progress: float, start: float) -> list[Asked]:
        """Asks all rows, or as many as the time allows: always the first of them."""
        total = len(self.rows)
        least = min(LEAST_ROWS, total)
        asked = self._ask_timed(range(least)) if self.clock.seconds_per_row is None else []
        now = perf_counter()
        num_rows = min(total, max(least, self.clock.count_rows(progress, now, now - start)))
        # The clocks of processes differ, and all of them ask the same rows.
        (num_rows,) = broadcast_object_list([num_rows])
        if num_rows < total:
            _log.warning(
                "asking %d of %d rows for the blind-visual gap: more would take over %.0f %% of the training time",
                num_rows,
                total,
                100 * self.clock.max_share,
            )
        return asked + self._ask_timed(range(len(asked), num_rows))

    def _ask_timed(self, rows: range) -> list[Asked]:
        start = perf_counter()
        asked = self._ask(rows)
        if asked:
            self.clock.seconds_per_row = (perf_counter() - start) / len(asked)
        return asked

    def _ask(self, rows: range) -> list[Asked]:
        """Asks this process's part of some rows, and gathers all."""
        accelerator = self.trainer.accelerator
        mine = rows[accelerator.process_index :: accelerator.num_processes]
        answers = self._live.ask([prompt for row in mine for prompt in self.rows[row].prompts])
        pairs = zip(mine, answers[::2], answers[1::2], strict=True)
        return sorted(gather_object([self.rows[row].score(row, visual, blind) for row, visual, blind in pairs]))


def check_whole(trainer: Trainer) -> None:
    """Refuses models whose layers are spread over processes: they do not answer by themselves."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise ValueError(
            "the model's weights are spread over processes (FSDP or ZeRO stage 3), and BlindGapCallback asks a whole "
            "model; use ZeRO stage 2 or DDP, or measure checkpoints with vidground bench"
        )


def unwrap_model(trainer: Trainer) -> Any:
    """The model itself, with its adapters in place, without what training put around it."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _make_live(model: Any, processor: Any, num_workers: int) -> Any:
    from vidground_hf.callbacks_asking import LiveModel

    return LiveModel(model, processor, num_workers=num_workers)
