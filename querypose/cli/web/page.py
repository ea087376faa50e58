"""The page: an image goes in, drawn people and their JSON come out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from querypose.cli.web.models import ATTENTION, MAPS, MOST_ATTENTION, SKELETON, Found, ServedModel
from querypose.inference.prediction import PosePrediction

# Nothing of the look comes from another machine: the page works without a network.
THEME = gr.themes.Soft(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
CSS = """
.gradio-container {max-width: 1280px !important; margin: auto !important}
.gradio-container, main {width: 100% !important}
"""
FORGET_SECONDS = 3600
"""After so long, what was uploaded or drawn is removed."""

_QUALITY = 92
_EXPLANATIONS = {
    SKELETON: "Limbs have the color of their side of the body: orange right, blue left.",
    ATTENTION: f"Where the model looked for keypoints, of at most {MOST_ATTENTION} people.",
    MAPS: "What the model sees in the whole image, before it makes persons of it.",
}
_SLIDER_INFO = "To the left: more people, and more mistakes."
_HOW_SURE = (
    "Of the people with such a score, so many were right on the photos that the model was checked "
    "with."
)
_NO_CHANCE = "Scores rank people: a higher one is surer. They are no probabilities."
# Drawing, summary and JSON without a photo.
_NOTHING = (None, "", gr.update(value=None, interactive=False))


class Page:
    """Builds the page and answers its events.

    Args:
        models: by the names that the user chooses from; the first is chosen at first.
        folder: for drawings and JSON; whoever made it removes it.
    """

    def __init__(self, models: Mapping[str, ServedModel], folder: Path) -> None:
        self._models = models
        self._folder = folder

    def build(self) -> gr.Blocks:
        """The page, ready to be launched with :data:`THEME` and :data:`CSS`."""
        first = next(iter(self._models))
        with gr.Blocks(
            title="QueryPose",
            analytics_enabled=False,
            delete_cache=(FORGET_SECONDS, FORGET_SECONDS),
        ) as page:
            gr.Markdown(
                "# People and their poses\n"
                "Drop a photo, paste one, or take one with the webcam. It does not leave the "
                "machine that serves this page."
            )
            found = gr.State()
            with gr.Row():
                with gr.Column(scale=2):
                    image = gr.Image(
                        label="Photo",
                        type="filepath",
                        image_mode=None,
                        sources=["upload", "clipboard", "webcam"],
                        height=360,
                        elem_id="photo",
                        buttons=[],
                    )
                    name = gr.Dropdown(
                        list(self._models),
                        value=first,
                        label="Model",
                        visible=len(self._models) > 1,
                        elem_id="model",
                    )
                    view = gr.Radio(elem_id="view", **self._view(first))
                    slider = gr.Slider(elem_id="score", **self._slider(first))
                with gr.Column(scale=3):
                    shown = _answers()
            gr.on(
                [image.change, name.input],
                # Whatever fails after it, no photo stands beside the people of another one.
                lambda: (None, *_NOTHING),
                None,
                [found, *shown],
                api_visibility="private",
            ).then(
                self._find,
                [image, name],
                [found, view, slider],
                show_progress_on=shown[0],
                api_visibility="private",
            ).success(self._show, [found, name, view, slider], shown, api_visibility="private")
            gr.on(
                [slider.input, view.input],
                self._show,
                [found, name, view, slider],
                shown,
                show_progress="hidden",
                trigger_mode="always_last",
                api_visibility="private",
            )
        return page

    def _view(self, name: str) -> dict[str, Any]:
        views = self._models[name].views
        return {"choices": views, "value": SKELETON, "label": "Show", "visible": len(views) > 1}

    def _slider(self, name: str) -> dict[str, Any]:
        model = self._models[name]
        scale = model.predictor.score_scale
        if scale.is_measured:
            return {
                "minimum": _percent(scale.chance(model.lowest_score)),
                "maximum": _percent(scale.chance(1.0)),
                "value": _percent(scale.chance(model.usual_score)),
                "step": 1,
                "label": "Least chance of being right, %",
                "info": _SLIDER_INFO,
            }
        return {
            "minimum": round(model.lowest_score, 3),
            "maximum": 1.0,
            "value": model.usual_score,
            "step": 0.005,
            "label": "Least score",
            "info": _SLIDER_INFO,
        }

    def _find(self, path: str | None, name: str) -> tuple[Found | None, dict, dict]:
        model = self._models[name]
        try:
            found = None if path is None else model.find(path)
        except (FileNotFoundError, ValueError) as error:
            # The user of the page did not choose where the photo is kept.
            raise gr.Error(str(error).replace(str(path), Path(str(path)).name)) from error
        return found, gr.update(**self._view(name)), gr.update(**self._slider(name))

    def _show(
        self, found: Found | None, name: str, view: str, value: float
    ) -> tuple[str | None, str, dict]:
        if found is None:
            return _NOTHING
        model = self._models[name]
        scale = model.predictor.score_scale
        score = scale.score(value / 100) if scale.is_measured else value
        drawn, people = model.show(found, view, max(score, model.lowest_score))
        # A folder of its own, since events of several windows overlap.
        files = Path(tempfile.mkdtemp(dir=self._folder))
        image, records = files / "poses.jpg", files / "poses.json"
        Image.fromarray(drawn).save(image, quality=_QUALITY)
        records.write_text(json.dumps(people.to_json(), indent=1))
        download = gr.update(value=str(records), interactive=True)
        return str(image), self._summary(people, model, view), download

    def _summary(self, people: PosePrediction, model: ServedModel, view: str) -> str:
        if not len(people):
            return "**Nobody** is found. Move the slider to the left to see whom the model doubts."
        scale = model.predictor.score_scale
        labels = ", ".join(scale.label(score) for score in people.scores.tolist())
        count = "1 person" if len(people) == 1 else f"{len(people)} people"
        note = _HOW_SURE if scale.is_measured else _NO_CHANCE
        return f"**{count}**: {labels}. {_EXPLANATIONS[view]}\n\n{note}"


def _answers() -> list[gr.components.Component]:
    """Places the drawing, its summary and the button for the JSON."""
    return [
        gr.Image(
            label="People",
            interactive=False,
            height=560,
            elem_id="result",
            buttons=["download", "fullscreen"],
        ),
        gr.Markdown(elem_id="summary"),
        gr.DownloadButton("Download as JSON", interactive=False, elem_id="json"),
    ]


def _percent(chance: float) -> int:
    return round(100 * chance)
