"""A training that is resumed with another config."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer, resumed_settings
from querypose.engine.optimizer import parameter_names
from querypose.skeleton import Skeleton

TINY = Path(__file__).parent / "tiny.yaml"
NO_TEST = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 4)


def config(folder, *opts):
    return read_config(TINY, [*NO_TEST, "OUTPUT_DIR", str(folder), *opts])


def start(cfg, resume=False):
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume)
    return trainer


@pytest.fixture(scope="module")
def four_iterations(tmp_path_factory):
    """The folder of a training that ended after four of its eight iterations."""
    folder = tmp_path_factory.mktemp("first")
    trainer = start(config(folder, "SOLVER.STEPS", "(6,)"))
    trainer.max_iter = 4
    trainer.train()
    return folder


@pytest.fixture
def resume(four_iterations, tmp_path, caplog):
    """``resume("SOLVER.BASE_LR", 0.1)``: a trainer that goes on with another config."""

    def run(*opts):
        folder = tmp_path / "resumed"
        shutil.copytree(four_iterations, folder, dirs_exist_ok=True)
        caplog.clear()
        trainer = start(config(folder, "SOLVER.STEPS", "(6,)", *opts), resume=True)
        assert trainer.start_iter == 4
        return trainer

    return run


def of_settings(caplog):
    """What is said of changed settings."""
    return [record for record in caplog.records if record.name == resumed_settings.__name__]


def edit_checkpoint(folder, change):
    file = folder / (folder / "last_checkpoint").read_text()
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint["trainer"])
    torch.save(checkpoint, file)


def state_by_name(trainer):
    names = parameter_names(trainer.optimizer, trainer.model)
    state = trainer.optimizer.state_dict()["state"]
    return {names[index]: values["exp_avg"] for index, values in state.items()}


def hyperparameters(trainer):
    groups = trainer.optimizer.state_dict()["param_groups"]
    return [{key: value for key, value in group.items() if key != "lr"} for group in groups]


def test_an_unchanged_config_is_not_spoken_of(resume, caplog):
    resume()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BASE_LR", 0.005),
        ("WEIGHT_DECAY", 0.3),
        ("WEIGHT_DECAY_NORM", 0.2),
        ("WEIGHT_DECAY_BIAS", 0.1),
        ("BIAS_LR_FACTOR", 2.0),
        ("BACKBONE_MULTIPLIER", 0.1),
        ("FLOW_MULTIPLIER", 1.0),
        ("STEPS", "(2,)"),
        ("GAMMA", 0.5),
        ("LR_SCHEDULER_NAME", "WarmupCosineLR"),
        ("WARMUP_ITERS", 8),
        ("WARMUP_FACTOR", 0.5),
        ("WARMUP_METHOD", "constant"),
        ("MAX_ITER", 20),
    ],
)
def test_rates_decays_and_schedules_are_taken(resume, caplog, tmp_path, key, value):
    """From the first iteration on they are those of a training that always had the config."""
    # Of the fifth and of the seventh iteration, beyond the first of the schedule's steps.
    resumed = resume(f"SOLVER.{key}", value)
    other = start(config(tmp_path / "other", "SOLVER.STEPS", "(6,)", f"SOLVER.{key}", value))
    assert hyperparameters(resumed) == hyperparameters(other)
    for iteration in (4, 6):
        other.scheduler.last_epoch = iteration
        rates = [group["lr"] for group in resumed.optimizer.param_groups]
        assert rates == other.scheduler.get_lr()
        for _ in range(2):
            resumed.optimizer.step()
            resumed.scheduler.step()
    (record,) = of_settings(caplog)
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"SOLVER.{key} is ")
    assert "when the checkpoint was saved: the new value holds." in record.getMessage()


def test_other_groups_keep_every_parameters_state(resume):
    """The flow's parameters are a group of their own, or none."""
    before, after = resume(), resume("SOLVER.FLOW_MULTIPLIER", 1.0, "SOLVER.BIAS_LR_FACTOR", 3.0)
    assert parameter_names(before.optimizer, before.model) != parameter_names(
        after.optimizer, after.model
    )
    first, second = state_by_name(before), state_by_name(after)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert max(value.abs().max() for value in first.values()) > 0
    after.train()


def test_another_momentum_is_taken(tmp_path, caplog):
    sgd = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.MAX_ITER", 2)
    start(config(tmp_path, *sgd)).train()
    resumed = start(config(tmp_path, *sgd, "SOLVER.MOMENTUM", 0.5), resume=True)
    assert {group["momentum"] for group in resumed.optimizer.param_groups} == {0.5}
    assert "SOLVER.MOMENTUM is 0.5 in the config, but was 0.9" in caplog.text


def test_another_optimizer_is_refused(resume):
    with pytest.raises(ValueError, match=r"SOLVER\.OPTIMIZER is 'SGD', but .* with 'AdamW'"):
        resume("SOLVER.OPTIMIZER", "SGD")


@pytest.mark.parametrize(("batch", "num_batches"), [(4, 2), (1, 8), (3, 2)])
def test_another_batch_size_goes_on_with_the_next_images(
    resume, caplog, four_iterations, batch, num_batches
):
    resumed = resume("SOLVER.IMS_PER_BATCH", batch)
    assert resumed.data_loader.num_batches == num_batches
    assert f"SOLVER.IMS_PER_BATCH is {batch} in the config, but was 2" in caplog.text
    whole = itertools.islice(QueryPoseTrainer.build_train_loader(config(four_iterations)), 8)
    expected = [sample["file_name"] for batch in whole for sample in batch]
    rest = [sample["file_name"] for sample in next(iter(resumed.data_loader))]
    seen = num_batches * batch
    # Eight were seen; some may come again, none is left out.
    assert 8 - batch < seen <= 8
    assert rest == expected[seen : seen + batch]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.ACCUMULATE_STEPS", 2),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", False),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.1),
        ("SOLVER.EMA.ENABLED", True),
        ("SOLVER.AMP.ENABLED", True),
        ("DATASETS.TRAIN", "('synthetic_people_tiny', 'synthetic_people_tiny')"),
        ("MODEL.QUERYPOSE.KEYPOINT_WEIGHT", 7.0),
        ("INPUT.MIN_SIZE_TRAIN", "(80,)"),
    ],
)
def test_whatever_the_state_does_not_hold_is_taken(resume, caplog, key, value):
    resumed = resume(key, value)
    (record,) = of_settings(caplog)
    assert record.getMessage().startswith(f"{key} is ")
    assert record.getMessage().endswith("the new value holds.")
    resumed.train()
    assert resumed.iter == 8


def test_an_average_that_was_switched_on_starts_from_the_weights(resume, assert_same_state):
    resumed = resume("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 1.0, "SOLVER.MAX_ITER", 5)
    resumed.train()
    average = resumed.averaged.module.state_dict()
    assert all(
        torch.equal(value, average[name]) for name, value in resumed.model.state_dict().items()
    )


def test_half_precision_that_was_switched_off_needs_no_scale(tmp_path, caplog):
    half = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "fp16", "SOLVER.MAX_ITER", 2)
    start(config(tmp_path, *half)).train()
    resumed = start(config(tmp_path, "SOLVER.MAX_ITER", 3), resume=True)
    resumed.train()
    assert "SOLVER.AMP.ENABLED is False in the config, but was True" in caplog.text


def test_the_seed_stays_and_is_spoken_of_every_time(resume, caplog):
    resumed = resume("SEED", 11)
    message = "SEED is 11 in the config, but was 7 when the checkpoint was saved: the checkpoint's"
    assert resumed.data_loader.seed == 7
    assert message in caplog.text
    resumed.train()
    caplog.clear()
    again = start(resumed.cfg, resume=True)
    assert again.data_loader.seed == 7
    assert message in caplog.text


def test_a_checkpoint_that_tells_no_settings_is_resumed(
    resume, four_iterations, caplog, assert_same_state
):
    """As earlier versions wrote it."""
    whole = resume()
    whole.train()
    changed = resume("SOLVER.BASE_LR", 0.005).cfg

    def forget(trainer):
        del trainer["settings"], trainer["_trainer"]["parameter_names"]

    caplog.clear()
    folder = Path(changed.OUTPUT_DIR)
    shutil.copytree(four_iterations, folder, dirs_exist_ok=True)
    edit_checkpoint(folder, forget)
    resumed = start(config(folder, "SOLVER.STEPS", "(6,)"), resume=True)
    assert "does not contain the settings it was trained with" in caplog.text
    resumed.train()
    assert_same_state(whole.model.state_dict(), resumed.model.state_dict())

    shutil.copytree(four_iterations, folder, dirs_exist_ok=True)
    edit_checkpoint(folder, forget)
    rates = {group["initial_lr"] for group in start(changed, resume=True).optimizer.param_groups}
    assert rates == {0.005, 0.05}

    regrouped = config(folder, "SOLVER.FLOW_MULTIPLIER", 1.0)
    with pytest.raises(ValueError, match="other groups of parameters than the config's"):
        start(regrouped, resume=True)


def test_another_skeleton_is_refused(resume):
    name = "resumption_with_another_skeleton"
    DatasetCatalog.register(name, lambda: DatasetCatalog.get("synthetic_people_tiny"))
    skeleton = Skeleton(("nose", "left_eye", "right_eye"))
    MetadataCatalog.get(name).set(evaluator_type="coco", **skeleton.metadata())
    try:
        with pytest.raises(ValueError, match=r"was trained with a .* of another shape"):
            resume("DATASETS.TRAIN", f"('{name}',)")
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_newly_trained_parameters_start_without_a_state(resume, tmp_path):
    """And newly frozen ones leave theirs behind."""
    frozen, free = ("MODEL.TIMM.FREEZE_AT", 2), ("MODEL.TIMM.FREEZE_AT", 0)
    for number, (first, second) in enumerate([(frozen, free), (free, frozen)]):
        folder = tmp_path / str(number)
        start(config(folder, *first, "SOLVER.MAX_ITER", 2)).train()
        resumed = start(config(folder, *second, "SOLVER.MAX_ITER", 3), resume=True)
        names = set(parameter_names(resumed.optimizer, resumed.model))
        backbone = {name for name in names if name.startswith("backbone.")}
        assert names >= state_by_name(resumed).keys() >= names - backbone
        resumed.train()
        assert state_by_name(resumed).keys() == names


def test_a_training_that_is_over_says_so(resume, caplog):
    steps = ("SOLVER.STEPS", "()")
    resume(*steps, "SOLVER.MAX_ITER", 4).train()
    assert "All 4 iterations (SOLVER.MAX_ITER) are done" in caplog.text
    with pytest.raises(ValueError, match=r"MAX_ITER is 3, but .* of the later iteration 3: raise"):
        resume(*steps, "SOLVER.MAX_ITER", 3)


def test_the_best_weights_of_another_metric_are_not_the_best(tmp_path, caplog):
    class Scripted(QueryPoseTrainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return {"keypoints": {"AP": 10.0, "AP50": 20.0}}

    opts = ("DATASETS.TEST", "('synthetic_people_tiny',)", "TEST.EVAL_PERIOD", 1)
    for metric, max_iter in (("keypoints/AP", 1), ("keypoints/AP50", 2)):
        cfg = config(tmp_path, *opts, "TEST.BEST_METRIC", metric, "SOLVER.MAX_ITER", max_iter)
        trainer = Scripted(cfg)
        trainer.resume_or_load(resume=max_iter > 1)
        trainer.train()
    assert "model_best.json has no score of keypoints/AP50" in caplog.text
    best = json.loads((tmp_path / "model_best.json").read_text())
    assert best["keypoints/AP50"] == 20.0
