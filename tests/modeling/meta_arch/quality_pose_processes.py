"""One training step of CIR-QEM in several processes; torchrun runs it.

The first process writes its gradients into the file that the command line names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances, Keypoints
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from querypose.config import read_config

CONFIG = Path(__file__).parents[3] / "configs/quick/quality_pose_lite0.yaml"
OPTIONS = ["MODEL.TIMM.NAME", "mobilenetv3_small_050", "MODEL.QUALITY_POSE.MIN_AREA", 0.0]
# Of the images of one batch, shared out in order. The second of two processes has nobody.
PERSONS = (3, 1, 0, 0)


def labeled(num_persons: int, seed: int) -> dict[str, Any]:
    """An image of 96 x 96 pixels with persons about its center."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(num_persons, 17, 2, generator=generator) * 60 + 15
    instances = Instances(
        (96, 96),
        gt_keypoints=Keypoints(torch.cat([places, torch.full((num_persons, 17, 1), 2.0)], dim=-1)),
        gt_areas=torch.full((num_persons,), 2000.0),
    )
    return {"image": torch.rand(3, 96, 96, generator=generator) * 255, "instances": instances}


def gradients(world_size: int) -> dict[str, Tensor]:
    """Gradients of one step of this process on its share of the batch."""
    torch.manual_seed(0)
    model = build_model(read_config(CONFIG, OPTIONS))
    model.train()
    for module in model.modules():
        # Batch norms see the images of their own process alone.
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    batch = [labeled(count, seed) for seed, count in enumerate(PERSONS)]
    share = len(batch) // world_size
    start = comm.get_rank() * share
    trained = DistributedDataParallel(model) if world_size > 1 else model
    sum(trained(batch[start : start + share]).values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    comm.create_local_process_group(torch.distributed.get_world_size())
    found = gradients(torch.distributed.get_world_size())
    if comm.get_rank() == 0:
        torch.save(found, sys.argv[1])
    comm.synchronize()
