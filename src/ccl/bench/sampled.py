"""Evaluations of a guided velocity, as a solver asks for them: what a clip takes to make, its decoding apart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import torch
import yaml

from ccl.bench.timed import Gauge
from ccl.cli.costs import rule_of
from ccl.cli.planned import Planned
from ccl.grid import Grid
from ccl.guidance import guided
from ccl.planning.follow import extras, inputs, open_route
from ccl.sampling import evaluated, times
from ccl.types import AV, Text


@torch.inference_mode()
def sample(order: dict[str, Any]) -> dict[str, Any]:
    """The first evaluations of a clip, as many as the order says."""
    from ccl.bench.worker import device_of, products

    config = yaml.safe_load(Path(order["config"]).read_text())
    planned = Planned(config, Grid(**config["grid"]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = None if order["memory"] else products(device)
    gauge = Gauge(device)
    torch.manual_seed(0)
    with device:
        net = planned.make().eval()
        net = net.to(torch.bfloat16) if device.type == "cuda" else net
        route, generated = open_route(net), AV(*(ends is not None for ends in net.ends))
        x, told, states = inputs(net, planned.grid, 1, planned.text().length)
        x, states = x.map(torch.randn_like), torch.randn_like(states)
        given: dict[str, Any] = {"nulls": x.map(torch.randn_like), "generated": generated}
        given["extras"] = extras(net, planned.grid, 1)
    built = gauge.now()
    velocity = guided(net, rule_of(planned), route, dict.fromkeys(get_args(Text), states), grid=planned.grid, **given)
    sampling, seconds = config["sampling"], []
    for t in evaluated(times(sampling["steps"], sampling["shift"]), sampling["solver"])[: order["steps"]]:
        begun = time.perf_counter()
        velocity(x, told, t)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    memory = {"built": built, "peak": gauge.peak()}
    told_of = {"device": device_of(device), "products": peak, "threads": torch.get_num_threads()}
    return {**told_of, "processes": 1, "seconds": seconds, "memory": memory}
