"""Launches the processes of a training."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator

import torch
from detectron2.engine import launch as launch_processes
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

Main = Callable[[argparse.Namespace], object]


def launch(main: Main, args: argparse.Namespace, *, device: str) -> None:
    """Runs ``main(args)`` in every process: torchrun's, or ``--num-gpus`` new ones.

    Processes communicate through NCCL on GPUs and through gloo on CPUs.

    Args:
        main: the function to run.
        args: parsed by Detectron2's ``default_argument_parser``.
        device: ``MODEL.DEVICE``.

    Raises:
        ValueError: this machine does not have the devices.
    """
    elastic = torch.distributed.is_torchelastic_launched()
    _check_device(device, int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else args.num_gpus)
    if device == "cpu":
        # Detectron2 chooses the backend by the GPUs that it sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if elastic:
        _join_torchrun(main, args, device)
        return
    with _sigterm_to_children(enabled=args.num_gpus > 1):
        launch_processes(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


def _check_device(device: str, num_processes: int) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"MODEL.DEVICE is cuda, cpu or another of PyTorch's devices, not {device!r}."
        ) from error
    present = torch.cuda.device_count()
    if kind == "cuda" and present < num_processes:
        raise ValueError(
            f"MODEL.DEVICE is {device}, but of the GPUs that are wanted here ({num_processes}) "
            f"PyTorch sees {present}: start fewer processes, or set MODEL.DEVICE cpu."
        )


def _join_torchrun(main: Main, args: argparse.Namespace, device: str) -> None:
    on_gpu = not device.startswith("cpu")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        main(args)
    finally:
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _sigterm_to_children(*, enabled: bool) -> Iterator[None]:
    """Forwards SIGTERM to the training processes, which save before they end."""
    if not enabled:
        yield
        return

    def forward(*_: object) -> None:
        for child in multiprocessing.active_children():
            child.terminate()

    previous = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
