#!/usr/bin/env python
"""Trains and evaluates pose models, as the command ``querypose-train`` does.

Examples:
    python train_net.py --config-file configs/coco/querypose_r50_3x.yaml --num-gpus 8
    torchrun --nproc-per-node 8 train_net.py --config-file ...
"""

from querypose.cli.train import main

if __name__ == "__main__":
    main()
