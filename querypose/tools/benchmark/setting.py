"""A setting to measure: a config, options and a workload."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Setting:
    """One row of a benchmark.

    Attributes:
        config_file: of this package, or ``COCO-...`` of Detectron2's model zoo.
        opts: alternating config keys and values.
        height: of the input of the network, in pixels.
        width: of the input of the network, in pixels.
        batch: images per run.
        people: predicted (inference) or annotated (training) per image.
        image: file, resized to ``height`` x ``width``; "" takes noise.
        processor_time: measure the time that all threads compute, which other programs hardly
            change, instead of the time that passes.
        train: whether to measure a training step instead of inference.
        device: "cpu", "cuda" or "cuda:N"; ``MODEL.DEVICE`` in ``opts`` overrules it.
        compiled: whether ``torch.compile`` compiles the backbone, for inference.
    """

    config_file: str
    opts: tuple[str, ...] = field(default=())
    height: int = 512
    width: int = 640
    batch: int = 1
    people: int = 5
    image: str = ""
    processor_time: bool = False
    train: bool = False
    device: str = "cpu"
    compiled: bool = False

    @property
    def label(self) -> str:
        """A description for tables."""
        words = [f"{self.batch} x {self.height}x{self.width}", f"{self.people} people"]
        if self.train:
            words.insert(0, "train")
        if self.compiled:
            words.append("compiled backbone")
        words += [f"{key.split('.', 1)[-1]}={value}" for key, value in self._pairs()]
        return ", ".join(words)

    def _pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.opts[::2], self.opts[1::2], strict=True))


def parse_setting(text: str, base: Setting) -> Setting:
    """Reads words such as ``people=10 size=800x1333 MODEL.INFERENCE.PRECISION bf16``.

    Words with ``=`` change attributes; the others are config keys and values.

    Raises:
        ValueError: a word or its value is invalid.
    """
    changes: dict[str, object] = {}
    opts = list(base.opts)
    kinds = {item.name: item.type for item in fields(Setting)}
    for word in text.split():
        name, separator, value = word.partition("=")
        if not separator:
            opts.append(word)
        elif name == "size" and _SIZE.fullmatch(value):
            changes["height"], changes["width"] = map(int, _SIZE.fullmatch(value).groups())
        elif kinds.get(name) == "bool" and value in ("0", "1"):
            changes[name] = value == "1"
        elif kinds.get(name) == "int" and value.isdigit():
            changes[name] = int(value)
        elif kinds.get(name) == "str":
            changes[name] = value
        else:
            raise ValueError(
                f"{word!r} is none of size=HxW, batch=N, people=N, image=FILE, train=0|1, "
                "device=NAME, compiled=0|1, config_file=FILE, processor_time=0|1."
            )
    if len(opts) % 2:
        raise ValueError(f"Config keys and values come in pairs, got {opts}.")
    return Setting(**{**_as_dict(base), **changes, "opts": tuple(opts)})


def _as_dict(setting: Setting) -> dict[str, object]:
    return {item.name: getattr(setting, item.name) for item in fields(setting)}
