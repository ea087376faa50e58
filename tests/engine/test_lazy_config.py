"""The LazyConfig: equal to the YAML config, and trained as by lazyconfig_train_net.py."""

from __future__ import annotations

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, default_writers, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from querypose import model_zoo
from querypose.config import read_config
from querypose.data import QueryPoseDatasetMapper
from querypose.engine.optimizer import build_optimizer

YAML, LAZY = "coco/querypose_r50_light_3x", "lazy/querypose_r50_light_3x.py"
SMALL = {"short_edge_length": 96, "max_size": 160}


@pytest.fixture(scope="module")
def whole_models():
    """The model of each config, without memory."""
    cfg, lazy = model_zoo.get_config(YAML), model_zoo.get_config(LAZY)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg), instantiate(lazy.model)


@pytest.fixture(scope="module")
def models():
    """Two models of the same weights with one stage and four queries, which are quick."""
    cfg, lazy = model_zoo.get_config(YAML), model_zoo.get_config(LAZY)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.QUERYPOSE.NUM_STAGES", 1, "MODEL.QUERYPOSE.NUM_QUERIES", 4]
    )
    _shorten(lazy)
    from_yaml, from_lazy = build_model(cfg), instantiate(lazy.model)
    from_lazy.load_state_dict(from_yaml.state_dict())
    return from_yaml, from_lazy


def _shorten(lazy):
    decoder = lazy.model.decoder
    decoder.num_queries = 4
    for name in ("box_stages", "keypoint_stages"):
        decoder[name] = decoder[name][:1]


def test_same_parameters(whole_models):
    shapes, trained = (
        [{name: get(p) for name, p in model.named_parameters()} for model in whole_models]
        for get in (lambda p: p.shape, lambda p: p.requires_grad)
    )
    assert shapes[0] == shapes[1]
    assert trained[0] == trained[1]
    assert whole_models[0].skeleton == whole_models[1].skeleton
    assert whole_models[0].max_detections == whole_models[1].max_detections


def test_same_predictions(models):
    image = torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (model.eval()([{"image": image}])[0]["instances"] for model in models)
    assert len(found) == len(expected) > 0
    for name in ("scores", "pred_keypoints"):
        torch.testing.assert_close(found.get(name), expected.get(name))


def test_same_losses(models, training_input):
    inputs = [training_input(2, (96, 128))]
    expected, found = (model.train()(inputs) for model in models)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, msg=name)


def _groups(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    keys = ("lr", "weight_decay", "betas")
    return {
        names[id(parameter)]: [group[key] for key in keys]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_same_optimizer_and_schedule(whole_models):
    cfg, lazy = model_zoo.get_config(YAML), model_zoo.get_config(LAZY)
    expected = build_optimizer(cfg, whole_models[0])
    lazy.optimizer.params.model = whole_models[1]
    found = instantiate(lazy.optimizer)
    assert type(found).__name__ == type(expected).__name__ == "AdamWWithFullModelClipping"
    assert _groups(found, whole_models[1]) == _groups(expected, whole_models[0])
    multiplier, schedule = instantiate(lazy.lr_multiplier), build_lr_scheduler(cfg, expected)
    for iteration in (0, 1, 500, 1000, 109999, 110001, 129999, 130001, 139999):
        schedule.last_epoch = iteration
        rate = multiplier(iteration / lazy.train.max_iter) * expected.defaults["lr"]
        assert rate == pytest.approx(schedule.get_lr()[0])
    assert (lazy.train.max_iter, lazy.train.eval_period) == (
        cfg.SOLVER.MAX_ITER,
        cfg.TEST.EVAL_PERIOD,
    )
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS


@pytest.mark.parametrize("split", ["train", "test"])
def test_same_mapper(split):
    cfg, lazy = model_zoo.get_config(YAML), model_zoo.get_config(LAZY)
    expected = QueryPoseDatasetMapper(cfg, is_train=split == "train")
    found = instantiate(lazy.dataloader[split].mapper)
    for name in ("augmentations", "cropped"):
        # Lists and tuples are the same here.
        texts = [
            str(getattr(mapper, name)).translate(str.maketrans("()", "[]"))
            for mapper in (found, expected)
        ]
        assert texts[0] == texts[1]
    for name in ("crop_probability", "image_format", "num_keypoints"):
        assert getattr(found, name) == getattr(expected, name)


def test_two_iterations(tmp_path):
    cfg = model_zoo.get_config(LAZY)
    train, test = cfg.dataloader.train, cfg.dataloader.test
    train.dataset.names = ["synthetic_people_tiny"]
    test.dataset.names = "synthetic_people_tiny"
    train.mapper.augmentations[0].update(SMALL)
    train.mapper.crop_augmentations = []
    test.mapper.augmentations[0].update(SMALL)
    train.total_batch_size, train.num_workers, test.num_workers = 2, 0, 0
    _shorten(cfg)
    cfg.model.decoder.keypoint_stages[0].num_convs = 2
    stages = cfg.model.backbone.bottom_up.stages
    del stages.stride_in_1x1
    stages.update(depth=18)
    cfg.train.update(
        device="cpu", init_checkpoint="", max_iter=2, eval_period=2, output_dir=str(tmp_path)
    )
    cfg.dataloader.evaluator.output_dir = str(tmp_path)
    results = _train(cfg)
    assert results["keypoints"]["AP"] >= 0
    written = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert written["iteration"] == 1


def _train(cfg):
    """What ``do_train`` of Detectron2's tools/lazyconfig_train_net.py does with a config."""
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    results = {}

    def evaluate():
        loader = instantiate(cfg.dataloader.test)
        results.update(inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator)))
        return results

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter),
                period=cfg.train.log_period,
            ),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    trainer.train(0, cfg.train.max_iter)
    return results


def test_a_lazy_config_is_no_yaml():
    with pytest.raises(ValueError, match=r"is a LazyConfig.*lazyconfig_train_net\.py"):
        read_config(model_zoo.get_config_file(LAZY))
