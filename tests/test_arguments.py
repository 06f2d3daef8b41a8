"""Whatever is given in the place of an argument, the answer is one sentence that names it; types are not checked here.

A user has no type checker at run time, so it is switched off: what is tested is what a user meets.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

import ccl
from ccl import arguments, codecs, guidance, interaction, model, text
from ccl.codecs import Codec, EmbeddedAudio, EmbeddedVideo
from ccl.evaluation import METRICS, Film, Row, score
from ccl.generation import Pipeline
from ccl.grid import Grid
from ccl.guidance import UCG2, UCG3, Interval, TextCFG, named
from ccl.media import Clip
from ccl.model import DualStreamTransformer, WanStream
from ccl.sampling import Held, Sampling, solve, times
from ccl.text import EmbeddedText
from ccl.types import AV, OPEN, Scale, View
from helpers.fakes import CHANNELS, GRID, make_net, make_text
from helpers.tiny import tiny_pipeline

B = 2
FOREIGN = ("einops", "mat1", "NoneType' object", "has no attribute", "unpack", "must match the size", "iterable")


@pytest.fixture(autouse=True)
def as_a_user() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refused(call: Callable[[], Any], name: str) -> None:
    """The call ends in one sentence, which has the name in it."""
    with pytest.raises(ValueError) as found:
        call()
    message = str(found.value)
    assert re.search(name, message), message
    assert "\n" not in message and not any(word in message for word in FOREIGN), message


# The network ---------------------------------------------------------------------------------------------------------

NET = make_net()
VIDEO, AUDIO = torch.zeros(B, CHANNELS.video, GRID.t_v, 2, 2), torch.zeros(B, CHANNELS.audio, GRID.t_a)
GIVEN: dict[str, Any] = {"x": AV(VIDEO, AUDIO), "t": AV(torch.ones(B), torch.ones(B)), "text": torch.zeros(B, 3, 8)}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        *(({"x": AV(x, AUDIO)}, "x.video is") for x in (VIDEO.numpy(), [1, 2], "a.mp4", torch.tensor(1.0), VIDEO[:0])),
        *(({"x": AV(VIDEO.to(kind), AUDIO)}, "x.video is .*floats") for kind in (torch.uint8, torch.complex64)),
        *(({"x": x}, "^x is") for x in (None, VIDEO, (VIDEO, AUDIO), "a.mp4")),
        *(({"t": AV(t, torch.ones(B))}, "t.video") for t in (0.5, np.ones(B), torch.ones(3), torch.tensor(0.5), None)),
        *(({"text": s}, "^text is|^text has") for s in (None, "hi", ["hi"], torch.zeros(B, 8), torch.zeros(B, 3, 9))),
        *(({"text": AV(s, s)}, "text.video is") for s in (torch.zeros(B, 3, 9), torch.zeros(B, 8), None, "hi")),
        ({"text": NET.prepare(torch.zeros(3, 3, 8))}, "prepared of 3 prompts, and x has 2"),
        *(({"view": view}, "^view is|views") for view in ("open", True, OPEN, ["open", "closed"], [], [View()] * 3)),
        *(({"extras": extras}, "^extras is") for extras in ("image", torch.zeros(B), [1])),
        *(({"grid": grid}, "^grid is") for grid in (None, (9, 16, 16), "grid.yaml")),
        ({"text": torch.zeros(B, 3, 8, device="meta")}, "text is on meta; it must be on cpu"),
        ({"x": AV(VIDEO, AUDIO.to("meta"))}, "x.audio is on meta"),
        ({"t": AV(torch.ones(B), torch.ones(B, device="meta"))}, "t.audio is on meta"),
    ],
)
def test_a_network_names_what_it_cannot_take(changed: dict[str, Any], name: str) -> None:
    given = {**GIVEN, "grid": GRID, **changed}
    refused(lambda: NET(given.pop("x"), given.pop("t"), given.pop("text"), **given), name)


@pytest.mark.parametrize("states", [None, "hi", [torch.zeros(B, 3, 8)], torch.zeros(3, 8), torch.zeros(B, 3, 9)])
def test_prepare_takes_states_alone(states: Any) -> None:
    refused(lambda: NET.prepare(states), "^text is")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        *(({name: value}, f"^{name} is") for name in ("layers", "head_dim", "text_dim") for value in (0, -1)),
        ({"video": {"width": 16}}, "^video is"),
        ({"audio": "x"}, "^audio is"),
        ({"interaction": "cca"}, "^interaction is"),
    ],
)
def test_a_network_of_no_size_is_refused(changed: dict[str, Any], name: str) -> None:
    sizes = {"video": WanStream(16, 32, 4), "audio": WanStream(8, 16, 6), "layers": 1, "head_dim": 8}
    own = {**sizes, "text_dim": 8, "interaction": interaction.NoInteraction, **changed}
    refused(lambda: DualStreamTransformer(**own), name)


# Codecs and text -----------------------------------------------------------------------------------------------------

PICTURES, SOUND = torch.zeros(B, 3, 9, 16, 16), torch.zeros(B, 5760)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((lambda x=x: EmbeddedVideo().encode(x), "^video") for x in (PICTURES[0], PICTURES[:, :1], PICTURES[..., :10],
          PICTURES.to(torch.uint8), PICTURES.numpy(), "a.mp4", None)),
        *((lambda z=z: EmbeddedVideo().decode(z), "^z is") for z in (torch.zeros(B, 3, 3, 2, 2), AV(1, 2), None)),
        *((lambda x=x: EmbeddedAudio().encode(x, 11), "^audio is") for x in
          (SOUND[0], SOUND[:, None], SOUND.short(), SOUND.numpy(), "a.wav", None)),
        *((lambda n=n: EmbeddedAudio().encode(SOUND, n), "^length is") for n in (0, -1, 2.5, "11", None)),
        *((lambda z=z: EmbeddedAudio().decode(z), "^z is") for z in (torch.zeros(B, 3, 11), torch.zeros(0, 40, 11))),
        (lambda: Codec(EmbeddedAudio(), EmbeddedVideo()), "^video is"),  # type: ignore[arg-type]
        (lambda: Codec(EmbeddedVideo(), EmbeddedAudio()).decode((None, None)), "^z is"),
        *((lambda p=p: make_text()(p), "^prompts") for p in ("hello", None, [], [3], ["a", None], [["a"]], Path("a"))),
        *((lambda k=k: EmbeddedText(**{k: 0}), f"text {k} is 0") for k in ("buckets", "heads", "dim")),
    ],
)  # fmt: skip
def test_codecs_and_text_encoders_name_what_they_cannot_take(call: Callable[[], Any], name: str) -> None:
    refused(call, name)


# Guidance, solver, grid ----------------------------------------------------------------------------------------------

NOISE = AV(VIDEO, AUDIO)
MASK = torch.ones(B, GRID.t_v, dtype=torch.bool)


def solved(**changed: Any) -> Any:
    return solve(lambda x, times, t: x, **{"noise": NOISE, "times": times(2), **changed})


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((lambda rule=rule: rule(4.0), "is 4.0; .*Scale") for rule in (UCG2, UCG3, TextCFG)),
        *((lambda n=n: named(n, UCG2()), "guidance") for n in (3, object, "nope")),
        (lambda: Interval(UCG2(), 3), "^outside is"),  # type: ignore[arg-type]
        (lambda: named("ucg2", UCG2(), scale=(4.0, 3.0)), "^scale is"),  # type: ignore[arg-type]
        *((lambda s=s: Scale(s, 1), "scale of video is") for s in ("a", None, True, float("nan"))),
        *((lambda n=n: times(n), "^steps is") for n in (0, 2.5, "3", None, 10**9)),
        *((lambda s=s: times(3, s), "^shift is") for s in (0, -1, float("nan"), "1", None)),
        *((lambda k=k: Sampling(**k), next(iter(k))) for k in ({"steps": "3"}, {"solver": None}, {"guidance": "ucg2"})),
        *((lambda x=x: solved(noise=x), "^noise") for x in (None, VIDEO, (VIDEO, AUDIO), AV(VIDEO.numpy(), AUDIO))),
        *((lambda t=t: solved(times=t), "^times") for t in (3, [1, 0], times(2).flip(0), 1000 * times(2))),
        (lambda: solved(held=(NOISE, NOISE)), "^held is"),
        (lambda: solved(held=Held(NOISE)), "^held.clean.video and held.mask.video"),
        (lambda: solved(held=Held(NOISE, AV(MASK, None))), "held.clean.audio and held.mask.audio"),
        (lambda: solved(held=Held(AV(VIDEO[..., :1], None), AV(MASK, None))), "^held.clean.video is"),
        (lambda: solved(held=Held(AV(VIDEO, None), AV(MASK[:, :1], None))), "^held.mask.video is"),
        (lambda: solved(held=Held(AV(VIDEO, None), AV(MASK.float(), None))), "^held.mask.video is .* bool"),
        (lambda: solved(held=Held(AV(VIDEO, None), AV(MASK, None), AV(0.1, 0.0))), "^held.time.video is 0.1, and"),
        (lambda: solved(held=Held(AV(VIDEO, None), AV(MASK, None), AV(2.0, 0.0))), "^held.time.video is 2.0; it"),
        *((lambda k=k, v=v: Grid(**{k: v}), f"grid.{k} is") for k in ("frames", "height", "sample_rate", "patch",
          "latent_rate", "stride_time") for v in (0, -2)),
    ],
)  # fmt: skip
def test_rules_solvers_and_grids_name_what_they_cannot_take(call: Callable[[], Any], name: str) -> None:
    refused(call, name)


# Clips and the pipeline ----------------------------------------------------------------------------------------------

FRAMES, SAMPLES = np.zeros((9, 16, 16, 3), np.uint8), np.zeros(5760, np.float32)


@pytest.mark.parametrize("name", ["av_align", "mouth"])
def test_a_clip_that_is_no_pictures_or_samples_has_a_reason_and_no_value(name: str) -> None:
    made = [Clip(video, SAMPLES) for video in (FRAMES / 255, FRAMES[0], FRAMES[..., 0], "a.mp4", FRAMES.tolist())]
    made += [Clip(FRAMES, audio) for audio in (SAMPLES.astype(np.int16), SAMPLES[None], "a.wav", SAMPLES + 0j)]
    for place, found in enumerate(METRICS[name]().score(made)):
        assert found.reason.startswith("video is" if place < 5 else "audio is")


PIPE = tiny_pipeline()
FULL_SCALE = np.full(PIPE.grid.samples, 20_000.0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(({"prompt": p}, "prompt") for p in (None, 3, [], ["a", None], [["a"]], Path("a"), b"a", "\ud800", {"a": 1})),
        *(({"negative": n}, "negative") for n in (None, 3, ["a"])),
        *(({"seed": seed}, "seed") for seed in ("1", 1.5, True)),
        *(({"wanted": wanted}, "wanted is") for wanted in (None, True, (True, False), "video")),
        *(({"guidance": rule}, "guidance") for rule in (3, 4.0, Scale(), "nope")),
        *(({"steps": steps}, "steps is") for steps in (0, "2", 1.5, 20_000)),
        *(({"shift": shift}, "shift is") for shift in (0, -1.0, "3", float("nan"))),
        *(({"image": image}, "the image") for image in (3, b"a", FRAMES, FRAMES[0] / 255, [FRAMES[0], "a"])),
        *(({"audio": audio}, "the sound") for audio in (3, SAMPLES.astype(np.int16), FULL_SCALE, SAMPLES[None],
          np.full(5760, np.nan), (SAMPLES, 16_000), SAMPLES + 0j, np.array(["a"]), SAMPLES[:0])),
        *(({"video": video}, "the video") for video in (3, FRAMES[:3], FRAMES / 255, Clip(FRAMES, None))),
    ],
)  # fmt: skip
def test_a_pipeline_names_what_it_cannot_take(given: dict[str, Any], name: str) -> None:
    refused(lambda: PIPE(**{"prompt": "a man", **given}), name)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((lambda r=r: PIPE.generate(r), "rows") for r in (None, "a", Row("a"), ["a"], [{"prompt": "a"}])),
        *((lambda k=k: Pipeline(**{"net": PIPE.net, "text": PIPE.text, "codec": PIPE.codec, "grid": PIPE.grid} | k),
           next(iter(k))) for k in ({"net": None}, {"text": None}, {"codec": None}, {"grid": (9, 16)}, {"steps": "3"},
          {"solver": "x"}, {"shift": 0}, {"guidance": "ucg2"}, {"device": "nope"})),
        *((lambda p=p: ccl.load(p), "path is") for p in (3, [], b"model")),
        *((lambda d=d: ccl.load(device=d), "device") for d in ("nope", "cuda:99", 3.5)),
        *((lambda t=t: ccl.load(trust=t), "trust") for t in (None, [3], ["a b"])),
        (lambda: PIPE.reconstruct(Row("a")), "reference"),
    ],
)  # fmt: skip
def test_what_makes_or_loads_a_pipeline_is_looked_at(call: Callable[[], Any], name: str) -> None:
    refused(call, name)


# Evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("clips", [None, 3, "a.mp4", Path("a.mp4"), Clip(FRAMES, SAMPLES), Film(Clip(FRAMES, None))])
def test_every_metric_takes_a_list_of_clips(metric: Any, clips: Any) -> None:
    refused(lambda: metric().score(clips), f"^{metric.name} ")


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_what_is_no_clip_is_a_reason_in_words(metric: Any) -> None:
    for found in metric().score([None, 3, FRAMES, Row("a"), ["a.mp4"]]):
        assert found.reason.startswith("a clip is ") and "it must be a path" in found.reason


@pytest.mark.parametrize("name", ["av_align", "dnsmos", "mouth"])
def test_sound_that_is_no_number_is_a_reason_and_no_value(name: str) -> None:
    metric = METRICS[name]()
    for bad in (np.nan, np.inf):
        clip = Clip(np.zeros((25, 16, 16, 3), np.uint8), np.full(16_000, bad, np.float32))
        (found,) = metric.score([clip])
        assert getattr(found, "reason", "") == "the sound holds NaN or infinity"


def test_score_names_what_it_cannot_take(tmp_path: Path) -> None:
    metric = METRICS["colours"]
    good: dict[str, Any] = {"methods": {"x": tmp_path}, "rows": [Row("a")], "metrics": [metric()]}
    for changed, name in (
        *(({"methods": x}, "methods") for x in ({}, "clips", [tmp_path], {"x": None})),
        *(({"rows": x}, "rows") for x in ([], "rows.jsonl", ["a"], None)),
        *(({"metrics": x}, "metrics") for x in ([], ["colours"], metric, [metric])),
        ({"reference": "nobody"}, "reference is 'nobody'; it must be one of the methods: x"),
    ):
        refused(lambda changed=changed: score(**{**good, **changed}, out=tmp_path / "out"), name)
    assert not (tmp_path / "out").exists()


# Documentation -------------------------------------------------------------------------------------------------------

PARTS = (ccl, codecs, guidance, interaction, model, text, ccl.evaluation)
PUBLIC = [(part, name) for part in PARTS for name in part.__all__ if callable(getattr(part, name))]


@pytest.mark.parametrize(("part", "name"), PUBLIC, ids=[f"{part.__name__}.{name}" for part, name in PUBLIC])
def test_every_public_name_says_what_it_is_and_what_its_arguments_are(part: Any, name: str) -> None:
    thing = getattr(part, name)
    said = inspect.getdoc(thing) or ""
    assert said
    if not inspect.isabstract(thing) and not (isinstance(thing, type) and issubclass(thing, Exception)):
        own = [name for name in inspect.signature(thing).parameters if not name.startswith(("_", "args", "kwargs"))]
        assert len(own) < 2 or not [name for name in own if not re.search(rf"\b{name}\b", said)]


def test_a_thing_is_told_as_a_reader_would_say_it() -> None:
    told = [arguments.described(x) for x in (None, "a", Path("b"), 2.5, Tensor([1.0]), np.zeros((1, 2)), ["x"], object)]
    assert told == [
        "None", "'a'", "PosixPath('b')", "2.5", "Tensor (1,) of float32", "ndarray (1, 2) of float64", "of type list",
        "of type type",
    ]  # fmt: skip
