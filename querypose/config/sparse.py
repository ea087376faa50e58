"""Keys of the sparse method, QueryPose: ``MODEL.QUERYPOSE``."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_sparse_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.QUERYPOSE``."""
    cfg.MODEL.QUERYPOSE = CfgNode()
    _add_model(cfg.MODEL.QUERYPOSE)
    _add_loss(cfg.MODEL.QUERYPOSE)


def _add_model(node: CfgNode) -> None:
    # Most persons that an image can have: a learned query finds one, or none.
    node.NUM_QUERIES = 100
    # Classes of persons.
    node.NUM_CLASSES = 1
    # Initial boxes of the queries: each the whole "image", or a "grid" for short trainings.
    node.PROPOSALS = "image"
    # Decoder stages; each refines every query's box and keypoints.
    node.NUM_STAGES = 6

    # Box decoder

    # Width of the instance queries and of the feature maps.
    node.HIDDEN_DIM = 256
    # Attention heads of both decoders; their widths are multiples of it.
    node.NUM_ATTENTION_HEADS = 8
    # Inner width of the feed-forward networks.
    node.FFN_DIM = 2048
    # Inner width of the dynamic convolutions.
    node.DYNAMIC_DIM = 64

    # Keypoint decoder

    # Width of the part queries.
    node.PART_DIM = 128
    # Convolutions that read a person's keypoint features.
    node.NUM_KEYPOINT_CONVS = 6
    # Recompute the keypoint convolutions in the backward pass: less memory, more time.
    node.CHECKPOINT_KEYPOINTS = False
    # False: the light model. True: the full model, whose keypoint stages refine the instance query.
    node.KEYPOINT_FEEDBACK = False
    # One part query per keypoint instead of one per part of the skeleton. Not in the paper, as the
    # next two; they help where training data is scarce.
    node.PART_PER_KEYPOINT = False
    # Regress keypoints from the center of their part's attention instead of the box's center.
    node.ATTENTION_ANCHORS = False
    # Pool keypoint features from the box enlarged by this factor, so that keypoints outside a poor
    # box are found, too.
    node.KEYPOINT_BOX_SCALE = 1.0

    # Inference

    # Average the keypoints of this many last stages. Neither this nor the next key is in the paper,
    # and neither costs time.
    node.AVERAGED_STAGES = 1
    # The person's score is the class score times this power of the OKS that the predicted
    # deviations let expect; 0 multiplies by the mean keypoint score instead, as in the paper.
    node.EXPECTED_OKS_POWER = 0.0
    # Of people whose OKS with each other is higher only the best is kept; 1 keeps everybody, as in
    # the paper. A model of little data finds one person twice.
    node.NMS_OKS_THRESHOLD = 1.0


def _add_loss(node: CfgNode) -> None:
    # Loss weights; each loss is summed over the stages. The first three also weight the matching.
    node.CLASS_WEIGHT = 2.0
    node.L1_WEIGHT = 5.0
    node.GIOU_WEIGHT = 2.0
    node.KEYPOINT_WEIGHT = 1.0
    # Supervises each part's attention by the positions of its keypoints; 0 does not. Not in the
    # paper.
    node.ATTENTION_WEIGHT = 0.0
    # For short trainings: additional queries per image that start from randomly moved and scaled
    # ground-truth boxes.
    node.DENOISING = CfgNode()
    node.DENOISING.NUM_QUERIES = 0
    # Auxiliary heat maps on p2, in training only.
    node.AUX_HEATMAP = CfgNode()
    node.AUX_HEATMAP.ENABLED = False
