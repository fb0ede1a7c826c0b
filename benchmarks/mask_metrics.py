"""Frames a second of `video_segmentation` on 480p masks, beside a straightforward loop over whole frames.

Run `python benchmarks/mask_metrics.py` from a clone; it prints one JSON line. Both read the same encodings and must
agree.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import evaluate
import numpy as np
from scipy.ndimage import binary_dilation

from vidground_hf.stats.masks import decode_mask

METRIC = Path(__file__).resolve().parents[1] / "metrics" / "video_segmentation"
HEIGHT, WIDTH = 480, 854


def draw_masks(num_frames: int, seed: int) -> list[str]:
    """Draws an object with a ragged outline that moves through the image, and encodes each frame."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves, phases = rng.integers(3, 30, 8), rng.uniform(0, 2 * np.pi, 8)
    texts = []
    for frame in range(num_frames):
        middle_y, middle_x = 240 + 80 * np.sin(frame / 20), 427 + 200 * np.cos(frame / 30)
        angle = np.arctan2(y - middle_y, x - middle_x)
        ripple = sum(np.sin(wave * angle + phase + frame / 10) for wave, phase in zip(waves, phases, strict=True))
        mask = np.hypot(y - middle_y, x - middle_x) < 110 + 4 * ripple + rng.normal(0, 1)
        changes = np.flatnonzero(np.diff(np.append(mask.T.ravel().astype(int), 2), prepend=0))
        texts.append(json.dumps({"size": [HEIGHT, WIDTH], "counts": np.diff(changes, prepend=0).tolist()}))
    return texts


def find_boundary(mask: np.ndarray) -> np.ndarray:
    """Marks the pixels that differ from the one to the right, below, or both."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def score_plainly(predictions: list[str], references: list[str]) -> tuple[float, float]:
    """J and F of one object by whole-frame dilation with a disk."""
    radius = int(np.ceil(0.008 * np.hypot(HEIGHT, WIDTH)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    scores = []
    for predicted_text, annotated_text in zip(predictions, references, strict=True):
        predicted, annotated = decode_mask(predicted_text), decode_mask(annotated_text)
        if predicted is None or annotated is None:
            raise ValueError("Got an empty frame; every frame of this benchmark has the object.")
        found, wanted = find_boundary(predicted), find_boundary(annotated)
        precision = (found & binary_dilation(wanted, disk)).sum() / found.sum()
        recall = (wanted & binary_dilation(found, disk)).sum() / wanted.sum()
        f = 2 * precision * recall / (precision + recall)
        scores.append(((predicted & annotated).sum() / (predicted | annotated).sum(), f))
    j, f = np.mean(scores, axis=0)
    return float(j), float(f)


def main() -> None:
    """Times both and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300, help="frames that the metric scores")
    parser.add_argument("--plain-frames", type=int, default=30, help="frames that the plain loop scores")
    options = parser.parse_args()
    predictions, references = draw_masks(options.frames, seed=0), draw_masks(options.frames, seed=1)
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    metric.compute(predictions=[predictions[:2]], references=[references[:2]])
    start = time.perf_counter()
    metric.compute(predictions=[predictions], references=[references])
    seconds = time.perf_counter() - start

    few = slice(options.plain_frames)
    start = time.perf_counter()
    plain = score_plainly(predictions[few], references[few])
    plain_seconds = time.perf_counter() - start
    same = metric.compute(predictions=[predictions[few]], references=[references[few]])
    if not np.allclose(plain, (same["j"], same["f"])):
        raise ValueError(f"Got J and F of {plain} from the plain loop and of {same['j'], same['f']} from the metric.")
    rate, plain_rate = options.frames / seconds, options.plain_frames / plain_seconds
    figures = {
        "benchmark": "mask_metrics",
        "size": [HEIGHT, WIDTH],
        "frames_per_second": round(rate, 1),
        "plain_frames_per_second": round(plain_rate, 1),
        "ratio": round(rate / plain_rate, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
