"""Keys of the dense methods: ``MODEL.PINET`` and ``MODEL.QUALITY_POSE``."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_dense_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.PINET`` and ``MODEL.QUALITY_POSE``."""
    _add_pinet(cfg)
    _add_quality_pose(cfg)


def _add_pinet(cfg: CfgNode) -> None:
    node = cfg.MODEL.PINET = CfgNode()
    # Parts, each a list of keypoint names; every part's center proposes a pose. Empty: the paper's
    # parts for COCO's and CrowdPose's keypoints, one part of all keypoints for others.
    node.PARTS = []
    # Propose poses at the person's center only.
    node.CENTER_ONLY = False
    # Refine poses with a graph network over their keypoints.
    node.REFINEMENT = True
    # Residual layers after the network's first block.
    node.NUM_REFINEMENT_LAYERS = 2
    # How the refinement samples features between cells: "exact", or "released" for the authors'
    # published weights.
    node.SAMPLER = "exact"

    # Training

    # Cells around a part's center that learn its pose: the 3 x 3 around the nearest cell (paper's
    # supplement) instead of the published code's 4 x 4.
    node.NEAREST_CELLS = False
    # Persons with a smaller box, in square pixels of the network's input, get no part centers.
    node.MIN_BOX_AREA = 1024.0
    # Weights of the losses; that of the heat maps is 1.
    node.OFFSET_WEIGHT = 0.03
    node.REFINEMENT_WEIGHT = 0.03

    # Inference

    # Average the outputs for the image and its mirror image; a part of one side needs another part
    # that is its mirror image.
    node.FLIP_TEST = True
    # Most poses that one part may propose per image.
    node.MAX_PEAKS = 30
    # Combine the best keypoints of a person's poses; False keeps the first pose only.
    node.FUSION = True
    # What a person's poses are sorted by: "pose_score", or "part_score", the score of the part's
    # center (paper's supplement).
    node.SORT_BY = "pose_score"


def _add_quality_pose(cfg: CfgNode) -> None:
    node = cfg.MODEL.QUALITY_POSE = CfgNode()
    # Channels of each keypoint's features.
    node.KEYPOINT_CHANNELS = 24
    # Channels of the features that scores are computed from.
    node.INSTANCE_CHANNELS = 64
    # Channels of the last layer before the score.
    node.SCORE_CHANNELS = 16

    # Keypoint query encoding. Without it, keypoints are regressed from a cell's features directly.
    node.KQE = True
    # Points sampled around every keypoint query; 0 samples the query alone.
    node.NUM_SEMANTIC_POINTS = 9
    # How samples are combined: "sum", or "deform", a deformable convolution.
    node.AGGREGATE = "sum"
    # Pose query encoding. Without it, a score depends on its own cell only.
    node.PQE = True
    # The positions that a score depends on: keypoint queries "kq", keypoints "kps", semantic points
    # "sp", or "auto", as many learned positions as there are keypoints.
    node.POSE_QUERY = "kq"

    # Target of the score map: "cir", the OKS of the pose predicted at a cell; "gaussian", a bump
    # around a person's center; or "discrete", 1 near it.
    node.INSTANCE_LABEL = "cir"
    # A second map learns the OKS; the product of both is the score. For "gaussian" and "discrete".
    node.QUALITY_BRANCH = False
    # Persons with a smaller area, in square pixels of the network's input, are not learned.
    node.MIN_AREA = 1024.0
    node.LOSS = CfgNode()
    # What loss_cir is divided by: the number of cells near persons, "omega", or of all cells,
    # "pixel".
    node.LOSS.CIR_REDUCTION = "omega"
    # Weight keypoint errors relative to the person's size.
    node.LOSS.SCALE_NORM = True

    # Inference

    # Most peaks of the score map per image and scale.
    node.MAX_PEAKS = 30
    # Drop poses that resemble a better one.
    node.NMS = CfgNode()
    node.NMS.ENABLED = True
    # Average the outputs for the image and its mirror image.
    node.FLIP_TEST = True
    # Scales of the image, relative to the test size; 1 must be one of them.
    node.TEST_SCALES = [1.0]
