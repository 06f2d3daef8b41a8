"""Mixed data: clips of one stream alone beside clips of both.

A batch is of one kind (data/bucketed.py). One of a single stream runs that stream and trains what is left of the tasks
(`ccl.tasks.alone`): the other stream has no gradient, so that no optimizer moves it, be it by momentum or by decay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from ccl.tasks import Task, alone
from ccl.types import Stream


def check_alone(tasks: Mapping[str, Task], stream: Stream, strategy: Any) -> None:
    """Refuse clips of one stream that would train nothing, or stop DDP, which waits for a gradient of every parameter.

    Raises:
        ValueError: in a sentence that says what to set.
    """
    alone(tasks, stream)
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise ValueError(
            f"some clips have {stream} alone, and of a step on them the other stream has no gradient, for which DDP "
            "would wait; set trainer.strategy.init_args.find_unused_parameters true"
        )
