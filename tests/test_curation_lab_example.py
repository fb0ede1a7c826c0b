from __future__ import annotations

import importlib
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch", reason="the lab trains models; pip install 'vidground-hf[models,train]'")
pytest.importorskip("torchvision", reason="the models' processor needs it; pip install 'vidground-hf[models,train]'")
trl = pytest.importorskip("trl", reason="the lab is held against TRL; pip install 'vidground-hf[models,train]'")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _examples_can_be_imported() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def load(name: str) -> Any:
    return importlib.import_module(name)


def make_asked(num_questions: int = 6, num_tokens: int = 9) -> Any:
    logits = torch.randn(num_questions, num_tokens, generator=torch.Generator().manual_seed(1)).requires_grad_()
    right = torch.arange(num_questions) % num_tokens
    return load("curation_lab_policy").Asked([(0, 1, 2, 3)] * num_questions, logits.log_softmax(1), right), logits


def test_the_loss_is_that_of_trl() -> None:
    policy = load("curation_lab_policy")
    asked, logits = make_asked()
    chosen, advantages, _ = policy.sample_group(asked, None, torch.Generator().manual_seed(0))
    loss = policy.compute_loss(asked.log_probs, chosen, advantages)
    loss.backward(retain_graph=True)
    grad, logits.grad = logits.grad.clone(), None
    rewards = (chosen == asked.right[:, None]).float()
    assert 0 < rewards.mean() < 1
    normal = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages, normal)
    taken = asked.log_probs.gather(1, chosen).flatten()[:, None]  # of completions of one token each
    trainer = MagicMock(
        loss_type="dapo",
        importance_sampling_level="token",
        beta=0.0,
        epsilon_low=0.2,
        epsilon_high=0.28,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        current_gradient_accumulation_steps=1,
        args=SimpleNamespace(delta=None, steps_per_generation=1),
        accelerator=SimpleNamespace(
            gather=lambda value: value, reduce=lambda value, reduction: value, num_processes=1
        ),
        _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=lambda *a, **k: (taken, torch.zeros_like(taken), None),
    )
    ones = torch.ones(len(taken), 1, dtype=torch.long)
    inputs = dict.fromkeys(("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"), ones)
    inputs |= {"advantages": advantages.flatten(), "num_items_in_batch": torch.tensor(len(taken))}
    trls = trl.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    trls.backward()
    torch.testing.assert_close(loss, trls)
    torch.testing.assert_close(grad, logits.grad)


def test_what_is_known_blind_earns_nothing() -> None:
    policy = load("curation_lab_policy")
    asked, _ = make_asked()
    blind = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.75, 1.0])
    _, plain, accuracy = policy.sample_group(asked, None, torch.Generator().manual_seed(0))
    _, looking, same = policy.sample_group(asked, blind, torch.Generator().manual_seed(0))
    assert accuracy == same
    assert (looking[blind == 1] == 0).all()
    torch.testing.assert_close(looking[blind < 1], plain[blind < 1], rtol=1e-2, atol=1e-2)


def test_batches_ask_every_question_equally_often() -> None:
    policy = load("curation_lab_policy")
    rows = [[{"id": f"{clip} {k}"} for k in range(num)] for clip, num in enumerate((8, 4, 0, 12) * 8)]
    batches = list(itertools.islice(policy.draw_batches(rows, seed=3), 24))
    assert all(len(batch) == 16 and all(len(part) == 4 for _, part in batch) for batch in batches)
    assert all(row["id"].startswith(f"{clip} ") for batch in batches for clip, part in batch for row in part)
    seen = Counter(row["id"] for batch in batches for _, part in batch for row in part)
    assert set(seen) == {row["id"] for part in rows for row in part}
    assert max(seen.values()) - min(seen.values()) <= 1
    assert batches == list(itertools.islice(policy.draw_batches(rows, seed=3), 24))
    assert batches != list(itertools.islice(policy.draw_batches(rows, seed=4), 24))


def test_a_clip_with_few_questions_is_asked_them_again() -> None:
    policy = load("curation_lab_policy")
    batch = next(policy.draw_batches([[{"id": "a"}, {"id": "b"}]] * 16, seed=0))
    assert all({row["id"] for row in part} == {"a", "b"} and len(part) == 4 for _, part in batch)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no questions are left to train on; make a larger set"):
        next(load("curation_lab_policy").draw_batches([[], []], seed=0))


def make_run(vg: float, blind: float = 0.25) -> dict[str, float]:
    return {"vg_video": vg, "vg_text": blind}


def test_arms_are_compared_by_the_seeds_that_both_have() -> None:
    compare = load("curation_lab_table").compare
    runs = {
        "calibrated": {0: make_run(0.5), 1: make_run(0.6), 2: make_run(0.7), 3: make_run(0.9)},
        "single_shot": {0: make_run(0.4), 1: make_run(0.55), 2: make_run(0.7)},
        "full": {0: make_run(0.3)},
    }
    found = compare(runs, "calibrated", "single_shot", "vg_video")
    expected = stats.ttest_rel([50, 60, 70], [40, 55, 70]).confidence_interval(0.95)
    assert found["num_seeds"] == 3
    np.testing.assert_allclose([found["difference"], found["spread"]], [5, 5])
    np.testing.assert_allclose([found["low"], found["high"]], [expected.low, expected.high])
    alone = compare(runs, "calibrated", "full", "gap")
    assert (round(alone["difference"], 6), alone["low"], alone["num_seeds"]) == (20, None, 1)
    assert compare(runs, "calibrated", "look", "gap")["difference"] is None
    marked = {
        arm: {0: {"curve": [{"step": 0, "vg_video": 0.3}, {"step": 25, "vg_video": accuracy}]}}
        for arm, accuracy in (("calibrated", 0.5), ("full", 0.4))
    }
    assert round(compare(marked, "calibrated", "full", "vg_video", 25)["difference"], 6) == 10


def test_the_number_of_seeds_has_the_power_that_is_asked_for() -> None:
    number = load("curation_lab_table").find_num_seeds(3.0, 3.0)
    assert number == 10  # as statsmodels' TTestPower has it: 9.94
    rng = np.random.default_rng(0)
    found = stats.ttest_1samp(rng.normal(3.0, 3.0, (20_000, number)), 0, axis=1).pvalue < 0.05
    assert math.isclose(found.mean(), 0.80, abs_tol=0.02)


def test_the_random_arm_is_as_large_as_calibrated_and_the_planted_one_has_no_text_questions() -> None:
    arms = load("curation_lab_arms")
    rows = [[{"id": f"{clip}{k}", "needs": "text" if k == 0 else "order"} for k in range(4)] for clip in range(5)]
    toy_set = SimpleNamespace(rows=rows)
    kept = {"single_shot": ["01", "02"], "calibrated": ["01", "02", "03", "10", "11"]}
    chosen = {arm: arms.choose_questions(arm, toy_set, kept, seed=0) for arm in ("full", "look", "planted", "random")}
    assert len(chosen["full"]) == len(chosen["look"]) == 20
    assert chosen["planted"] == {f"{clip}{k}" for clip in range(5) for k in (1, 2, 3)}
    assert len(chosen["random"]) == 5
    assert chosen["random"] != arms.choose_questions("random", toy_set, kept, seed=1)
    assert arms.choose_questions("single_shot", toy_set, kept, seed=1) == {"01", "02"}
    assert arms.describe_kept(toy_set, set(kept["calibrated"])) == {
        "num_kept": 5,
        "num_text_left": 1,
        "num_visual_lost": 11,
    }


def test_a_base_without_cues_has_the_arms_of_the_control_and_is_compared_with_full() -> None:
    lab, table = load("curation_lab"), load("curation_lab_table")
    assert lab.list_arms("cues 1", lab.FULL) == list(load("curation_lab_arms").ARMS)
    control = lab.list_arms("no cues 0", lab.FULL)
    assert control == ["full", "single_shot", "calibrated", "planted"]
    assert table.list_contrasts({arm: {} for arm in control}) == [
        ("calibrated", "single_shot"),
        ("single_shot", "full"),
        ("calibrated", "full"),
        ("planted", "full"),
    ]


def test_what_a_filter_should_gain_is_read_from_the_curve_of_all_questions() -> None:
    groups = load("curation_lab_groups")
    steps, full = [0, 50, 100], np.array([[30.0, 40.0, 44.0], [30.0, 42.0, 46.0]])
    later = 50 / (1 - 0.309)  # 41 at step 50, and 4 points more within the next 50
    assert groups.expect_gain(steps, full, 50) == pytest.approx((later - 50) / 50 * 4)
    own = full + np.array([[1.0], [3.0]])
    assert groups.format_gain(steps, own, full, 50) == "+2.0 [-10.7, +14.7]"  # t of one degree: 12.706, error 1


@pytest.mark.slow
def test_a_quick_lab_ends_with_tables_and_goes_on_from_what_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "curation_lab.py"), "--output", str(tmp_path), "--quick"]
    first = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    folder = tmp_path / "quick"
    result = json.loads((folder / "result.json").read_text())
    arms = list(load("curation_lab_arms").ARMS)
    assert list(result["runs"]) == ["all that know cues", "cues 0", "cues 1"]
    assert list(result["runs"]["cues 0"]) == arms
    pooled = result["runs"]["all that know cues"]["full"]
    assert list(pooled) == ["cues 0, seed 0", "cues 1, seed 0"]
    assert pooled["cues 1, seed 0"] == result["runs"]["cues 1"]["full"]["cues 1, seed 0"]
    assert "<- primary" in first.stdout
    assert (folder / "curves.png").stat().st_size > 10_000
    assert 0 < load("curation_lab_groups").measure_idle_share(folder, "cues 0", "full") < 1
    runs = sorted(folder.glob("cues_*/runs/*.json"))
    assert len(runs) == 2 * len(arms)
    times = {path: path.stat().st_mtime for path in runs}
    lost = runs[3]
    before = {key: value for key, value in json.loads(lost.read_text()).items() if key != "seconds"}
    lost.unlink()
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    again = {key: value for key, value in json.loads(lost.read_text()).items() if key != "seconds"}
    assert again == before
    assert [path for path in runs if path.stat().st_mtime != times[path]] == [lost]
