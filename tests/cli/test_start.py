"""The start of the command: what it says before it loads PyTorch, and its default output."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from querypose.cli.demo import main

# As the command that pip installs, and says what was loaded.
_COMMAND = """
import atexit, sys
heavy = ("torch", "detectron2", "cv2", "scipy", "matplotlib")
atexit.register(lambda: print("LOADED", [name for name in heavy if name in sys.modules]))
from querypose.cli.demo import main
sys.exit(main())
"""


@pytest.fixture
def command(repository, tmp_path):
    """``command(...)``: the finished process of the installed command."""
    script = tmp_path / "querypose-demo"
    script.write_text(_COMMAND)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            env={"PYTHONPATH": str(repository), "PATH": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--help"], 0, "Finds people in images and videos"),
        (["--wrong"], 2, "unrecognized arguments: --wrong"),
        (["nowhere.jpg"], 2, "There is no file nowhere.jpg."),
        (["photo.png", "--draw", "hats"], 2, "'hats' cannot be drawn"),
        (["photo.png", "--output", "photo.png"], 2, "photo.png would replace an input"),
        (["--web", "--model", "a=none.pth"], 2, "There are no weights none.pth."),
        (["--web", "--host", "192.0.2.1"], 2, "name another --port or --host."),
        (["photo.png", "--config-file", "none.yaml"], 2, "There is no config file none.yaml."),
        (["photo.png", "--weights", "none.pth"], 2, "There are no weights none.pth."),
    ],
)
def test_wrong_arguments_are_refused_before_anything_heavy_is_loaded(
    command, photo, arguments, status, message
):
    process = command(*arguments)
    assert process.returncode == status
    assert message in process.stdout + process.stderr
    assert process.stdout.splitlines()[-1] == "LOADED []"


def test_the_command_loads_what_it_needs(command, photo):
    process = command("photo.png")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-2] == "Written: poses/photo.png"
    assert "'torch', 'detectron2'" in process.stdout


def test_drawings_go_to_a_folder_by_default(run_demo, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = (
        "--config-file",
        str(tmp_path / ".tiny.yaml"),
        "--weights",
        str(tmp_path / ".tiny.pth"),
    )
    assert main([str(photo), *model]) == 0
    assert capsys.readouterr().out == "Written: poses/photo.png\n"
    for index in range(5):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / f"{index}.png")
    assert main([str(tmp_path), *model]) == 0
    assert capsys.readouterr().out == "Written: 6 files in poses/\n"
    assert len(list((tmp_path / "poses").iterdir())) == 6


@pytest.mark.parametrize("result", ["--save-json", "--sheet"])
def test_another_result_alone_writes_no_drawings(run_demo, photo, tmp_path, monkeypatch, result):
    monkeypatch.chdir(tmp_path)
    file = {"--save-json": "poses.json", "--sheet": "sheet.jpg"}[result]
    model = (
        "--config-file",
        str(tmp_path / ".tiny.yaml"),
        "--weights",
        str(tmp_path / ".tiny.pth"),
    )
    assert main([str(photo), result, file, *model]) == 0
    assert (tmp_path / file).is_file() and not (tmp_path / "poses").exists()
    assert main([str(photo), result, file, "--output", "drawn/", *model]) == 0
    assert (tmp_path / "drawn" / "photo.png").is_file()
