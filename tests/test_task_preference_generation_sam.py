from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from tests.task_preference_models import Request, make_fresh_model, make_model  # noqa: E402
from tests.test_task_preference_generation import REQUESTS, answer  # noqa: E402
from tests.test_task_preference_sam import SIZE, make_processor, make_sam, make_video_model  # noqa: E402
from vidground_hf.task_preference.features import stack_features  # noqa: E402
from vidground_hf.task_preference.mask_video import MaskClip, MaskFollower, propagate_mask  # noqa: E402


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_the_mask_of_a_sam_is_of_the_first_frame(family: str) -> None:
    model, processor = make_fresh_model(family, sam=make_sam())
    pixels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (found,) = answer(model, processor, REQUESTS[:1], [{0: "mask"}], sam_pixel_values=pixels)
    assert found.masks is not None
    assert found.mask_scores is not None
    assert found.mask_seconds is not None
    assert found.masks.shape == (1, 1, 56, 84)
    assert found.mask_scores.shape == (1, 1)
    assert found.mask_seconds.tolist() == [0.75]
    head = model.heads["mask"].sam.mask_decoder.pred_obj_score_head.proj_out
    for shift, is_drawn in ((200.0, True), (-400.0, False)):  # the object is there, and not
        with torch.no_grad():
            head.bias += shift
        (found,) = answer(model, processor, REQUESTS[:1], [{0: "mask"}], sam_pixel_values=pixels)
        assert found.masks is not None
        assert bool(found.masks.any()) == is_drawn


def make_clips(count: int, num_frames: int = 3) -> list[MaskClip]:
    rng = np.random.default_rng(0)
    return [
        MaskClip(
            rng.integers(0, 255, (num_frames, 40, 60, 3), np.uint8), np.arange(num_frames, dtype=np.float64) + 0.25
        )
        for _ in range(count)
    ]


def test_a_sam_follows_objects_through_clips() -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam())
    with torch.no_grad():  # the object is seen everywhere
        model.heads["mask"].sam.mask_decoder.pred_obj_score_head.proj_out.bias += 200
    follower = MaskFollower(make_video_model(), make_processor())
    requests = [REQUESTS[0], REQUESTS[1], Request("Where?", "image", seed=1), REQUESTS[3]]
    calls: list[dict[int, str]] = [{0: "mask", 3: "mask"}, {0: "box"}, {0: "mask"}, {0: "mask"}]
    clips = [*make_clips(2), None, None]
    pixels = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"sam_clips": clips, "mask_follower": follower}
    both, box, image, none = answer(model, processor, requests, calls, sam_pixel_values=pixels, **given)
    assert both.masks is not None
    assert both.masks.shape == (2, 3, 56, 84)
    assert both.mask_scores is not None
    assert both.mask_scores.shape == (2, 3)
    assert both.mask_seconds is not None
    assert both.mask_seconds.tolist() == [0.25, 1.25, 2.25]
    assert both.mask_ious is not None
    assert both.mask_ious[0].unique().shape == (1,)
    assert box.masks is None
    assert box.boxes is not None
    assert image.masks is not None
    assert image.masks.shape == (1, 1, 56, 84)
    assert (none.tasks, none.masks) == (("mask",), None)
    without = answer(model, processor, requests[:2], calls[:2], sam_clips=clips[:2], mask_follower=follower)
    assert without[0].masks is not None  # what is followed needs no sam_pixel_values
    assert torch.equal(without[0].masks, both.masks)
    with pytest.raises(ValueError, match=re.escape("rows [2] show something, and the SAM that draws masks has no")):
        answer(model, processor, requests, calls, **given)


def test_masks_of_a_clip_are_those_that_were_propagated(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam())
    spied: list[Any] = []
    video_model, sam_processor = make_video_model(), make_processor()
    follower = MaskFollower(video_model, sam_processor)
    head = model.heads["mask"]
    follow = MaskFollower.follow

    def keep(self: Any, head: Any, states: Any, clip: Any) -> Any:
        spied.append(states)
        return follow(self, head, states, clip)

    monkeypatch.setattr(MaskFollower, "follow", keep)
    clips = make_clips(1)
    (found,) = answer(model, processor, REQUESTS[:1], [{0: "mask"}], sam_clips=clips, mask_follower=follower)
    (states,) = spied
    pixels = sam_processor.image_processor(images=list(clips[0].frames), return_tensors="pt")["pixel_values"]
    wanted = propagate_mask(head, states[0], pixels, video_model, sam_processor)
    large = torch.nn.functional.interpolate(wanted.logits, (56, 84), mode="bilinear")
    assert found.masks is not None
    assert torch.equal(found.masks, (large > 0) & (wanted.object_logits > 0)[..., None, None])
    assert found.mask_scores is not None
    assert torch.equal(found.mask_scores, wanted.object_logits.sigmoid())
    assert found.mask_ious is not None
    assert torch.equal(found.mask_ious, wanted.iou)


def test_a_sam_without_pixels_is_told_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam())
    requests, calls = [REQUESTS[3], REQUESTS[0], REQUESTS[1]], [{}, {0: "mask"}, {}]
    message = "rows [1, 2] show something, and the SAM that draws masks has no pixels of it; pass sam_pixel_values"
    with monkeypatch.context() as patch:
        patch.setattr(model.vlm, "generate", None)
        with pytest.raises(ValueError, match=re.escape(message)):
            answer(model, processor, requests, calls)
    untold = answer(model, processor, requests, calls, media=None)  # heads do not answer
    assert [one.tasks for one in untold] == [(), ("mask",), ()]
    assert untold[1].masks is None


@pytest.mark.parametrize("name", ["sam_pixel_values", "sam_clips", "features"])
def test_what_goes_with_a_batch_is_of_all_its_rows(name: str) -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam())
    message = f"{name} has 1 rows and the batch 2; pass one for each row of the batch, in order"
    column = stack_features([torch.ones(1, 1, 1, 5)], [torch.zeros(1)], [0.0]) if name == "features" else [None]
    with pytest.raises(ValueError, match=re.escape(message)):
        answer(model, processor, REQUESTS[:2], [{}, {}], **{name: column})


def test_a_follower_needs_a_sam_and_clips() -> None:
    follower = MaskFollower(None, None)
    for model, processor in (make_model("internvl"), make_fresh_model("internvl", sam=make_sam())):
        with pytest.raises(ValueError, match=re.escape("mask_follower follows what a SAM draws, in sam_clips; leave")):
            answer(model, processor, REQUESTS[:1], [{}], mask_follower=follower)
