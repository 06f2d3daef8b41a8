"""A voice that tasks give: another sound of the speaker, brought by the data, heard by the network, counted nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ccl.data.make import known_of
from ccl.data.world import World
from ccl.data.world.voices import reference
from ccl.generation.order import parts_of
from ccl.generation.terms import Asked, trained
from ccl.grid import Grid
from ccl.inspection.voice import figures_of, pitch, semitones, told
from ccl.model import Voice
from ccl.rows import Row
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.training.module import TrainingError
from ccl.types import AV, OPEN, VOICE, VOICE_SECONDS
from helpers.fakes import make_batch, make_module
from helpers.tiny import PROMPTS, awake, tiny_pipeline

GIVEN = Term(OPEN, {"audio": Given("voice", prob=0.5)}, shared_time=True)
RATE = 16_000


def batch_of(count: int = 8) -> Any:
    """Clips of which the first has no voice."""
    batch = make_batch(0, range(count))
    sound = torch.randn(count, round(VOICE_SECONDS * RATE), generator=torch.Generator().manual_seed(0))
    sound[0] = 0
    batch.extras[VOICE] = sound
    return batch


def seen(monkeypatch: pytest.MonkeyPatch, net: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda *a, **k: found.append(k["extras"]) or forward(*a, **k))
    return found


# Training


def test_a_term_gives_a_voice_to_its_share_of_the_clips_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make_module(), batch_of()
    found = seen(monkeypatch, module.built[0])
    module.losses(batch, Task(1.0, (GIVEN, Term(OPEN, name="without"))), index=0)
    chance = module.draw(batch.prompt, batch.latents, index=0)
    voice = found[0][VOICE]
    assert isinstance(voice, Voice) and voice.latents.shape == (16, 6, 46)  # two terms; 1.5 s at 31.25 a second
    assert voice.there[:8].tolist() == [i > 0 and bool(chance.given[i] < 0.5) for i in range(8)]
    assert not voice.there[8:].any() and voice.there.any()
    module.losses(batch, Task(1.0, (Term(OPEN),)), index=0)
    assert VOICE not in found[1]  # where no term gives one, nothing is computed of it


def test_all_of_the_clip_counts_and_the_loss_hears_the_voice() -> None:
    module, batch = make_module(), batch_of()
    awake(module.built[0])
    terms = replace(GIVEN, given={"audio": Given("voice")}), Term(OPEN, shared_time=True)
    heard, without = (module.losses(batch, Task(1.0, (term,)), index=0).terms[0] for term in terms)
    torch.testing.assert_close(heard.audio[0], without.audio[0])  # who says nothing
    assert ((heard.audio - without.audio)[1:].abs() > 1e-4).all()


def test_data_that_bring_no_voice_are_refused() -> None:
    module = make_module()
    module.train()
    with pytest.raises(TrainingError, match="a task gives a voice, which the data do not bring; the talking wor"):
        module.losses(make_batch(0, range(2)), Task(1.0, (GIVEN,)), index=0)
    with pytest.raises(ValueError, match='a term gives the video a "voice", which has none; it is given to the audio'):
        Term(OPEN, {"video": Given("voice")})


def test_the_world_brings_another_sentence_of_each_speaker() -> None:
    world = World(0, "train", Grid())
    known = known_of(Grid(), 0, (VOICE,))
    assert known is not None and known.names == (VOICE,) and known_of(Grid(), 0, ()) is None
    speech = next(i for i in range(50) if world.subset(i) != "event")
    event = next(i for i in range(50) if world.subset(i) == "event")
    heard = known({"id": world.id(speech)}, Grid())[VOICE]
    assert heard.shape == (24_000,) and np.array_equal(heard, reference(world, speech)) and heard.std() > 0.02
    assert not known({"id": world.id(event)}, Grid())[VOICE].any()
    own = pitch(world.line(speech).speech.audio, RATE)
    assert abs(12 * np.log2(pitch(heard, RATE) / own)) < 3


# Sampling


def test_a_clip_is_given_a_voice_where_that_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, sound = tiny_pipeline(), np.sin(np.arange(40_000) / 20).astype(np.float32)
    with pytest.raises(ValueError, match="this model was not trained for pictures and sound from a voice; it knows"):
        pipe(PROMPTS[0], voice=sound)
    pipe.tasks = {**PAPER_TASKS, "voice": Task(1.0, (GIVEN,))}
    found = seen(monkeypatch, pipe.net)
    rows = [Row("a", PROMPTS[0], voice=sound[:16_000], seed=1), Row("b", PROMPTS[1], seed=2)]
    both = pipe.generate(rows, steps=1, guidance="none")
    clip = pipe(PROMPTS[0], voice=sound, steps=1, guidance="none")
    assert clip.meta["notes"] == ["the voice lasts 2.50 s; its voice was taken from the first 1.5 s"]
    (plain,) = pipe.generate(rows[1:], steps=1, guidance="none")
    assert np.abs(both[1].audio - plain.audio).max() < 1e-3 and len(clip.audio) == pipe.grid.samples
    assert len(found) >= 1


def test_a_voice_goes_with_sound_that_is_made_and_with_no_clip_to_go_on_from() -> None:
    assert parts_of(Row("a", voice="v.wav"), AV(True, True)) == AV(None, "voice")
    known = trained({**PAPER_TASKS, "voice": Task(1.0, (GIVEN,))}, "context")
    assert known.find(Asked(None, AV(True, True), (AV(None, "voice"),))) is GIVEN
    pipe = tiny_pipeline()
    with pytest.raises(ValueError, match="a voice is given, but no sound is to be generated"):
        pipe("a", voice=np.ones(99, np.float32), wanted=AV(True, False))
    with pytest.raises(ValueError, match="a voice and a whole sound are both given; give one of them"):
        pipe("a", voice=np.ones(99, np.float32), audio=np.ones(99, np.float32))


# Its measure


@pytest.mark.parametrize("hertz", [85.0, 130.0, 210.0, 290.0])
def test_the_pitch_of_a_tone_with_overtones_is_its_lowest(hertz: float) -> None:
    t = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 12)).astype(np.float32) / 10
    assert pitch(tone, RATE) == pytest.approx(hertz, rel=0.01)
    higher = sum(np.sin(4 * np.pi * hertz * k * t) / k for k in range(1, 6)).astype(np.float32) / 10
    assert hertz > 200 or semitones([higher], [tone], RATE)[0] == pytest.approx(12, abs=0.3)


def test_what_has_no_pitch_has_kept_none() -> None:
    assert np.isnan(pitch(np.zeros(RATE, np.float32), RATE)) and np.isnan(pitch(np.zeros(9, np.float32), RATE))
    assert told(figures_of(np.array([0.5, -2.0, np.nan]))) == "1 of 3 (1.25 semitones off)"
