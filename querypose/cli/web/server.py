"""Loads the models, and serves the page until the user ends it."""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from pathlib import Path

from querypose.cli.progress import report
from querypose.cli.web.arguments import DEFAULT_HOST, first_name
from querypose.cli.web.models import ServedModel
from querypose.cli.web.page import CSS, THEME, Page
from querypose.cli.work import build_predictor
from querypose.drawable import EXTRAS


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
        )
        report(f"The page is at http://{host}:{port} (Ctrl+C ends it).")
        if host != DEFAULT_HOST:
            report("Everybody who can reach that address can use it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)
    return 0


def load_models(args: argparse.Namespace) -> dict[str, ServedModel]:
    """The models that the arguments name, by what the page calls them."""
    draw = args.draw - set(EXTRAS)
    models = {first_name(args): ServedModel.of(build_predictor(args), draw)}
    for model in args.model:
        own = {"config_file": model.config, "weights": model.weights, "opts": []}
        predictor = build_predictor(argparse.Namespace(**vars(args) | own))
        models[model.name] = ServedModel.of(predictor, draw)
    return models
