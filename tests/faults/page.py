"""`ccl serve` as a command that ends: a sound is sent over HTTP, two clips are asked for it, and the page ends."""

from __future__ import annotations

from pathlib import Path

from ccl import cli
from ccl.serve import verb
from faults.process import free_port
from helpers.page import Server


def main(argv: list[str]) -> int:
    """The page on a port of its own; for a process that ends with it."""
    port = free_port()
    verb.wait = lambda: ask(Server(f"http://127.0.0.1:{port}/", Path("out")))
    return cli.main([*argv, "--port", str(port)])


def ask(server: Server) -> None:
    """ValueError of what the page says where it makes no clip."""
    server.join('a man says "hello"', seed=1, both=True, audio=server.send(Path("voice.wav")))
    [message] = server.finished("s", 1)
    if not message["success"]:
        raise ValueError(message["output"]["error"])
