"""Every configuration key that QueryPose adds to Detectron2's, with its default."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg


def default_config() -> CfgNode:
    """Detectron2's defaults and QueryPose's."""
    cfg = get_cfg()
    add_querypose_config(cfg)
    return cfg


def read_config(config_file: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Reads a QueryPose config file over all defaults.

    Args:
        config_file: YAML, possibly with a ``_BASE_``.
        opts: keys and values in turn, as on a command line; they win over the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not YAML, or a key or a value does not fit.
    """
    config_file = Path(config_file)
    if not config_file.is_file():
        raise FileNotFoundError(f"There is no config file {config_file}.")
    cfg = default_config()
    with _explained(str(config_file), cfg):
        # Detectron2 would run Python objects in the file.
        cfg.merge_from_file(str(config_file), allow_unsafe=False)
        cfg.merge_from_list(list(opts))
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Changes a config in place.

    Args:
        cfg: not frozen.
        opts: keys and values in turn, as on a command line.

    Raises:
        ValueError: a key or a value does not fit.
    """
    with _explained("options", cfg):
        cfg.merge_from_list(list(opts))


@contextmanager
def _explained(source: str, cfg: CfgNode) -> Iterator[None]:
    """Turns what merging into a config raises into a ValueError that names the source."""
    try:
        yield
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is not valid YAML: {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{source} does not map config keys to values.") from error
    except (KeyError, AssertionError, ValueError) as error:
        reason = str(error.args[0] if error.args else error)
        raise ValueError(f"{source}: {reason}{_suggestion(reason, cfg)}") from error


def _suggestion(reason: str, cfg: CfgNode) -> str:
    """What a misspelt key may have meant; empty where the reason is another."""
    if not reason.startswith("Non-existent"):
        return ""
    given = reason.rsplit(": ", 1)[-1]
    if given.startswith("-"):
        return "; options of the command come before the config's keys"
    close = difflib.get_close_matches(given, list(_keys(cfg)), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")


def add_querypose_config(cfg: CfgNode) -> None:
    """Adds QueryPose's keys to a Detectron2 config, in place.

    Detectron2's own defaults stay as they are: ``configs/Base-QueryPose.yaml`` sets what the method
    wants of them (pooling under ``ROI_BOX_HEAD`` and ``ROI_KEYPOINT_HEAD``, RGB input, AdamW).
    """
    _add_model(cfg)
    _add_quality_pose(cfg)
    _add_loss(cfg)
    _add_speed(cfg)
    _add_demo(cfg)
    _add_backbones(cfg)
    _add_data(cfg)
    _add_affine(cfg)
    _add_pinet(cfg)
    _add_solver(cfg)


def _add_model(cfg: CfgNode) -> None:
    # A skeleton file (YAML or JSON); empty takes the training dataset's metadata.
    cfg.MODEL.SKELETON = ""

    node = cfg.MODEL.QUERYPOSE = CfgNode()
    node.NUM_QUERIES = 100
    node.NUM_CLASSES = 1
    # Where untrained queries look: "image", or "grid" for short trainings.
    node.PROPOSALS = "image"
    # Decoder stages; each refines every query's box and keypoints.
    node.NUM_STAGES = 6

    # Box decoder
    node.HIDDEN_DIM = 256
    node.NUM_ATTENTION_HEADS = 8
    node.FFN_DIM = 2048
    # Inner width of the dynamic convolutions.
    node.DYNAMIC_DIM = 64

    # Keypoint decoder
    node.PART_DIM = 128
    node.NUM_KEYPOINT_CONVS = 6
    # Recompute the keypoint convolutions in the backward pass: less memory, more time.
    node.CHECKPOINT_KEYPOINTS = False
    # False: the light model. True: the full model, whose keypoint stages refine the instance query.
    node.KEYPOINT_FEEDBACK = False
    # For little data, all three away from the published models. Give every keypoint a part query of
    # its own, whatever parts the skeleton declares.
    node.PART_PER_KEYPOINT = False
    # Regress keypoints from the center of their part's attention, not from the box's.
    node.ATTENTION_ANCHORS = False
    # Look for keypoints in the box enlarged by this factor: those that a poor box leaves out are
    # found, too.
    node.KEYPOINT_BOX_SCALE = 1.0

    # Inference. The next two are away from the paper, and cost no time. A keypoint is the mean of
    # what this many last stages say of it.
    node.AVERAGED_STAGES = 1
    # A person's score is the class score times this power of the OKS that the predicted deviations
    # let expect; at 0 times the mean keypoint score, as in the paper.
    node.EXPECTED_OKS_POWER = 0.0


def _add_speed(cfg: CfgNode) -> None:
    node = cfg.MODEL.INFERENCE = CfgNode()
    # "fp32", "bf16" or "fp16"; the latter two change answers a little.
    node.PRECISION = "fp32"
    # Lay the backbone's weights out channels-last: exact to float noise, like the next one.
    node.CHANNELS_LAST = True
    # Fold batch norms into the convolutions before them.
    node.FOLD_BATCH_NORM = True


def _add_demo(cfg: CfgNode) -> None:
    node = cfg.DEMO = CfgNode()
    # PosePredictor and the demo leave out people of a lower final score; evaluation does not.
    node.CONFIDENCE_THRESHOLD = 0.3
    # Drawings leave out keypoints that do not score higher. A keypoint score is one minus the mean
    # predicted deviation, in units of the person's box: at 0.7 the model expects to be off by three
    # tenths of the box.
    node.KEYPOINT_THRESHOLD = 0.7


def _add_loss(cfg: CfgNode) -> None:
    node = cfg.MODEL.QUERYPOSE
    # Weights of the losses, each summed over the stages; the first three weigh the matching, too.
    node.CLASS_WEIGHT = 2.0
    node.L1_WEIGHT = 5.0
    node.GIOU_WEIGHT = 2.0
    node.KEYPOINT_WEIGHT = 1.0
    # Not in the paper: tells each part's attention where its keypoints are; 0 leaves it alone.
    node.ATTENTION_WEIGHT = 0.0
    # For little training time: additional queries per image that start from people's boxes,
    # moved and scaled at random.
    node.DENOISING = CfgNode()
    node.DENOISING.NUM_QUERIES = 0
    # Auxiliary heat maps on p2, in training only.
    node.AUX_HEATMAP = CfgNode()
    node.AUX_HEATMAP.ENABLED = False


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
    cfg.MODEL.TIMM.FREEZE_BN = False
    # Keep the pretrained weights that lead to so many of the feature maps, from the finest on.
    cfg.MODEL.TIMM.FREEZE_AT = 0

    # Load checkpoints as weights alone. False unpickles MODEL.WEIGHTS, which runs any code in it.
    cfg.MODEL.WEIGHTS_ONLY = True


def _add_swin(cfg: CfgNode) -> None:
    node = CfgNode()
    node.EMBED_DIM = 96
    node.DEPTHS = [2, 2, 6, 2]
    node.NUM_HEADS = [3, 6, 12, 24]
    node.WINDOW_SIZE = 7
    node.DROP_PATH_RATE = 0.2
    # Other projects know a Swin by these names, too: their keys and values stay.
    cfg.MODEL.SWIN = CfgNode({**node, **cfg.MODEL.get("SWIN", {})})


def _add_data(cfg: CfgNode) -> None:
    # Datasets to register before use: [name, COCO-format JSON, image folder] or
    # [name, JSON, folder, skeleton file].
    cfg.DATASETS.REGISTER = []
    # In training every second image is cropped (INPUT.CROP), after its shortest edge was resized to
    # one of these.
    cfg.INPUT.CROP.RESIZE_MIN_SIZES = [400, 500, 600]
    # For little data. Instead of a random shortest edge: fit the image into SIZE (height, width)
    # times a number from RANGE, then crop it to SIZE.
    cfg.INPUT.SCALE_JITTER = CfgNode()
    cfg.INPUT.SCALE_JITTER.ENABLED = False
    cfg.INPUT.SCALE_JITTER.SIZE = [512, 512]
    cfg.INPUT.SCALE_JITTER.RANGE = [0.5, 2.0]
    # Rotate by up to so many degrees to either side.
    cfg.INPUT.ROTATION = CfgNode()
    cfg.INPUT.ROTATION.PROBABILITY = 0.0
    cfg.INPUT.ROTATION.DEGREES = 30.0
    # Change the ratio of width to height by up to this fraction.
    cfg.INPUT.ASPECT_JITTER = 0.0
    # Change brightness, contrast and saturation by up to this fraction.
    cfg.INPUT.COLOR_JITTER = 0.0
    # Paint over three small rectangles.
    cfg.INPUT.ERASING = CfgNode()
    cfg.INPUT.ERASING.PROBABILITY = 0.0


def _add_solver(cfg: CfgNode) -> None:
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # Learning rates relative to BASE_LR.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    cfg.SOLVER.FLOW_MULTIPLIER = 10.0
    # Clip by the norm of all gradients together (CLIP_TYPE "norm").
    cfg.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    # What AMP.ENABLED computes in: "fp16" (with gradient scaling) or "bf16".
    cfg.SOLVER.AMP.PRECISION = "fp16"
    # Batches of IMS_PER_BATCH that make one optimizer step, as one large batch would.
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # Exponential moving average of the weights, evaluated and saved beside the raw ones.
    cfg.SOLVER.EMA = CfgNode()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.9998
    # Periodic checkpoints that are kept; 0 keeps all of them.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # Iterations with NaN or infinite numbers that may be passed over before the training ends.
    cfg.SOLVER.MAX_SKIPPED_BATCHES = 0
    # What an evaluation during the training must raise for its weights to become model_best.pth;
    # "" keeps no best weights.
    cfg.TEST.BEST_METRIC = "keypoints/AP"
    # --eval-only takes a checkpoint's averaged weights (SOLVER.EMA) instead of the raw ones.
    cfg.TEST.EMA = False


def _add_affine(cfg: CfgNode) -> None:
    # What reads and augments training images; see querypose.data.MAPPER_REGISTRY.
    cfg.INPUT.MAPPER = "QueryPoseDatasetMapper"
    # PoseAffineMapper: SIZE x SIZE pixels of a square of ZOOM times the image's short side, rotated
    # by up to DEGREES to either side, SHIFT times its own side from the image's center at most.
    node = cfg.INPUT.AFFINE = CfgNode()
    node.SIZE = 512
    node.ZOOM = [0.75, 1.5]
    node.DEGREES = 30.0
    node.SHIFT = 0.2
    # Crowds and persons without labeled keypoints are neither persons nor background.
    node.IGNORE_REGIONS = True
    # PoseAffineMapper: deviation of AlexNet's PCA lighting, in a range of 1.
    cfg.INPUT.LIGHTING = 0.0


def _add_pinet(cfg: CfgNode) -> None:
    node = cfg.MODEL.PINET = CfgNode()
    # Lists of keypoint names, each a part whose center proposes poses. Empty: those of the paper
    # for COCO's and CrowdPose's keypoints, one part of all keypoints for others.
    node.PARTS = []
    # Propose poses at the person's center alone.
    node.CENTER_ONLY = False
    # Correct poses by a graph of their keypoints: residual layers after the first block.
    node.REFINEMENT = True
    node.NUM_REFINEMENT_LAYERS = 2
    # How the refinement reads features between cells: "exact", or "released" for the weights that
    # the authors published.
    node.SAMPLER = "exact"

    # Training. Cells about a part's center that propose the pose: the 3 x 3 about the nearest cell
    # (supplement) instead of the published code's 4 x 4.
    node.NEAREST_CELLS = False
    # Persons of a smaller box, in square pixels of the network's input, have no part centers.
    node.MIN_BOX_AREA = 1024.0
    node.HEATMAP_WEIGHT = 1.0
    node.OFFSET_WEIGHT = 0.03
    node.REFINEMENT_WEIGHT = 0.03

    # Inference. Average the answers for the image and its mirror image.
    node.FLIP_TEST = True
    # Poses that the centers of one part propose at most.
    node.MAX_PEAKS = 30
    # Poses of a higher OKS are of one person.
    node.OKS_THRESHOLD = 0.7
    # Put the best keypoints of a person's poses together; False keeps the first pose alone.
    node.FUSION = True
    # Which pose comes first: "pose_score", or "part_score" of the part's center (supplement).
    node.SORT_BY = "pose_score"


def _add_quality_pose(cfg: CfgNode) -> None:
    node = cfg.MODEL.QUALITY_POSE = CfgNode()
    # Channels of every keypoint's own features, of those that scores are made from, and of the last
    # layer before the score.
    node.KEYPOINT_CHANNELS = 24
    node.INSTANCE_CHANNELS = 64
    node.SCORE_CHANNELS = 16

    # Keypoint query encoding. Without it, keypoints are read from a cell's features directly.
    node.KQE = True
    # About every keypoint query; at 0, the query itself is all that is sampled.
    node.NUM_SEMANTIC_POINTS = 9
    # What the samples become: their "sum", or "deform", a deformable convolution.
    node.AGGREGATE = "sum"
    # Pose query encoding. Without it, a score sees its own cell alone.
    node.PQE = True
    # The positions that a score sees: keypoint queries "kq", keypoints "kps", semantic points "sp",
    # or as many free positions as there are keypoints, "auto".
    node.POSE_QUERY = "kq"

    # What the score map learns: "cir", the OKS of the pose that is predicted at a cell; a
    # "gaussian" about a person's center; or "discrete", 1 near it.
    node.INSTANCE_LABEL = "cir"
    # A second map learns the OKS; the product of both is the score. For the other two labels.
    node.QUALITY_BRANCH = False
    # Persons of fewer square pixels after the augmentation are not learned.
    node.MIN_AREA = 1024.0
    node.LOSS = CfgNode()
    # What loss_cir is divided by: cells near persons "omega", or all cells "pixel".
    node.LOSS.CIR_REDUCTION = "omega"
    # Keypoint errors count relative to the person's size.
    node.LOSS.SCALE_NORM = True

    # Inference. Peaks of the score map, of every image and scale.
    node.MAX_PEAKS = 30
    # Drop poses that resemble a better one.
    node.NMS = CfgNode()
    node.NMS.ENABLED = True
    # Look at the mirrored image, too.
    node.FLIP_TEST = True
    # Sizes that the image is looked at in, relative to the test size; 1 is one of them.
    node.TEST_SCALES = [1.0]
