from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from tests.task_preference_models import (  # noqa: E402
    Request,
    describe,
    make_batch,
    make_fresh_model,
    make_model,
)
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.media_facts import MediaFacts  # noqa: E402
from vidground_hf.task_preference.vision import VisionLayoutError, lay_out, look  # noqa: E402

NUM_CELLS = {"qwen2_5_vl": (2, 2, 3), "qwen3_vl": (2, 2, 3), "smolvlm": (4, 2, 2), "llava_onevision": (4, 2, 2)}


@cache
def make_local_model(family: str) -> tuple[Any, Any]:
    """Without attention in the vision tower: what a cell has is from its own patches alone."""
    model, processor = make_fresh_model(family)
    names = re.compile(r"\.(visual|vision_tower|vision_model)\..*\.(attn\.proj|out_proj|projection_layer)\.")
    with torch.no_grad():
        weights = [weight.zero_() for name, weight in model.named_parameters() if names.search(name)]
    assert weights
    return model, processor


def read_grid(family: str, request: Request) -> Any:
    model, processor = make_local_model(family)
    batch, media = make_batch(processor, [request])
    with torch.no_grad():
        outputs, _ = look(model.vlm, batch)
        features = lay_out(model.vlm.config, batch, outputs, media)
    assert features is not None
    return features.grid[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mark", [(0, 0, 5), (3, 3, 0)])
def test_a_cell_of_the_grid_is_where_the_picture_is(family: str, mark: tuple[int, int, int]) -> None:
    grids = [read_grid(family, Request("x", seed=1, mark=one)) for one in (None, mark)]
    change = (grids[1] - grids[0]).abs().mean(-1)
    num_frames, height, width = change.shape
    assert (num_frames, height, width) == NUM_CELLS.get(family, (4, 2, 2))
    place = np.unravel_index(int(change.argmax()), change.shape)
    assert tuple(map(int, place)) == (mark[0] * num_frames // 4, mark[1] * height // 4, mark[2] * width // 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_grid_of_an_image_is_of_the_whole_of_it(family: str) -> None:
    """Tiles of a large image are left out, and features that come window by window are in their places."""
    requests = [Request("x", "image", seed=1, scale=3, mark=mark) for mark in (None, (0, 3, 5), (0, 0, 0))]
    plain, last, first = (read_grid(family, request) for request in requests)
    assert plain.shape[0] == 1
    for other, wanted in ((last, plain.shape[1] * plain.shape[2] - 1), (first, 0)):
        change = (other - plain).abs().mean(-1).flatten()
        if family.startswith("qwen"):  # finer than a block
            height, width = plain.shape[1:3]
            row, column = divmod(int(change.argmax()), width)
            assert (row * 4 // height, column * 6 // width) == ((3, 5) if wanted else (0, 0))
        else:
            assert int(change.argmax()) == wanted


def test_rows_without_facts_have_empty_grids() -> None:
    model, processor = make_model("smolvlm")
    batch, media = make_batch(
        processor, [Request("x", seed=1), Request("y", None), Request("z", seed=2, num_frames=3)]
    )
    outputs, _ = look(model.vlm, batch)
    features = lay_out(model.vlm.config, batch, outputs, media)
    assert features is not None
    assert features.is_valid.flatten(1).sum(1).tolist() == [16, 0, 12]
    assert features.times_seconds.tolist() == [[0.75, 2.25, 3.75, 5.25], [0.0] * 4, [0.75, 2.25, 3.75, 0.0]]
    assert features.duration_seconds.tolist() == [6.0, 0.0, 4.5]
    assert lay_out(model.vlm.config, batch, outputs, [None] * 3) is None


def test_the_last_patch_of_an_odd_clip_repeats_its_last_frame() -> None:
    model, processor = make_model("qwen2_5_vl")
    batch, media = make_batch(processor, [Request("x", seed=1, num_frames=3)])
    outputs, _ = look(model.vlm, batch)
    features = lay_out(model.vlm.config, batch, outputs, media)
    assert features is not None
    assert features.times_seconds.tolist() == [[1.5, 3.75]]


def test_features_that_do_not_fit_the_facts_are_refused() -> None:
    facts = describe(Request("x"))
    assert facts is not None
    cases: list[tuple[str, list[Request], list[MediaFacts | None], str]] = [
        ("internvl", [Request("x")], [], "media tells of 0 rows and the batch has 1; pass one for each row"),
        (
            "internvl",
            [Request("x", num_frames=3)],
            [facts],
            "row 0 shows 3 pictures and has 4 times; a task is asked of one video or image",
        ),
        (
            "qwen3_vl",
            [Request("x", num_frames=6)],
            [facts],
            "row 0 has 4 times and its features 3 temporal patches, which does not come out even",
        ),
    ]
    for family, requests, media, message in cases:
        model, processor = make_model(family)
        batch, _ = make_batch(processor, requests)
        outputs, _ = look(model.vlm, batch)
        with pytest.raises(VisionLayoutError, match=re.escape(message)):
            lay_out(model.vlm.config, batch, outputs, media)


def test_placeholders_that_features_do_not_fill_are_refused() -> None:
    model, processor = make_model("internvl")
    batch, media = make_batch(processor, [Request("x")])
    outputs, _ = look(model.vlm, batch)
    place = (batch["input_ids"][0] == model.vlm.config.image_token_id).nonzero()[0]
    batch["input_ids"][0, place] = 5
    outputs["image"].pooler_output = outputs["image"].pooler_output.flatten(0, 1)[None, 1:]
    with pytest.raises(
        VisionLayoutError, match=re.escape("row 0 has 15 placeholder tokens, and what it shows does not")
    ):
        lay_out(model.vlm.config, batch, outputs, media)


def test_an_unknown_layout_is_refused() -> None:
    model, processor = make_model("internvl")
    batch, media = make_batch(processor, [Request("x")])
    outputs, _ = look(model.vlm, batch)
    config = model.vlm.config.to_dict() | {"model_type": "llava"}
    other = type("Config", (), {**config, "vision_config": model.vlm.config.vision_config})()
    with pytest.raises(VisionLayoutError, match=re.escape("the layout of the features of 'llava' is not known")):
        lay_out(other, batch, outputs, media)
