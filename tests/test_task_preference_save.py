from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference needs torch; pip install 'vidground-hf[models]'")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.hub_server import HubServer  # noqa: E402
from tests.task_preference_models import Request, make_batch, make_fresh_model, make_model  # noqa: E402
from tests.test_task_preference_sam import SIZE, make_sam  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.modeling import TaskPreferenceModel  # noqa: E402

# huggingface_hub's own way to upload a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REQUESTS = [
    Request("When?", seed=1, answer="<|moment|><|moment_state|>"),
    Request("Where is the thing that was to be seen?", seed=2, answer="There: <|box|><|box_state|> as I said"),
    Request("What is it?", None, answer="A ball"),
    Request("Mark it.", seed=3, answer="<|mask|><|mask_state|>"),
]


@torch.no_grad()
def run(model: Any, processor: Any, **more: Any) -> list[Any]:
    batch, media = make_batch(processor, REQUESTS)
    output = model(**batch, media=media, **more)
    moment, mask = output.moment, output.mask
    return [output.logits, moment.spans, moment.logits, moment.saliency, output.box, mask.logits, mask.object_logits]


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert all(torch.equal(mine, other) for mine, other in zip(first, second, strict=True))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gives_the_same_to_the_bit(family: str, tied: bool, tmp_path: Path) -> None:
    model, processor = make_model(family, tied=tied)
    model.vlm.generation_config.repetition_penalty = 1.25
    model.save_pretrained(tmp_path)
    loaded, report = TaskPreferenceModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_same(run(loaded, processor), run(model, processor))
    outputs, inputs = loaded.vlm.get_output_embeddings(), loaded.vlm.get_input_embeddings()
    assert (outputs.weight is inputs.weight) == tied
    assert loaded.vlm.generation_config.to_dict() == model.vlm.generation_config.to_dict()
    assert loaded.config.vlm_config is loaded.vlm.config
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == {name for name in model.state_dict() if not (tied and name.endswith("lm_head.weight"))}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_checkpoint_lacks_starts_afresh(family: str, tmp_path: Path) -> None:
    """Parameter by parameter: none of them may hold whatever was in memory."""
    model, _ = make_model(family)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for kept in ([], [name for k, name in enumerate(tensors) if k % 2]):
        save_file({name: tensors[name] for name in kept} or {"x": torch.ones(1)}, file, metadata={"format": "pt"})
        loaded = TaskPreferenceModel.from_pretrained(tmp_path)
        own = loaded.state_dict()
        assert set(own) == set(model.state_dict())
        for name, tensor in own.items():
            if name in kept:
                assert torch.equal(tensor, tensors[name]), name
            else:
                assert tensor.isfinite().all(), name
                assert tensor.float().abs().max() < 10, name
        for name, weight in model.heads.named_parameters():
            fresh = own[f"heads.{name}"]
            assert fresh.std(correction=0) == pytest.approx(weight.std(correction=0).item(), rel=0.6, abs=1e-6), name


def test_a_model_in_half_precision_keeps_its_heads_whole(tmp_path: Path) -> None:
    model, processor = make_fresh_model("internvl", dtype="bfloat16")
    found = run(model, processor)
    assert found[0].dtype == torch.bfloat16
    assert {part.dtype for part in found[1:]} == {torch.float32}
    model.save_pretrained(tmp_path)
    loaded = TaskPreferenceModel.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.vlm.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in loaded.heads.parameters()} == {torch.float32}
    assert_same(run(loaded, processor), found)


def test_a_sam_is_saved_with_its_model(tmp_path: Path) -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam(), mask_loss="prompts")
    pixels = torch.randn(len(REQUESTS), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    loaded = TaskPreferenceModel.from_pretrained(tmp_path)
    found = run(model, processor, sam_pixel_values=pixels)
    assert_same(run(loaded, processor, sam_pixel_values=pixels), found)
    assert loaded.config.mask_loss == "prompts"
    assert not any(weight.requires_grad for weight in loaded.heads["mask"].sam.parameters())


def test_a_model_goes_to_the_hub_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="a LoRA needs peft; pip install 'vidground-hf[train]'")
    from vidground_hf.task_preference.adapters_lora import add_lora

    model, processor = make_fresh_model("qwen2_5_vl")
    add_lora(model)
    wanted = run(model, processor)
    with HubServer(tmp_path / "server") as server, server.connect(tmp_path / "cache", server.token("ada")):
        model.push_to_hub("ada/looks")
        files = set(server.list_files("model", "ada/looks"))
        adapter = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
        assert {"config.json", "model.safetensors", *adapter} <= files
        config = json.loads(server.read_file("model", "ada/looks", "config.json"))
        assert config["model_type"] == "task_preference"
        assert config["architectures"] == ["TaskPreferenceModel"]
        assert_same(run(TaskPreferenceModel.from_pretrained("ada/looks"), processor), wanted)
    with pytest.raises(ValueError, match=re.escape("call model.push_to_hub(repo_id), which uploads everything")):
        model.save_pretrained(tmp_path / "saved", push_to_hub=True)
    assert not (tmp_path / "saved").exists()
