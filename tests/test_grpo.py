from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="trains models; pip install 'vidground-hf[train]'")
trl = pytest.importorskip("trl", reason="trains models; pip install 'vidground-hf[train]'")

from tests.grpo_trainers import FIXED, WARNINGS, ask, make_clips, make_rows, make_trainer, score_alone  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf import frame_loading, grpo_sight  # noqa: E402
from vidground_hf.grpo import VideoGRPOTrainer  # noqa: E402
from vidground_hf.grpo_checks import check_trl  # noqa: E402
from vidground_hf.grpo_prompts import SightError  # noqa: E402
from vidground_hf.grpo_recipe import vidground_recipe  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grpo")


@pytest.fixture(scope="module")
def clips(folder: Path) -> list[str]:
    return make_clips(folder)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CI", "1")  # TRL sends usage figures otherwise
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Watched(VideoGRPOTrainer):
    """Scores each row once more, alone, whenever its log-probabilities are computed."""

    clips: list[str]

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.errors: list[float] = []
        self.num_tokens = 0
        self.vision_gradients: list[float] = []
        super().__init__(*arguments, **settings)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **kwargs: Any
    ) -> Any:
        found = super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, **kwargs)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            alone = score_alone(self._bare(model), self.processing_class, self.clips, ids, mask, logits_to_keep)
            self.num_tokens += len(alone)
            self.errors.append(float((found[0].detach()[row, : len(alone)] - alone).abs().max()))
        return found

    def training_step(self, *arguments: Any) -> Any:
        loss = super().training_step(*arguments)
        tower = self.model.get_encoder(modality="video")
        gradients = [parameter.grad for parameter in tower.parameters() if parameter.grad is not None]
        self.vision_gradients.append(float(sum(gradient.abs().sum() for gradient in gradients)))
        return loss


@pytest.mark.parametrize("family", FAMILIES)
def test_old_reference_and_current_log_probabilities_see_the_video(
    family: str, folder: Path, clips: list[str]
) -> None:
    Watched.clips = clips
    trainer = make_trainer(
        family, folder, make_rows(clips), trainer_class=Watched, max_steps=2, steps_per_generation=2, beta=0.1
    )
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}

    trainer.train()

    # Eight rows by the policy that wrote them and by the reference, then four in each of two steps.
    assert len(trainer.errors) == 8 + 8 + 4 + 4
    assert trainer.num_tokens > 24
    assert max(trainer.errors) < TOLERANCE
    assert min(trainer.vision_gradients) > 0
    after = dict(trainer.model.named_parameters())
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert len(moved) >= len(before) - 2  # LLaVA-OneVision does not use the last layer of its vision tower


def test_adapters_are_trained_and_switched_off_for_the_reference(folder: Path, clips: list[str]) -> None:
    peft = pytest.importorskip("peft", reason="trains adapters; pip install 'vidground-hf[train]'")
    Watched.clips = clips
    trainer = make_trainer(
        "qwen2_5_vl",
        folder,
        make_rows(clips),
        trainer_class=Watched,
        peft_config=peft.LoraConfig(r=2, target_modules=["q_proj", "qkv"], init_lora_weights=False),
        beta=0.1,
        max_steps=2,
    )
    trainer.train()
    assert len(trainer.errors) == 4 * 4
    assert max(trainer.errors) < TOLERANCE
    assert min(trainer.vision_gradients) > 0
    assert trainer.state.log_history[0]["kl"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_another_clip_gives_other_log_probabilities(family: str, folder: Path, clips: list[str]) -> None:
    trainer = make_trainer(family, folder, make_rows(clips))
    parts = [{"start_seconds": 0.0, "end_seconds": 0.8}, {"start_seconds": 0.8, "end_seconds": 1.6}]
    prompts = trainer.shower.show([{"prompt": ask("What is this?"), "video": clips[1], **part} for part in parts])
    assert prompts[0].ids == prompts[1].ids
    completions = torch.tensor([[70, 71, 72], [73, 74, 75]])

    def score(shown: list[Any]) -> Any:
        trainer._batch = shown
        ids = torch.cat([torch.tensor([prompt.ids for prompt in shown]), completions], dim=1)
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 3)[0]

    assert (score(prompts) - score(prompts[::-1])).abs().min() > 1e-4
    assert torch.equal(score(prompts), score(prompts))


@pytest.mark.parametrize("family", FAMILIES)
def test_text_images_and_videos_mix(family: str, folder: Path, clips: list[str]) -> None:
    from PIL import Image

    image = Image.fromarray(np.arange(56 * 84 * 3, dtype=np.uint8).reshape(56, 84, 3))
    rows: list[dict[str, Any]] = [
        {"prompt": ask("One?"), "video": clips[0], "images": None, "id": "a"},
        {"prompt": ask("Two?"), "video": None, "images": [image], "id": "b"},
        {"prompt": ask("Three?"), "video": None, "images": None, "id": "c"},
        {"prompt": ask("Four?"), "video": None, "images": [image, image], "id": "d"},
    ]
    seen: list[Any] = []

    def reward(completions: Any, **columns: Any) -> list[float]:
        seen.append(columns)
        return [float(k % 2) for k in range(len(completions))]

    settings = {"per_device_train_batch_size": 8, "reward_funcs": reward, "steps_per_generation": 1}
    trainer = make_trainer(family, folder, rows, max_steps=1, **settings)
    trainer.train()

    assert sorted(len(images or []) for images in seen[0]["images"]) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert sum(video is not None for video in seen[0]["video"]) == 2
    assert trainer.state.log_history[0]["grad_norm"] > 0


def test_a_clip_is_decoded_once_for_a_batch(folder: Path, clips: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_video = frame_loading.read_video

    def count(*arguments: Any) -> Any:
        read.append(arguments[1])
        return read_video(*arguments)

    monkeypatch.setattr(frame_loading, "read_video", count)
    rows = make_rows(clips[:2], 3)
    rows += [{**rows[0], "prompt": ask("Something else about clip 0?")}]
    trainer = make_trainer("qwen2_5_vl", folder, rows, per_device_train_batch_size=8)
    trainer.train()
    assert sorted(read) == sorted(clips[:2])

    trainer.sample_completions(rows, view="wrong_video", num_generations=1)
    assert len(read) == 2


def test_evaluation_between_two_steps_of_one_generation(folder: Path, clips: list[str]) -> None:
    """Each keeps what it shows apart."""
    Watched.clips = clips
    rows = make_rows(clips)
    trainer = make_trainer(
        "qwen2_5_vl",
        folder,
        rows,
        trainer_class=Watched,
        eval_dataset=make_trainer("qwen2_5_vl", folder, rows[1:3]).train_dataset,
        max_steps=2,
        steps_per_generation=2,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=2,
        activation_checkpointing=True,
    )
    trainer.train()
    assert "eval_reward" in trainer.state.log_history[1]
    assert max(trainer.errors) < TOLERANCE


def test_cells_of_a_video_column_stay_encoded(folder: Path, clips: list[str]) -> None:
    import datasets

    rows = datasets.Dataset.from_list(make_rows(clips)).cast_column("video", datasets.Video())
    trainer = make_trainer("qwen2_5_vl", folder, rows, eval_dataset={"held out": rows})
    assert trainer.train_dataset[0]["video"] == {"path": clips[0], "bytes": None}
    assert trainer.eval_dataset["held out"][1]["video"] == {"path": clips[1], "bytes": None}
    trainer.train()


def test_row_weights_multiply_the_advantages(folder: Path, clips: list[str]) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips[:2], 2))
    trainer.row_weights = {"row0": 0.0, "row1": 2.0}
    rows = [row for row in trainer.train_dataset for _ in range(2)]
    trainer.model.train()
    weighted = trainer._generate_and_score_completions(rows)["advantages"]
    trainer.row_weights = {}
    alone = trainer._generate_and_score_completions(rows)["advantages"]
    assert weighted.tolist() == pytest.approx([0, 0, 2 * float(alone[2]), 2 * float(alone[3])])
    assert float(alone[0]) != 0


def test_sampling_leaves_training_as_it_was(folder: Path, clips: list[str]) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips))
    rows = make_rows(clips)
    state = torch.random.get_rng_state()
    batch = trainer._batch

    first, again = (trainer.sample_completions(rows, view="video", num_generations=3) for _ in range(2))

    assert torch.equal(torch.random.get_rng_state(), state)
    assert trainer._batch is batch
    assert first == again
    assert [len(group) for group in first] == [3, 3, 3, 3]
    assert len({text for group in first for text in group}) > 4
    wrong, blind = (trainer.sample_completions(rows, view=view, num_generations=3) for view in ("wrong_video", "text"))
    assert len({str(first), str(wrong), str(blind)}) == 3


def test_sampling_under_a_wrong_video_shows_what_another_row_shows(folder: Path, clips: list[str]) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips))
    rows = make_rows(clips[:2], 2)
    swapped = [{**rows[0], "video": clips[1]}, {**rows[1], "video": clips[0]}]
    wrong = trainer.sample_completions(rows, view="wrong_video", num_generations=2)
    assert wrong == trainer.sample_completions(swapped, view="video", num_generations=2)


def test_placeholders_are_never_sampled(folder: Path, clips: list[str]) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips), generation_kwargs={"suppress_tokens": [9]})
    config = trainer.model.config
    assert trainer.generation_config.suppress_tokens == sorted({9, config.image_token_id, config.video_token_id})


def test_pixels_that_do_not_reach_the_model_stop_the_run(
    folder: Path, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips))
    monkeypatch.setattr(grpo_sight, "collate", lambda prompts: {})
    with pytest.raises(SightError, match="the pixels of 4 rows did not reach the model: its vision tower did not run"):
        trainer.train()


def test_pixels_that_do_not_reach_generation_stop_the_run(
    folder: Path, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips))
    monkeypatch.setattr("vidground_hf.grpo.collate", lambda prompts: {})
    with pytest.raises(SightError, match="the pixels of 4 rows did not reach the model"):
        trainer.train()


def test_rows_that_lost_their_videos_stop_the_run(
    folder: Path, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips))
    shuffle = trl.trainer.grpo_trainer.shuffle_sequence_dict

    def lose(batch: dict[str, Any]) -> dict[str, Any]:
        shown = batch.pop("shown_prompts")
        return {**shuffle(batch), "shown_prompts": shown.flip(0)}

    monkeypatch.setattr(trl.trainer.grpo_trainer, "shuffle_sequence_dict", lose)
    with pytest.raises(SightError, match="a row of the batch holds another prompt than the one whose pixels"):
        trainer.train()


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_ways_past_the_pixels_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} goes past what rows show, so VideoGRPOTrainer does not take it"):
        VideoGRPOTrainer("model", **{name: [print]})  # type: ignore[arg-type]


def test_vllm_servers_are_refused(tmp_path: Path) -> None:
    args = trl.GRPOConfig(str(tmp_path), use_vllm=True, vllm_mode="server", activation_checkpointing=False, **FIXED)
    with pytest.raises(
        ValueError, match=re.escape("vllm_mode = 'server' takes images only; pass vllm_mode='colocate'")
    ):
        VideoGRPOTrainer("model", args=args)


@pytest.mark.parametrize("installed", ["1.15.9", "1.17.0", "2.0"])
def test_other_versions_of_trl_are_refused(installed: str) -> None:
    told = f"trl {installed} is installed; VideoGRPOTrainer was tested with trl>=1.16,<1.17: pip install"
    with pytest.raises(ImportError, match=re.escape(told)):
        check_trl(installed)
    check_trl("1.16.5")


def test_the_recipe_is_one_that_trl_takes(tmp_path: Path) -> None:
    recipe = vidground_recipe()
    args = trl.GRPOConfig(
        str(tmp_path), per_device_train_batch_size=8, activation_checkpointing=False, **FIXED, **recipe
    )
    assert {name: getattr(args, name) for name in recipe} == recipe
