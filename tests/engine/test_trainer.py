import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import default_config
from querypose.engine import QueryPoseTrainer
from querypose.engine.weight_average import build_averaged_model
from querypose.inference.model_loading import find_config

NO_TEST = ("DATASETS.TEST", "()")
EVERYTHING = (
    *NO_TEST,
    *("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5),
    *("SOLVER.ACCUMULATE_STEPS", 2, "SOLVER.STEPS", "(5,)"),
    *("MODEL.QUERYPOSE.DENOISING.NUM_QUERIES", 2),
)


class RecordLosses(HookBase):
    def __init__(self):
        self.losses = {}

    def after_step(self):
        self.losses[self.trainer.iter] = self.trainer.storage.latest()["total_loss"][0]


@pytest.mark.parametrize(("killed", "workers"), [(4, 0), (6, 1)])
def test_resumed_training_ends_as_the_uninterrupted_one(
    tiny_config, start, train_until_killed, assert_same_state, tmp_path, killed, workers
):
    """Weights, averaged weights, optimizer and logged losses, bit by bit."""
    everything = (*EVERYTHING, "DATALOADER.NUM_WORKERS", workers)
    whole = start(tiny_config(*everything, "OUTPUT_DIR", str(tmp_path / "whole")))
    before, after = RecordLosses(), RecordLosses()
    whole.register_hooks([before])
    whole.train()

    cfg = tiny_config(*everything)
    train_until_killed(cfg, killed)
    torch.manual_seed(123)  # Another process starts from another state.
    resumed = start(cfg, resume=True)
    assert resumed.start_iter == 4
    resumed.register_hooks([after])
    resumed.train()

    assert_same_state(whole.model.state_dict(), resumed.model.state_dict())
    assert_same_state(whole.averaged.state_dict(), resumed.averaged.state_dict())
    first, second = (trainer.optimizer.state_dict() for trainer in (whole, resumed))
    assert first["param_groups"] == second["param_groups"]
    assert_same_state(
        *({i: s["exp_avg_sq"] for i, s in t["state"].items()} for t in (first, second))
    )
    assert after.losses == {i: loss for i, loss in before.losses.items() if i >= 4}


def test_random_seed_survives_a_resumption(tiny_config, start, train_until_killed):
    cfg = tiny_config(*NO_TEST, "SEED", -1)
    train_until_killed(cfg, 4)
    first = torch.load(f"{cfg.OUTPUT_DIR}/model_0000003.pth", weights_only=True)
    resumed = start(cfg, resume=True)
    assert resumed.data_loader.seed == first["trainer"]["_trainer"]["data_loader"]["seed"]
    assert resumed.data_loader.num_batches == 4


def checkpoints(cfg):
    return sorted(path.name for path in Path(cfg.OUTPUT_DIR).glob("*.pth"))


def test_last_checkpoints_are_kept_across_resumptions(tiny_config, start, train_until_killed):
    opts = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_TO_KEEP", 2)
    cfg = tiny_config(*NO_TEST, *opts)
    train_until_killed(cfg, 4)
    assert checkpoints(cfg) == ["model_0000002.pth", "model_0000003.pth"]
    # As a run leaves it that is killed before it deletes the oldest.
    Path(cfg.OUTPUT_DIR, "model_0000001.pth").touch()
    train_until_killed(cfg, 6, resume=True)
    assert checkpoints(cfg) == ["model_0000004.pth", "model_0000005.pth"]


def test_sigterm_saves_and_exits_cleanly(tiny_config, start):
    class Terminate(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    cfg = tiny_config(*NO_TEST)
    trainer = start(cfg)
    trainer.register_hooks([Terminate()])
    with pytest.raises(SystemExit) as end:
        trainer.train()
    assert end.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoints(cfg) == ["model_0000002.pth"]
    assert start(cfg, resume=True).start_iter == 3


class TerminateIn(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("when", ["before", "during", "last", "final"])
def test_sigterm_does_not_wait_for_an_evaluation(tiny_config, monkeypatch, when):
    """It comes before a due evaluation, within it, in the last iteration, in the evaluation then.

    Within one it ends the process at once; before one the evaluation is left out.
    """
    evaluations = []

    def evaluate(cls, cfg, model, evaluators=None):
        evaluations.append("started")
        if when in ("during", "final"):
            os.kill(os.getpid(), signal.SIGTERM)
        evaluations.append("finished")
        return {}

    monkeypatch.setattr(ScriptedScores, "test", classmethod(evaluate))
    period = 3 if when in ("before", "during") else 0
    cfg = tiny_config("TEST.EVAL_PERIOD", period, "SOLVER.MAX_ITER", 6)
    trainer = scripted(cfg)
    trainer.register_hooks([TerminateIn({"before": 2, "last": 5}.get(when, -1))])
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)]
    with pytest.raises(SystemExit) as end:
        trainer.train()
    assert end.value.code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)] == before
    assert evaluations == (["started"] if when in ("during", "final") else [])
    assert scripted(cfg, resume=True).start_iter == (3 if period else 6)


def test_nothing_to_resume_from_is_said(tiny_config, start, caplog):
    cfg = tiny_config(*NO_TEST)
    assert start(cfg, resume=True).start_iter == 0
    assert f"OUTPUT_DIR ({cfg.OUTPUT_DIR}) has no checkpoint to resume from" in caplog.text


def test_gradient_scaler_survives_a_resumption(tiny_config, start, cpu_scaler):
    """Its scale, and after how many more steps it grows."""
    half = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "fp16")
    cfg = tiny_config(*NO_TEST, *half, "SOLVER.MAX_ITER", 3)
    trainer = start(cfg)
    trainer._trainer.grad_scaler = cpu_scaler(init_scale=0.5)
    trainer.train()
    scaler = trainer._trainer.grad_scaler.state_dict()
    assert scaler["scale"] <= 0.5
    assert start(cfg, resume=True)._trainer.grad_scaler.state_dict() == scaler


def test_averaged_weights_follow_the_formula(tiny_config, start):
    weights = []

    class Record(HookBase):
        def after_step(self):
            weights.append(self.trainer.model.decoder.queries.weight.detach().clone())

    ema = ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.75)
    trainer = start(tiny_config(*NO_TEST, *ema, "SOLVER.MAX_ITER", 4))
    trainer.register_hooks([Record()])
    trainer.train()
    expected, *later = weights
    for weight in later:
        expected = 0.75 * expected + 0.25 * weight
    average = trainer.averaged.module
    torch.testing.assert_close(average.decoder.queries.weight, expected)

    final = f"{trainer.cfg.OUTPUT_DIR}/model_final.pth"
    model = QueryPoseTrainer.build_model(trainer.cfg)
    QueryPoseCheckpointer(model, averaged=True).load(final)
    torch.testing.assert_close(model.decoder.queries.weight, expected)
    QueryPoseCheckpointer(model).load(final)
    assert torch.equal(model.decoder.queries.weight, weights[-1])


def test_an_average_that_warms_up_forgets_the_beginning():
    cfg = default_config()
    cfg.SOLVER.EMA.ENABLED = cfg.SOLVER.EMA.WARM_UP = True
    cfg.SOLVER.EMA.DECAY = 0.3
    model = nn.Linear(1, 1, bias=False)
    averaged, expected = build_averaged_model(cfg, model), 0.0
    for count, decay in enumerate([0.0, 2 / 11, 0.25, 0.3, 0.3]):
        nn.init.constant_(model.weight, count + 1.0)
        averaged.update_parameters(model)
        expected = decay * expected + (1 - decay) * (count + 1)
        assert averaged.module.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("warm_up", [True, False])
def test_indices_are_not_averaged(warm_up):
    """Rounded down, an average of equal indices is another index."""
    cfg = default_config()
    cfg.SOLVER.EMA.ENABLED, cfg.SOLVER.EMA.WARM_UP = True, warm_up
    cfg.SOLVER.EMA.DECAY = 0.9995
    model = nn.BatchNorm1d(3)
    model.register_buffer("part_of_keypoint", torch.arange(17), persistent=False)
    averaged = build_averaged_model(cfg, model)
    for count in range(300):
        model.num_batches_tracked.fill_(count)
        averaged.update_parameters(model)
    assert torch.equal(averaged.module.part_of_keypoint, torch.arange(17))
    assert averaged.module.num_batches_tracked == 299


def test_checkpoint_without_averaged_weights(tiny_config, start):
    trainer = start(tiny_config(*NO_TEST, "SOLVER.MAX_ITER", 1))
    trainer.train()
    checkpointer = QueryPoseCheckpointer(trainer.model, averaged=True)
    with pytest.raises(ValueError, match="holds no averaged weights"):
        checkpointer.load(f"{trainer.cfg.OUTPUT_DIR}/model_final.pth")


class ScriptedScores(QueryPoseTrainer):
    """Evaluations cost nothing and give the scores that a test wants."""

    scores: list[float]

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return {"keypoints": {"AP": cls.scores.pop(0)}}


def scripted(cfg, resume=False):
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    trainer = ScriptedScores(cfg)
    trainer.resume_or_load(resume)
    return trainer


def best(cfg):
    return json.loads(Path(cfg.OUTPUT_DIR, "model_best.json").read_text())


def test_best_weights_outlive_a_resumption(tiny_config):
    opts = ("TEST.EVAL_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1)
    ScriptedScores.scores = [10.0, 30.0, 20.0, 25.0, float("nan"), 29.0]
    scripted(tiny_config(*opts, "SOLVER.MAX_ITER", 3)).train()
    cfg = tiny_config(*opts, "SOLVER.MAX_ITER", 6)
    assert best(cfg) == {"keypoints/AP": 30.0, "iteration": 1}
    scripted(cfg, resume=True).train()
    assert best(cfg) == {"keypoints/AP": 30.0, "iteration": 1}
    # It is of the second iteration, and nothing resumes from it.
    folder = Path(cfg.OUTPUT_DIR)
    kept, second = (
        torch.load(folder / name, weights_only=True)["model"]
        for name in ("model_best.pth", "model_0000001.pth")
    )
    assert all(torch.equal(kept[name], second[name]) for name in kept)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"


def test_the_best_score_of_another_training_does_not_count(tiny_config):
    opts = ("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    ScriptedScores.scores = [50.0]
    scripted(tiny_config(*opts, "SOLVER.MAX_ITER", 2)).train()
    # A new training in the same folder is stopped before its first evaluation, and resumed.
    other = scripted(tiny_config(*opts, "SOLVER.MAX_ITER", 3))
    other.register_hooks([StopAfterFirstStep()])
    with pytest.raises(KeyboardInterrupt):
        other.train()
    ScriptedScores.scores = [20.0, 10.0]
    cfg = tiny_config(*opts, "SOLVER.MAX_ITER", 3)
    scripted(cfg, resume=True).train()
    assert best(cfg) == {"keypoints/AP": 20.0, "iteration": 1}


class StopAfterFirstStep(HookBase):
    def after_step(self):
        raise KeyboardInterrupt


def test_a_checkpoint_period_of_0_saves_at_the_end_alone(tiny_config, start):
    trainer = start(tiny_config(*NO_TEST, "SOLVER.CHECKPOINT_PERIOD", 0, "SOLVER.MAX_ITER", 2))
    trainer.train()
    saved = sorted(path.name for path in Path(trainer.cfg.OUTPUT_DIR).glob("*.pth"))
    assert saved == ["model_final.pth"]


def test_both_weights_are_evaluated_and_the_average_decides(tiny_config):
    ScriptedScores.scores = [10.0, 20.0, 40.0, 15.0]
    opts = ("SOLVER.EMA.ENABLED", True, "TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    trainer = scripted(tiny_config(*opts))
    trainer.train()
    assert trainer._last_eval_results == {
        "keypoints": {"AP": 40.0},
        "ema": {"keypoints": {"AP": 15.0}},
    }
    assert best(trainer.cfg) == {"ema/keypoints/AP": 20.0, "iteration": 0}


def test_views_are_averaged_at_the_end_alone(tiny_config):
    ScriptedScores.scores = [10.0, 20.0, 30.0, 40.0, 50.0]
    opts = ("SOLVER.EMA.ENABLED", True, "TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    trainer = scripted(tiny_config(*opts, "TEST.AUG.ENABLED", True))
    trainer.train()
    assert ScriptedScores.scores == []
    lines = Path(trainer.cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["keypoints_TTA/AP"] == 50.0


def test_best_averaged_weights_outlive_a_resumption(tiny_config):
    opts = ("SOLVER.EMA.ENABLED", True, "TEST.EVAL_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1)
    ScriptedScores.scores = [0.0, 50.0, 90.0, 40.0]
    scripted(tiny_config(*opts, "SOLVER.MAX_ITER", 2)).train()
    ScriptedScores.scores = [99.0, 45.0, 0.0, 60.0]
    cfg = tiny_config(*opts, "SOLVER.MAX_ITER", 4)
    scripted(cfg, resume=True).train()
    assert best(cfg) == {"ema/keypoints/AP": 60.0, "iteration": 4}
    # Both weights are there, and differ.
    final, kept = (
        torch.load(f"{cfg.OUTPUT_DIR}/{name}.pth", weights_only=True)
        for name in ("model_final", "model_best")
    )
    name = "decoder.queries.weight"
    for key, prefix in (("model", ""), ("ema", "module.")):
        assert torch.equal(final[key][prefix + name], kept[key][prefix + name])
    assert not torch.equal(kept["model"][name], kept["ema"]["module." + name])
    # Whoever reads the file alone gets those that were found best.
    for path, expected in (("model_final.pth", False), ("model_best.pth", True)):
        described, _ = find_config(None, f"{cfg.OUTPUT_DIR}/{path}", [])
        assert described.TEST.EMA is expected


def test_decay_out_of_range(tiny_config, start):
    with pytest.raises(ValueError, match=r"SOLVER.EMA.DECAY must be between 0 and 1, got 1.5"):
        start(tiny_config("SOLVER.EMA.DECAY", 1.5))


def test_evaluator_of_an_unknown_kind(tiny_config):
    from detectron2.data import MetadataCatalog

    MetadataCatalog.get("of_an_unknown_kind").evaluator_type = "pascal"
    with pytest.raises(ValueError, match="asks for the evaluator 'pascal'"):
        QueryPoseTrainer.build_evaluator(tiny_config(), "of_an_unknown_kind")
