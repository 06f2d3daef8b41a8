"""Solvers of dx/dt = v(x, t) from noise (t = 1) to data (t = 0), as plain functions; the time convention is flow.py's.

B clips, T latent frames. A solver moves an AV pair of latents through given times and knows nothing of networks,
guidance or conditions; `solve` adds what is held: a whole given stream (a2v, v2a) or the first latent frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ccl import arguments
from ccl.flow import check_shift, expand, interpolate, shift_time
from ccl.guidance import Guidance
from ccl.types import AV, STREAMS

MOST = 10_000  # steps that a model may ask for: more would be a slip, and would not end
Velocity = Callable[[AV[Any], float], AV[Any]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled; a model folder says it, a command may say otherwise.

    Args:
        guidance: rule; None is UCG with two passes.
        steps: of the solver.
        solver: which one.
        shift: moves the solver's times towards noise.
    """

    guidance: Guidance | None = None
    steps: int = 30
    solver: Literal["euler", "heun", "unipc"] = "euler"
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.guidance is not None:
            arguments.instance("sampling.guidance", self.guidance, Guidance, "a guidance rule, as ccl.guidance.UCG2()")
        check_schedule("sampling.", self.steps, self.shift)
        check_solver(self.solver)


def times(steps: int, shift: float = 1.0) -> Float[Tensor, " n"]:
    """steps + 1 times from 1 to 0, moved towards noise by `shift` (Wan: 5, 3 at low resolution)."""
    check_schedule("", steps, shift)
    return shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)


def check_schedule(where: str, steps: Any, shift: Any) -> None:
    """ValueError, with what stands before the names, where no times can be made of them."""
    arguments.number(f"{where}steps", steps, 1, MOST, whole=True)
    check_shift(f"{where}shift", shift)


def check_solver(name: Any) -> None:
    """ValueError where there is none of that name."""
    if name not in SOLVERS:
        raise ValueError(f"there is no solver {name!r}; choose one of {', '.join(SOLVERS)}")


def euler(velocity: Velocity, x: AV[Any], times: Tensor, progress: Progress | None = None) -> AV[Any]:
    """First order, one evaluation a step."""
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        x = _move(x, s - t, velocity(x, t))
        _report(progress, i, times)
    return x


def heun(velocity: Velocity, x: AV[Any], times: Tensor, progress: Progress | None = None) -> AV[Any]:
    """Second order, two evaluations a step.

    The last step is Euler's: no stream that is noisy was trained at t = 0, and one first-order step keeps order 2.
    """
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        v = velocity(x, t)
        if s > 0:
            v = AV.zip(lambda a, b: (a + b) / 2, v, velocity(_move(x, s - t, v), s))
        x = _move(x, s - t, v)
        _report(progress, i, times)
    return x


def unipc(velocity: Velocity, x: AV[Any], times: Tensor, progress: Progress | None = None) -> AV[Any]:
    """UniPC of order 2 (arXiv 2302.04867), diffusers' scheduler on our times; one evaluation a step."""
    from diffusers import UniPCMultistepScheduler

    def scheduler() -> Any:
        rule: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
        rule.set_timesteps(sigmas=times[:-1].numpy().copy())
        rule.set_begin_index(0)  # its integer timesteps repeat when steps are small
        return rule

    rules = x.map(lambda _: scheduler())
    for i, t in enumerate(times[:-1].tolist()):
        x = AV.zip(lambda rule, v, z: rule.step(v, None, z, return_dict=False)[0], rules, velocity(x, t), x)
        _report(progress, i, times)
    return x


def evaluated(times: Float[Tensor, " n"], solver: str) -> list[float]:
    """The times at which a solver asks for a velocity: once a step, and Heun's at the end of a step too, but for 0."""
    steps = times.tolist()
    return [t for pair in pairwise(steps) for t in pair if t > 0] if solver == "heun" else steps[:-1]


SOLVERS: dict[str, Callable[..., AV[Any]]] = {"euler": euler, "heun": heun, "unipc": unipc}


class Held(NamedTuple):
    """Latent frames that are given: they come out exactly as they are, and the network sees them at one time alone.

    Args:
        clean: latents (B, C, T, ...) of each stream, None where nothing of it is given.
        mask: (B, T) bool, true where a latent frame is given; None with clean.
        time: at which the network sees them, 0 clean (AV-Link: 0.04 and 0.2).
        noise: that is then mixed into them, of clean's shape; needed where time is above 0.
    """

    clean: AV[Any] = AV(None, None)
    mask: AV[Any] = AV(None, None)
    time: AV[float] = AV(0.0, 0.0)
    noise: AV[Any] = AV(None, None)

    @property
    def seen(self) -> AV[Any]:
        """The given frames as the network sees them."""

        def one(clean: Tensor, noise: Tensor | None, time: float) -> Tensor:
            return clean if noise is None or not time else interpolate(clean, noise, torch.tensor([time]).to(clean))

        return AV.zip(one, self.clean, self.noise, self.time)

    def impose(self, x: AV[Any]) -> AV[Any]:
        """x with the given frames in their place, as clean latents."""
        return AV(*(impose(z, c, m) for z, c, m in zip(x, self.clean, self.mask, strict=True)))

    def still(self, v: AV[Any]) -> AV[Any]:
        """A velocity that does not move them."""
        return Held(v.map(torch.zeros_like), self.mask).impose(v)

    def times(self, x: AV[Any], t: float) -> AV[Any]:
        """(B,) or (B, T) of each stream."""
        each = zip(x, self.mask, self.time, strict=True)
        return AV(*(None if z is None else frame_times(z, t, m, own) for z, m, own in each))


def solve(
    net_velocity: Callable[[AV[Any], AV[Any], float], AV[Any]],
    noise: AV[Any],
    times: Tensor,
    *,
    solver: str = "euler",
    held: Held = Held(),
    progress: Progress | None = None,
) -> AV[Any]:
    """Sample latents from noise.

    Args:
        net_velocity: (x, times, t) -> velocity; t is the solver's, times are what the network is told of it, (B,) or
            (B, T) in each stream: 0 where a latent frame is given.
        noise: (B, C, T, ...) float32 for each stream, None for a stream that takes no part.
        times: from 1 to 0.
        solver: "euler", "heun" or "unipc".
        held: latent frames that are given.
        progress: called with (steps done, steps) after each step.

    Raises:
        ValueError: there is no such solver; the times do not fall from at most 1 to at least 0; what is held does not
            have the noise's shape.
    """
    check_solver(solver)
    check_conditions(noise, times, held)

    seen = held._replace(clean=held.seen)

    def velocity(x: AV[Any], t: float) -> AV[Any]:
        return held.still(net_velocity(seen.impose(x), held.times(x, t), t))

    return held.impose(SOLVERS[solver](velocity, seen.impose(noise), times, progress))


def check_conditions(noise: Any, times: Any, held: Any) -> None:
    """ValueError where the arguments of `solve` do not fit each other; the times are looked at, and live on the CPU."""
    arguments.instance("held", held, Held, "Held(clean, mask, time, noise)")
    clean, mask, own, mixed = held
    for name, pair in (("noise", noise), ("held.clean", clean), ("held.mask", mask), ("held.noise", mixed)):
        arguments.instance(name, pair, AV, "AV(video, audio), None for no stream")
    arguments.tensor("times", times, "n")
    if not bool((times[1:] < times[:-1]).all()) or times[0] > 1 or times[-1] < 0:
        raise ValueError(f"times are {times[0]:g} to {times[-1]:g}; they must fall from 1 (noise) to 0 (clean)")
    for stream, z, c, m, time, e in zip(STREAMS, noise, clean, mask, own, mixed, strict=True):
        arguments.number(f"held.time.{stream}", time, 0, 1)
        if z is not None:
            arguments.tensor(f"noise.{stream}", z, "B", "C", *"THW"[: max(1, getattr(z, "ndim", 3) - 2)])
        if (c is None) != (m is None):
            raise ValueError(f"held.clean.{stream} and held.mask.{stream} go together; one of them is None")
        if z is not None and c is not None:
            arguments.tensor(f"held.clean.{stream}", c, *z.shape)
            arguments.tensor(f"held.mask.{stream}", m, len(z), z.shape[2], floats=False)
            if m.dtype != torch.bool:
                raise ValueError(f"held.mask.{stream} is {arguments.described(m)}; it must be of bool")
            if e is not None:
                arguments.tensor(f"held.noise.{stream}", e, *c.shape)
            elif time:
                raise ValueError(f"held.time.{stream} is {time:g}, and held.noise.{stream} is None; both are needed")


def impose(x: Tensor | None, clean: Tensor | None, mask: Bool[Tensor, "b t"] | None) -> Tensor | None:
    """x with the masked latent frames replaced by those of `clean`."""
    return x if x is None or clean is None or mask is None else torch.where(expand(mask, x), clean, x)


def frame_times(x: Tensor, t: float, mask: Bool[Tensor, "b t"] | None, own: float = 0.0) -> Tensor:
    """(B,) times or, where some frames are given, (B, T) with their own there."""
    if mask is None or mask.all():
        return torch.full((x.shape[0],), t if mask is None else own, device=x.device)
    return torch.where(mask, own, t)


def _move(x: AV[Any], dt: float, v: AV[Any]) -> AV[Any]:
    return AV.zip(lambda a, b: a + dt * b, x, v)


def _report(progress: Progress | None, i: int, times: Tensor) -> None:
    if progress is not None:
        progress(i + 1, len(times) - 1)
