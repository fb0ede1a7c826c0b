"""Post-trains a vision-language model on curated video questions with GRPO, in the manner of TRL's own scripts.

    accelerate launch --config_file examples/post_train/one_gpu.yaml examples/post_train.py \
        --data curated --media_root CLIPS --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct --dtype bfloat16 \
        --output_dir watcher --push_to_hub

`--data` is a folder that `vidground curate` wrote, or the id of such a set on the Hub. Besides the options below it
takes those of `trl.GRPOConfig` and `trl.ModelConfig`, also as `--config FILE.yaml`; what is not given is
`vidground_recipe()`'s. The same command goes on from the last checkpoint in `--output_dir`. The walk-through is
`sft_then_grpo.md`. Needs `pip install "vidground-hf[train]"`.
"""

import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from huggingface_hub import hf_hub_download
from trl import GRPOConfig, ModelConfig, TrlParser, get_peft_config, get_quantization_config

from vidground_hf import (
    BlindGapCallback,
    GapCardCallback,
    LookReward,
    RefreshGrounding,
    VideoGRPOTrainer,
    accuracy_reward,
    format_reward,
    length_reward,
    load_curated,
    temporal_iou_reward,
    to_trl,
    vidground_recipe,
)
from vidground_hf.grpo_recipe import TRAINING_FRAMES
from vidground_hf.hub_errors import HubError
from vidground_hf.loading import DataError
from vidground_hf.post_training import read_trl

REWARDS = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "length": length_reward,
    "temporal_iou": temporal_iou_reward,
    "look": LookReward,
}
# Our guesses: ten evaluations and ten checkpoints a run, of which two are kept; adapters on every linear layer.
DEFAULTS: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.1, "save_total_limit": 2}
DEFAULTS |= {"lora_target_modules": ["all-linear"]}
SPLIT_COLUMN = "curated_split"
NUM_WRITTEN_ROWS = 8  # held-out questions whose answers are written out at an evaluation, which is slow; our guess

_log = logging.getLogger(__name__)


@dataclass
class ScriptArguments:
    """What is trained on, what is rewarded and what is watched."""

    data: str = field(metadata={"help": "folder that `vidground curate` wrote, or id of a curated set on the Hub"})
    source: str | None = field(default=None, metadata={"help": "your copy of the source, where only ids were pushed"})
    media_root: str | None = field(default=None, metadata={"help": "folder that the paths of videos start from"})
    splits: list[str] = field(default_factory=lambda: ["grounded"], metadata={"help": "which splits are trained on"})
    rewards: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={
            "choices": list(REWARDS),
            "help": "with format, models are asked to think first; look takes the place of accuracy",
        },
    )
    max_frames: int = field(default=TRAINING_FRAMES.max_frames or 0, metadata={"help": "of a clip, at most"})
    blind_gap: bool = field(default=True, metadata={"help": "follow the gap; not with ZeRO stage 3 or FSDP"})
    held_out_rows: int = field(default=128, metadata={"help": "for the gap; whole clips, never trained on"})
    refresh_every: int = field(default=0, metadata={"help": "steps between two RefreshGrounding; 0 for never"})


class Trainer(VideoGRPOTrainer):
    """Leaves the card to `GapCardCallback`, when pushing, too."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


def make_parser() -> TrlParser:
    """Parses our options and TRL's, with the recipe for defaults."""
    parser = TrlParser((ScriptArguments, GRPOConfig, ModelConfig), description=__doc__)
    parser.set_defaults_with_config(**vidground_recipe(), **DEFAULTS)
    return parser


def main(script_args: ScriptArguments, training_args: GRPOConfig, model_args: ModelConfig) -> Trainer:
    """Trains, and saves or pushes the model with its card."""
    splits, report = open_curated(script_args.data, script_args.source)
    num_held_out = script_args.held_out_rows if script_args.blind_gap else 0
    train_rows, held_out = make_rows(splits, script_args, num_held_out)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    } | (training_args.model_init_kwargs or {})
    if not num_held_out:
        training_args.eval_strategy = "no"
    budget = replace(TRAINING_FRAMES, max_frames=script_args.max_frames)
    rewards = [LookReward() if name == "look" else REWARDS[name] for name in script_args.rewards]
    trainer = Trainer(
        model_args.model_name_or_path,
        reward_funcs=rewards,
        args=training_args,
        train_dataset=train_rows,
        eval_dataset=held_out.select(range(min(NUM_WRITTEN_ROWS, len(held_out)))) if num_held_out else None,
        frame_budget=budget,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    for reward in rewards:
        if isinstance(reward, LookReward):
            reward.attach(trainer)
    if script_args.refresh_every:
        trainer.add_callback(RefreshGrounding(trainer, script_args.refresh_every))
    gap = BlindGapCallback(trainer, held_out) if num_held_out else None
    if gap is not None:
        trainer.add_callback(gap)

    def measure(model: Any) -> dict[str, dict[str, Any]]:
        """The gap of the model that is saved, on all rows; without `blind_gap` the card has none."""
        if gap is None:
            return {}
        gap.measure()
        return gap.report()

    is_ladder = report.get("kind") == "ladder"  # such reports have other figures
    base_model = str(model_args.model_name_or_path)
    card = GapCardCallback(measure, base_model=base_model, training_report=None if is_ladder else report)
    trainer.add_callback(card)
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint or find_checkpoint(training_args))
    trainer.save_model()  # and pushes the folder, with its card, where it is told to
    return trainer


def open_curated(data: str, source: str | None) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """The splits of a curated set, and its report."""
    folder = Path(data)
    if not (folder / "report.json").is_file() and (folder.exists() or data.count("/") != 1):
        raise DataError(
            f"no curated set in {data!r}; pass a folder that `vidground curate DATA --output DIR` wrote, or the id of "
            "one on the Hub, user/name"
        )
    splits = load_curated(data, source=source)
    path = folder / "report.json" if folder.exists() else hf_hub_download(data, "report.json", repo_type="dataset")
    return dict(splits), json.loads(Path(path).read_text(encoding="utf-8"))


def make_rows(splits: dict[str, Dataset], script_args: ScriptArguments, num_held_out: int) -> tuple[Dataset, Dataset]:
    """Rows to train on, and those of held-out clips, which are drawn from all splits: a gap needs both kinds."""
    missing = [name for name in script_args.splits if name not in splits]
    if missing:
        raise DataError(f"no rows in split {', '.join(missing)}; the set has {', '.join(splits)}: pass --splits")
    rows = to_trl(
        concatenate_datasets([part.add_column(SPLIT_COLUMN, [name] * len(part)) for name, part in splits.items()]),
        media_root=script_args.media_root,
        reasoning="format" in script_args.rewards,
    )
    check_videos(rows)
    groups = [example.group or example.id for example in read_trl(rows)]
    held = draw_groups(groups, num_held_out)
    held_out = [place for place, group in enumerate(groups) if group in held]
    kept = [
        place
        for place, (group, split) in enumerate(zip(groups, rows[SPLIT_COLUMN], strict=True))
        if group not in held and split in script_args.splits
    ]
    if not kept:
        raise DataError(
            f"no rows left to train on: {len(held_out)} of {len(rows)} are held out to measure the gap on; pass "
            "fewer --held_out_rows, or --no_blind_gap"
        )
    _log.info("%d of %d rows are trained on, %d are held out", len(kept), len(rows), len(held_out))
    return rows.select(kept), rows.select(held_out)


def check_videos(rows: Dataset) -> None:
    """Finds videos that are not there before a model is loaded."""
    if isinstance(rows[0]["video"], dict):
        return  # cells of a video column, with their bytes
    paths = set(rows["video"])
    lost = sorted(str(path) for path in paths if path is None or ("://" not in path and not Path(path).exists()))
    if lost:
        raise DataError(f"{len(lost)} of {len(paths)} videos are not there, {lost[0]!r} first; pass --media_root")


def draw_groups(groups: Sequence[str], num_rows: int) -> set[str]:
    """Draws clips until they have so many rows; the same ones in each process and when training is resumed."""
    order = sorted(set(groups))
    random.Random(0).shuffle(order)
    held: set[str] = set()
    while order and sum(group in held for group in groups) < num_rows:
        held.add(order.pop())
    return held


def find_checkpoint(args: GRPOConfig) -> str | None:
    """The last checkpoint in the output folder that was written to its end, which is where its state is written."""
    done = [path.parent for path in Path(str(args.output_dir)).glob("checkpoint-*/trainer_state.json")]
    return str(max(done, key=lambda path: int(path.name.rpartition("-")[2]))) if done else None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        main(*make_parser().parse_args_and_config())
    except (DataError, HubError) as error:
        sys.exit(f"post_train.py: {error}")
