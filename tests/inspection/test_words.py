"""What words and descriptions are worth: by hand, and on models that are known to listen or not to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger

from ccl.callbacks import EMA, Probe, TaskRouter
from ccl.cli import inspect, main
from ccl.inspection.clips import latents_of, rows_of
from ccl.inspection.parts import DESCRIPTION, WORDS, PromptPart, with_description
from ccl.inspection.words import gathered, needed, probed, worth_of
from ccl.model.dual_stream import DualStreamTransformer, Output
from ccl.model.stream import WanStream
from ccl.rng import generator
from ccl.tasks import PAPER_TASKS, Task, Term
from ccl.text.base import TextEncoder
from ccl.text.embedded import EmbeddedText
from ccl.types import AV, CLOSED, OPEN, Batch
from helpers.fakes import CHANNELS, GRID, FakeData, fit, make_batch, make_codec, make_module, make_net, make_text
from helpers.tiny import awake, tiny_pipeline
from helpers.tiny_clips import tiny_clip

SOUND, PICTURES = AV(False, True), AV(True, False)


def pairs_of(count: int = 12) -> list[tuple[Batch, AV[Any]]]:
    batches = [make_batch(0, range(count // 2)), make_batch(0, range(count // 2, count))]
    return [(batch, latents_of(batch, make_codec(), GRID, SOUND, "cpu")) for batch in batches]


def video_net(channels: int = CHANNELS.video, text_dim: int = 8) -> DualStreamTransformer:
    stream = WanStream(width=16, ffn=32, channels=channels)
    return DualStreamTransformer(video=stream, audio=None, layers=1, head_dim=8, text_dim=text_dim, freq_dim=16)


class Listener(torch.nn.Module):
    """Answers the true velocity, and is off by `deaf` where the words are not the clip's own."""

    def __init__(self, pairs: list[tuple[Batch, AV[Any]]], deaf: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.deaf = deaf

    def forward(self, x: AV[Any], t: AV[Any], text: torch.Tensor, *, grid: Any) -> Output:
        half = len(x.audio) // 2
        assert torch.equal(x.audio[:half], x.audio[half:]) and x.video is None
        off = torch.zeros_like(x.audio)
        if not self.deaf:
            off[half:] = text[half:].mean() + 1
        return Output(AV(None, off), {})


def test_a_model_that_ignores_text_is_worth_nothing() -> None:
    worth = worth_of(Listener([], deaf=True), make_text(), pairs_of(), GRID)
    assert worth.worth == 0 and worth.interval == (0, 0)
    assert len(worth.right) == 12


def test_a_network_without_its_text_attention_is_worth_nothing_and_one_with_it_is_not() -> None:
    net, text = make_net(), make_text()
    awake(net), awake(text, 1)
    assert abs(worth_of(net, text, pairs_of(), GRID).worth) > 1e-6
    for block in net.blocks:
        torch.nn.init.zeros_(block.audio.cross_attn.v.weight)
        torch.nn.init.zeros_(block.audio.cross_attn.v.bias)
    low, high = (deaf := worth_of(net, text, pairs_of(), GRID)).interval
    assert low - 1e-9 <= 0 <= high + 1e-9 and abs(deaf.worth) < 1e-6


PROMPTS = (
    'A tall man in red says "open the door"',
    'a woman says "no"',
    'A dog barks "three times" at night',
    'He says "yes, please"',
)


def listening(streams: AV[bool]) -> tuple[Any, EmbeddedText, list[tuple[Batch, AV[Any]]]]:
    """A network and a text encoder that do listen, and four clips."""
    net, text = make_net(), EmbeddedText(dim=8, length=16, layers=1, heads=2, buckets=64)
    awake(net), awake(text, 1)
    for block in net.blocks:
        block.audio.cross_attn.o.weight.data *= 20
        block.video.cross_attn.o.weight.data *= 20
    batches = [make_batch(0, range(3)), make_batch(1, range(1))]
    batches[0].prompt[:], batches[1].prompt[:] = PROMPTS[:3], PROMPTS[3:]
    return net, text, [(batch, latents_of(batch, make_codec(), GRID, streams, "cpu")) for batch in batches]


@pytest.mark.parametrize(
    ("part", "streams"),
    [(WORDS, SOUND), (WORDS, AV(True, True)), (DESCRIPTION, PICTURES), (DESCRIPTION, AV(True, True))],
    ids=lambda value: value.name if isinstance(value, PromptPart) else "".join("-x"[there] for there in value),
)
def test_losses_are_those_of_a_loop_over_clips(part: PromptPart, streams: AV[bool]) -> None:
    net, text, pairs = listening(streams)
    worth = worth_of(net, text, pairs, GRID, part, time=0.6, draws=2, seed=3)
    wrong = {
        "words": (
            'A tall man in red says "no"',
            'a woman says "three times"',
            'A dog barks "yes, please" at night',
            'He says "open the door"',
        ),
        "description": (
            'a woman says "open the door"',
            'He says "no"',
            'a woman says "three times"',
            'a woman says "yes, please"',
        ),
    }[part.name]
    clips = [(name, z.map(lambda x, i=i: x[i : i + 1])) for batch, z in pairs for i, name in enumerate(batch.id)]
    for i, (name, z) in enumerate(clips):
        found = np.zeros(2)
        for draw in range(2):
            noise, x = {}, {}
            for stream in ("video", "audio"):
                if getattr(streams, stream):
                    clean = getattr(z, stream)
                    g = generator("words", stream, 3, draw, name)
                    noise[stream] = torch.randn(clean.shape[1:], generator=g)[None]
                    x[stream] = 0.4 * clean + 0.6 * noise[stream]
            t = AV(*(torch.tensor([0.6]) if there else None for there in streams))
            for j, prompt in enumerate((PROMPTS[i], wrong[i])):
                with torch.no_grad():
                    out = net(AV(x.get("video"), x.get("audio")), t, text([prompt]), grid=GRID)
                v = noise[part.stream] - getattr(z, part.stream)
                found[j] += float((getattr(out.velocity, part.stream) - v).square().mean()) / 2
        assert abs(found[1] - found[0]) > 2e-5 * found[0]  # the swap is seen, beyond the tolerance
        np.testing.assert_allclose([worth.right[i], worth.wrong[i]], found, rtol=1e-5)


def test_what_words_were_worth_before_descriptions_were_measured_they_are_worth_now() -> None:
    """Worked out on 2026-11-28 by the code that measured words alone; float32 on a CPU."""
    net, text, pairs = listening(AV(True, True))
    worth = worth_of(net, text, pairs, GRID, time=0.6, draws=2, seed=3)
    np.testing.assert_allclose(worth.right, [2.8897209, 3.2961721, 2.7731881, 3.0966566], rtol=2e-6)
    np.testing.assert_allclose(worth.wrong, [2.8918538, 3.2942290, 2.7659292, 3.0932870], rtol=2e-6)


class Split(TextEncoder):
    """States of two numbers, of what is said and of what is described."""

    dim, length = 2, 1

    def forward(self, prompts: list[str]) -> torch.Tensor:
        pieces = [prompt.split('"') for prompt in prompts]
        return torch.tensor([[[len("".join(p[1::2])), len("".join(p[::2]).strip())]] for p in pieces]).float()


class Seer(torch.nn.Module):
    """Answers the video's true velocity, off by as many letters as the description is longer; it is deaf."""

    def __init__(self, z: AV[Any], prompts: list[str]) -> None:
        super().__init__()
        self.z, self.own = z, Split()(prompts)

    def forward(self, x: AV[Any], t: AV[Any], text: torch.Tensor, *, grid: Any) -> Output:
        off = (text - torch.cat([self.own, self.own]))[:, 0]
        of_video = (x.video - torch.cat([self.z.video] * 2)) / 0.8 + off[:, 1, None, None, None, None]
        return Output(AV(of_video, torch.zeros_like(x.audio)), {})


def test_pictures_that_follow_the_description_alone_are_worth_it_and_no_words() -> None:
    batch = make_batch(0, range(4))
    batch.prompt[:] = ['red "a"', 'blue "bcd"', "green one", 'yellow "e"']
    z = latents_of(batch, make_codec(), GRID, AV(True, True), "cpu")
    worth = worth_of(Seer(z, batch.prompt), Split(), [(batch, z)], GRID, DESCRIPTION)
    # red 3, blue 4, green one 9, yellow 6 letters: each with the next one's of one word, green one with the next one's
    np.testing.assert_allclose(worth.wrong - worth.right, [1, 4, 9, 9], rtol=1e-4)
    pictures = replace(WORDS, stream="video")
    kept = [0, 1, 3]
    some, own = rows_of(batch, kept), z.map(lambda x: x[kept])
    assert worth_of(Seer(own, some.prompt), Split(), [(some, own)], GRID, pictures).worth == 0
    assert worth_of(Seer(own, some.prompt), Split(), [(some, own)], GRID, WORDS).worth == 0


def test_other_words_are_the_next_that_differ_and_nothing_else_changes() -> None:
    prompts = ['A man says "yes" loudly', 'A woman says "Yes"', 'A dog says "no"']
    assert WORDS.with_others(prompts) == ['A man says "no" loudly', 'A woman says "no"', 'A dog says "yes"']


def test_another_description_is_the_most_alike_that_differs_and_what_is_said_stays() -> None:
    prompts = [
        'A man with a red hat says "yes"', 'a man with a red  hat says "no"', "A ball falls",
        'A man with a blue hat says "hey", then “ho”', 'A ball rolls and says "hi"',
    ]  # fmt: skip
    assert DESCRIPTION.with_others(prompts) == [
        'A man with a blue hat says "yes", then',
        'A man with a blue hat says "no", then',
        "A ball rolls and says",
        'A man with a red hat says "hey" “ho”',
        'A ball falls "hi"',
    ]
    assert with_description("A ball falls", 'Two: "hey", then “ho” softly') == "Two: , then  softly"


@pytest.mark.parametrize(
    ("part", "prompts", "message"),
    [
        (WORDS, ['A man says "yes"', 'A woman says "Yes"'], "all prompts say the same; clips that say different"),
        (WORDS, ["a bell", 'A man says "yes"'], "the prompt 'a bell' says nothing; words that are spoken stand in"),
        (WORDS, [], "no clip's prompt says anything; words that are spoken stand in double quotes"),
        (DESCRIPTION, ['A man says "yes"', 'a man  says "no"'], "all prompts describe the same; clips that describe"),
        (DESCRIPTION, ["a bell", ' "yes". '], "describes nothing; what is to be seen stands outside of the quotes"),
        (DESCRIPTION, ["a bell", ""], "the prompt '' describes nothing"),
        (DESCRIPTION, [], "no clip's prompt describes anything"),
    ],
)
def test_prompts_that_cannot_be_compared_are_refused_in_a_sentence(
    part: PromptPart, prompts: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        part.with_others(prompts)
    assert message in part.fault(prompts)


def test_each_part_gets_the_first_clips_that_have_it() -> None:
    batch = make_batch(0, range(4))
    batch.prompt[:] = [batch.prompt[0], "a bell rings", '"only words"', 'a mute says ""']
    encoded = []

    def encode(some: Batch, streams: AV[bool]) -> AV[Any]:
        encoded.append(list(some.id))
        return latents_of(some, make_codec(), GRID, streams, "cpu")

    found, faults = gathered([batch, batch, batch], 3, {WORDS: SOUND, DESCRIPTION: PICTURES}, encode)
    a, b, c, d = batch.id
    assert [each.id for each, _ in found[WORDS]] == [[a, c], [a]]
    assert [each.id for each, _ in found[DESCRIPTION]] == [[a, b, d]]
    assert encoded == [[a, b, c, d], [a]] and not faults
    assert torch.equal(found[WORDS][0][1].audio, batch.latents.audio[[0, 2]])
    assert torch.equal(found[DESCRIPTION][0][1].video, batch.latents.video[[0, 1, 3]])
    assert found[WORDS][0][1].video is None and found[WORDS][0][0].latents is None

    batch.prompt[:] = ["a bell rings", "a drum", "a ball", "a horn"]
    found, faults = gathered([batch], 3, {WORDS: SOUND, DESCRIPTION: PICTURES}, encode)
    assert list(found) == [DESCRIPTION] and faults[WORDS].startswith("no clip's prompt says anything")


def test_a_stream_is_probed_alone_only_where_it_was_trained_so() -> None:
    net, joint = make_net(), {"joint": Task(1.0, (Term(OPEN),))}
    assert needed(PAPER_TASKS, net, "audio") == SOUND and needed(PAPER_TASKS, net, "video") == PICTURES
    assert needed(joint, net, "audio") == needed(joint, net, "video") == AV(True, True)


def test_a_model_is_probed_for_the_streams_that_it_has_and_makes() -> None:
    assert probed(PAPER_TASKS, make_net()) == ({WORDS: SOUND, DESCRIPTION: PICTURES}, {})
    assert probed({"video": Task(1.0, (Term(CLOSED),))}, video_net()) == ({DESCRIPTION: PICTURES}, {})
    dubs = {"v2a": PAPER_TASKS["v2a"], "video": Task(1.0, (Term(CLOSED, weight={"video": 1.0, "audio": 0.0}),))}
    found, faults = probed(dubs, make_net())
    assert found == {DESCRIPTION: PICTURES} and "was not trained for pictures and sound" in faults[WORDS]
    shown = SimpleNamespace(ends=AV(object(), object()), needs=("image",), closed="nothing")
    found, faults = probed(PAPER_TASKS, shown)
    assert found == {WORDS: SOUND} and "is shown a first picture" in faults[DESCRIPTION]


def test_the_verb_has_a_line_for_each_stream_that_a_model_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, prompts = tiny_pipeline(), ['A man says "yes"', 'A woman says "no"']
    clips = [replace(tiny_clip(i, pipe.grid), prompt=prompt, id=str(i)) for i, prompt in enumerate(prompts)]
    monkeypatch.setattr(inspect, "pipeline_of", lambda args: pipe)
    monkeypatch.setattr("ccl.inspection.clips.world_clips", lambda *args, **kwargs: iter(clips))

    def lines() -> list[str]:
        assert main(["inspect", "words", "--clips", "2", "--draws", "1"]) == 0
        return capsys.readouterr().out.splitlines()

    words, description = lines()
    assert words.startswith("words to the sound at t = 0.8, the world's test split: ") and words.endswith("of 2 clips")
    assert description.startswith("description to the pictures at t = 0.8") and description.endswith("of 2 clips")
    own, pipe.net = pipe.net, video_net(16, 16)
    assert [line.partition(" at ")[0] for line in lines()] == ["description to the pictures"]
    pipe.net = own
    clips[:] = [replace(clip, prompt=clip.prompt.partition(" says")[0]) for clip in clips]
    words, again = lines()
    assert "not measured: no clip's prompt says anything" in words and again.endswith("of 2 clips")
    clips[:] = [replace(clip, prompt="") for clip in clips]
    assert main(["inspect", "words", "--clips", "2"]) == 1
    assert "no clip's prompt describes anything" in capsys.readouterr().err


class Validated(FakeData):
    """Clips for validation with these descriptions, in each of which somebody speaks."""

    val_shards = "here"

    def __init__(self, described: tuple[str, ...] = ("a man", "a bell", "a child", "a horn")) -> None:
        super().__init__(size=1)
        self.described = described

    def val_dataloader(self) -> list[Any]:
        batch = make_batch(7, range(len(self.described)))
        batch.prompt[:] = [f'{who} says "{i}"' for i, who in enumerate(self.described)]
        return [batch]


def go(folder: Path, steps: int, data: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
    callbacks = [TaskRouter(), EMA(0.9), Probe(every=2, clips=3)]
    options = {"callbacks": callbacks, "max_steps": steps, "limit_val_batches": 0} | kwargs
    fit(make_module(), data or Validated(), folder, **options)
    return [json.loads(line) for line in (folder / "words.jsonl").read_text().splitlines()]


def test_a_training_writes_what_its_prompts_are_worth_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    rows = go(tmp_path, 5)
    assert [row["step"] for row in rows] == [2, 4, 5]
    for part in ("", "description_"):
        assert all(row[f"{part}low"] <= row[f"{part}worth"] <= row[f"{part}high"] for row in rows)
        assert all(row[f"{part}loss"] > 0 for row in rows)
    assert go(tmp_path, 3) == rows[:1] + [row for row in go(tmp_path, 3) if row["step"] == 3]  # anew: no old one stays


def test_a_file_of_words_alone_is_gone_on_with(tmp_path: Path) -> None:
    old = {"step": 0, "worth": 0.1, "low": 0.0, "high": 0.2, "loss": 1.0}
    (tmp_path / "words.jsonl").write_text(json.dumps(old) + "\n" + '{"step": 1, "wor')
    rows = go(tmp_path, 2)
    assert rows[0] == old and rows[1].keys() == old.keys() | {f"description_{key}" for key in old if key != "step"}


def test_loggers_get_both_and_a_part_that_cannot_be_compared_is_told_once(tmp_path: Path) -> None:
    class Kept(Logger):
        name, version = "kept", 0

        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, int | None] = {}

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.seen |= dict.fromkeys(metrics, step)

    both, one = Kept(), Kept()
    go(tmp_path / "both", 2, logger=both)
    assert {"val_words/worth", "val_description/worth", "val_description/loss"} <= both.seen.keys()
    assert both.seen["val_description/worth"] == both.seen["val_words/worth"] == 1
    with pytest.warns(UserWarning, match="worth of description to the pictures is not probed: .* describe the same"):
        (row,) = go(tmp_path / "one", 2, Validated(("a man",) * 3), logger=one)
    assert "val_words/worth" in one.seen and not any("description" in key for key in (*one.seen, *row))
