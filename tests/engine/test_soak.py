"""Five hundred iterations with the faults that training must survive, against a clean run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parent / "soak_training.py"
NUM_ITERATIONS = 500
NUM_IMAGES = 16
# Noise of the allocator; a leak of one batch an iteration would be ten times as much.
MAX_GROWTH_MEGABYTES = 25


@pytest.fixture
def folder(tmp_path):
    """Images of noise; every other one shows nobody."""
    random = np.random.default_rng(0)
    images, people = [], []
    for index in range(NUM_IMAGES):
        name, (width, height) = f"{index}.png", random.integers(48, 96, 2).tolist()
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        images.append({"id": index, "file_name": name, "width": width, "height": height})
        for _ in range(random.integers(1, 4) if index % 2 else 0):
            x, y = random.uniform(0, 20, 2).tolist()
            points = random.uniform((x, y), (x + 25, y + 25), (17, 2))
            keypoints = np.concatenate([points, np.full((17, 1), 2)], axis=1)
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "bbox": [x, y, 25, 25],
                    "area": 300,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "keypoints": keypoints.flatten().tolist(),
                }
            )
    category = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": people, "categories": category}
    (tmp_path / "people.json").write_text(json.dumps(content))
    return tmp_path


class Training:
    """One start of the script, with its own process group."""

    def __init__(self, folder: Path, output: Path, *more: str) -> None:
        self.output = output
        output.mkdir(exist_ok=True)
        self.log = (folder / f"{output.name}.txt").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(output), str(NUM_ITERATIONS), *more],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def saved(self) -> int:
        """The iteration of the last checkpoint."""
        last = self.output / "last_checkpoint"
        found = re.search(r"\d+", last.read_text()) if last.exists() else None
        return int(found[0]) if found else -1

    def wait_until(self, iteration: int) -> None:
        while self.saved() < iteration:
            assert self.process.poll() is None, self.text()
            time.sleep(0.05)

    def end(self) -> int:
        try:
            return self.process.wait(timeout=600)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def text(self) -> str:
        self.log.seek(0)
        return self.log.read()[-5000:]


def disturbed_training(folder: Path) -> Path:
    """Killed three times, without an image, with a NaN, and preempted; then let through."""
    output = folder / "disturbed"
    for iteration, delay in ((30, 0.0), (60, 0.03), (90, 0.06)):
        training = Training(folder, output, "1")
        training.wait_until(iteration)
        time.sleep(delay)
        os.killpg(training.process.pid, signal.SIGKILL)
        training.end()

    training = Training(folder, output, "1")
    training.wait_until(140)
    (folder / "3.png").rename(folder / "gone.png")
    assert training.end() != 0
    assert f"There is no image {folder / '3.png'}" in training.text()
    (folder / "gone.png").rename(folder / "3.png")

    training = Training(folder, output, "0", "255")
    assert training.end() != 0
    assert "Iteration 255: The gradient became NaN or infinite" in training.text()
    assert training.saved() == 249

    training = Training(folder, output, "1")
    training.wait_until(340)
    os.killpg(training.process.pid, signal.SIGTERM)
    assert training.end() == 0, training.text()
    assert "Stopped by SIGTERM" in training.text()

    training = Training(folder, output, "2")
    assert training.end() == 0, training.text()
    return output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_disturbed_training_ends_with_the_weights_of_a_clean_one(folder):
    clean = Training(folder, folder / "clean", "0")
    assert clean.end() == 0, clean.text()
    disturbed = disturbed_training(folder)

    first, second = (
        torch.load(output / "model_final.pth", weights_only=True)
        for output in (clean.output, disturbed)
    )
    for key in ("model", "ema"):
        different = [n for n in first[key] if not torch.equal(first[key][n], second[key][n])]
        assert different == []
    steps = [state["trainer"]["_trainer"]["data_loader"] for state in (first, second)]
    assert steps[0] == steps[1] == {"seed": 7, "num_batches": NUM_ITERATIONS}
    assert len(list(disturbed.glob("model_0*.pth"))) == 3

    for rank in (0, 1):
        memory = [float(line) for line in (clean.output / f"memory_{rank}.txt").open()]
        assert len(memory) == NUM_ITERATIONS // 50
        assert memory[-1] - memory[1] < MAX_GROWTH_MEGABYTES, memory
