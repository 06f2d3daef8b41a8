"""Two processes that exchange tensors, for tests of what a clip is split over."""

from __future__ import annotations

import io
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.distributed import destroy_process_group, init_process_group

from helpers.forked import CONTEXT, start
from helpers.trainings import free_port


def on_two(function: Callable[..., Any], *args: Any) -> list[Any]:
    """What a function returns on each of two processes of a gloo group, which is torch.distributed's WORLD."""
    pipes = [CONTEXT.Pipe() for _ in range(2)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [start(_joined, rank, there, function, args, **place) for rank, (_, there) in enumerate(pipes)]
    for _, there in pipes:
        there.close()
    try:
        return [torch.load(io.BytesIO(here.recv()), weights_only=True) for here, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _joined(rank: int, pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    init_process_group("gloo", rank=rank, world_size=2)
    found = io.BytesIO()
    torch.save(function(*args), found)
    pipe.send(found.getvalue())  # not the tensors themselves, which would be shared with a process that ends
    destroy_process_group()
