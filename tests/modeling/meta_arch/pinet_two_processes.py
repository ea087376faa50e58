"""One of two processes that train together; test_pinet.py reads the gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import querypose  # noqa: F401


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    given = torch.load(folder / "given.pth", weights_only=False)
    model = DistributedDataParallel(given["model"])
    own = given["batch"][2 * rank : 2 * rank + 2]
    sum(model(own).values()).backward()
    if rank == 0:
        named = model.module.named_parameters()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        torch.save(gradients, folder / "gradients.pth")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
