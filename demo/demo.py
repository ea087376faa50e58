"""Draws poses on images, videos and webcams; `python demo/demo.py --help` tells how."""

import sys

from querypose.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
