"""`vidground_recipe`: the settings that `VideoGRPOTrainer` is meant to be run with, each with its source.

Settings only; nothing heavy is imported and nothing is trained here.
"""

from __future__ import annotations

from typing import Any

from vidground_hf.media import FrameBudget

TRAINING_FRAMES = FrameBudget(fps=2.0, max_frames=16, size=128 * 28 * 28)
"""What a clip is shown with in training: two frames a second, at most 16, each of at most 128 * 28 * 28 pixels.

Those of Video-R1's training (arXiv 2503.21776, its released code), whose data VidGround (arXiv 2604.05117) filters.
That VidGround trains with the same is our guess.
"""


def vidground_recipe() -> dict[str, Any]:
    """The settings of VidGround's plain algorithm, as keyword arguments of `trl.GRPOConfig`.

    | setting | value | source |
    |---|---|---|
    | `loss_type` | `"dapo"` | VidGround: token-level loss; DAPO (arXiv 2503.14476), section 3.3 |
    | `epsilon`, `epsilon_high` | 0.2, 0.28 | VidGround: asymmetric clipping; the values are DAPO's, section 4.1 |
    | `beta` | 0.0 | DAPO, section 2.3: no KL term |
    | `num_generations` | 8 | Video-R1's training script |
    | `learning_rate` | 1e-6 | Video-R1's training script; DAPO, section 4.1 |
    | `lr_scheduler_type`, `weight_decay`, `max_grad_norm` | cosine, 0.01, 5.0 | Video-R1's training script |
    | `max_completion_length` | 768 | Video-R1's training script |
    | `temperature` | 1.0 | Video-R1's training script |

    Clipping acts only on completions older than the policy, so with more than one update per generation
    (`num_iterations` or `steps_per_generation`). Frames and pixels are `TRAINING_FRAMES`, the trainer's default.

    Returns:
        `dict[str, Any]`: a new one at each call.

    Example:
        >>> recipe = vidground_recipe() | {"max_completion_length": 64}
        >>> recipe["loss_type"], recipe["epsilon_high"], recipe["max_completion_length"]
        ('dapo', 0.28, 64)
    """
    return {
        "loss_type": "dapo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "num_generations": 8,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 5.0,
        "max_completion_length": 768,
        "temperature": 1.0,
    }
