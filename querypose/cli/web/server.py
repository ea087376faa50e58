"""Loads the models, and serves the page until the user ends it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from querypose.cli.progress import report
from querypose.cli.web.arguments import DEFAULT_HOST, first_name
from querypose.cli.web.models import ServedModel
from querypose.cli.web.page import CSS, FORGET_SECONDS, THEME, Page
from querypose.cli.work import build_predictor

# SIGHUP is unknown on Windows.
_ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Of a photo.
_MOST_BYTES = 100 * 2**20


def serve(args: argparse.Namespace, host: str, port: int) -> int:
    """Serves the page until the user interrupts it.

    Args:
        args: of the command line, free of contradictions.
        host: address to listen on.
        port: to listen on.

    Returns:
        The exit status, 0.

    Raises:
        ValueError, OSError: a model cannot be loaded, or the page not be served.
    """
    models = load_models(args)
    with tempfile.TemporaryDirectory(prefix="querypose-") as folder:
        # Where Gradio keeps the photos: they are gone when the page ends.
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = Page(models, Path(folder)).build()
        page.launch(
            server_name=host,
            server_port=port,
            theme=THEME,
            css=CSS,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            footer_links=[],
            max_file_size=_MOST_BYTES,
        )
        report(f"The page is at http://{host}:{port} (Ctrl+C ends it).")
        if host != DEFAULT_HOST:
            report("Everybody who can reach that address can use it.")
        wait_for_the_end(Path(folder))
        page.close(verbose=False)
    return 0


def wait_for_the_end(folder: Path) -> None:
    """Returns after Ctrl+C, SIGTERM or SIGHUP; until then, removes old files of a folder.

    Gradio forgets uploads that were broken off, which would fill the disk.
    """
    ended = threading.Event()
    # nohup ignores SIGHUP, so that a page outlives its terminal.
    heeded = [number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, lambda *_: ended.set()) for number in heeded}
    try:
        while not ended.wait(FORGET_SECONDS):
            remove_old_files(folder, FORGET_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def remove_old_files(folder: Path, seconds: float) -> None:
    """Removes the files of a folder and its subfolders that were not changed for so long."""
    for parent, _, names in os.walk(folder):
        for file in (Path(parent, name) for name in names):
            # Others may remove it meanwhile, or be using it.
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > seconds:
                    file.unlink()


def load_models(args: argparse.Namespace) -> dict[str, ServedModel]:
    """The models that the arguments name, by what the page calls them."""
    models = {first_name(args): _served(args)}
    for model in args.model:
        own = {"config_file": model.config, "weights": model.weights, "opts": []}
        models[model.name] = _served(argparse.Namespace(**vars(args) | own))
    return models


def _served(args: argparse.Namespace) -> ServedModel:
    predictor = build_predictor(args)
    if args.keypoint_threshold is not None:
        predictor.keypoint_threshold = args.keypoint_threshold
    return ServedModel.of(predictor, args.draw)
