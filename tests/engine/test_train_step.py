import itertools
import re
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.structures import Instances
from torch import nn

from querypose.engine import load_bad_batch
from querypose.engine.accumulation import loss_shares
from querypose.skeleton import Skeleton
from querypose.synthetic import SyntheticPeople

NAN = float("nan")


class BreakData(HookBase):
    """Makes the images of some iterations NaN."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def before_step(self):
        step = self.trainer._trainer
        if self.trainer.iter in self.iterations and step._data_loader_iter_obj is not None:
            batch = next(step._data_loader_iter_obj)
            broken = [sample | {"image": sample["image"] * NAN} for sample in batch]
            step._data_loader_iter_obj = _before(broken, step._data_loader_iter_obj)


def _before(first, rest):
    yield first
    yield from rest


class BreakTensor(HookBase):
    """Makes a parameter's gradient, or a layer's output, NaN in one iteration."""

    def __init__(self, find, iteration):
        self.find, self.iteration = find, iteration

    def before_train(self):
        found = self.find(self.trainer.model)
        if isinstance(found, nn.Parameter):
            found.register_hook(lambda gradient: gradient * self._factor())
        else:
            found.register_forward_hook(lambda *arguments: arguments[-1] * self._factor())

    def _factor(self):
        return NAN if self.trainer.iter == self.iteration else 1.0


def broken(start, cfg, hook):
    trainer = start(cfg)
    trainer.register_hooks([hook])
    return trainer


def messages(trainer):
    with pytest.raises(FloatingPointError) as error:
        trainer.train()
    return str(error.value)


def bad_terms(message):
    return set(re.findall(r"loss_\w+", message.split(" became ")[0]))


def test_nan_loss_names_iteration_term_and_images_and_can_be_replayed(tiny_config, start):
    cfg = tiny_config("SOLVER.CHECKPOINT_PERIOD", 1, "DATASETS.TEST", "()")

    def flow(model):
        return model.criterion.keypoint_loss.flow.scales[0][0]

    trainer = broken(start, cfg, BreakTensor(flow, 3))
    message = messages(trainer)
    assert message.startswith("Iteration 3: ")
    assert bad_terms(message) and bad_terms(message) <= {"loss_keypoint", "loss_keypoint_0"}
    assert message.count("synthetic://people/") == 2

    bad = load_bad_batch(f"{cfg.OUTPUT_DIR}/bad_batch_3.pth")
    assert bad["iteration"] == 3
    (batch,) = bad["batches"]
    assert all(sample["file_name"] in message for sample in batch)
    trainer.model.load_state_dict(bad["model"])
    losses = trainer.model(batch)
    assert {name for name, loss in losses.items() if loss.isnan()} == bad_terms(message)

    assert Path(cfg.OUTPUT_DIR, "last_checkpoint").read_text() == "model_0000002.pth"
    assert start(cfg, resume=True).start_iter == 3


def test_nan_matching_cost_is_reported_alike(tiny_config, start):
    message = messages(broken(start, tiny_config(), BreakData(2)))
    assert message.startswith("Iteration 2: The matching cost is NaN")
    assert message.count("synthetic://people/") == 2 and "bad_batch_2.pth" in message


def test_nan_gradient_of_finite_losses_reaches_no_weight(tiny_config, start):
    def weight(model):
        return model.decoder.part_queries.weight

    trainer = broken(start, tiny_config("SOLVER.CHECKPOINT_PERIOD", 1), BreakTensor(weight, 2))
    assert "Iteration 2: The gradient became NaN" in messages(trainer)
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


@pytest.mark.parametrize("fault", ["data", "gradient"])
def test_skipped_batch_leaves_no_trace(tiny_config, start, assert_same_state, fault):
    """Up to the batch, the model is that of a training that ends there."""
    opts = ("SOLVER.MAX_SKIPPED_BATCHES", 1, "DATASETS.TEST", "()")
    clean = start(tiny_config(*opts, "SOLVER.MAX_ITER", 3))
    clean.train()

    hook = BreakData(3) if fault == "data" else BreakTensor(lambda m: m.decoder.queries.weight, 3)
    trainer = broken(start, tiny_config(*opts, "SOLVER.MAX_ITER", 4), hook)
    trainer.train()
    assert trainer._trainer.num_skipped == 1
    assert_same_state(clean.model.state_dict(), trainer.model.state_dict())
    first, second = (t.optimizer.state_dict()["state"] for t in (clean, trainer))
    assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in first)


def test_images_may_be_given_as_paths(
    tiny_config, start, temporary_datasets, tmp_path, label_content, write_labels
):
    write_labels(label_content(), "labels.json")
    skeleton = Skeleton.from_metadata(MetadataCatalog.get("synthetic_people_tiny"))
    records = SyntheticPeople(2, seed=0, image_size=(128, 96))()
    records = [
        record | {"file_name": tmp_path / f"{index}.png"}
        for index, record in enumerate(records, start=1)
    ]
    temporary_datasets.append("people_of_paths")
    DatasetCatalog.register("people_of_paths", lambda: records)
    MetadataCatalog.get("people_of_paths").set(thing_classes=["person"], **skeleton.metadata())

    opts = ("DATASETS.TRAIN", "('people_of_paths',)", "DATASETS.TEST", "()")
    cfg = tiny_config(*opts, "SOLVER.MAX_SKIPPED_BATCHES", 1)
    message = messages(broken(start, cfg, BreakData(1, 2)))
    assert str(tmp_path / "1.png") in message and str(tmp_path / "2.png") in message
    (batch,) = load_bad_batch(f"{cfg.OUTPUT_DIR}/bad_batch_1.pth")["batches"]
    assert {sample["file_name"] for sample in batch} <= {
        str(tmp_path / name) for name in ("1.png", "2.png")
    }


def test_no_more_batches_are_skipped_than_allowed(tiny_config, start):
    cfg = tiny_config("SOLVER.MAX_SKIPPED_BATCHES", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    trainer = broken(start, cfg, BreakData(1, 3, 5))
    assert messages(trainer).startswith("Iteration 5: ")
    # The count survives a resumption.
    resumed = start(cfg, resume=True)
    assert resumed.start_iter == 5 and resumed._trainer.num_skipped == 2


def test_training_goes_on_after_a_skipped_batch(tiny_config, start):
    cfg = tiny_config("SOLVER.MAX_SKIPPED_BATCHES", 1, "DATASETS.TEST", "()")
    trainer = broken(start, cfg, BreakData(2))
    trainer.train()
    assert trainer.iter == cfg.SOLVER.MAX_ITER
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def gradients(trainer):
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def test_accumulated_batches_train_as_one_large_batch(tiny_config, start):
    """Also where they have differently many people, and one of them none."""
    opts = ("SOLVER.IMS_PER_BATCH", 1, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()")
    opts += ("SOLVER.CLIP_GRADIENTS.ENABLED", False, "INPUT.CROP.ENABLED", False)
    trainer = start(tiny_config(*opts, "SOLVER.ACCUMULATE_STEPS", 4))
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # Its statistics are of a single batch.
    batches = list(itertools.islice(trainer.build_train_loader(trainer.cfg), 4))
    for (sample,), num_people in zip(batches, (3, 1, 0, 2), strict=True):
        several = Instances.cat([sample["instances"]] * 3)
        sample["instances"] = several[:num_people]
    assert [len(sample["instances"]) for (sample,) in batches] == [3, 1, 0, 2]

    losses = trainer.model(list(itertools.chain(*batches)))
    sum(losses.values()).backward()
    expected = gradients(trainer)
    trainer._trainer._data_loader_iter_obj = iter(batches)
    trainer.train()
    for name, gradient in gradients(trainer).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)
    for name, loss in losses.items():
        logged = trainer.storage.latest()[name][0]
        assert logged == pytest.approx(loss.item(), rel=1e-4), name


def test_each_accumulated_batch_is_drawn_once(tiny_config, start):
    opts = ("SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()", "SOLVER.ACCUMULATE_STEPS", 3)
    trainer = start(tiny_config(*opts))
    trainer.train()
    assert trainer.data_loader.num_batches == 6


def test_each_batch_counts_by_what_its_losses_are_means_over(tiny_config, start):
    trainer = start(tiny_config("SOLVER.MAX_ITER", 1))
    batch = next(iter(trainer.build_train_loader(trainer.cfg)))
    people = batch[0]["instances"][:1]
    three = [{"instances": Instances.cat([people] * 3)}]
    nobody = [{"instances": people[:0]}]
    first, second = loss_shares(trainer.model, [three, nobody])
    assert (first("loss_giou_0"), second("loss_giou_0")) == (1, pytest.approx(1 / 3))
    # Every image has equally many denoising queries.
    name = "loss_bbox_denoising_0"
    assert (first(name), second(name)) == (0.5, 0.5)
    others = loss_shares(nn.Linear(1, 1), [three, nobody])
    assert [share("loss_giou_0") for share in others] == [0.5, 0.5]


def test_gradient_that_no_loss_scale_helps_ends_the_training(tiny_config, start, cpu_scaler):
    cfg = tiny_config("DATASETS.TEST", "()", "SOLVER.MAX_SKIPPED_BATCHES", 1)
    trainer = start(cfg)
    trainer._trainer.grad_scaler = cpu_scaler(init_scale=2.0**-13)
    trainer.model.decoder.queries.weight.register_hook(lambda gradient: gradient * NAN)
    message = messages(trainer)
    # The scale falls from 2**-13 to 2**-14, to 2**-15, which is skipped, and to 2**-16.
    assert message.startswith("Iteration 2: The gradient became NaN or infinite at any loss scale")
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_gradients_are_clipped_after_they_were_unscaled(tiny_config, start, cpu_scaler):
    opts = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()")
    trainer = start(tiny_config(*opts))
    trainer._trainer.grad_scaler = cpu_scaler(init_scale=2.0**16)
    trainer.train()
    norm = torch.stack([gradient.norm() for gradient in gradients(trainer).values()]).norm()
    assert norm.item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("SOLVER.ACCUMULATE_STEPS", 0, "at least 1"), ("SOLVER.AMP.PRECISION", "int8", "one of")],
)
def test_settings_out_of_range(tiny_config, start, key, value, reason):
    with pytest.raises(ValueError, match=rf"{key}.*{reason}"):
        start(tiny_config(key, value))
