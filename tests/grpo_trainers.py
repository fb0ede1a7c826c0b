"""Trainers of tiny models on small videos, and log-probabilities by a way of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_vlms import FAMILIES
from tests.video_files import make_video
from vidground_hf.media import FrameBudget
from vidground_hf.video import read_frames

NUM_FRAMES = 4
IMAGE_PARTS = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "smolvlm": "<image>",
    "llava_onevision": "<image>",
    "internvl": "<IMG_CONTEXT>\n",
}
FIXED = {
    "use_cpu": True,
    "report_to": [],
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "bf16": False,
}
SMALL = {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6, "learning_rate": 1e-2}
WARNINGS = (
    "ignore:.*gradient_checkpointing.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:'pin_memory' argument is set as true:UserWarning",
)


def make_clips(folder: Path, num_clips: int = 3) -> list[str]:
    """Videos of one size that differ in what they show and for how long."""
    return [str(make_video(folder / f"clip{k}.mp4", num_frames=20 + 40 * k, shape=(56, 84))) for k in range(num_clips)]


def make_rows(clips: Sequence[str], num_rows: int = 4) -> list[dict[str, Any]]:
    """Rows whose words tell which clip goes with them."""
    return [
        {"prompt": ask(f"What is in clip {k % len(clips)}?"), "video": clips[k % len(clips)], "id": f"row{k}"}
        for k in range(num_rows)
    ]


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def reward_every_second(completions: Sequence[Any], **columns: Any) -> list[float]:
    """So that no group is without an advantage."""
    return [float(k % 2) for k in range(len(completions))]


def make_trainer(
    family: str, folder: Path, rows: Sequence[dict[str, Any]], *, trainer_class: Any = None, **settings: Any
) -> Any:
    """A trainer of a tiny model of a family, saved below the folder."""
    import datasets
    from trl import GRPOConfig

    from vidground_hf.grpo import VideoGRPOTrainer

    model = folder / family
    if not model.exists():
        FAMILIES[family](model)
        show_images(family, model)
    arguments = ("reward_funcs", "eval_dataset", "frame_budget", "peft_config", "callbacks")
    given = {name: settings.pop(name) for name in arguments if name in settings}
    given = {"reward_funcs": reward_every_second, "frame_budget": FrameBudget(num_frames=NUM_FRAMES), **given}
    output = str(settings.pop("output_dir", folder / "out"))
    args = GRPOConfig(output, **FIXED | SMALL | {"max_steps": 1, "activation_checkpointing": False} | settings)
    dataset = rows if isinstance(rows, datasets.Dataset) else datasets.Dataset.from_list(list(rows))
    return (trainer_class or VideoGRPOTrainer)(str(model), args=args, train_dataset=dataset, **given)


def show_images(family: str, model: Path) -> None:
    """Teaches the saved chat template to show images."""
    template = model / "chat_template.jinja"
    text = template.read_text()
    image = "{% elif part['type'] == 'image' %}" + IMAGE_PARTS[family] + "{% else %}"
    template.write_text(image.join(text.rsplit("{% else %}", 1)))


def score_alone(model: Any, processor: Any, clips: Sequence[str], ids: Any, mask: Any, num_scored: int) -> Any:
    """Log-probabilities of the last tokens of one row, from logits of the row without padding.

    The clip is the one that its words name, prepared by the processor with the file's own frame numbers.
    """
    import torch

    row, completion = ids[mask.bool()], ids[-num_scored:]
    words = processor.tokenizer.decode(row)
    (number,) = set(re.findall(r"in clip (\d)", words))
    frames = read_frames(clips[int(number)], num_frames=NUM_FRAMES)
    about = {"fps": 25.0, "frames_indices": frames.indices.tolist(), "total_num_frames": frames.num_video_frames}
    about |= {"duration": frames.video_seconds, "height": 56, "width": 84}
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": f"What is in clip {number}?"}]}
    found = processor(
        text=[processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)],
        videos=[np.transpose(frames.data, (0, 3, 1, 2))],
        video_metadata=[about],
        do_sample_frames=False,
        add_special_tokens=False,
        return_tensors="pt",
    )
    prompt = found.pop("input_ids")[0]
    num_written = int(mask[-num_scored:].sum())
    assert torch.equal(prompt, row[: len(row) - num_written])
    inputs = {key: value for key, value in found.items() if key not in ("attention_mask", "video_metadata")}
    if "mm_token_type_ids" in inputs:
        types = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(1, num_written)], dim=1)
    with torch.no_grad():
        logits = model(input_ids=row[None], attention_mask=torch.ones_like(row)[None], **inputs).logits[0]
    scored = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return scored.gather(1, completion[:num_written, None])[:, 0]
