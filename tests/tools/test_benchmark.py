"""The benchmark runs the workload that its setting describes."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import cv2
import pytest
import torch
from torch import nn

from querypose.tools.benchmark import scaling
from querypose.tools.benchmark.__main__ import main
from querypose.tools.benchmark.setting import Setting, parse_setting
from querypose.tools.benchmark.stopwatch import Stopwatch
from querypose.tools.benchmark.worker import median_run
from querypose.tools.benchmark.workload import Workload

TINY = (
    *("MODEL.QUERYPOSE.NUM_QUERIES", "12"),
    *("MODEL.QUERYPOSE.NUM_STAGES", "2"),
)


@pytest.fixture
def base(repository) -> Setting:
    config = repository / "configs" / "quick" / "tiny.yaml"
    return Setting(str(config), opts=TINY, height=96, width=128, people=3)


def test_settings_are_read_from_words(base):
    setting = parse_setting("size=64x96 people=7 train=1 MODEL.DEVICE cpu", base)
    assert (setting.height, setting.width, setting.people, setting.train) == (64, 96, 7, True)
    assert setting.opts == (*TINY, "MODEL.DEVICE", "cpu")
    with pytest.raises(ValueError, match="'peple=7' is none of"):
        parse_setting("peple=7", base)
    with pytest.raises(ValueError, match="in pairs"):
        parse_setting("MODEL.DEVICE", base)


def test_as_many_queries_are_decoded_as_people_are_asked_for(base):
    for words in ("people=3", "people=12"):
        setting = parse_setting(words, base)
        workload = Workload(setting)
        decoded = []
        stage = workload.model.decoder.keypoint_stages[0]
        stage.register_forward_hook(lambda _, inputs, __, seen=decoded: seen.append(len(inputs[0])))
        seconds = workload.run()
        assert sum(decoded) == setting.people
        parts = seconds["backbone"] + seconds["box decoder"] + seconds["keypoint decoder"]
        assert 0 < parts <= seconds["total"]


def test_processor_time_passes_while_the_model_computes_alone(base):
    workload = Workload(parse_setting("processor_time=1", base))
    before = time.process_time()
    seconds = workload.run()["total"]
    assert 0 < seconds <= time.process_time() - before


def test_training_matches_the_same_queries_at_every_stage(base):
    workload = Workload(parse_setting("train=1", base))
    counts = []
    for stage in workload.model.decoder.keypoint_stages:
        stage.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    workload.run()
    assert counts == [3, 3]


def test_convolutions_that_the_backward_pass_repeats_belong_to_it(base):
    setting = parse_setting("train=1 MODEL.QUERYPOSE.CHECKPOINT_KEYPOINTS True", base)
    workload = Workload(setting)
    calls = []
    convolutions = workload.model.decoder.keypoint_stages[0].convs
    convolutions.register_forward_pre_hook(lambda *_: calls.append(1))
    seconds = workload.run()
    assert len(calls) == 2
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) <= 2 * seconds["total"]


def test_of_pieces_inside_one_another_the_outermost_counts():
    ticks = iter(range(100))
    watch = Stopwatch(torch.device("cpu"), lambda: float(next(ticks)))
    inner = nn.Identity()
    outer = nn.Sequential(inner)
    watch.watch({"inner": [inner], "outer": [outer]})
    outer(torch.zeros(1))
    assert watch.seconds == {"outer": 1}
    with watch.measure("block"):
        outer(torch.zeros(1))
    inner(torch.zeros(1))
    assert watch.seconds == {"outer": 1, "block": 1, "inner": 1}


def test_parts_of_the_median_run_add_up():
    runs = [{"total": total, "part": part} for total, part in ((9, 1), (4, 3), (5, 4), (1, 0))]
    assert median_run(runs[:3]) == {"total": 5, "part": 4}
    assert median_run(runs) == {"total": 4.5, "part": 3.5}


def test_weights_of_the_options_are_loaded(base, server):
    torch.manual_seed(3)
    expected = Workload(base).model
    torch.save({"model": expected.state_dict()}, server.folder / "model.pth")
    where = ("MODEL.WEIGHTS", f"{server.address}/model.pth")
    found = Workload(replace(base, opts=(*base.opts, *where))).model
    assert torch.equal(found.backbone.fpn_output2.weight, expected.backbone.fpn_output2.weight)


def test_datasets_of_the_options_declare_the_keypoints(base, tmp_path, temporary_datasets):
    labels = tmp_path / "labels.json"
    image = {"id": 1, "file_name": "1.png", "width": 64, "height": 64}
    category = {"id": 1, "name": "robot", "keypoints": ["head", "foot"], "skeleton": [[1, 2]]}
    content = {"images": [image], "annotations": [], "categories": [category]}
    labels.write_text(json.dumps(content))
    data = ("DATASETS.REGISTER", f"[['robots_of_options', '{labels}', '{tmp_path}']]")
    opts = (*base.opts, *data, "DATASETS.TRAIN", "('robots_of_options',)")
    temporary_datasets.append("robots_of_options")
    assert Workload(replace(base, opts=opts)).model.skeleton.keypoints == ("head", "foot")


def test_a_mistake_in_a_process_is_reported_in_one_sentence(base, closed_port, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    where = f"http://127.0.0.1:{closed_port}/a.pth"
    command = ["--config-file", base.config_file, "--device", "cpu", "MODEL.WEIGHTS", where]
    with pytest.raises(SystemExit, match=rf"^benchmark: {where} cannot be reached \("):
        main(command)


def test_cost_of_the_published_model(repository):
    """The six convolutions have 2.31 GMAC per query and stage."""
    config = repository / "configs" / "coco" / "querypose_r50_light_3x.yaml"
    one, two = (
        Workload(Setting(str(config), height=64, width=64, people=count)).cost() for count in (1, 2)
    )
    assert one.parameters / 1e6 == pytest.approx(188.7, abs=0.1)
    per_query = (two.multiply_adds - one.multiply_adds) / 6e9
    assert per_query == pytest.approx(2.31, rel=0.12)


def test_command_prints_a_table(base, capsys):
    main(
        [
            *TINY,
            *("--config-file", base.config_file, "--repeats", "1", "--device", "cpu"),
            *("--compare", "size=64x96 people=1", "size=64x96 train=1 people=1"),
        ]
    )
    rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 4 and "keypoint decoder ms" in rows[0]
    columns = dict(
        zip(*([cell.strip() for cell in rows[i].split("|")] for i in (0, 3)), strict=True)
    )
    assert columns["config"] == "tiny"
    assert float(columns["backward ms"]) > 0 and float(columns["optimizer ms"]) > 0
    assert rows[3].split("|")[1].strip().startswith("train, 1 x 64x96, 1 people")


def test_the_device_of_the_config_counts():
    workload = Workload(Setting("quick/tiny", ("MODEL.DEVICE", "cpu"), 64, 64, device="cuda"))
    assert workload.device.type == "cpu"
    assert workload.run()["total"] > 0


@pytest.mark.parametrize(
    "config", ["lite0", "pinet_lite0", "quality_pose_lite0", "keypoint_rcnn_lite0"]
)
def test_models_of_every_kind_are_trained(config):
    setting = Setting(f"quick/{config}", height=64, width=96, batch=2, people=2, train=True)
    workload = Workload(setting)
    weight = list(workload.model.parameters())[-1]
    before = weight.detach().clone()
    seconds = workload.run()
    # Of Detectron2's models the parts are not known.
    assert config == "keypoint_rcnn_lite0" or seconds["matching"] > 0
    assert seconds["total"] >= sum(seconds.values()) / 2
    assert not torch.equal(weight, before)
    assert workload.cost().multiply_adds > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_backbone_computes_the_same(base):
    compiled = Workload(replace(base, compiled=True))
    assert "compiled backbone" in compiled.setting.label
    plain = Workload(base)
    for workload in (compiled, plain):
        assert workload.run()["backbone"] > 0
    (ours,), (theirs,) = (workload._step() for workload in (compiled, plain))
    torch.testing.assert_close(
        ours["instances"].pred_keypoints, theirs["instances"].pred_keypoints, rtol=1e-3, atol=1e-2
    )
    assert hasattr(compiled.model.backbone.forward, "__wrapped__")


def test_the_peer_runs_in_half_precision(base):
    words = "config_file=COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml size=64x64 people=1"
    seen = []
    workload = Workload(
        parse_setting(words + " MODEL.INFERENCE.PRECISION bf16", replace(base, opts=()))
    )
    convolution = workload.model.backbone.fpn_output2
    convolution.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    workload.run()
    assert seen == [torch.bfloat16]


def test_a_model_of_detectron2_is_trained_beside_ours():
    setting = Setting("quick/keypoint_rcnn_lite0", height=64, width=64, people=1, train=True)
    workload = Workload(setting)
    seconds = workload.run()
    assert 0 < seconds["backward"] + seconds["optimizer"] < seconds["total"]
    assert workload.cost().parameters > 3e6


@pytest.mark.slow
def test_scaling_draws_a_curve_per_model_and_axis(base, tmp_path, capsys, monkeypatch):
    for name in ("_PEOPLE", "_QUERIES", "_BATCHES"):
        monkeypatch.setattr(scaling, name, (1, 2))
    monkeypatch.setattr(scaling, "_SIZES", ((64, 64), (64, 96)))
    figure = tmp_path / "scaling.png"
    main(
        [
            *("--config-file", base.config_file, "--repeats", "1", "--device", "cpu"),
            *("--scaling", str(figure)),
            *("--compare", "people=1", "people=1 config_file=quick/quality_pose_lite0"),
        ]
    )
    rows = [row.split("|")[1:3] for row in capsys.readouterr().out.splitlines() if "|" in row]
    kinds = {(model.strip(), axis.strip()) for model, axis in rows[2:]}
    everywhere = {"people", "megapixels", "training batch"}
    assert kinds == {
        *(("tiny", axis) for axis in everywhere | {"queries"}),
        *(("quality_pose_lite0", axis) for axis in everywhere),
    }
    assert cv2.imread(str(figure)).std() > 0


def test_a_step_stands_beside_the_time_of_its_images(base, capsys):
    words = f"config_file={base.config_file} size=64x96 people=1"
    data = "DATASETS.TRAIN ('synthetic_people_train',)"
    options = ("--repeats", "1", "--device", "cpu", "--compare")
    main([*options, f"train=1 {words} {data}", f"train=1 {words}"])
    header, _, given, other = (
        [cell.strip() for cell in line.split("|")]
        for line in capsys.readouterr().out.strip().splitlines()
    )
    assert float(given[header.index("data ms")]) > 0
    assert other[header.index("data ms")] == "-"
    parts = ("backbone", "box decoder", "matching", "keypoint decoder", "backward", "optimizer")
    columns = [header.index(f"{part} ms") for part in parts]
    assert columns == sorted(columns)
    total = float(given[header.index("total ms")])
    rest = float(given[header.index("rest ms")])
    assert rest >= 0
    assert total == pytest.approx(rest + sum(float(given[i]) for i in columns), abs=len(parts))


def test_the_training_data_is_timed(base, capsys):
    options = ("--config-file", base.config_file, "--device", "cpu", "--data", "3")
    main([*options, "--compare", "", "config_file=quick/pinet_lite0"])
    *_, sparse, dense = capsys.readouterr().out.strip().splitlines()
    assert "tiny" in sparse and "pinet_lite0" in dense
    assert all(float(row.split("|")[2]) > 0 for row in (sparse, dense))
    with pytest.raises(SystemExit, match=r"^benchmark: No dataset is registered as 'tiny_people'"):
        main([*options, "DATASETS.TRAIN", "('tiny_people',)"])
