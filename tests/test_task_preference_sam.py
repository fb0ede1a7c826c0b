from __future__ import annotations

import re
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")
transformers = pytest.importorskip("transformers", reason="holds SAM; pip install 'vidground-hf[models]'")

from torch import Tensor  # noqa: E402

from vidground_hf.task_preference.losses import WEIGHTS, grade_masks, grade_prompts  # noqa: E402
from vidground_hf.task_preference.mask_sam import SamMaskHead  # noqa: E402
from vidground_hf.task_preference.mask_video import propagate_mask  # noqa: E402

SIZE, STATE, PROMPT = 64, 24, 128  # memories are 64 wide in the code of the video model, and prompts wider
NAMES = ("Sam2", "EdgeTam", "Sam3Tracker")


def describe_vision() -> dict[str, Any]:
    """A tiny Hiera, which all three families take; EdgeTAM's own backbone needs timm."""
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIZE, SIZE],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    sides = [SIZE // 4, SIZE // 8, SIZE // 16]
    return transformers.Sam2VisionConfig(
        backbone_config=backbone.to_dict(),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[side, side] for side in sides],
        fpn_hidden_size=PROMPT,
    ).to_dict()


def describe_parts() -> dict[str, Any]:
    return {
        "vision_config": describe_vision(),
        "prompt_encoder_config": {
            "hidden_size": PROMPT,
            "image_size": SIZE,
            "patch_size": 16,
            "mask_input_channels": 4,
        },
        "mask_decoder_config": {
            "hidden_size": PROMPT,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    }


def make_sam(name: str = "Sam2") -> Any:
    torch.manual_seed(0)
    return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**describe_parts()))


def make_video_model() -> Any:
    torch.manual_seed(0)
    config = transformers.Sam2VideoConfig(
        **describe_parts(),
        image_size=SIZE,
        memory_attention_hidden_size=PROMPT,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[SIZE // 16, SIZE // 16],
        memory_encoder_hidden_size=PROMPT,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=PROMPT,
        memory_fuser_embed_dim=PROMPT,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
    return transformers.Sam2VideoModel(config).eval()


def make_processor() -> Any:
    size = {"height": SIZE, "width": SIZE}
    return transformers.Sam2VideoProcessor(
        image_processor=transformers.Sam2ImageProcessor(size=size),
        video_processor=transformers.Sam2VideoVideoProcessor(size=size),
    )


def make_head(name: str = "Sam2") -> SamMaskHead:
    sam = make_sam(name)
    torch.manual_seed(1)
    return SamMaskHead(STATE, sam)


def draw(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_masks_come_from_a_state(name: str) -> None:
    out = make_head(name)(draw(2, STATE), draw(2, 3, SIZE, SIZE))
    assert out.logits.shape == (2, 1, SIZE // 4, SIZE // 4)
    assert out.object_logits.shape == out.iou.shape == (2, 1)
    assert out.is_valid.shape == out.logits.shape
    assert out.is_valid.all()
    assert out.logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_box_is_drawn_as_by_the_whole_model(name: str) -> None:
    head, pixels = make_head(name), draw(2, 3, SIZE, SIZE)
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 1.0]])
    out = head.draw(head.embed_boxes(boxes), pixels)
    wanted = head.sam(pixel_values=pixels, input_boxes=SIZE * boxes[:, None], multimask_output=False)
    assert torch.allclose(out.logits, wanted.pred_masks[:, 0], atol=1e-5)
    assert torch.allclose(out.iou, wanted.iou_scores[:, 0], atol=1e-5)
    assert torch.allclose(out.object_logits, wanted.object_score_logits[:, 0], atol=1e-5)


def test_gradients_reach_the_whole_adapter_and_nothing_of_sam() -> None:
    head, states = make_head(), draw(2, STATE).requires_grad_()
    shown = torch.ones(2, 1, dtype=torch.bool)
    terms = grade_masks(head(states, draw(2, 3, SIZE, SIZE)), torch.ones(2, 1, SIZE // 4, SIZE // 4), shown, shown)
    torch.stack(list(terms.values())).sum().backward()
    trained = [name for name, weight in head.named_parameters() if weight.grad is not None and weight.grad.any()]
    assert trained == [name for name, _ in head.named_parameters() if name.startswith("adapter.")]
    assert states.grad is not None
    assert states.grad.any(1).all()


def test_a_mask_far_from_an_object_still_has_a_gradient() -> None:
    head, states = make_head(), draw(1, STATE).requires_grad_()
    out = head(states, draw(1, 3, SIZE, SIZE))
    with torch.no_grad():  # as sure as can be that there is no object
        head.sam.mask_decoder.pred_obj_score_head.proj_out.bias -= 100
    absent = head(states, draw(1, 3, SIZE, SIZE))
    assert absent.object_logits.item() < -50
    assert torch.equal(absent.logits, out.logits)
    absent.logits.sum().backward()
    assert states.grad is not None
    assert states.grad.any()


def test_sam_is_the_same_in_training_and_in_use() -> None:
    head = make_head()
    assert make_sam().config.mask_decoder_config.dynamic_multimask_via_stability
    states, pixels = draw(2, STATE), draw(2, 3, SIZE, SIZE)
    training = head.train()(states, pixels)
    assert head.training
    assert not head.sam.training
    using = head.eval()(states, pixels)
    assert torch.equal(training.logits, using.logits)
    assert torch.equal(training.iou, using.iou)


def test_a_state_alone_is_drawn_as_in_a_batch() -> None:
    head, states, pixels = make_head(), draw(8, STATE), draw(8, 3, SIZE, SIZE)
    together = head(states, pixels)
    for row in (0, 5):
        alone = head(states[[row]], pixels[[row]])
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-5)
        assert torch.allclose(alone.object_logits[0], together.object_logits[row], atol=1e-5)


def test_prompts_of_boxes_can_be_distilled() -> None:
    head, states = make_head(), draw(4, STATE)
    targets = head.embed_boxes(
        torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(0)).sort(1).values.flatten(1)
    )
    assert targets.shape == (4, 3, PROMPT)
    assert torch.allclose(targets[:, 2], head.sam.prompt_encoder.not_a_point_embed.weight.expand(4, -1))
    optimizer = torch.optim.Adam(head.adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = grade_prompts(head.embed_states(states), targets)["prompt_l1"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_masks_are_learned_through_frozen_sam() -> None:
    head, states, pixels = make_head(), draw(2, STATE), draw(2, 3, SIZE, SIZE)
    with torch.no_grad():
        goals = head(draw(2, STATE, seed=9), pixels)  # what some other states ask for
    targets = (goals.logits > goals.logits.flatten(1).median(1).values[:, None, None, None]).float()
    shown = torch.ones(2, 1, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.adapter.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        terms = grade_masks(head(states, pixels), targets, shown, shown)
        loss = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(terms["mask_bce"].item())
    assert errors[-1] < errors[0]


def test_images_of_another_size_or_number_are_refused() -> None:
    head = make_head()
    for pixels in (draw(2, 3, SIZE, 32), draw(1, 3, SIZE, SIZE)):
        with pytest.raises(ValueError, match=re.escape("allowed is (2, 3, 64, 64), one image for each state")):
            head(draw(2, STATE), pixels)


def test_half_precision_sam_takes_a_full_precision_state() -> None:
    head = SamMaskHead(STATE, make_sam().bfloat16())
    out = head(draw(1, STATE), draw(1, 3, SIZE, SIZE))
    assert out.logits.dtype == out.object_logits.dtype == out.iou.dtype == torch.float32
    assert head.embed_boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]])).dtype == torch.bfloat16


def test_an_object_is_followed_from_its_key_frame_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    head, video_model, processor, pixels = make_head(), make_video_model(), make_processor(), draw(10, 3, SIZE, SIZE)
    state = draw(STATE)
    scores = torch.full((8, 1), -5.0)
    scores[2] = 4.0  # the third of 8 of 10 frames is frame 3
    drawn = head(state.expand(8, -1), pixels[[0, 1, 3, 4, 5, 6, 8, 9]])
    key_logits = torch.full_like(drawn.logits[:1], -3.0)
    key_logits[..., 4:12, 2:6] = 3.0
    logits = drawn.logits.index_copy(0, torch.tensor([2]), key_logits)
    fixed = type(drawn)(logits, scores, drawn.iou_logits, drawn.is_valid)
    asked = []

    def answer(states: Tensor, shown: Tensor) -> Any:
        asked.append(shown)
        return fixed

    monkeypatch.setattr(head, "forward", answer)
    out = propagate_mask(head, state, pixels, video_model, processor)
    assert torch.equal(asked[0], pixels[[0, 1, 3, 4, 5, 6, 8, 9]])
    assert out.logits.shape == (1, 10, SIZE // 4, SIZE // 4)
    assert out.object_logits.shape == out.iou.shape == (1, 10)
    assert torch.equal(out.logits[0, 3] > 0, key_logits[0, 0] > 0)
    assert out.object_logits[0, 3] > 0
    assert out.iou.unique().item() == drawn.iou[2].item()

    session = processor.init_video_session(dtype=torch.float32)
    for index, frame in enumerate(pixels):
        session.add_new_frame(frame, index)
    mask = torch.nn.functional.interpolate(key_logits, size=(SIZE, SIZE), mode="bilinear")[0, 0] > 0
    assert mask.nonzero().aminmax(dim=0).max.tolist() == [47, 23]
    processor.add_inputs_to_inference_session(session, frame_idx=3, obj_ids=1, input_masks=mask)
    for reverse in (False, True):
        for found in video_model.propagate_in_video_iterator(session, start_frame_idx=3, reverse=reverse):
            assert torch.allclose(out.logits[0, found.frame_idx], found.pred_masks[0, 0], atol=1e-3), found.frame_idx


def test_one_frame_is_a_clip() -> None:
    out = propagate_mask(make_head(), draw(STATE), draw(1, 3, SIZE, SIZE), make_video_model(), make_processor())
    assert out.logits.shape == (1, 1, SIZE // 4, SIZE // 4)


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="Got a clip without frames; allowed is one frame or more"):
        propagate_mask(make_head(), draw(STATE), draw(0, 3, SIZE, SIZE), make_video_model(), make_processor())
