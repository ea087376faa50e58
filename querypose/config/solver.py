"""Keys of training and evaluation: ``SOLVER`` and ``TEST``."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_solver_config(cfg: CfgNode) -> None:
    """Adds keys to ``SOLVER`` and ``TEST``."""
    # "Adam", "AdamW" or "SGD".
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # Learning rates relative to BASE_LR.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    cfg.SOLVER.FLOW_MULTIPLIER = 10.0
    # Clip by the norm of all gradients together (CLIP_TYPE "norm").
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    # Precision of mixed-precision training (AMP.ENABLED): "fp16" (with gradient scaling) or "bf16".
    cfg.SOLVER.AMP.PRECISION = "fp16"
    # Accumulate the gradients of this many batches of IMS_PER_BATCH, as one large batch would.
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # Exponential moving average of the weights, evaluated and saved beside the raw ones.
    cfg.SOLVER.EMA = CfgNode()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.9998
    # For short trainings: after n iterations the decay is at most (1 + n) / (10 + n).
    cfg.SOLVER.EMA.WARM_UP = False
    # Periodic checkpoints to keep; 0 keeps all of them.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # Iterations with NaN or infinite numbers that may be skipped before the training ends.
    cfg.SOLVER.MAX_SKIPPED_BATCHES = 0
    # The weights with the highest value of this metric are saved as model_best.pth; "" saves none.
    cfg.TEST.BEST_METRIC = "keypoints/AP"
    # Evaluation and prediction take a checkpoint's averaged weights (SOLVER.EMA), not the raw ones.
    cfg.TEST.EMA = False
