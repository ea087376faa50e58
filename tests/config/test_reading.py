from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

import querypose.modeling
from querypose.config import add_querypose_config, read_config

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG_FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_there_are_configs():
    assert len(CONFIG_FILES) > 10
    assert querypose.modeling.QueryPose.__name__ in META_ARCH_REGISTRY


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_config_reads_and_names_what_exists(file):
    cfg = read_config(file)
    assert cfg.MODEL.META_ARCHITECTURE in META_ARCH_REGISTRY
    assert cfg.MODEL.BACKBONE.NAME in BACKBONE_REGISTRY
    assert list(cfg.SOLVER.STEPS) == sorted(cfg.SOLVER.STEPS)
    assert all(step < cfg.SOLVER.MAX_ITER for step in cfg.SOLVER.STEPS)


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_the_name_of_a_config_tells_light_from_full(file):
    cfg = read_config(file)
    if file.stem.startswith("querypose_") and "quick" not in file.parts:
        full = "light" not in file.stem
        assert cfg.MODEL.QUERYPOSE.KEYPOINT_FEEDBACK is full


def test_output_folders_of_a_datasets_configs_differ():
    for folder in {file.parent for file in CONFIG_FILES} - {CONFIGS}:
        outputs = [read_config(file).OUTPUT_DIR for file in folder.glob("*.yaml")]
        assert len(set(outputs)) == len(outputs)


def test_defaults_are_the_methods():
    cfg = read_config(CONFIGS / "Base-QueryPose.yaml")
    node, solver = cfg.MODEL.QUERYPOSE, cfg.SOLVER
    widths = (node.HIDDEN_DIM, node.PART_DIM, node.DYNAMIC_DIM, node.FFN_DIM)
    assert widths == (256, 128, 64, 2048)
    assert (node.NUM_QUERIES, node.NUM_STAGES, node.NUM_KEYPOINT_CONVS) == (100, 6, 6)
    assert (node.CLASS_WEIGHT, node.L1_WEIGHT, node.GIOU_WEIGHT, node.KEYPOINT_WEIGHT) == (
        2,
        5,
        2,
        1,
    )
    assert (solver.BASE_LR, solver.WEIGHT_DECAY, solver.FLOW_MULTIPLIER) == (2.5e-5, 1e-4, 10)
    clip = solver.CLIP_GRADIENTS
    assert (clip.FULL_MODEL, clip.CLIP_TYPE, clip.CLIP_VALUE) == (True, "norm", 1)


def test_detectron2s_own_defaults_stay():
    plain, extended = get_cfg(), get_cfg()
    add_querypose_config(extended)

    def assert_kept(node, other, path):
        for key, value in node.items():
            if hasattr(value, "items"):
                assert_kept(value, other[key], f"{path}{key}.")
            else:
                assert other[key] == value, path + key

    assert_kept(plain, extended, "")


def _file(tmp_path: Path, content: str) -> Path:
    file = tmp_path / "my.yaml"
    file.write_text(content)
    return file


def test_another_projects_swin_keys_stay():
    cfg = get_cfg()
    cfg.MODEL.SWIN = CfgNode({"EMBED_DIM": 128, "PRETRAIN_IMG_SIZE": 224})
    add_querypose_config(cfg)
    assert cfg.MODEL.SWIN.EMBED_DIM == 128
    assert cfg.MODEL.SWIN.PRETRAIN_IMG_SIZE == 224
    assert cfg.MODEL.SWIN.WINDOW_SIZE == 7


def test_base_and_options(tmp_path):
    file = _file(tmp_path, f"_BASE_: {CONFIGS / 'Base-QueryPose.yaml'}\nSOLVER:\n  BASE_LR: 0.5\n")
    cfg = read_config(file, ["MODEL.QUERYPOSE.NUM_QUERIES", "7"])
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.QUERYPOSE.NUM_QUERIES) == (0.5, 7)
    assert cfg.MODEL.META_ARCHITECTURE == "QueryPose"


@pytest.mark.parametrize(
    ("content", "options", "meant"),
    [
        ("MODEL:\n  QUERYPOSE:\n    NUM_QUERYS: 3\n", (), r"MODEL\.QUERYPOSE\.NUM_QUERIES"),
        ("SOLVER:\n  FLOW_MULTIPLYER: 3\n", (), r"SOLVER\.FLOW_MULTIPLIER"),
        ("VERSION: 2\n", ("SOLVER.BASE_RL", "1"), r"SOLVER\.BASE_LR"),
        ("VERSION: 2\n", ("MODEL.QUERYPOSE.AUX_HEATMAP.ENABLE", "True"), r"AUX_HEATMAP\.ENABLED"),
    ],
)
def test_an_unknown_key_suggests_the_right_one(content, options, meant, tmp_path):
    with pytest.raises(ValueError, match=rf"my\.yaml: Non-existent .*did you mean .*{meant}\?"):
        read_config(_file(tmp_path, content), options)


def test_a_key_like_no_other_is_refused_without_a_guess(tmp_path):
    with pytest.raises(ValueError, match="Non-existent") as error:
        read_config(_file(tmp_path, "ZZYZX: 1\n"))
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("SOLVER:\n  BASE_LR: fast\n", ()),
        ("VERSION: 2\n", ("SOLVER.BASE_LR",)),
        ("VERSION: 2\n", ("MODEL.QUERYPOSE.NUM_QUERIES", "many")),
    ],
)
def test_a_value_that_does_not_fit_is_refused(content, options, tmp_path):
    with pytest.raises(ValueError, match=r"my\.yaml: "):
        read_config(_file(tmp_path, content), options)


@pytest.mark.parametrize("content", ["MODEL: [1,\n", "MODEL:\n\tA: 1\n", "a: b: c\n"])
def test_bad_yaml_is_named(content, tmp_path):
    with pytest.raises(ValueError, match=r"my\.yaml is not valid YAML"):
        read_config(_file(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config file .*none\.yaml"):
        read_config(tmp_path / "none.yaml")


def test_a_missing_base_is_reported(tmp_path):
    with pytest.raises((FileNotFoundError, ValueError), match=r"nowhere\.yaml"):
        read_config(_file(tmp_path, "_BASE_: nowhere.yaml\n"))


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "just words\n"])
def test_yaml_that_is_no_mapping_is_refused(content, tmp_path):
    with pytest.raises(ValueError, match=r"my\.yaml does not map config keys"):
        read_config(_file(tmp_path, content))
