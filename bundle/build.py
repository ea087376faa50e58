"""Writes a folder for a machine without a network: wheels, the project and a small dataset.

``make bundle LABELS=person_keypoints_val2017.json IMAGES=val2017`` runs it; docs/gpu.md tells how
the folder is used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent
# Detectron2 by the name that the package index knows, and what the tests need.
_ROOTS = ("sal-detectron2", "pytest", "pytest-timeout", "hypothesis", "opencv-python-headless")
# What is run on the other machine; no other folder holds these.
_RUN_FILES = ("run.sh", "run.py", "steps.py")
# Built for the other machine's GPU; it has them.
_GIVEN = ("torch", "torchvision")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    args = _parser().parse_args(arguments)
    try:
        output = args.output.resolve()
        make_room(output, (args.labels, args.images))
        copy_dataset(args.labels, args.images, output / "data", args.max_images)
        copy_project(output / "project")
        (output / "wheels").mkdir()
        if not args.no_wheels:
            given = {canonicalize_name(name) for name in (*_GIVEN, *args.without)}
            collect_wheels(output / "wheels", args.python, given)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        sys.exit(f"bundle: {error}")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"Written: {output}, {size / 2**20:.0f} MiB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE.json", help="COCO keypoint labels"
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="FOLDER", help="the images of the labels"
    )
    parser.add_argument(
        "--max-images", type=int, default=200, metavar="N", help="images to take along (200)"
    )
    parser.add_argument(
        "--python",
        default=f"{sys.version_info.major}.{sys.version_info.minor}",
        metavar="X.Y",
        help="the other machine's Python; default: this one's",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"packages that the other machine has, beside {' and '.join(_GIVEN)}",
    )
    parser.add_argument("--no-wheels", action="store_true", help="it has all packages")
    return parser


def make_room(output: Path, inputs: Sequence[Path]) -> None:
    """Makes the folder of the bundle, with what runs it, in the place of an earlier bundle.

    Raises:
        FileNotFoundError: an input does not exist.
        ValueError: the folder holds something else, or an input.
    """
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        if path.resolve().is_relative_to(output):
            raise ValueError(f"{output} holds {path}, which would be lost: name another --output")
    if output.exists():
        if any(output.iterdir()) and not all((output / name).is_file() for name in _RUN_FILES):
            raise ValueError(f"{output} is no bundle and not empty: name another --output")
        shutil.rmtree(output)
    output.mkdir(parents=True)
    for name in _RUN_FILES:
        shutil.copy(_HERE / name, output / name)


def copy_dataset(labels: Path, images: Path, target: Path, max_images: int) -> None:
    """Copies the first images that have annotations, and their labels.

    Raises:
        FileNotFoundError: the labels or an image do not exist.
        ValueError: the labels are of no image.
    """
    content = json.loads(labels.read_text())
    labeled = {annotation["image_id"] for annotation in content["annotations"]}
    taken = [image for image in content["images"] if image["id"] in labeled][:max_images]
    if not taken:
        raise ValueError(f"{labels} has no image with annotations.")
    ids = {image["id"] for image in taken}
    content["images"] = taken
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    for image in taken:
        copy = target / "images" / image["file_name"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / image["file_name"], copy)
    (target / "labels.json").write_text(json.dumps(content))


def copy_project(target: Path) -> None:
    """Copies the files of the repository that git does not ignore, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (_REPOSITORY / name).is_file():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_REPOSITORY / name, copy)


def collect_wheels(folder: Path, python: str, given: Iterable[str]) -> None:
    """Downloads or builds the wheels of all needed packages, in the versions installed here.

    Raises:
        KeyError: a package is not installed here.
        subprocess.CalledProcessError: pip fails.
    """
    pins = [f"{name}=={metadata.version(name)}" for name in needed_packages(python, given)]
    # Detectron2's wheel bears the tag of Python 3.10.
    detectron2 = [pin for pin in pins if pin.startswith("sal-detectron2==")]
    others = [pin for pin in pins if pin not in detectron2]
    any_python = ("--no-deps", "--only-binary=:all:", "--dest", str(folder))
    if detectron2:
        _pip("download", *any_python, "--python-version", "3.10", *detectron2)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), *others)
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return
    compiled = [wheel for wheel in folder.glob("*.whl") if "-none-any" not in wheel.name]
    again = [_pin(wheel) for wheel in compiled]
    for wheel in compiled:
        wheel.unlink()
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    _pip("download", *any_python, "--python-version", python, *platforms, *again)


def needed_packages(python: str, given: Iterable[str]) -> list[str]:
    """Names of what the project and its tests need, directly or not, without the given ones."""
    needed: dict[str, None] = {}
    waiting = [*_requirements("querypose", python), *map(canonicalize_name, _ROOTS)]
    given = set(given)
    while waiting:
        name = waiting.pop()
        if name not in needed and name not in given:
            needed[name] = None
            waiting += _requirements(name, python)
    return sorted(needed)


def _requirements(name: str, python: str) -> Iterator[str]:
    environment = default_environment() | {"python_version": python, "extra": ""}
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield canonicalize_name(requirement.name)


def _pin(wheel: Path) -> str:
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version}"


def _pip(*arguments: str) -> None:
    subprocess.run([*_PIP, *arguments], check=True)


if __name__ == "__main__":
    main()
