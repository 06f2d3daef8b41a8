"""Weights of the two streams' losses that a training finds for itself; off where no callback of these is there.

Both leave a step's draws and the losses that are logged of each stream as they are, and multiply what the step lowers.
AdamW takes a constant out of the gradient of a parameter that one loss alone reaches, so what they weigh is what both
losses reach, the cross-modal parameters and a text encoder that trains, and what clipping leaves of each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from lightning import Callback

from ccl import arguments
from ccl.callbacks.monitor import norm, part_of, trained
from ccl.types import AV, STREAMS, Batch


class Balance(Callback, ABC):
    """Holds what it knows of each stream, `state`, and gives the module the weights that follow: part of a checkpoint.

    Args:
        state: a number of each stream at the start; None is not known yet.
    """

    def __init__(self, state: float | None) -> None:
        self.state: AV[float | None] = AV(state, state)

    @property
    @abstractmethod
    def weights(self) -> AV[float]:
        """What each stream's loss is multiplied by."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if sum(isinstance(one, Balance) for one in trainer.callbacks) > 1:
            raise ValueError("trainer.callbacks hold two that weigh the streams' losses; leave one of them out")
        pl_module.balance = self.weights

    def learn(self, pl_module: Any, state: list[float | None]) -> None:
        """Take a new state; the module's next loss is weighed by it."""
        self.state = AV(*state)
        pl_module.balance = self.weights
        named = {f"balance/{stream}": x for stream, x in zip(STREAMS, self.weights, strict=True)}
        pl_module.log_dict(named, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        return {"state": list(self.state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = AV(*state_dict["state"])


class EqualGradientNorm(Balance):
    """Weights w, whose mean is 1, under which the gradients of both streams are equally long: w_v |g_v| = w_a |g_a|.

    That is the balance that GradNorm seeks (Chen et al. 2018, arXiv 1711.02257, Sec. 3 with alpha 0), in closed form.
    GradNorm measures at the last layer that the losses share; the streams share none, so each is measured by its own
    parameters, which is free. |g| is a running mean, over the steps in which the stream has a gradient, of its norm
    before clipping over the weight.

    Args:
        decay: share of the running mean that stays at such a step.

    Raises:
        ValueError: decay is none; at the start, a stream does not train.
    """

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__(None)
        arguments.number("EqualGradientNorm's decay", decay, 0, 1)
        self.decay = decay

    @property
    def weights(self) -> AV[float]:
        video, audio = self.state
        if video is None or audio is None:
            return AV(1.0, 1.0)
        return AV(2 * audio / (video + audio), 2 * video / (video + audio))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        there = {part_of(name) for name, _ in trained(pl_module)}
        if lacking := [stream for stream in STREAMS if stream not in there]:
            raise ValueError(
                f"EqualGradientNorm measures the gradient of each stream, and no parameter of {lacking[0]} trains; "
                "leave it out, or take ccl.callbacks.Uncertainty"
            )
        super().on_train_start(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        state: list[float | None] = []
        for stream, mean, weight in zip(STREAMS, self.state, pl_module.balance, strict=True):
            grads = [p.grad for name, p in trained(pl_module) if part_of(name) == stream and p.grad is not None]
            found = float(norm(grads)) / weight if grads else 0.0
            if not 0 < found < math.inf:  # its loss does not count in this step, or the step fails
                state.append(mean)
            else:
                state.append(found if mean is None else self.decay * mean + (1 - self.decay) * found)
        self.learn(pl_module, state)


class Uncertainty(Balance):
    """Weights by homoscedastic uncertainty (Kendall et al. 2018, arXiv 1705.07115, Eq. 7): a stream's loss L counts
    exp(-s) L + s, whose s = log sigma^2 is learned with the network.

    The paper's 1 / (2 sigma^2) L + log sigma is half of that. s moves by plain gradient descent, on the mean over all
    processes, after each batch in which the loss counts; where L is steady it comes to log L, a weight of 1 / L.

    Args:
        rate: of the descent.

    Raises:
        ValueError: rate is none.
    """

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__(0.0)
        arguments.number("Uncertainty's rate", rate, 0, 1)
        self.rate = rate

    @property
    def weights(self) -> AV[float]:
        return self.state.map(lambda s: math.exp(-s))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        state: list[float | None] = []
        for stream, s in zip(STREAMS, self.state, strict=True):
            assert s is not None
            losses = [x for name, x in outputs["report"].items() if name.rpartition("/")[2] == stream]
            slope = 1 - math.exp(-s) * sum(losses) / len(losses) if losses else 0.0
            state.append(s - self.rate * slope)
        self.learn(pl_module, state)
