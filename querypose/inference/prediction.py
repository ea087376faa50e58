"""The prediction for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from torch import Tensor

from querypose.skeleton import Skeleton


@dataclass(frozen=True)
class PartAttention:
    """Attention maps of the part embeddings of the returned people (SPEGM, paper section 3.2).

    Attributes:
        maps: (n, P, H, W) float32; each map sums to 1.
        boxes_xyxy: (n, 4), the boxes that the maps cover, in pixels of the image, not clipped.
        stage: index of the decoder stage.
    """

    maps: Tensor
    boxes_xyxy: Tensor
    stage: int

    @classmethod
    def pop(cls, people: Instances, stage: int) -> PartAttention:
        """Removes the attention fields of people and returns the attention of one stage.

        Raises:
            ValueError: the model has no part attention or no such stage.
        """
        if not people.has("pred_attention"):
            raise ValueError(
                "This model has no part attention: leave return_attention (--draw attention) off, "
                "or try maps."
            )
        maps, boxes = people.pred_attention, people.attention_boxes
        num_stages = maps.shape[1]
        if not -num_stages <= stage < num_stages:
            raise ValueError(f"The model has {num_stages} stages, so no attention_stage {stage}.")
        people.remove("pred_attention")
        people.remove("attention_boxes")
        return cls(maps[:, stage], boxes[:, stage], stage % num_stages)


@dataclass(frozen=True)
class PosePrediction:
    """The people of one image, best first.

    Coordinates are continuous pixels of the original image: the first pixel covers 0 to 1 and its
    center is 0.5.

    Attributes:
        instances: on the CPU, with ``pred_boxes``, ``scores`` (class score times mean keypoint
            score), ``pred_classes``, ``pred_keypoints`` (n, K, 3: x, y, score), ``query_indices``
            and, once a tracker has set them, ``track_ids``.
        skeleton: names and parts of the keypoints.
        attention: None unless it was asked for.
        maps: None unless they were asked for; what the model answers to ``return_maps``: "maps",
            (h, w) tensors by name, and perhaps more, see the model's ``forward``.
        category_ids: of the classes, from the label file of the training; empty if unknown.
    """

    instances: Instances
    skeleton: Skeleton
    attention: PartAttention | None = None
    category_ids: tuple[int | str, ...] = ()
    maps: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """(n, 4) float32 corners, clipped to the image."""
        return self.instances.pred_boxes.tensor.numpy()

    @property
    def scores(self) -> np.ndarray:
        """(n,) float32."""
        return self.instances.scores.numpy()

    @property
    def keypoints(self) -> np.ndarray:
        """(n, K, 3) float32: x, y, score; K in the skeleton's order."""
        return self.instances.pred_keypoints.numpy()

    def above(self, score: float) -> PosePrediction:
        """The people of at least this score, as if it had been the predictor's threshold."""
        kept = self.instances.scores >= score
        attention = self.attention
        if attention is not None:
            attention = replace(
                attention, maps=attention.maps[kept], boxes_xyxy=attention.boxes_xyxy[kept]
            )
        return replace(self, instances=self.instances[kept], attention=attention)

    def to_json(self) -> dict[str, Any]:
        """The people as plain values, rounded to 0.01 pixels and 0.0001 of a score.

        Returns:
            ``width`` and ``height`` of the image and ``people``, each with ``score``, ``box``
            [x0, y0, x1, y1], ``keypoints`` (name to [x, y, score]) and, if tracked, ``id``.
        """
        height, width = self.instances.image_size
        return {
            "width": width,
            "height": height,
            "people": [self._person(index) for index in range(len(self))],
        }

    def _person(self, index: int) -> dict[str, Any]:
        person: dict[str, Any] = {}
        if self.instances.has("track_ids"):
            person["id"] = int(self.instances.track_ids[index])
        person["score"] = round(float(self.scores[index]), 4)
        person["box"] = [round(value, 2) for value in self.boxes_xyxy[index].tolist()]
        person["keypoints"] = {
            name: [round(x, 2), round(y, 2), round(score, 4)]
            for name, (x, y, score) in zip(
                self.skeleton.keypoints, self.keypoints[index].tolist(), strict=True
            )
        }
        return person

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """The people in COCO's results format.

        Keypoints are pixel indices there: x and y are 0.5 less than in :attr:`keypoints`. Without
        category ids, classes are numbered from 1, the id of COCO's person. Tracked people also have
        a ``track_id``.
        """
        # Detectron2's function changes the keypoints in place.
        fields = {name: value.clone() for name, value in self.instances.get_fields().items()}
        results = instances_to_coco_json(Instances(self.instances.image_size, **fields), image_id)
        for result in results:
            index = result["category_id"]
            known = index < len(self.category_ids)
            result["category_id"] = self.category_ids[index] if known else index + 1
        if self.instances.has("track_ids"):
            for result, track_id in zip(results, self.instances.track_ids.tolist(), strict=True):
                result["track_id"] = track_id
        return results
