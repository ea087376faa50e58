"""Adds the configs to a built package; everything else about it stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs/`` into the model zoo; an editable install reads them where they are."""

    def run(self) -> None:
        """Builds the package."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "querypose", "model_zoo", "configs")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
