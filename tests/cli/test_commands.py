"""The list of commands, and the scripts that run them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from querypose.cli.commands import COMMANDS, TOOLS, run


def test_every_script_is_a_command_and_every_command_a_script(repository):
    text = (repository / "pyproject.toml").read_text()
    section = text.partition("[project.scripts]\n")[2].partition("\n\n")[0]
    scripts = dict(re.findall(r'^querypose-(\w+) = "(.+):main"$', section, re.MULTILINE))
    assert scripts == {name: command.module for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", [*sorted(COMMANDS), *TOOLS])
def test_every_command_explains_itself(name, capsys):
    module = importlib.import_module((COMMANDS | TOOLS)[name].module)
    if name == "configs":
        return
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_list_names_every_command_in_a_line(capsys):
    assert run([]) is None
    lines = capsys.readouterr().out.splitlines()
    for name, command in (COMMANDS | TOOLS).items():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.endswith(command.summary)
        assert len(line) < 100


def test_a_command_runs_with_its_arguments(repository, tmp_path):
    """In a process of its own, as its users start it."""
    command = [sys.executable, "-m", "querypose", "train", "--config-file", "quick/tyny"]
    failed = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(repository)}, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(
        "querypose-train: There is no config file quick/tyny. Did you mean quick/tiny"
    )


def test_configs_are_listed(capsys):
    assert run(["configs"]) is None
    assert "coco/querypose_r50_light_3x" in capsys.readouterr().out.splitlines()


def test_an_unknown_command_is_refused():
    with pytest.raises(SystemExit, match=r"no command 'trian'\. Did you mean train"):
        run(["trian"])
