"""`BlindGapCallback`: the blind-visual gap of a model at every evaluation of its training, at a bounded price.

How the model is asked is `callbacks_asking.py`'s; what the gap says at the end is written by `callbacks.py`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from vidground_hf.callbacks_clock import TrainingClock
from vidground_hf.callbacks_record import RECORD_NAME, AnswerRecord
from vidground_hf.callbacks_rows import Asked, draw_rows, report_rows, summarize_rows
from vidground_hf.media import FrameBudget

LEAST_ROWS = 16
"""Are asked at a time, or none: with fewer, an accuracy says nothing. Our guess."""

_MARGIN = 1.25  # rows may take so many times as long as those before them; our guess
_STATE_KEY = "BlindGapCallback.clock"
_METRIC = re.compile(r"(eval_)?((vg|ta)_)?(visual_accuracy|blind_accuracy|gap)")
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
    | `eval_gap_num_rows`, `eval_gap_num_unanswered` | rows behind these figures, maybe 0, and left out of them |
    | `eval_gap_seconds`, `eval_gap_time_share` | of this evaluation; of all so far, of the time since training began |

    Frames, and what the processor makes of them, are kept between evaluations; answers are kept in the output folder
    by the weights that gave them, so that a run that was killed and resumed asks none of them again. In a distributed
    run every process asks its part of the rows.

    Args:
        trainer (`transformers.Trainer`): whose model is asked, and which logs. Its model lies whole in every process.
        dataset (`Dataset`, *optional*): rows as `to_trl` makes them, or in any layout that `curate` knows; defaults to
            the trainer's `eval_dataset`.
        processor (`ProcessorMixin`, *optional*): defaults to the trainer's `processing_class`.
        num_rows (`int`, *optional*, defaults to 128): how many are drawn, at least 1. Our guess: a gap is then
            known to about 5 points.
        max_time_share (`float`, *optional*, defaults to 0.05): of the time since training began, in (0, 1]. Rows are
            asked 16 at a time as long as they fit; a log line says how many did not. The first evaluation of a process
            asks 16 whatever they take, because that is not known before, and where `metric_for_best_model` is one of
            these metrics each does; any other evaluation is left out where 16 do not fit. Compare evaluations of one
            `eval_gap_num_rows`. Outside training nothing is bounded.
        budget (`FrameBudget`, *optional*): what is shown of a clip; defaults to what a `VideoGRPOTrainer` shows in
            training, and to its own defaults beside other trainers.
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
        shower = getattr(trainer, "shower", None)
        if budget is None and shower is not None:
            budget = shower.budget
        self.rows = draw_rows(
            found, num_rows, budget=budget, verdict_column=verdict_column, adapter=adapter, columns=columns,
            media_root=media_root, seed=seed,
        )  # fmt: skip
        self.trainer = trainer
        self.num_workers = num_workers
        self.clock = TrainingClock(max_time_share)
        self.asked: list[Asked] = []
        self.record = AnswerRecord(Path(trainer.args.output_dir) / RECORD_NAME, self.rows)
        self._live: Any = None
        self._row_seconds: dict[bool, float] = {}  # of rows that were asked before, and of new ones
        self._num_asked = 0  # so many rows were asked before

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock, where a resumed run has it from its checkpoint."""
        self.clock.start(perf_counter(), **state.stateful_callbacks.get(_STATE_KEY, {}))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Has the clock written into the next checkpoint."""
        if self.clock.began is not None:
            run_seconds = perf_counter() - self.clock.began
            state.stateful_callbacks[_STATE_KEY] = {"run_seconds": run_seconds, "seconds": self.clock.seconds}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops it: what is evaluated by hand afterwards is not training time."""
        self.clock.began = None

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: dict[str, float], **kwargs: Any) -> None:
        """Asks, adds to the metrics, and logs them through the trainer."""
        if self._is_repeated(metrics):
            return
        found = self.measure()
        metrics.update(found)
        self.on_step_end(args, state, control)
        # Not the trainer's own `log`: those of TRL would print and empty what they gather between two of theirs.
        Trainer.log(self.trainer, dict(found))

    def measure(self) -> dict[str, float]:
        """Asks the model as it is now, during training within the time that is left.

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
                self.asked = self._recall_or_ask(model, start)
        finally:
            model.train(was_training)
        now = perf_counter()
        self.clock.add(now - start)
        metrics: dict[str, float] = {"eval_gap_num_rows": 0, "eval_gap_num_unanswered": 0}
        if self.asked:
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
        if not self.asked:  # left out the last time, too
            self.measure()
        return {"evaluation rows": report_rows(self.rows, self.asked)}

    def _is_repeated(self, metrics: Mapping[str, float]) -> bool:
        """Whether this is another of several evaluation sets, each of which is evaluated with the same model."""
        sets = self.trainer.eval_dataset
        names = list(sets)[1:] if isinstance(sets, dict) else []
        return any(f"eval_{name}_runtime" in metrics for name in names)

    def _recall_or_ask(self, model: Any, start: float) -> list[Asked]:
        """The answers of these weights: what is written down of them, or what they say."""
        is_main = self.trainer.is_world_process_zero()
        name = self.record.name(model) if is_main else ""
        # One process reads and writes, and all of them ask the same rows.
        (known,) = broadcast_object_list([self.record.find(name) if is_main else []])
        is_bounded = self.clock.began is not None
        if known and (is_bounded or len(known) == len(self.rows)):
            return list(known)
        if self._live is None or self._live.model is not model:
            self._live = _make_live(model, self.processor, self.num_workers)
        asked = self._ask_within(start) if is_bounded else self._ask(range(len(self.rows)))
        if is_main and asked and all(one.error is None for one in asked):
            self.record.keep(name, asked)
        return asked

    def _ask_within(self, start: float) -> list[Asked]:
        """Asks all rows, or as many as the time allows: always the first of them."""
        total = len(self.rows)
        asked: list[Asked] = []
        while len(asked) < total:
            rows = range(len(asked), min(len(asked) + LEAST_ROWS, total))
            # The clocks of processes differ.
            (fits,) = broadcast_object_list([self._fits(rows, start)])
            if not fits:
                break
            began = perf_counter()
            asked += self._ask(rows)
            self._row_seconds[rows.stop > self._num_asked] = (perf_counter() - began) / len(rows)
            self._num_asked = max(self._num_asked, rows.stop)
        if len(asked) < total:
            _log.warning(
                "asking %d of %d rows for the blind-visual gap: more would take over %.0f %% of the training time",
                len(asked),
                total,
                100 * self.clock.max_share,
            )
        return asked

    def _fits(self, rows: range, start: float) -> bool:
        """Whether there is time for more rows; for the first ones, whether they have to be asked anyway."""
        is_wanted = _METRIC.fullmatch(self.trainer.args.metric_for_best_model or "") is not None
        if rows.start == 0 and (is_wanted or not self._row_seconds):
            return True
        is_new = rows.stop > self._num_asked
        row_seconds = self._row_seconds.get(is_new, max(self._row_seconds.values()))
        now = perf_counter()
        return _MARGIN * row_seconds * len(rows) <= self.clock.measure_left(now, now - start)

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
