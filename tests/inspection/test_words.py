"""What words are worth: by hand, and on models that are known to listen or not to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import flow
from ccl.callbacks import EMA, Probe, TaskRouter
from ccl.inspection.clips import latents_of
from ccl.inspection.words import needed, spoken_of, with_other_words, worth_of
from ccl.model.dual_stream import Output
from ccl.rng import generator
from ccl.tasks import PAPER_TASKS, Task, Term
from ccl.types import AV, OPEN, Batch
from helpers.fakes import GRID, FakeData, fit, make_batch, make_codec, make_module, make_net, make_text
from helpers.tiny import awake

SOUND = AV(False, True)


def pairs_of(count: int = 12) -> list[tuple[Batch, AV[Any]]]:
    batches = [make_batch(0, range(count // 2)), make_batch(0, range(count // 2, count))]
    return [(batch, latents_of(batch, make_codec(), GRID, SOUND, "cpu")) for batch in batches]


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


def test_losses_are_those_of_a_loop_over_clips() -> None:
    net, text, pairs = make_net(), make_text(), pairs_of(4)
    awake(net), awake(text, 1)
    worth = worth_of(net, text, pairs, GRID, time=0.6, draws=2, seed=3)
    prompts = [prompt for batch, _ in pairs for prompt in batch.prompt]
    other = with_other_words(prompts)
    clips = [(name, z.audio[i : i + 1]) for batch, z in pairs for i, name in enumerate(batch.id)]
    for i, (name, z) in enumerate(clips):
        found = np.zeros(2)
        for draw in range(2):
            noise = torch.randn(z.shape[1:], generator=generator("words", "audio", 3, draw, name))[None]
            x = flow.interpolate(z, noise, torch.tensor([0.6]))
            for j, prompt in enumerate((prompts[i], other[i])):
                with torch.no_grad():
                    v = net(AV(None, x), AV(None, torch.tensor([0.6])), text([prompt]), grid=GRID).velocity.audio
                found[j] += float((v - (noise - z)).square().mean()) / 2
        np.testing.assert_allclose([worth.right[i], worth.wrong[i]], found, rtol=1e-5)


def test_other_words_are_the_next_that_differ_and_nothing_else_changes() -> None:
    prompts = ['A man says "yes" loudly', 'A woman says "Yes"', 'A dog says "no"']
    assert with_other_words(prompts) == ['A man says "no" loudly', 'A woman says "no"', 'A dog says "yes"']
    with pytest.raises(ValueError, match="all prompts say the same"):
        with_other_words(prompts[:2])
    with pytest.raises(ValueError, match="nothing is said in the prompt 'a bell'"):
        with_other_words(["a bell", prompts[0]])


def test_clips_in_which_nobody_speaks_are_left_out() -> None:
    batch = make_batch(0, range(4))
    batch.prompt[1], batch.prompt[2] = "a bell rings", 'a mute says ""'
    (found,) = spoken_of([batch], 9)
    assert found.id == [batch.id[0], batch.id[3]]
    assert torch.equal(found.latents.audio, batch.latents.audio[[0, 3]])
    assert [len(each.id) for each in spoken_of([batch, batch], 3)] == [2, 1]


def test_sound_is_probed_alone_only_where_it_was_trained_so() -> None:
    net = make_net()
    assert needed(PAPER_TASKS, net) == SOUND
    assert needed({"joint": Task(1.0, (Term(OPEN),))}, net) == AV(True, True)


class Validated(FakeData):
    val_shards = "here"

    def val_dataloader(self) -> list[Any]:
        return [make_batch(7, range(4))]


def test_a_training_writes_what_words_are_worth_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    class Quiet(Validated):
        def __init__(self) -> None:
            super().__init__(size=1)

    def go(steps: int) -> list[dict[str, Any]]:
        callbacks = [TaskRouter(), EMA(0.9), Probe(every=2, clips=3)]
        fit(make_module(), Quiet(), tmp_path, callbacks=callbacks, max_steps=steps, limit_val_batches=0)
        return [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]

    rows = go(5)
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert all(row["low"] <= row["worth"] <= row["high"] and row["loss"] > 0 for row in rows)
    assert go(3) == rows[:1] + [row for row in go(3) if row["step"] == 3]  # a run anew: nothing of the old stays
