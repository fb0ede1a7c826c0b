"""One object through a clip: the task state draws it on a key frame, and SAM's video model follows it from there.

Training is not done here: SAM's video models run without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.mask_conv import MaskOutput
from vidground_hf.task_preference.mask_sam import SamMaskHead

if TYPE_CHECKING:
    from transformers import EdgeTamVideoModel, Sam2VideoModel, Sam2VideoProcessor, Sam3TrackerVideoModel

_NUM_CANDIDATES = 8  # frames among which the key frame is chosen; our guess
_OBJECT = 1  # the id of the only object of a session


class MaskClip(NamedTuple):
    """The frames in which an object is followed.

    Attributes:
        frames (`uint8[T, H, W, 3]`): RGB, at least one.
        times_seconds (`float64[T]`): when each is shown, from the start of the clip.
    """

    frames: NDArray[np.uint8]
    times_seconds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MaskFollower:
    """What follows objects through clips when a model generates; it is not trained, and not saved with the model.

    Args:
        video_model (`Sam2VideoModel`): or an `EdgeTamVideoModel` or a `Sam3TrackerVideoModel`, in evaluation mode, of
            the checkpoint that the model's SAM is of.
        processor (`Sam2VideoProcessor`): of the video model.

    Example:
        >>> from transformers import AutoProcessor, Sam2VideoModel
        >>> name = "facebook/sam2.1-hiera-small"  # doctest: +SKIP
        >>> follower = MaskFollower(  # doctest: +SKIP
        ...     Sam2VideoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
        ... )
        >>> answers = model.generate(**inputs, tokenizer=tokenizer, mask_follower=follower)  # doctest: +SKIP
    """

    video_model: Any
    processor: Any

    def follow(self, head: SamMaskHead, states: Tensor, clip: MaskClip) -> MaskOutput:
        """Draws the objects that K states ask for in every frame of one clip, one after the other.

        Args:
            head (`SamMaskHead`): of the model.
            states (`Tensor`): `float[K, state_width]`.
            clip (`MaskClip`): with T frames.

        Returns:
            N = K, T frames; see `propagate_mask`.
        """
        pixels = self.processor.image_processor(images=list(clip.frames), return_tensors="pt")["pixel_values"]
        pixels = pixels.to(states.device)
        found = [propagate_mask(head, state, pixels, self.video_model, self.processor) for state in states]
        return MaskOutput(
            *(
                torch.cat([getattr(one, name) for one in found])
                for name in ("logits", "object_logits", "iou_logits", "is_valid")
            )
        )


@torch.no_grad()
def propagate_mask(
    head: SamMaskHead,
    state: Tensor,
    pixel_values: Tensor,
    video_model: Sam2VideoModel | EdgeTamVideoModel | Sam3TrackerVideoModel,
    processor: Sam2VideoProcessor,
) -> MaskOutput:
    """Draws the object that a state asks for in every frame of a clip.

    Up to eight frames, spread evenly, are drawn with the head; the one with the highest object score is the key frame.
    So an object that is not there at the start is found, too; the published code always takes the first frame. The key
    frame's mask is the video model's prompt, forwards and backwards.

    Args:
        head (`SamMaskHead`): with the image model of the same family as `video_model`.
        state (`Tensor`): `float[state_width]`.
        pixel_values (`Tensor`): `float[T, 3, S, S]`, the frames as SAM's processor makes them, at least one.
        video_model (`Sam2VideoModel`): or an `EdgeTamVideoModel` or a `Sam3TrackerVideoModel`, in evaluation mode.
        processor (`Sam2VideoProcessor`): of the video model.

    Returns:
        N = 1, T frames. Logits and object scores are the video model's; `iou_logits` are the key frame's, for
        all frames.

    Raises:
        ValueError: for no frames, or frames of another size.

    Example:
        >>> from transformers import AutoProcessor, Sam2VideoModel
        >>> name = "facebook/sam2.1-hiera-small"  # doctest: +SKIP
        >>> video_model = Sam2VideoModel.from_pretrained(name)  # doctest: +SKIP
        >>> processor = AutoProcessor.from_pretrained(name)  # doctest: +SKIP
        >>> output = propagate_mask(head, state, pixel_values, video_model, processor)  # doctest: +SKIP
    """
    num_frames = len(pixel_values)
    if num_frames == 0:
        raise ValueError("Got a clip without frames; allowed is one frame or more. Leave out such a clip.")
    picked = torch.linspace(0, num_frames - 1, min(num_frames, _NUM_CANDIDATES)).round().long()
    drawn = head(state.expand(len(picked), -1), pixel_values[picked.to(pixel_values.device)])
    best = int(drawn.object_logits[:, 0].argmax())
    key = int(picked[best])
    session = processor.init_video_session(inference_device=video_model.device, dtype=video_model.dtype)
    for index, frame in enumerate(pixel_values):
        session.add_new_frame(frame, index)
    size = pixel_values.shape[-2:]
    mask = functional.interpolate(drawn.logits[best : best + 1], size=size, mode="bilinear", align_corners=False) > 0
    processor.process_new_mask_for_video_frame(session, key, [_OBJECT], [mask])
    logits, scores = _follow(session, key, num_frames, video_model)
    iou_logits = drawn.iou_logits[best].expand(1, num_frames)
    return MaskOutput(logits[None], scores[None], iou_logits, torch.ones_like(logits[None], dtype=torch.bool))


def _follow(session: Any, key: int, num_frames: int, video_model: Any) -> tuple[Tensor, Tensor]:
    """Logits `float32[T, h, w]` and object scores `float32[T]` of every frame, from the key frame both ways."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for is_backwards in (False, True):
        for output in video_model.propagate_in_video_iterator(session, start_frame_idx=key, reverse=is_backwards):
            score = output.object_score_logits.flatten()[0].float()
            found[output.frame_idx] = (output.pred_masks[0, 0].float(), score)
    ordered = [found[index] for index in range(num_frames)]
    return torch.stack([logits for logits, _ in ordered]), torch.stack([score for _, score in ordered])
