from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import save_file
from torch import nn

from querypose.checkpoint import (
    QueryPoseCheckpointer,
    convert_released_state_dict,
    is_released_state_dict,
)
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
CROWDPOSE = {"DATASETS.TRAIN": ("crowdpose_train",)}
HRNET = {"MODEL.BACKBONE.NAME": "build_hrnet_hrfpn_backbone", "MODEL.HRNET.NAME": "hrnet_w18_small"}
# A smaller one than this has no third module in its last stage.
DEEP_HRNET = HRNET | {"MODEL.HRNET.NAME": "hrnet_w18"}
SWIN = {
    "MODEL.BACKBONE.NAME": "build_swin_fpn_backbone",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [2, 2, 2, 2],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 4, 8],
}
BACKBONE = "backbone.bottom_up."
GOLDEN = [("mini_light", LIGHT), ("mini_full", FULL)]


_released_weights: dict[str, dict[str, torch.Tensor]] = {}


@pytest.fixture
def released(golden) -> Callable[[str], dict[str, torch.Tensor]]:
    """``released("mini_light")``: a released file's tensors, computed once."""

    def load(name: str) -> dict[str, torch.Tensor]:
        if name not in _released_weights:
            _released_weights[name] = golden(name).state_dict
        return dict(_released_weights[name])

    return load


def _without_heatmap_head(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in model.state_dict().items():
        if not name.startswith("heatmap_head."):
            yield name, value


def _saved(tmp_path: Path, content: object, name: str = "weights.pth") -> str:
    path = tmp_path / name
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return str(path)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _assert_same_weights(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    assert [name for name, value in actual.items() if not torch.equal(value, expected[name])] == []


class TestReleasedFiles:
    @pytest.mark.parametrize(("name", "changes"), GOLDEN)
    @pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights}])
    def test_a_saved_file_loads_completely(
        self, name, changes, wrap, tiny_model, released, tmp_path
    ):
        weights = released(name)
        model = tiny_model(changes)
        before = _weights(model)
        QueryPoseCheckpointer(model).load(_saved(tmp_path, wrap(weights)))
        self._assert_from_file(model, before, weights)

    @pytest.mark.parametrize(("name", "changes"), GOLDEN)
    def test_plain_load_state_dict_reads_it(self, name, changes, tiny_model, released):
        weights = released(name)
        model = tiny_model(changes)
        before = _weights(model)
        assert str(model.load_state_dict(weights)) == "<All keys matched successfully>"
        self._assert_from_file(model, before, weights)

    @staticmethod
    def _assert_from_file(model, before, weights):
        ours = model.state_dict()
        untouched = [name for name in ours if torch.equal(ours[name], before[name])]
        # What a file may hold that a fresh model holds already.
        assert all(name.endswith(("num_batches_tracked", "flow.masks")) for name in untouched)
        assert torch.equal(
            ours["decoder.box_stages.1.box_branch.3.weight"],
            weights["head.head_series.1.reg_module.3.weight"],
        )
        stage, released = "decoder.keypoint_stages.1.", "head.pose_head_series.1."
        assert torch.equal(
            ours[f"{stage}selective_iteration.gates.bias"], weights[f"{released}updater.fc2.bias"]
        )
        assert torch.equal(
            ours[f"{stage}part_embedding.query_projection.weight"][2 * 32 : 3 * 32],
            weights[f"{released}residual_filter.2.weight"],
        )
        for part, keypoints in enumerate(COCO_SKELETON.part_indices):
            for place, keypoint in enumerate(keypoints):
                rows = slice(2 * place, 2 * place + 2)
                for role, head in (("coordinate", "fc_coord"), ("sigma", "fc_sigma")):
                    for kind in ("weight", "bias"):
                        expected = weights[f"{released}{head}.{part}.linear.{kind}"][rows]
                        actual = ours[f"{stage}heads.{role}_{kind}"][keypoint]
                        assert torch.equal(actual, expected)

    @pytest.mark.parametrize("given", [False, True])
    def test_heads_of_another_skeleton_come_in_its_keypoint_order(self, given):
        """CrowdPose's heads begin with the head, its keypoints with the shoulders."""
        parts = CROWDPOSE_SKELETON.part_indices
        weights = {
            f"head.pose_head_series.3.fc_coord.{part}.linear.bias": torch.tensor(
                [number for keypoint in keypoints for number in (keypoint, keypoint + 0.5)]
            )
            for part, keypoints in enumerate(parts)
        }
        converted = convert_released_state_dict(weights, parts if given else None)
        (bias,) = converted.values()
        assert list(converted) == ["decoder.keypoint_stages.3.heads.coordinate_bias"]
        assert bias.tolist() == [[keypoint, keypoint + 0.5] for keypoint in range(14)]

    def test_tensors_that_its_model_never_reads_are_dropped(self, released):
        weights = released("mini_light")
        unused = [
            "head.pose_head_series.0.updater.fc3.weight",
            "head.pose_head_series.1.updater.norm_fc3.bias",
            "backbone.fpn_conv.4.weight",
            "backbone.lateral_conv.0.weight",
        ]
        extended = weights | dict.fromkeys(unused, torch.zeros(1))
        converted = convert_released_state_dict(extended)
        assert converted.keys() == convert_released_state_dict(weights).keys()
        assert not any("fc3" in name or "fpn_conv.4" in name for name in converted)

    def test_an_unknown_tensor_is_named(self, released):
        weights = released("mini_light")
        for name in ("head.strange.weight", "head.head_series.0.strange.weight", "strange"):
            with pytest.raises(ValueError, match=rf"holds '{name}', which no released"):
                convert_released_state_dict(weights | {name: torch.zeros(1)})

    def test_parts_of_no_known_skeleton_must_be_given(self, released):
        weights = released("mini_light")
        for name in list(weights):
            if re.search(r"fc_(coord|sigma)\.6\.", name):
                del weights[name]
        with pytest.raises(
            ValueError, match=r"parts have \[5, 2, 2, 2, 2, 2\] keypoints, which are neither"
        ):
            convert_released_state_dict(weights, COCO_SKELETON.part_indices)
        parts = COCO_SKELETON.part_indices[:-1]
        assert convert_released_state_dict(weights, parts)

    def test_our_own_names_are_not_taken_for_released_ones(self, tiny_model, released):
        assert is_released_state_dict(released("mini_light"))
        assert not is_released_state_dict(tiny_model().state_dict())

    def test_a_file_saved_from_parallel_training_loads(self, tiny_model, released, tmp_path):
        weights = released("mini_light")
        wrapped = {f"module.{name}": value for name, value in weights.items()}
        model, expected = tiny_model(), tiny_model(seed=1)
        expected.load_state_dict(weights)
        QueryPoseCheckpointer(model).load(_saved(tmp_path, wrapped))
        _assert_same_weights(model, expected.state_dict())

    def test_the_other_kind_of_model_is_refused(self, tiny_model, released, tmp_path):
        full = _saved(tmp_path, released("mini_full"), "full.pth")
        with pytest.raises(ValueError, match=r"feedback\.\S+ is not expected"):
            QueryPoseCheckpointer(tiny_model()).load(full)
        light = _saved(tmp_path, released("mini_light"), "light.pth")
        with pytest.raises(ValueError, match=r"feedback\.\S+ is missing"):
            QueryPoseCheckpointer(tiny_model(FULL)).load(light)


class TestOwnFiles:
    def test_round_trip(self, small_model, tmp_path):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
        checkpointer = QueryPoseCheckpointer(model, str(tmp_path), optimizer=optimizer)
        checkpointer.save("model_0000007", iteration=7)
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000007.pth"
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "last_checkpoint",
            "model_0000007.pth",
        ]

        fresh = small_model(seed=1)
        other = torch.optim.SGD(fresh.parameters(), lr=0.5)
        again = QueryPoseCheckpointer(fresh, str(tmp_path), optimizer=other)
        extras = again.resume_or_load("elsewhere.pth", resume=True)
        assert extras["iteration"] == 7
        assert other.param_groups[0]["lr"] == 0.25
        _assert_same_weights(fresh, model.state_dict())

    def test_without_a_last_checkpoint_the_given_file_loads(self, small_model, tmp_path):
        model, fresh = small_model(), small_model(seed=1)
        file = _saved(tmp_path, {"model": model.state_dict(), "iteration": 3})
        checkpointer = QueryPoseCheckpointer(fresh, str(tmp_path / "new"))
        checkpointer.resume_or_load(file, resume=True)
        _assert_same_weights(fresh, model.state_dict())

    def test_no_file_leaves_the_fresh_model(self, small_model):
        model = small_model()
        before = _weights(model)
        assert QueryPoseCheckpointer(model).load("") == {}
        _assert_same_weights(model, before)

    def test_an_interrupted_save_leaves_the_previous_file_whole(self, small_model, tmp_path):
        model = small_model()
        checkpointer = QueryPoseCheckpointer(model, str(tmp_path))
        checkpointer.save("model")
        expected = _weights(model)
        nn.init.zeros_(model.decoder.queries.weight)
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            checkpointer.save("model", broken=lambda: None)
        fresh = small_model(seed=1)
        QueryPoseCheckpointer(fresh, str(tmp_path)).resume_or_load("", resume=True)
        _assert_same_weights(fresh, expected)

    def test_safetensors(self, small_model, tmp_path):
        model, fresh = small_model(), small_model(seed=1)
        file = tmp_path / "weights.safetensors"
        save_file(model.state_dict(), file)
        QueryPoseCheckpointer(fresh).load(str(file))
        _assert_same_weights(fresh, model.state_dict())

    def test_auxiliary_heat_maps_may_be_missing(self, small_model, tmp_path):
        file = _saved(tmp_path, {"model": small_model().state_dict()})
        model = small_model({"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True}, seed=1)
        QueryPoseCheckpointer(model).load(file)
        assert torch.equal(model.decoder.queries.weight, small_model().decoder.queries.weight)


class TestMisfits:
    def test_another_width_is_one_error_with_both_shapes(self, tiny_model, released, tmp_path):
        narrow = {"MODEL.QUERYPOSE.HIDDEN_DIM": 32, "MODEL.FPN.OUT_CHANNELS": 32}
        file = _saved(tmp_path, released("mini_light"))
        with pytest.raises(ValueError, match=r"\S+ is \([\d, ]+\) instead of \([\d, ]+\)") as error:
            QueryPoseCheckpointer(tiny_model(narrow)).load(file)
        message = str(error.value)
        assert file in message
        assert "config that the file was trained with" in message
        assert "\n" not in message
        assert len(message) < 1000

    def test_a_failed_load_changes_no_weight(self, small_model, tmp_path):
        model = small_model()
        weights = small_model(seed=1).state_dict()
        weights["decoder.queries.weight"] = torch.zeros(3, 16)
        before = _weights(model)
        with pytest.raises(ValueError, match=r"decoder\.queries\.weight is \(3, 16\) instead of"):
            QueryPoseCheckpointer(model).load(_saved(tmp_path, weights))
        _assert_same_weights(model, before)

    def test_a_missing_tensor_is_named(self, small_model, tmp_path):
        model = small_model()
        weights = _weights(model)
        del weights["decoder.queries.weight"]
        with pytest.raises(ValueError, match=r"\(1 tensors\): decoder\.queries\.weight is missing"):
            QueryPoseCheckpointer(model).load(_saved(tmp_path, weights))

    def test_prediction_does_without_the_auxiliary_head(self, small_model, tmp_path):
        trained = small_model(LIGHT | {"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True})
        path = _saved(tmp_path, {"model": trained.state_dict()})
        model = small_model(LIGHT)
        QueryPoseCheckpointer(model).load(path)
        torch.testing.assert_close(model.state_dict(), dict(_without_heatmap_head(trained)))

    def test_an_unexpected_tensor_is_named(self, small_model, tmp_path):
        model = small_model()
        weights = _weights(model) | {"decoder.strange": torch.zeros(1)}
        with pytest.raises(ValueError, match=r"decoder\.strange is not expected"):
            QueryPoseCheckpointer(model).load(_saved(tmp_path, weights))

    def test_many_problems_are_cut_short(self, small_model, tmp_path):
        with pytest.raises(ValueError, match=r"\(\d{3} tensors\): .*; \.\.\."):
            QueryPoseCheckpointer(small_model()).load(_saved(tmp_path, {"a": torch.zeros(1)}))

    def test_a_checkpointer_works_on_after_a_refusal(self, small_model, tmp_path):
        model = small_model()
        checkpointer = QueryPoseCheckpointer(model)
        with pytest.raises(ValueError, match="not fit"):
            checkpointer.load(_saved(tmp_path, {"a": torch.zeros(1)}, "bad.pth"))
        expected = small_model(seed=1).state_dict()
        checkpointer.load(_saved(tmp_path, expected))
        _assert_same_weights(model, expected)


class _TouchesAFile:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestUnreadableFiles:
    @pytest.mark.parametrize("name", ["none.pth", "none.pkl", "none.safetensors"])
    def test_a_missing_file_is_named(self, name, small_model, tmp_path):
        path = str(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=rf"no checkpoint file {re.escape(path)}"):
            QueryPoseCheckpointer(small_model()).load(path)

    @pytest.mark.parametrize("name", ["cut.pth", "cut.pkl", "cut.safetensors"])
    def test_a_truncated_file_is_named(self, name, small_model, tmp_path):
        model = small_model()
        path = tmp_path / name
        if name.endswith("pkl"):
            arrays = {key: value.numpy() for key, value in model.state_dict().items()}
            _saved(tmp_path, {"model": arrays, "__author__": "someone"}, name)
        elif name.endswith("safetensors"):
            save_file(model.state_dict(), path)
        else:
            _saved(tmp_path, model.state_dict(), name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            QueryPoseCheckpointer(model).load(str(path))

    @pytest.mark.parametrize("name", ["empty.pth", "empty.pkl", "empty.safetensors"])
    def test_an_empty_file_is_named(self, name, small_model, tmp_path):
        path = tmp_path / name
        path.touch()
        with pytest.raises(ValueError, match=re.escape(str(path))):
            QueryPoseCheckpointer(small_model()).load(str(path))

    @pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"model": 3}, {"epoch": 3}])
    def test_a_file_without_weights_is_named(self, content, small_model, tmp_path):
        path = _saved(tmp_path, content)
        with pytest.raises(ValueError, match=re.escape(path)):
            QueryPoseCheckpointer(small_model()).load(path)

    @pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
    def test_code_is_refused_until_it_is_trusted(self, name, small_model, tmp_path):
        source, model = small_model(seed=1), small_model()
        touched = tmp_path / "touched"
        weights = source.state_dict()
        if name.endswith("pkl"):
            weights = {
                key.removeprefix(BACKBONE): value.numpy()
                for key, value in weights.items()
                if key.startswith(BACKBONE)
            }
        extra = {"model": weights, "__author__": "someone", "extra": _TouchesAFile(touched)}
        file = _saved(tmp_path, extra | {"matching_heuristics": name.endswith("pkl")}, name)
        with pytest.raises(ValueError, match=r"as weights alone .*MODEL\.WEIGHTS_ONLY False"):
            QueryPoseCheckpointer(model).load(file)
        assert not touched.exists()

        QueryPoseCheckpointer(model, weights_only=False).load(file)
        assert touched.exists()
        name = f"{BACKBONE}res2.0.conv1.weight"
        assert torch.equal(model.state_dict()[name], source.state_dict()[name])


class TestBackbonesOfOtherProjects:
    @staticmethod
    def _bottom_up(model: nn.Module) -> dict[str, torch.Tensor]:
        """The weights of a model's bottom-up network under its own names, none as initialized."""
        weights = {
            name.removeprefix(BACKBONE): value.clone()
            for name, value in model.state_dict().items()
            if name.startswith(BACKBONE)
        }
        return {
            name: torch.randn(value.shape) if value.is_floating_point() else value
            for name, value in weights.items()
        }

    @staticmethod
    def _assert_backbone_alone(model, before, given):
        for name, value in model.state_dict().items():
            own = name.removeprefix(BACKBONE)
            expected = given[own] if own != name and own in given else before[name]
            assert torch.equal(value, expected), name

    def test_heat_map_hrnet(self, small_model, tmp_path):
        """Published ones have a head, and may lack fusions of the last stage."""
        model = small_model(DEEP_HRNET)
        before = _weights(model)
        given = {
            name: value
            for name, value in self._bottom_up(model).items()
            if not re.match(r"stage4\.2\.fuse_layers\.[123]\.", name)
            if not name.endswith("num_batches_tracked")
        }
        assert len(given) < len(self._bottom_up(model))
        head = {
            "final_layer.weight": torch.zeros(17, 18, 1, 1),
            "final_layer.bias": torch.zeros(17),
        }
        QueryPoseCheckpointer(model).load(_saved(tmp_path, given | head))
        self._assert_backbone_alone(model, before, given)

    @pytest.mark.parametrize("changes", [HRNET, SWIN], ids=["hrnet", "swin"])
    def test_detectron2s_own_checkpointer_reads_them(self, changes, small_model, tmp_path, caplog):
        """As its default trainer does with a config's MODEL.WEIGHTS."""
        model = small_model(changes)
        before = _weights(model)
        given = self._bottom_up(model)
        DetectionCheckpointer(model).load(_saved(tmp_path, given))
        self._assert_backbone_alone(model, before, given)
        assert not any("not found in the model" in message for message in caplog.messages)

    def test_a_hole_in_an_hrnet_is_named(self, small_model, tmp_path):
        model = small_model(HRNET)
        given = self._bottom_up(model)
        del given["stage3.0.branches.1.1.conv1.weight"]
        with pytest.raises(
            ValueError, match=r"stage3\.0\.branches\.1\.1\.conv1\.weight is missing"
        ):
            QueryPoseCheckpointer(model).load(_saved(tmp_path, given))

    def test_an_unknown_tensor_in_an_hrnet_is_named(self, small_model, tmp_path):
        model = small_model(HRNET)
        given = self._bottom_up(model) | {"stage5.weight": torch.zeros(1)}
        with pytest.raises(ValueError, match=r"stage5\.weight is not expected"):
            QueryPoseCheckpointer(model).load(_saved(tmp_path, given))

    def test_classification_swin(self, small_model, tmp_path):
        model = small_model(SWIN)
        before = _weights(model)
        given = {
            name: value
            for name, value in self._bottom_up(model).items()
            if not re.match(r"norm\d\.", name)
        }
        assert "patch_embed.norm.weight" in given
        assert "layers.0.blocks.1.norm1.weight" in given
        extra = {
            "head.weight": torch.zeros(1000, 128),
            "head.bias": torch.zeros(1000),
            "norm.weight": torch.zeros(128),
            "norm.bias": torch.zeros(128),
            "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        }
        QueryPoseCheckpointer(model).load(_saved(tmp_path, {"model": given | extra}))
        self._assert_backbone_alone(model, before, given)

    def test_converted_weights_without_the_index_are_complete(self, small_model):
        model = small_model(SWIN)
        given = {
            name: value
            for name, value in small_model(SWIN, seed=1).state_dict().items()
            if not name.endswith("relative_position_index")
        }
        assert str(model.load_state_dict(given)) == "<All keys matched successfully>"

    def test_swin_computes_the_index_that_a_file_leaves_out(self, small_model, tmp_path):
        model = small_model(SWIN)
        before = _weights(model)
        given = {
            name: value
            for name, value in self._bottom_up(model).items()
            if not name.endswith("relative_position_index")
        }
        QueryPoseCheckpointer(model).load(_saved(tmp_path, {"model": given}))
        self._assert_backbone_alone(model, before, given)

    def test_a_swin_of_another_width_is_refused(self, small_model, tmp_path):
        given = self._bottom_up(small_model(SWIN | {"MODEL.SWIN.EMBED_DIM": 32}))
        with pytest.raises(ValueError, match=r"is \([\d, ]+\) instead of \([\d, ]+\)"):
            QueryPoseCheckpointer(small_model(SWIN)).load(_saved(tmp_path, {"model": given}))

    def test_zoo_file_of_a_resnet(self, small_model, tmp_path):
        """As Detectron2 publishes torchvision's ResNets: NumPy arrays under bare names."""
        model = small_model()
        before = _weights(model)
        given = self._bottom_up(model)
        arrays = {name: value.numpy() for name, value in given.items()}
        content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
        QueryPoseCheckpointer(model).load(_saved(tmp_path, content, "R-50.pkl"))
        self._assert_backbone_alone(model, before, given)

    def test_classifier_in_a_zoo_file_is_left_aside(self, small_model, tmp_path):
        model = small_model()
        before = _weights(model)
        given = self._bottom_up(model)
        arrays = {name: value.numpy() for name, value in given.items()}
        arrays |= {"stem.fc.weight": torch.zeros(1000, 512).numpy()}
        content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
        QueryPoseCheckpointer(model).load(_saved(tmp_path, content, "R-50.pkl"))
        self._assert_backbone_alone(model, before, given)

    def test_caffe2_file_of_a_resnet(self, small_model, tmp_path):
        """Caffe2's names; its batch norms are folded into a scale and a bias."""
        model = small_model()
        before = _weights(model)
        given = {
            name: value
            for name, value in self._bottom_up(model).items()
            if not name.endswith(("running_mean", "running_var"))
        }
        blobs = {self._caffe2_name(name): value.numpy() for name, value in given.items()}
        assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_w"} <= blobs.keys()
        blobs |= {"fc1000_w": torch.zeros(1000, 512).numpy(), "conv1_w_momentum": blobs["conv1_w"]}
        QueryPoseCheckpointer(model).load(_saved(tmp_path, blobs, "R-50.pkl"))
        statistics = {
            name: value for name, value in model.state_dict().items() if ".running_" in name
        }
        for name, value in statistics.items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=1e-4)
        self._assert_backbone_alone(model, before | statistics, given)

    @staticmethod
    def _caffe2_name(name: str) -> str:
        name = name.replace("stem.conv1.norm.", "res.conv1.norm.").replace("stem.", "")
        name = name.replace("shortcut", "branch1")
        if name.startswith("res") and not name.startswith("res.conv1"):
            name = name.replace("conv1", "branch2a").replace("conv2", "branch2b")
            name = name.replace("conv3", "branch2c")
        for ours, theirs in (("norm.weight", "bn_s"), ("norm.bias", "bn_b"), ("weight", "w")):
            name = name.replace(ours, theirs)
        return name.replace(".", "_")

    def test_a_zoo_file_of_another_network_is_refused(self, small_model, tmp_path):
        given = self._bottom_up(small_model())
        arrays = {name: value.numpy() for name, value in given.items() if "res5" not in name}
        content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
        with pytest.raises(ValueError, match=r"res5\.\S+ is missing"):
            QueryPoseCheckpointer(small_model()).load(_saved(tmp_path, content, "R-50.pkl"))


class TestNewHeads:
    @pytest.fixture
    def five_keypoints(self, tmp_path) -> dict[str, str]:
        file = tmp_path / "skeleton.yaml"
        file.write_text(yaml.safe_dump({"keypoints": list("abcde")}))
        return {"MODEL.SKELETON": str(file)}

    @staticmethod
    def _load(model, file, caplog) -> int:
        """Loads with new heads; returns how many tensors the log calls fresh, in one line."""
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="querypose.checkpoint"):
            QueryPoseCheckpointer(model, new_heads=True).load(file)
        found = [re.search(r"starts afresh \((\d+) tensors", line) for line in caplog.messages]
        assert len(found) <= 1
        return int(found[0][1]) if found else 0

    @pytest.mark.parametrize("as_released", [True, False])
    def test_trunk_loads_and_heads_start_afresh(
        self, as_released, five_keypoints, tiny_model, released, tmp_path, caplog
    ):
        source = tiny_model(seed=1)
        weights = released("mini_light")
        source.load_state_dict(weights)
        file = _saved(tmp_path, weights if as_released else source.state_dict())
        model = tiny_model(five_keypoints)
        before = _weights(model)
        logged = self._load(model, file, caplog)
        dependent = [
            name
            for name in before
            if re.search(r"part_queries|heads\.|attention_conv|query_projection", name)
        ]
        assert logged == len(dependent)
        expected = source.state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, (before if name in dependent else expected)[name]), name

    def test_skeletons_of_equally_many_parts_share_their_parts(
        self, tiny_model, released, tmp_path, caplog
    ):
        """CrowdPose has as many parts as COCO: only the heads differ."""
        file = _saved(tmp_path, released("mini_light"))
        model = tiny_model(CROWDPOSE)
        logged = self._load(model, file, caplog)
        assert logged == 2 * 4

    def test_the_same_skeleton_loads_completely(self, tiny_model, released, tmp_path, caplog):
        weights = released("mini_light")
        model, expected = tiny_model(), tiny_model(seed=1)
        expected.load_state_dict(weights)
        assert self._load(model, _saved(tmp_path, weights), caplog) == 0
        _assert_same_weights(model, expected.state_dict())

    def test_the_trunk_must_fit_all_the_same(self, five_keypoints, tiny_model, released, tmp_path):
        weights = released("mini_light")
        del weights["init_proposal_features.weight"]
        checkpointer = QueryPoseCheckpointer(tiny_model(five_keypoints), new_heads=True)
        with pytest.raises(ValueError, match=r"decoder\.queries\.weight is missing"):
            checkpointer.load(_saved(tmp_path, weights))

    @pytest.mark.parametrize("as_released", [True, False])
    def test_another_skeleton_is_refused_without_new_heads(
        self, as_released, five_keypoints, tiny_model, released, tmp_path
    ):
        weights = released("mini_light") if as_released else tiny_model().state_dict()
        file = _saved(tmp_path, weights)
        with pytest.raises(ValueError, match=r"heads\.\S+ is \(17, 2\) instead of \(5, 2\)"):
            QueryPoseCheckpointer(tiny_model(five_keypoints)).load(file)

    def test_crowdpose_weights_are_refused_by_a_coco_model(self, tiny_model, tmp_path):
        file = _saved(tmp_path, tiny_model(CROWDPOSE).state_dict())
        with pytest.raises(ValueError, match=r"heads\.\S+ is \(14, 2[\d, ]*\) instead of \(17, 2"):
            QueryPoseCheckpointer(tiny_model()).load(file)
