from __future__ import annotations

from collections import Counter

import pytest
import torch
from detectron2.solver import build
from torch import nn

from querypose.engine.optimizer import build_optimizer

LR = 1e-3


def _named_groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


class TestGroups:
    @pytest.mark.parametrize("optimizer_name", ["Adam", "AdamW", "SGD"])
    def test_learning_rates(self, optimizer_name, tiny_cfg, small_model):
        cfg = tiny_cfg(
            {
                "SOLVER.OPTIMIZER": optimizer_name,
                "SOLVER.BASE_LR": LR,
                "SOLVER.BACKBONE_MULTIPLIER": 0.1,
            }
        )
        model = small_model()
        rates = {
            name: group["lr"]
            for name, group in _named_groups(model, build_optimizer(cfg, model)).items()
        }
        expected = {
            name: LR * (10 if ".flow." in name else 0.1 if name.startswith("backbone.") else 1)
            for name in rates
        }
        assert rates == pytest.approx(expected)
        assert set(Counter(round(rate / LR, 6) for rate in rates.values())) == {0.1, 1, 10}
        flow = sum(p.numel() for name, p in model.named_parameters() if ".flow." in name)
        assert flow == 53_784

    def test_every_trainable_parameter_is_there_exactly_once(self, tiny_cfg, small_model):
        cfg = tiny_cfg({"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True})
        model = small_model({"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True})
        optimizer = build_optimizer(cfg, model)
        counts = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
        trained = [id(p) for p in model.parameters() if p.requires_grad]
        assert counts == Counter(trained)
        assert any(not p.requires_grad for p in model.parameters())

    def test_weight_decay(self, tiny_cfg, small_model):
        cfg = tiny_cfg(
            {
                "SOLVER.WEIGHT_DECAY": 0.3,
                "SOLVER.WEIGHT_DECAY_NORM": 0.2,
                "SOLVER.WEIGHT_DECAY_BIAS": 0.1,
            }
        )
        model = small_model()
        groups = _named_groups(model, build_optimizer(cfg, model))
        stage = "decoder.box_stages.0."
        assert groups[f"{stage}attention_norm.weight"]["weight_decay"] == 0.2
        assert groups[f"{stage}class_logits.weight"]["weight_decay"] == 0.3
        assert groups[f"{stage}class_logits.bias"]["weight_decay"] == 0.1

    def test_a_wrapped_model_gives_the_same_groups(self, tiny_cfg, small_model):
        model = small_model()
        wrapper = nn.Module()
        wrapper.module = model
        cfg = tiny_cfg({"SOLVER.BACKBONE_MULTIPLIER": 0.1})
        groups = [_named_groups(model, build_optimizer(cfg, module)) for module in (model, wrapper)]
        assert {n: g["lr"] for n, g in groups[0].items()} == {
            n: g["lr"] for n, g in groups[1].items()
        }

    def test_an_unknown_optimizer_is_refused(self, tiny_cfg):
        cfg = tiny_cfg({"SOLVER.OPTIMIZER": "Adagrad"})
        message = r"SOLVER\.OPTIMIZER must be Adam, AdamW or SGD, got 'Adagrad'"
        with pytest.raises(ValueError, match=message):
            build_optimizer(cfg, nn.Linear(2, 2))


class TestClipping:
    @staticmethod
    def _step(cfg, gradients: list[float]) -> tuple[nn.Module, list[torch.Tensor]]:
        """One step; returns the model and by how much its two parameters moved."""
        torch.manual_seed(0)
        model = nn.Linear(2, 3)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer = build_optimizer(cfg, model)
        for parameter, value in zip(model.parameters(), gradients, strict=True):
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
        moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
        return model, moved

    @staticmethod
    def _sgd(tiny_cfg, **clip: object):
        options = {f"SOLVER.CLIP_GRADIENTS.{key}": value for key, value in clip.items()}
        sgd = {"SOLVER.OPTIMIZER": "SGD", "SOLVER.BASE_LR": 1.0, "SOLVER.WEIGHT_DECAY": 0.0}
        return tiny_cfg(sgd | {"SOLVER.WEIGHT_DECAY_NORM": 0.0} | options)

    def test_the_update_follows_the_clipped_gradient(self, tiny_cfg):
        cfg = self._sgd(tiny_cfg, CLIP_VALUE=0.5)
        _, moved = self._step(cfg, [30.0, -40.0])
        norm = torch.cat([step.flatten() for step in moved]).norm()
        assert norm.item() == pytest.approx(0.5, rel=1e-4)
        # All gradients shrink together: their direction stays.
        torch.testing.assert_close(moved[0][0, 0] / moved[1][0], torch.tensor(-0.75))

    def test_small_gradients_pass_as_they_are(self, tiny_cfg):
        cfg = self._sgd(tiny_cfg, CLIP_VALUE=0.5)
        _, moved = self._step(cfg, [0.01, -0.02])
        torch.testing.assert_close(moved[0], torch.full((3, 2), 0.01))
        torch.testing.assert_close(moved[1], torch.full((3,), -0.02))

    def test_the_kind_of_norm_is_the_configs(self, tiny_cfg):
        cfg = self._sgd(tiny_cfg, CLIP_VALUE=0.5, NORM_TYPE=float("inf"))
        _, moved = self._step(cfg, [30.0, -40.0])
        torch.testing.assert_close(moved[1], torch.full((3,), -0.5))

    def test_detectron2s_clipping_by_value_works(self, tiny_cfg):
        cfg = self._sgd(tiny_cfg, FULL_MODEL=False, CLIP_TYPE="value", CLIP_VALUE=0.5)
        _, moved = self._step(cfg, [30.0, -0.1])
        torch.testing.assert_close(moved[0], torch.full((3, 2), 0.5))
        torch.testing.assert_close(moved[1], torch.full((3,), -0.1))

    def test_all_gradients_together_have_a_norm_alone(self, tiny_cfg):
        with pytest.raises(ValueError, match=r"FULL_MODEL.*\"norm\".*not 'value'"):
            self._step(self._sgd(tiny_cfg, CLIP_TYPE="value"), [30.0, -0.1])

    def test_detectron2s_own_builder_reads_the_same_config(self, tiny_cfg):
        """Importing this package leaves it alone: it clips each parameter by itself."""
        cfg = self._sgd(tiny_cfg, CLIP_VALUE=0.5)
        model = nn.Linear(2, 3)
        optimizer = build.build_optimizer(cfg, model)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 30.0)
        optimizer.step()
        for parameter in model.parameters():
            assert parameter.grad.norm().item() == pytest.approx(0.5, rel=1e-4)

    def test_it_can_be_turned_off(self, tiny_cfg):
        _, moved = self._step(self._sgd(tiny_cfg, ENABLED=False), [30.0, -40.0])
        torch.testing.assert_close(moved[0], torch.full((3, 2), 30.0))

    def test_adamw_clips_as_well(self, tiny_cfg):
        cfg = tiny_cfg({"SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.25})
        model, _ = self._step(cfg, [30.0, -40.0])
        norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
        assert norm.item() == pytest.approx(0.25, rel=1e-4)
        assert isinstance(build_optimizer(cfg, model), torch.optim.AdamW)
