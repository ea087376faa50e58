"""Draws poses on images, videos and webcams; see `python demo/demo.py --help`."""

import sys

from querypose.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
