from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="trains models; pip install 'vidground-hf[train]'")
pytest.importorskip("trl", reason="trains models; pip install 'vidground-hf[train]'")

from tests.grpo_trainers import WARNINGS, make_clips, make_rows, make_trainer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # TRL sends usage figures otherwise


class Recorder:
    """A reward that writes down what it is given, and asks the policy blind on the way."""

    __name__ = "recorder"

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.trainer: Any = None

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        rows = [{"prompt": prompt} for prompt in prompts[:1]]
        blind = self.trainer.sample_completions(rows, view="text", num_generations=1)
        self.batches.append((columns["id"], [completion[0]["content"] for completion in completions], blind))
        return [float(len(completion[0]["content"]) % 3) for completion in completions]


def train(folder: Path, clips: list[str], output: Path, resume: bool, **settings: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear"} | settings
    trainer = make_trainer(
        "qwen2_5_vl", folder, make_rows(clips, 6), reward_funcs=recorder, output_dir=output, **settings
    )
    recorder.trainer = trainer
    if not resume:
        trainer.row_weights = {"row1": 0.5}
    trainer.train(resume_from_checkpoint=str(output / "checkpoint-0") if resume else None)
    return trainer, recorder


@pytest.mark.parametrize("stop", [2, 3], ids=["in the middle of an epoch", "after an epoch"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, stop: int) -> None:
    """Six rows are three steps: the fourth belongs to the second epoch, whose order is another."""
    clips = make_clips(tmp_path)
    whole, record = train(tmp_path, clips, tmp_path / "whole", resume=False)
    (tmp_path / "resumed").mkdir()
    (tmp_path / "whole" / f"checkpoint-{stop}").rename(tmp_path / "resumed" / "checkpoint-0")

    resumed, record_resumed = train(tmp_path, clips, tmp_path / "resumed", resume=True)

    assert len(record.batches) == 4
    assert record_resumed.batches == record.batches[stop:]
    assert resumed.row_weights == {"row1": 0.5}
    for value, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(value, other)


def test_the_best_checkpoint_is_restored_under_other_names(tmp_path: Path) -> None:
    clips = make_clips(tmp_path)
    first, _ = train(tmp_path, clips, tmp_path / "out", resume=False, max_steps=1)
    best = [value.detach().clone() for value in first.model.parameters()]
    trainer, _ = train(tmp_path, clips, tmp_path / "other", resume=False, max_steps=1, learning_rate=1e-3)
    trainer.state.best_model_checkpoint = str(tmp_path / "out" / "checkpoint-1")
    trainer._load_best_model()
    for value, other in zip(trainer.model.parameters(), best, strict=True):
        assert torch.equal(value, other)


def test_a_checkpoint_of_plain_trl_has_no_row_weights(tmp_path: Path) -> None:
    clips = make_clips(tmp_path)
    train(tmp_path, clips, tmp_path / "out", resume=False, max_steps=1)
    checkpoint = (tmp_path / "out" / "checkpoint-1").rename(tmp_path / "out" / "checkpoint-0")
    weights = checkpoint / "row_weights.json"
    assert json.loads(weights.read_text()) == {"row1": 0.5}
    weights.unlink()
    trainer, _ = train(tmp_path, clips, tmp_path / "out", resume=True, max_steps=2)
    assert trainer.row_weights == {}


SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.grpo_trainers import make_rows, make_trainer  # noqa: E402
from vidground_hf.grpo import VideoGRPOTrainer  # noqa: E402

class Written(VideoGRPOTrainer):
    def _sample(self, prompts, num_generations):
        super()._sample(prompts, num_generations)
        first = self.accelerator.process_index * len(prompts)
        places = range(first, first + len(prompts))
        return [[70 + place * 7 % 50, 80 + place, 90][: 1 + place * 5 % 3] for place in places], None

def reward(completions, **columns):
    return [float(len(completion[0]["content"]) % 4) for completion in completions]

folder, size = Path(sys.argv[1]), int(sys.argv[2])
clips = [str(folder / f"clip{k}.mp4") for k in range(3)]
trainer = make_trainer("qwen2_5_vl", folder, make_rows(clips), trainer_class=Written, reward_funcs=reward,
    per_device_train_batch_size=size, max_steps=2, shuffle_dataset=False, output_dir=folder / f"by{size}", optim="sgd",
    learning_rate=0.001, beta=0.1)
trainer.train()
blind = trainer.sample_completions(make_rows(clips, 2), view="text", num_generations=2)
assert [len(group) for group in blind] == [2, 2]
if trainer.accelerator.is_main_process:
    logs = [log for log in trainer.state.log_history if "loss" in log]
    found = [[log[key] for key in ("loss", "kl", "grad_norm", "reward")] for log in logs]
    (folder / f"by{size}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_give_the_same_loss_as_one(tmp_path: Path) -> None:
    clips = make_clips(tmp_path)
    make_trainer("qwen2_5_vl", tmp_path, make_rows(clips))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert run_processes(script, tmp_path, 8, 1) == [0]
    assert run_processes(script, tmp_path, 4, 2) == [0, 0]
    alone, shared = (json.loads((tmp_path / f"by{size}.json").read_text()) for size in (8, 4))
    assert len(alone) == 2
    assert alone[1][1] > 1e-4  # a step on, the distance from the reference tells whether pixels and gradients agree
    for log, other in zip(alone, shared, strict=True):
        assert log == pytest.approx(other, rel=1e-4, abs=1e-6)


def run_processes(script: Path, folder: Path, size: int, num_processes: int) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if num_processes > 1 else {}
    settings |= {"WORLD_SIZE": str(num_processes), "OMP_NUM_THREADS": "1", "CI": "1"}
    settings |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-W", "ignore", str(script), str(folder), str(size)]
    started = []
    for number in range(num_processes):
        own = {"RANK": str(number), "LOCAL_RANK": str(number)} if num_processes > 1 else {}
        started.append(subprocess.Popen(command, env=os.environ | settings | own))
    return [process.wait(timeout=600) for process in started]
