"""Find the video questions that text alone answers, keep the ones that need the video, and measure the difference."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidground_hf.adapters import ADAPTERS as ADAPTERS
    from vidground_hf.adapters import find_adapter as find_adapter
    from vidground_hf.answerers import ConstantAnswerer as ConstantAnswerer
    from vidground_hf.answerers import TextBiasProbe as TextBiasProbe
    from vidground_hf.answerers import load_answerer as load_answerer
    from vidground_hf.answerers.base import Answer as Answer
    from vidground_hf.answerers.endpoint import EndpointAnswerer as EndpointAnswerer
    from vidground_hf.answerers.transformers_lm import TransformersAnswerer as TransformersAnswerer
    from vidground_hf.benchmark import Benchmark as Benchmark
    from vidground_hf.benchmark import run_benchmark as run_benchmark
    from vidground_hf.cache import AnswerCache as AnswerCache
    from vidground_hf.callbacks import GapCardCallback as GapCardCallback
    from vidground_hf.callbacks_gap import BlindGapCallback as BlindGapCallback
    from vidground_hf.callbacks_refresh import RefreshGrounding as RefreshGrounding
    from vidground_hf.curated import load_curated as load_curated
    from vidground_hf.curation import Curation as Curation
    from vidground_hf.curation import curate as curate
    from vidground_hf.eval_results import push_eval_results as push_eval_results
    from vidground_hf.eval_results import write_eval_results as write_eval_results
    from vidground_hf.filtering import GroundFilter as GroundFilter
    from vidground_hf.gap import measure_gap as measure_gap
    from vidground_hf.grpo import VideoGRPOTrainer as VideoGRPOTrainer
    from vidground_hf.grpo_recipe import vidground_recipe as vidground_recipe
    from vidground_hf.ladder_curation import Climb as Climb
    from vidground_hf.ladder_curation import climb as climb
    from vidground_hf.loading import open_dataset as open_dataset
    from vidground_hf.media import FrameBudget as FrameBudget
    from vidground_hf.metric_loading import load_metric as load_metric
    from vidground_hf.model_cards import push_model_card as push_model_card
    from vidground_hf.post_training import to_trl as to_trl
    from vidground_hf.rewards import LookReward as LookReward
    from vidground_hf.rewards import accuracy_reward as accuracy_reward
    from vidground_hf.rewards import format_reward as format_reward
    from vidground_hf.rewards import length_reward as length_reward
    from vidground_hf.rewards import temporal_iou_reward as temporal_iou_reward
    from vidground_hf.rules import at_most as at_most
    from vidground_hf.rules import bias_at_least as bias_at_least
    from vidground_hf.rules import circular as circular
    from vidground_hf.rules import majority as majority
    from vidground_hf.rules import single_shot as single_shot
    from vidground_hf.schema import Example as Example
    from vidground_hf.schema import Verdict as Verdict
    from vidground_hf.scoring import score_answer as score_answer
    from vidground_hf.set_rules import calibrated as calibrated
    from vidground_hf.set_rules import drop_fraction as drop_fraction
    from vidground_hf.stats.checks import UNANSWERED as UNANSWERED
    from vidground_hf.toy import make_toy_set as make_toy_set
    from vidground_hf.video import VideoFrames as VideoFrames
    from vidground_hf.video import VideoReadError as VideoReadError
    from vidground_hf.video import read_frames as read_frames

# Where each public name lives; a name is imported when it is first used, so that importing the package stays fast.
_HOMES = {
    "ADAPTERS": "adapters",
    "find_adapter": "adapters",
    "Answer": "answerers.base",
    "AnswerCache": "cache",
    "ConstantAnswerer": "answerers",
    "TextBiasProbe": "answerers",
    "load_answerer": "answerers",
    "EndpointAnswerer": "answerers.endpoint",
    "TransformersAnswerer": "answerers.transformers_lm",
    "load_curated": "curated",
    "Benchmark": "benchmark",
    "run_benchmark": "benchmark",
    "Climb": "ladder_curation",
    "climb": "ladder_curation",
    "FrameBudget": "media",
    "VideoFrames": "video",
    "VideoReadError": "video",
    "read_frames": "video",
    "Curation": "curation",
    "curate": "curation",
    "GroundFilter": "filtering",
    "measure_gap": "gap",
    "load_metric": "metric_loading",
    "push_eval_results": "eval_results",
    "push_model_card": "model_cards",
    "write_eval_results": "eval_results",
    "UNANSWERED": "stats.checks",
    "open_dataset": "loading",
    "at_most": "rules",
    "bias_at_least": "rules",
    "circular": "rules",
    "majority": "rules",
    "single_shot": "rules",
    "calibrated": "set_rules",
    "drop_fraction": "set_rules",
    "Example": "schema",
    "Verdict": "schema",
    "score_answer": "scoring",
    "to_trl": "post_training",
    "accuracy_reward": "rewards",
    "format_reward": "rewards",
    "length_reward": "rewards",
    "temporal_iou_reward": "rewards",
    "LookReward": "rewards",
    "BlindGapCallback": "callbacks_gap",
    "GapCardCallback": "callbacks",
    "RefreshGrounding": "callbacks_refresh",
    "VideoGRPOTrainer": "grpo",
    "vidground_recipe": "grpo_recipe",
    "make_toy_set": "toy",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("vidground-hf")
    if name not in _HOMES:
        raise AttributeError(f"module 'vidground_hf' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"vidground_hf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
