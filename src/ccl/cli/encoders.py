"""What `ccl shards encode` encodes with: parts of a config of `ccl fit`, or of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser

from ccl.cli.errors import UsageError, explain, first_complaint, innermost_options, no_keys, read_yaml
from ccl.cli.parts import build, device_of
from ccl.codecs import AudioCodec, Codec, EmbeddedAudio, EmbeddedVideo, VideoCodec
from ccl.data.index import buckets_in, settings_of
from ccl.files import reading
from ccl.grid import Grid
from ccl.text import TextEncoder


def encoders(files: list[Path], given: Mapping[str, Any], shards: Path) -> tuple[Codec, TextEncoder | None, Grid]:
    """Codecs, text encoder and grid.

    Args:
        files: stacked configs of `ccl fit`; without any, the embedded codecs and the shards' own grid.
        given: class_path and init_args of --video-codec, --audio-codec and --text, by these words, which take the place
            of the config's.
        shards: of clips; the length and size of a bucket are its own.

    Returns:
        Codecs, a text encoder whose states may be stored, if there is one, and the grid.

    Raises:
        UsageError: in one sentence, where a part cannot be built.
    """
    settings = settings_of(shards)
    if settings["kind"] != "media":
        raise UsageError(f"{shards} holds latents; only clips can be encoded")
    own = settings["grid"]
    codec, text, grid = configured(files) if files else (Codec(EmbeddedVideo(), EmbeddedAudio()), None, None)
    bases = {"video-codec": VideoCodec, "audio-codec": AudioCodec, "text": TextEncoder}
    parts = {name: build(bases[name], node, f"--{name}") for name, node in given.items()}
    codec = Codec(parts.get("video-codec", codec.video), parts.get("audio-codec", codec.audio))
    if "text" in parts and not parts["text"].identity:
        raise UsageError("--text: this text encoder trains with the model, so its states cannot be stored")
    text = parts.get("text", text if text is not None and text.identity else None)
    if grid is None:
        rates: dict[str, Any] = {"latent_rate": codec.audio.latent_rate, "stride_time": codec.video.stride_time}
        with reading(shards, "clips for these codecs"):
            grid = Grid(**own, **rates, stride_space=codec.video.stride_space)
    if buckets_in(shards) != [""]:
        grid = grid.resized(**{name: own[name] for name in ("frames", "fps", "height", "width")})
    return codec, text, grid


def configured(files: list[Path]) -> tuple[Codec, TextEncoder | None, Grid]:
    """Codecs, text encoder and grid of stacked configs of `ccl fit`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Grid, "grid")
    parser.add_class_arguments(Codec, "codec", sub_configs=True)
    parser.add_argument("--text", type=TextEncoder | None, default=None)
    config: Any = None
    for file in files:
        tree = read_yaml(file)
        found: dict[str, Any] = {key: tree[key] for key in ("grid", "codec") if key in tree}
        model = tree.get("model")
        if isinstance(model, dict) and model.get("text") is not None:
            found["text"] = model["text"]
        try:
            with chdir(file.parent):  # as `ccl fit` reads the names of part files
                config = parser.parse_object(found, config, _skip_validation=file != files[-1])
        except ArgumentError as error:
            message, cause = first_complaint(str(error), error)
            options = innermost_options(cause) or [action.dest for action in parser._actions]
            raise UsageError(no_keys(("grid", "codec"), [file], []) or explain(message, options, [file], [])) from error
    built = parser.instantiate_classes(config)
    return built.codec, built.text, built.grid


def devices_of(names: list[str], workers: int | None, *, here: bool) -> list[str]:
    """A device for each worker; `cuda` alone is the machine's GPUs in turn.

    Args:
        names: of the command line.
        workers: how many; one for each name where it is None.
        here: whether the workers are on this machine, so that its devices can be looked at.

    Raises:
        UsageError: there is no such device.
    """
    if not here:
        return [names[i % len(names)] for i in range(workers or len(names))]
    for name in names:
        device_of(name)
    if names == ["cuda"]:
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())][: workers or 1]
    return [names[i % len(names)] for i in range(workers or len(names))]
