"""Draws poses on pictures, videos and webcams; `python demo/demo.py --help` tells how."""

import sys

from querypose.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
