"""The bundle, written and run as on another machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from querypose.skeleton import COCO_SKELETON


@pytest.fixture
def build(repository, tmp_path):
    """``build(...)``: the written bundle; ``--no-wheels`` is among the arguments."""

    def run(*arguments: str) -> Path:
        target = tmp_path / "bundle"
        subprocess.run(
            [
                *(sys.executable, str(repository / "bundle" / "build.py"), "--output", str(target)),
                *("--no-wheels", "--labels", str(tmp_path / "labels.json")),
                *("--images", str(tmp_path / "images"), *arguments),
            ],
            check=True,
            timeout=100,
            stderr=subprocess.PIPE,
            text=True,
        )
        return target

    return run


@pytest.fixture(autouse=True)
def dataset(tmp_path, repository) -> None:
    """Four images, the first without people, with the same person in each of the others."""
    if not (repository / ".git").exists():
        pytest.skip("no git checkout")
    astronaut = Image.fromarray(pytest.importorskip("skimage.data").astronaut())
    (tmp_path / "images" / "sub").mkdir(parents=True)
    names = ["0.jpg", "1.jpg", "sub/2.jpg", "3.jpg"]
    for name in names:
        astronaut.resize((128, 128)).save(tmp_path / "images" / name)
    person = {"category_id": 1, "bbox": [20, 5, 90, 120], "area": 9000, "iscrowd": 0}
    person |= {"keypoints": [60, 40, 2] * 17, "num_keypoints": 17}
    category = {"id": 1, "name": "person", "keypoints": list(COCO_SKELETON.keypoints)}
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 128, "height": 128}
            for i, name in enumerate(names)
        ],
        "annotations": [person | {"id": i, "image_id": i} for i in (1, 2, 3)],
        "categories": [category | {"skeleton": [[1, 2]]}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))


def test_a_bundle_holds_the_project_and_some_images(build, repository):
    bundle = build("--max-images", "2")
    content = json.loads((bundle / "data" / "labels.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["1.jpg", "sub/2.jpg"]
    assert [row["image_id"] for row in content["annotations"]] == [1, 2]
    assert (bundle / "data" / "images" / "sub" / "2.jpg").is_file()
    assert not (bundle / "data" / "images" / "3.jpg").exists()
    for name in ("train_net.py", "tests/golden/r50_light.npz", "querypose/model_zoo/lite0.pth"):
        assert (bundle / "project" / name).read_bytes() == (repository / name).read_bytes()
    assert os.access(bundle / "run.sh", os.X_OK)


def run_bundle(bundle: Path, results: Path, *arguments: str) -> list[dict]:
    done = subprocess.run(
        [
            str(bundle / "run.sh"),
            "--device",
            "cpu",
            "--small",
            "--output",
            str(results),
            *arguments,
        ],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + (results / "results.md").read_text()
    return json.loads((results / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_runs_on_a_processor(build, tmp_path):
    done = run_bundle(build(), tmp_path / "results", "--patience", "5")
    rows = {step["name"]: step["rows"] for step in done}
    models = ["QueryPose lite0", "PINet lite0", "QualityPose lite0", "Keypoint R-CNN lite0"]
    for name in ("inference", "training"):
        assert [row["what"] for row in rows[name]] == models
    assert [row["what"] for row in rows["shared_card"]] == [f"{n} x {models[0]}" for n in (1, 2)]
    for name in ("inference", "training", "shared_card"):
        assert all(float(row["images/s"]) > 0 for row in rows[name])
        assert all(float(row["peak MiB"]) > 0 for row in rows[name])
    assert (tmp_path / "results" / "short_training" / "model_final.pth").is_file()
    assert "| what |" in (tmp_path / "results" / "results.md").read_text()


def test_no_other_folder_is_replaced(build, tmp_path):
    mine = tmp_path / "bundle" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(subprocess.CalledProcessError) as end:
        build()
    assert end.value.stderr.endswith("bundle is no bundle and not empty: name another --output\n")
    with pytest.raises(subprocess.CalledProcessError) as end:
        build("--output", str(tmp_path))
    assert "labels.json, which would be lost: name another --output" in end.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as end:
        build("--output", str(tmp_path / "images2"), "--labels", "nowhere.json")
    assert end.value.stderr == "bundle: there is no nowhere.json\n"
    assert mine.read_text() == "years of work" and (tmp_path / "images" / "0.jpg").is_file()


def test_an_earlier_bundle_is_replaced(build):
    left = build() / "data" / "left.txt"
    left.touch()
    assert (build() / "run.sh").is_file() and not left.exists()
