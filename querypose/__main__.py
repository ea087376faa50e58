"""Lists and runs the commands of the package: ``python -m querypose``."""

import sys

from querypose.cli.commands import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
