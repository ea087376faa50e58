"""What the page's arguments may be."""

from __future__ import annotations

import socket

import pytest

from querypose.cli.arguments import build_parser, find_contradiction
from querypose.cli.web import arguments


def _contradiction(*words: str) -> str:
    return find_contradiction(build_parser().parse_args(words), [], [])


def test_models_are_named_with_their_weights_and_configs():
    words = (
        "--web",
        "--model",
        "a=x/y.pth",
        "--model",
        "b=https://z.org/b=1.pth,coco/pinet_hrnet_w32",
    )
    args = build_parser().parse_args(words)
    assert args.model == [
        ("a", "x/y.pth", None),
        ("b", "https://z.org/b=1.pth", "coco/pinet_hrnet_w32"),
    ]
    assert _contradiction(*words) == ""


@pytest.mark.parametrize("model", ["a", "a=", "=b.pth", "a=b.pth,"])
def test_a_model_without_name_or_weights_is_refused(model, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--web", "--model", model])
    assert f"{model!r} is not of the form NAME=WEIGHTS[,CONFIG]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--web", "a.jpg"], "--web takes its images from the browser"),
        (["--web", "--draw", "maps"], "--draw maps is for files: the page shows it"),
        (["--web", "--webcam"], "--webcam is for files and streams"),
        (["--web", "--save-json", "a.json"], "--save-json is for files and streams"),
        (["--web", "--model", "a=1.pth", "--model", "a=2.pth"], "Two models are called 'a'"),
        (["--web", "--weights", "x/a.pth", "--model", "a=2.pth"], "Two models are called 'a'"),
        (["a.jpg", "--port", "80"], "--model, --host and --port are for --web."),
    ],
)
def test_what_does_not_go_together_is_said(words, message):
    assert message in _contradiction(*words)


def test_a_page_without_gradio_or_a_free_port_is_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port} .+ another --port"):
            arguments.check_page_possible("127.0.0.1", port)
    with pytest.raises(OSError, match="another --port"):
        arguments.check_page_possible("127.0.0.1", 70000)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'querypose\[web\]'"):
        arguments.check_page_possible("127.0.0.1", port)
