"""Keys of every model: skeleton, weights, backbones, inference and drawing."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_shared_config(cfg: CfgNode) -> None:
    """Adds keys directly under ``MODEL``, ``MODEL.INFERENCE``, the backbones' keys and ``DEMO``."""
    # A skeleton file (YAML or JSON) or, of several lines, the text of one; empty takes the skeleton
    # of the dataset's metadata.
    cfg.MODEL.SKELETON = ""
    # Load checkpoints as weights alone. False unpickles MODEL.WEIGHTS, which runs any code in it.
    cfg.MODEL.WEIGHTS_ONLY = True
    _add_backbones(cfg)
    _add_inference(cfg)
    _add_demo(cfg)


def _add_backbones(cfg: CfgNode) -> None:
    cfg.MODEL.HRNET = CfgNode()
    # timm's name of the HRNet.
    cfg.MODEL.HRNET.NAME = "hrnet_w32"

    _add_swin(cfg)

    cfg.MODEL.TIMM = CfgNode()
    # Any timm model with feature maps at strides 4, 8, 16 and 32.
    cfg.MODEL.TIMM.NAME = "resnet50"
    # Download timm's ImageNet weights.
    cfg.MODEL.TIMM.PRETRAINED = False
    # Turn batch norms into fixed affine maps.
    cfg.MODEL.TIMM.FREEZE_BN = False
    # Freeze the weights that lead to this many feature maps, from the finest on; 0 freezes none.
    # Statistics of batch norms are frozen by FREEZE_BN alone.
    cfg.MODEL.TIMM.FREEZE_AT = 0


def _add_swin(cfg: CfgNode) -> None:
    # Other projects use MODEL.SWIN too: keys and values that are already there stay.
    theirs = cfg.MODEL.get("SWIN", {})
    node = cfg.MODEL.SWIN = CfgNode()
    # The Swin Transformer, as in its paper: Swin-T by default.
    node.EMBED_DIM = 96
    node.DEPTHS = [2, 2, 6, 2]
    node.NUM_HEADS = [3, 6, 12, 24]
    node.WINDOW_SIZE = 7
    node.DROP_PATH_RATE = 0.2
    node.update(theirs)


def _add_inference(cfg: CfgNode) -> None:
    node = cfg.MODEL.INFERENCE = CfgNode()
    # "fp32", "bf16" or "fp16"; the latter two change results slightly.
    node.PRECISION = "fp32"
    # Store the backbone's weights channels-last; results stay the same up to float rounding.
    node.CHANNELS_LAST = True
    # Fold batch norms into the convolutions before them, with results as with the key above.
    node.FOLD_BATCH_NORM = True
    # In fp32 on a processor, convolve 3x3 by Winograd's minimal filtering while this adds at most
    # this share of the memory of all parameters: 1.5 takes all convolutions of the ResNet-50 light
    # model that profit. Errors are of 1e-5 of the maps.
    node.WINOGRAD_MEMORY = 0.0


def _add_demo(cfg: CfgNode) -> None:
    node = cfg.DEMO = CfgNode()
    # PosePredictor and the demo leave out persons of a lower final score; evaluation does not.
    node.CONFIDENCE_THRESHOLD = 0.3
    # How scores are shown: pairs of a score and the share of people of about this score who are
    # right (OKS of at least one half), which python -m querypose.tools.score_threshold measures.
    # Empty: scores are shown as they are.
    node.SCORE_PRECISION = []
    # Drawings leave out keypoints of a lower score. QueryPose's keypoint score is one minus the
    # mean predicted deviation, relative to the person's box: at 0.7 the expected error is 0.3 of
    # the box.
    node.KEYPOINT_THRESHOLD = 0.7
