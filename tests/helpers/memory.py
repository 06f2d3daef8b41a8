"""What loading holds in memory, to be asked of a process of its own: `forked.call(loading, folder)`."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from safetensors.torch import save_file

from ccl.interaction import NoInteraction
from ccl.model import DualStreamTransformer, WanStream
from ccl.model.load import load_wan


def loading(folder: Path) -> tuple[float, float]:
    """Megabytes of a stream's weights, and how much more than before the process held at most while it loaded them."""
    net = DualStreamTransformer(
        video=WanStream(512, 2048, 16), audio=None, layers=8, head_dim=64, text_dim=512, interaction=NoInteraction
    )
    state = {name.replace("video.", ""): value for name, value in net.state_dict().items()}
    megabytes = sum(value.nbytes for value in state.values()) / 2**20
    save_file(state, folder / "wan.safetensors")
    before, peak, stop = held(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], held())
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    load_wan(net, folder / "wan.safetensors")
    stop.set()
    thread.join()
    return megabytes, peak[0] - before


def held() -> float:
    """Megabytes of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
