"""A run that is killed in the middle of an epoch goes on as if it had not been, and asks nothing blind twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="trains models; pip install 'vidground-hf[train]'")
pytest.importorskip("trl", reason="trains models; pip install 'vidground-hf[train]'")

from safetensors.torch import load_file  # noqa: E402

from tests.grpo_trainers import show_images  # noqa: E402
from tests.tiny_vlms import save_qwen2_5_vl  # noqa: E402
from vidground_hf import make_toy_set  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import json, sys, time
from pathlib import Path
import torch
from transformers import TrainerCallback
from tests.grpo_trainers import make_trainer
from vidground_hf import BlindGapCallback, open_dataset, to_trl
from vidground_hf.callbacks_asking import LiveModel

torch.set_num_threads(1)
folder, output, checkpoint, stop = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def write(**line):
    with (output / "told.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\\n")

def reward(prompts, completions, **columns):
    texts = [completion[0]["content"] for completion in completions]
    if trainer.model.training:
        write(step=trainer.state.global_step, ids=columns["id"], texts=texts)
    return [float(len(text) % 3) for text in texts]

class Teller(TrainerCallback):
    def on_log(self, args, state, control, logs, **kwargs):
        kept = {name: logs[name] for name in ("loss", "eval_gap", "eval_blind_accuracy") if name in logs}
        if kept:
            write(step=state.global_step, logs=kept)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == stop:
            (output / "killed here").touch()
            time.sleep(600)

ask = LiveModel.ask
def ask_and_tell(self, prompts):
    write(step=trainer.state.global_step, num_blind=sum(prompt.frames is None for prompt in prompts))
    return ask(self, prompts)
LiveModel.ask = ask_and_tell

rows = to_trl(open_dataset(folder / "toy"), media_root=str(folder / "toy"))
trainer = make_trainer("qwen2_5_vl", folder, rows.select(range(20)), reward_funcs=reward, output_dir=output,
    eval_dataset=rows.select(range(2)), eval_strategy="steps", eval_steps=3, save_strategy="steps", save_steps=4,
    max_steps=9, per_device_eval_batch_size=2)
trainer.add_callback(BlindGapCallback(trainer, rows, num_rows=8, max_time_share=1.0, num_workers=0))
trainer.add_callback(Teller())
trainer.train(resume_from_checkpoint=checkpoint or None)
trainer.save_model()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    save_qwen2_5_vl(folder / "qwen2_5_vl")
    show_images("qwen2_5_vl", folder / "qwen2_5_vl")
    make_toy_set(folder / "toy", num_questions=24, num_clips=4)
    (folder / "train.py").write_text(SCRIPT)
    return folder


def start(folder: Path, output: Path, checkpoint: str, stop: int) -> subprocess.Popen[bytes]:
    output.mkdir(exist_ok=True)
    settings = {"OMP_NUM_THREADS": "1", "CI": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-W", "ignore", str(folder / "train.py"), str(folder), str(output), checkpoint]
    return subprocess.Popen([*command, str(stop)], env=os.environ | settings, stdout=subprocess.DEVNULL)


def read_told(output: Path, after: int = 0) -> tuple[list[Any], dict[int, Any], dict[int, int]]:
    """Batches of the steps after one, what was logged at each, and how much was asked blind at which step."""
    lines = [json.loads(line) for line in (output / "told.jsonl").read_text().splitlines()]
    batches = [(line["step"], line["ids"], line["texts"]) for line in lines if "ids" in line and line["step"] >= after]
    logs: dict[int, Any] = {}
    for line in lines:
        if "logs" in line and line["step"] > after:
            logs.setdefault(line["step"], {}).update(line["logs"])
    asked: dict[int, int] = {}
    for line in lines:
        if "num_blind" in line:
            asked[line["step"]] = asked.get(line["step"], 0) + line["num_blind"]
    return batches, logs, asked


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_prompts_losses_weights_and_blind_answers(folder: Path) -> None:
    """Checkpoint at step 4 of an epoch of ten, evaluation at 6, killed in step 7; then 5 to 9 are to come."""
    whole, killed = folder / "whole", folder / "killed"
    assert start(folder, whole, "", stop=-1).wait(timeout=600) == 0

    process = start(folder, killed, "", stop=6)
    deadline = time.monotonic() + 600
    while not (killed / "killed here").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert sorted(path.name for path in killed.glob("checkpoint-*")) == ["checkpoint-4"]
    assert read_told(killed)[2] == {3: 8, 6: 8}
    (killed / "told.jsonl").rename(killed / "told before.jsonl")
    assert start(folder, killed, str(killed / "checkpoint-4"), stop=-1).wait(timeout=600) == 0

    batches, logs, asked = read_told(whole, after=4)
    batches_resumed, logs_resumed, asked_resumed = read_told(killed)
    assert [step for step, _, _ in batches] == [4, 5, 6, 7, 8]
    assert batches_resumed == batches
    assert sorted(logs) == [5, 6, 7, 8, 9]
    assert logs_resumed == logs
    assert {"eval_gap", "eval_blind_accuracy"} <= logs[6].keys() & logs[9].keys()
    assert asked == {3: 8, 6: 8, 9: 8}
    assert asked_resumed == {9: 8}  # those of step 6 are the killed run's
    ends = [load_file(output / "model.safetensors") for output in (whole, killed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
