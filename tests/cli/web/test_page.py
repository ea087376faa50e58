"""The page of ``querypose-demo --web``, in a browser without a screen and without a network."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from querypose import PosePredictor
from querypose.config import read_config
from querypose.visualization import PoseVisualizer

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
astronaut = pytest.importorskip("skimage.data").astronaut

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_SECONDS = 120
_COMMAND = "import sys; from querypose.cli.demo import main; sys.exit(main())"

playwright.expect.set_options(timeout=1000 * _SECONDS)
pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def photo(folder) -> Path:
    Image.fromarray(astronaut()).save(folder / "astronaut.png")
    return folder / "astronaut.png"


@pytest.fixture(scope="module")
def dense_model(folder, repository) -> str:
    """An untrained CIR-QEM, as ``--model`` names it."""
    opts = ["MODEL.TIMM.NAME", "test_resnet", "DATASETS.TRAIN", "('synthetic_people_tiny',)"]
    cfg = read_config(repository / "configs" / "quick" / "quality_pose_lite0.yaml", opts)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "dense.pth")
    (folder / "dense.yaml").write_text(cfg.dump())
    return f"dense={folder / 'dense.pth'},{folder / 'dense.yaml'}"


@pytest.fixture(scope="module")
def address(folder, repository, dense_model) -> Iterator[str]:
    """Of a page that a process of its own serves, as its users start it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = folder / "querypose-demo"
    script.write_text(_COMMAND)
    command = [sys.executable, str(script), "--web", "--port", port, "--model", dense_model]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    with subprocess.Popen(
        [*command, "--device", "cpu"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        # Warnings of libraries may come first.
        ready = next((line for line in process.stderr if "The page is at" in line), "")
        try:
            assert ready.split()[5] == f"http://127.0.0.1:{port}"
            yield ready.split()[5]
        finally:
            process.kill()


@pytest.fixture
def page(address) -> Iterator[playwright.Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * _SECONDS)
        elsewhere = []
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(address)
        yield page
        browser.close()
        inside = (address, "data:", "blob:")
        assert not [url for url in elsewhere if not url.startswith(inside)]


def _drawn(page) -> np.ndarray:
    """The result as the browser gets it."""
    source = page.locator("#result img").get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))


def _downloaded(page) -> dict:
    with page.expect_download() as download:
        page.locator("#json").click()
    return json.loads(Path(download.value.path()).read_text())


def _press(page, key: str) -> None:
    page.locator("#score input[type=range]").focus()
    page.keyboard.press(key)


def test_a_photo_is_drawn_and_its_json_downloaded(page, photo):
    page.set_input_files("#photo input[type=file]", str(photo))
    playwright.expect(page.locator("#summary")).to_contain_text("1 person")
    predict = PosePredictor(device="cpu")
    people = predict(str(photo))
    visualizer = PoseVisualizer(
        astronaut(), predict.metadata, keypoint_threshold=predict.keypoint_threshold
    )
    expected = visualizer.draw_instance_predictions(people.instances).get_image()
    # JPEG changes pixels a little; the poses change them a lot.
    drawn = _drawn(page).astype(int)
    assert np.abs(drawn - expected).mean() < 4 < np.abs(drawn - astronaut()).mean()
    assert _downloaded(page) == people.to_json()

    _press(page, "End")
    playwright.expect(page.locator("#summary")).to_contain_text("Nobody")
    assert _downloaded(page)["people"] == []
    _press(page, "Home")
    playwright.expect(page.locator("#summary")).not_to_contain_text("Nobody")
    assert len(_downloaded(page)["people"]) > 1

    page.locator("#view label", has_text="Attention").click()
    playwright.expect(page.locator("#summary")).to_contain_text("Where the model looked")
    assert _drawn(page).shape != astronaut().shape


def test_another_model_shows_what_it_can(page, photo):
    page.set_input_files("#photo input[type=file]", str(photo))
    playwright.expect(page.locator("#summary")).to_contain_text("1 person")
    page.locator("#model input").click()
    page.get_by_role("option", name="dense").click()
    maps = page.locator("#view label", has_text="Maps")
    playwright.expect(maps).to_be_visible()
    playwright.expect(page.locator("#view label", has_text="Attention")).to_have_count(0)
    maps.click()
    playwright.expect(page.locator("#summary")).to_be_visible()
    page.wait_for_function("document.querySelector('#result img').naturalWidth > 512")


def test_a_file_that_is_no_image_is_refused_in_words(page, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    page.set_input_files("#photo input[type=file]", str(broken))
    playwright.expect(page.get_by_test_id("toast-body")).to_contain_text("broken.png")


def test_a_photo_that_cannot_be_read_leaves_nobody_of_the_one_before(page, photo, folder):
    page.set_input_files("#photo input[type=file]", str(photo))
    playwright.expect(page.locator("#summary")).to_contain_text("1 person")
    cut = folder / "cut.jpg"
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "JPEG")
    cut.write_bytes(buffer.getvalue()[:5000])
    page.locator("#photo button[aria-label='Clear']").or_(
        page.locator("#photo button[aria-label='Remove Image']")
    ).first.click()
    page.set_input_files("#photo input[type=file]", str(cut))
    message = page.get_by_text("cannot be read")
    playwright.expect(message).to_be_visible()
    assert str(folder) not in message.inner_text() and "/" not in message.inner_text()
    playwright.expect(page.locator("#summary")).not_to_contain_text("person")
    assert page.locator("#result img").count() == 0
