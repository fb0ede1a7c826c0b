"""Masks as text: exact arrays, pycocotools, real masklets, PNG files, and every refusal."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats.masks import decode_mask

MASKLETS = SHARED_DATA / "sav-masklets/sav_dataset/example/sav_000001_manual.json"


@pytest.fixture(scope="module")
def coco() -> Any:
    # pycocotools 2.0.11 calls numpy in a way that numpy 2 has deprecated.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pycocotools.mask", reason="pycocotools, to compare with, is not installed")


def count_runs(mask: np.ndarray) -> list[int]:
    flat = np.append(mask.T.ravel(), [2])
    changes = np.flatnonzero(np.diff(flat.astype(int), prepend=0))
    return np.diff(changes, prepend=0).tolist()


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_plain_counts_give_back_the_mask(mask: np.ndarray) -> None:
    text = json.dumps({"size": mask.shape, "counts": count_runs(mask)})
    np.testing.assert_array_equal(decode_mask(text), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(arrays(bool, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=st.booleans()))
def test_compressed_counts_match_pycocotools(coco: Any, mask: np.ndarray) -> None:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = json.dumps({"size": encoded["size"], "counts": encoded["counts"].decode()})
    np.testing.assert_array_equal(decode_mask(text), mask)


@needs_shared_data
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_masklets_match_pycocotools(coco: Any) -> None:
    frames = json.loads(MASKLETS.read_text())["masklet"]
    for frame in frames[::10]:
        for encoding in frame:
            mask = decode_mask(json.dumps(encoding))
            assert mask is not None
            np.testing.assert_array_equal(mask, coco.decode(encoding).astype(bool))


@needs_shared_data
def test_real_masklets_have_the_sizes_and_first_frames_of_their_metadata() -> None:
    data = json.loads(MASKLETS.read_text())
    masks = [[decode_mask(json.dumps(rle)) for rle in frame] for frame in data["masklet"]]
    sizes = np.array([[mask.sum() for mask in frame if mask is not None] for frame in masks])
    assert sizes.shape == (121, 5)
    # The metadata averages over the frames in which the object is seen, and counts changes after it appeared.
    is_seen = sizes > 0
    np.testing.assert_allclose(sizes.sum(axis=0) / is_seen.sum(axis=0), data["masklet_size_abs"])
    first = is_seen.argmax(axis=0)
    assert first.tolist() == data["masklet_first_appeared_frame"]
    changes = [int(np.diff(seen[start:]).sum()) for seen, start in zip(is_seen.T, first, strict=True)]
    assert changes == data["masklet_visibility_changes"]


def test_png_files_are_read_as_one_object_or_by_id(tmp_path: Path) -> None:
    pixels = np.array([[0, 1, 2], [2, 0, 255]], dtype=np.uint8)
    gray, palette = tmp_path / "gray.png", tmp_path / "palette.png"
    Image.fromarray(pixels).save(gray)
    indexed = Image.fromarray(pixels)
    indexed.putpalette([0, 0, 0] * 256)
    assert indexed.mode == "P"
    indexed.save(palette)
    for path in (gray, palette):
        np.testing.assert_array_equal(decode_mask(str(path)), pixels != 0)
        np.testing.assert_array_equal(decode_mask(f"{path}#2"), pixels == 2)
        np.testing.assert_array_equal(decode_mask(f"{path}#7"), np.zeros((2, 3), dtype=bool))
    bitmap = tmp_path / "bitmap.png"
    Image.fromarray(pixels != 0).save(bitmap)
    np.testing.assert_array_equal(decode_mask(str(bitmap)), pixels != 0)


def test_an_empty_text_is_a_frame_without_the_object() -> None:
    assert decode_mask("") is decode_mask(None) is None


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ({"counts": [4]}, "Got an encoding with the keys ['counts']; a COCO mask has 'size'"),
        ({"size": [2, 2], "counts": [3]}, "Got runs of 3 pixels in all for a mask of 2 x 2 = 4"),
        ({"size": [2, 2], "counts": [6, -2]}, "Got runs of 4 pixels in all for a mask of 2 x 2 = 4"),
        ({"size": [2, 2], "counts": "5"}, "Got runs of 5 pixels in all for a mask of 2 x 2 = 4"),
        ({"size": [2, 2], "counts": []}, "Got runs of 0 pixels in all for a mask of 2 x 2 = 4"),
        ({"size": [2, 2], "counts": ""}, "Got the compressed counts ''; allowed are characters"),
        ({"size": [2, 2], "counts": "4é"}, "Got the compressed counts '4é'; allowed are characters"),
        ({"size": [2, 2], "counts": "T"}, "Got the compressed counts 'T'; allowed are characters"),
    ],
)
def test_bad_encodings_are_refused(encoding: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        decode_mask(json.dumps(encoding))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    colour = tmp_path / "colour.png"
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(colour)
    with pytest.raises(ValueError, match=re.escape(f"Got an image with 3 channels in '{colour}'")):
        decode_mask(str(colour))
    with pytest.raises(FileNotFoundError):
        decode_mask(str(tmp_path / "nothing.png"))
