"""`ccl inspect voice`: whether a model keeps a voice that it is given. The work lies in ccl.inspection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ccl.cli.as_json import add_json
from ccl.cli.inspected import Told, add_model, model_settings, pipeline_of, tell
from ccl.cli.parser import STEPS, Parser, Whole, add_seed, folder_to_write
from ccl.progress import bar

AT_ONCE = 8  # clips


def voice(argv: list[str]) -> int:
    parser = Parser(
        "inspect voice",
        "Whether a model keeps a voice: clips of the talking world are made, each given another sentence of its "
        "speaker, and once more without; their pitch is compared with that of the true clips.",
        "ccl inspect voice --ckpt runs/voice --clips 50",
    )
    add_model(parser)
    parser.add_argument("--clips", type=Whole(2, 100), default=50, help="of the world's test split (%(default)s)")
    parser.add_argument("--steps", type=STEPS, help="of the solver (the model's)")
    add_seed(parser)
    parser.add_argument("-o", "--out", type=folder_to_write, help="a folder for the clips and their voices")
    add_json(parser)
    args = parser.parse(argv)
    from ccl.data.world import World
    from ccl.data.world.voices import reference
    from ccl.generation.generate import in_batches
    from ccl.inspection.voice import Kept, semitones
    from ccl.media import write_wav
    from ccl.rows import Row
    from ccl.types import AV

    pipe = pipeline_of(args)
    world, rate = World(0, "test", pipe.grid), pipe.grid.sample_rate
    voices = [reference(world, i) for i in range(args.clips)]
    rows = [Row(world.id(i), world.prompt(i)).seeded(args.seed) for i in range(args.clips)]
    given = [replace(row, voice=voice) for row, voice in zip(rows, voices, strict=True)]
    streams = AV(*(end is not None for end in pipe.net.ends))
    made: list[Any] = []
    with bar("speaking") as progress:
        for some in (given, rows):
            for batch in in_batches(some, AT_ONCE):
                made += pipe.generate(batch, wanted=streams, steps=args.steps)
                progress(len(made), 2 * len(rows))
    true: list[Any] = [world.clip(i).audio for i in range(args.clips)]
    coded = [pipe.decode(AV(None, pipe.conditions.encode("audio", sound)[None])).audio[0].numpy() for sound in true]
    sounds: list[Any] = [clip.audio for clip in made]
    parts = (sounds[: len(rows)], sounds[len(rows) :], coded)
    kept = Kept(*(semitones(part, true, rate) for part in parts))

    def told() -> Iterator[Told]:
        yield Told([kept], [{"of": name, **figures} for name, figures in kept.figures.items()])
        if args.out is not None:
            kind, own = ".mp4" if streams.video else ".wav", made[: len(rows)]
            for clip, sound in zip(own, voices, strict=True):
                clip.save(args.out / f"{clip.id}{kind}")
                write_wav(args.out / f"{clip.id}-voice.wav", sound, rate)
            ends = (kind, "-voice.wav")
            yield Told([args.out], files=[args.out / f"{clip.id}{end}" for clip in own for end in ends])

    settings = {**model_settings(args, pipe), "clips": args.clips, "steps": args.steps or pipe.steps, "seed": args.seed}
    tell(args, settings, told())
    return 0
