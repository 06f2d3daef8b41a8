"""Joint training's arithmetic: what is drawn, what is given, what counts, and what is said when it cannot go on."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from ccl import flow
from ccl.callbacks import SaveCheckpoint, TaskRouter
from ccl.flow import UniformTime
from ccl.model import DualStreamTransformer, Output, WanStream
from ccl.tasks import PAPER_TASKS, Task
from ccl.text import EmbeddedText
from ccl.training import fsdp
from ccl.training.draws import placed
from ccl.training.losses import loss_by_clip
from ccl.training.module import JointDiffusion, TrainingError
from ccl.training.optimizer import OptimizerConfig
from ccl.training.start import begin
from ccl.types import AV, Batch
from ccl.weights import find
from helpers.fakes import (
    CHANNELS,
    GRID,
    FakeData,
    fit,
    make_batch,
    make_codec,
    make_module,
    make_net,
    make_text,
    model_config,
)  # fmt: skip

JOINT, SINGLE, A2V, V2A = (PAPER_TASKS[name] for name in ("joint", "single", "a2v", "v2a"))


@pytest.fixture
def module() -> JointDiffusion:
    module = make_module()
    module.configure_model()
    return module


def draws(module: JointDiffusion, task: Any, size: int = 6, **kwargs: Any) -> Any:
    """Draws of a batch, as the task's one term takes them."""
    batch = make_batch(0, range(size))
    drawn = module.draw(batch.prompt, batch.latents, **{"index": 0} | kwargs)
    t, counted = placed(drawn, task.terms[0], batch.latents, GRID)
    return SimpleNamespace(t=t, counted=counted, noise=drawn.noise, prompt=drawn.prompt)


def always(task: Task, prob: float = 1.0) -> Task:
    """The task with a first frame that is given to every clip, where it gives one to some."""
    (term,) = task.terms
    given = {s: replace(part, prob=prob) if part.part == "first_frame" else part for s, part in term.given.items()}
    return replace(task, terms=(replace(term, given=given),))


def test_joint_gives_both_streams_the_same_time_and_single_does_not(module: JointDiffusion) -> None:
    joint, single = draws(module, always(JOINT, 0.0)), draws(module, always(SINGLE, 0.0))
    assert torch.equal(joint.t.video, joint.t.audio)
    assert not torch.isclose(single.t.video, single.t.audio).any()


@pytest.mark.parametrize(("task", "given"), [(A2V, "audio"), (V2A, "video")])
def test_a_given_stream_is_clean(module: JointDiffusion, task: Any, given: str) -> None:
    t = draws(module, task).t._asdict()
    assert not t.pop(given).any()
    assert next(iter(t.values())).any()


@pytest.mark.parametrize("task", [JOINT, SINGLE, A2V])
def test_a_given_first_frame_is_at_time_zero_and_does_not_count(module: JointDiffusion, task: Any) -> None:
    drawn = draws(module, always(task))
    assert drawn.t.video.shape == drawn.counted.video.shape == (6, GRID.t_v)
    assert not drawn.t.video[:, 0].any() and not drawn.counted.video[:, 0].any()
    assert (drawn.t.video[:, 1:] == drawn.t.video[:, 1:2]).all() and drawn.t.video[:, 1:].all()
    assert drawn.counted.video[:, 1:].all() and drawn.counted.audio.all()


def test_a_given_video_has_no_image_condition(module: JointDiffusion) -> None:
    drawn = draws(module, V2A)
    assert drawn.t.video.shape == (6,) and drawn.counted.video.all()


def test_image_and_text_dropout_are_drawn_for_each_clip(module: JointDiffusion) -> None:
    drawn = draws(module, JOINT, size=400)
    assert 0.4 < 1 - drawn.counted.video[:, 0].mean() < 0.6
    assert 0.05 < sum(prompt == "" for prompt in drawn.prompt) / 400 < 0.16


def test_a_dropped_prompt_is_the_encoded_empty_one(module: JointDiffusion) -> None:
    module.text_dropout = 1.0
    assert draws(module, JOINT).prompt == [""] * 6


def test_a_clip_draws_the_same_on_whatever_rank_it_is(module: JointDiffusion) -> None:
    one, batch = make_batch(0, range(4)), make_batch(0, range(2, 4))
    one, second = (
        module.draw(one.prompt, one.latents, index=0),
        module.draw(batch.prompt, batch.latents, index=0, rank=1),
    )
    assert torch.equal(one.given[2:], second.given) and torch.equal(one.where[2:], second.where)
    for whole, part in zip((one.noise, one.time), (second.noise, second.time), strict=True):
        assert all(torch.equal(x[2:], y) for x, y in zip(whole, part, strict=True))
    assert one.prompt[2:] == second.prompt


def test_noise_differs_between_clips_and_batches_but_not_between_tasks(module: JointDiffusion) -> None:
    first, again, later = draws(module, JOINT), draws(module, V2A), draws(module, JOINT, index=1)
    assert torch.equal(first.noise.video, again.noise.video)
    assert not torch.isclose(first.noise.video, later.noise.video).any()
    assert not torch.isclose(first.noise.audio[0], first.noise.audio[1]).any()


def test_drawing_leaves_the_global_generator_alone(module: JointDiffusion) -> None:
    before = torch.get_rng_state()
    draws(module, JOINT)
    make_module().configure_model()
    assert torch.equal(before, torch.get_rng_state())


def test_the_loss_is_the_analytic_one_on_a_known_field(module: JointDiffusion) -> None:
    def oracle(x: AV[Tensor], t: AV[Tensor], *_: Any, **__: Any) -> Output:
        """The velocity of a clip that is 0.5 everywhere, v = (x_t - x) / t, and 0.1 beside it."""
        return Output(AV.zip(lambda x, t: (x - 0.5) / flow.expand(t, x).clamp(min=1e-6) + 0.1, x, t), {})

    assert module.net is not None
    module.net.forward = oracle  # type: ignore[method-assign]
    module.time = UniformTime()
    batch = make_batch(0, range(4))
    assert batch.latents is not None
    batch.latents = batch.latents.map(lambda x: torch.full_like(x, 0.5))
    (rows,), _ = module.losses(
        batch, always(JOINT), index=0
    )  # the given frame, whose velocity the oracle cannot know, is left out
    for losses in rows:
        torch.testing.assert_close(losses, torch.full((4,), 0.01), rtol=1e-2, atol=1e-5)


def test_every_clip_weighs_the_same_however_much_of_it_is_given() -> None:
    error = torch.ones(2, 3, 4, 2, 2)
    error[1] *= 2
    counted = torch.ones(2, 4)
    counted[0, 0] = 0
    assert loss_by_clip(error, torch.zeros_like(error), counted).tolist() == [1, 4]


@pytest.mark.parametrize(("task", "given"), [(A2V, "audio"), (V2A, "video")])
def test_a_given_stream_gets_a_gradient_that_is_zero_but_there(module: JointDiffusion, task: Any, given: str) -> None:
    assert module.net is not None
    for parameter in module.net.cross_modal_parameters():
        nn.init.normal_(parameter, std=0.1)  # a new interaction is zero, and so would be what it hands back
    module.weighed(module.losses(make_batch(0, range(2)), task, index=0), task).mean().backward()
    for name, parameter in module.net.named_parameters():
        assert parameter.grad is not None, name
    stream = getattr(module.net.blocks[-1], given)
    assert not any(parameter.grad.any() for parameter in stream.parameters())


def test_media_are_encoded_as_their_latents_are() -> None:
    module = make_module()
    video = torch.randint(0, 256, (2, 3, GRID.frames, GRID.height, GRID.width), dtype=torch.uint8)
    media = AV(video, torch.rand(2, GRID.samples))
    z = module.encode(Batch(["a", "b"], ["", ""], media=media))
    expected = module.codec.encode(AV(video / 127.5 - 1, media.audio), GRID)
    assert all(torch.equal(x, y) for x, y in zip(z, expected, strict=True))
    assert z.video.shape[1:3] == (CHANNELS.video, GRID.t_v) and z.audio.shape[1:] == (CHANNELS.audio, GRID.t_a)


def test_a_codec_is_not_part_of_a_checkpoint(module: JointDiffusion) -> None:
    assert {name.split(".")[0] for name in module.state_dict()} == {"net", "text"}


def test_equal_seeds_build_equal_weights_and_others_do_not() -> None:
    modules = [make_module(seed=seed) for seed in (1, 1, 2)]
    for i, module in enumerate(modules):
        torch.manual_seed(i)  # which must not matter
        module.configure_model()
    one, two, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in modules)
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_text_states_of_a_width_that_the_network_does_not_read_are_refused() -> None:
    module = JointDiffusion(make_net, lambda: EmbeddedText(dim=24, heads=2), make_codec(), GRID)
    with pytest.raises(TrainingError, match=r"model\.text has a dim of 24 and model\.net a text_dim of \d+; they must"):
        module.configure_model()


def test_training_without_the_router_says_what_is_missing(tmp_path: Path) -> None:
    module = make_module()
    with pytest.raises(TrainingError, match=r"trainer.callbacks hold 0 .* such as ccl.callbacks.TaskRouter"):
        fit(module, FakeData(), tmp_path, callbacks=[])
    assert module.net is None  # told before anything is built


def test_a_loss_that_is_not_a_number_names_step_task_and_clip(tmp_path: Path) -> None:
    module = make_module(tasks={"joint": JOINT})
    with pytest.raises(TrainingError, match=r"the loss is nan at step 2, batch 2, task joint, from clips clip-2-1; "):
        fit(module, FakeData(bad_from=2), tmp_path, max_steps=5)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


class Spoil(Callback):
    """Makes a gradient infinite at a step, whatever the loss."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.before: list[Tensor] = []

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            self.before = [parameter.detach().clone() for parameter in pl_module.parameters()]
            next(p for p in pl_module.parameters() if p.grad is not None).grad.view(-1)[0] = math.inf


def test_gradients_that_are_not_finite_update_nothing(tmp_path: Path) -> None:
    module, spoil = make_module(), Spoil(1)
    with pytest.raises(
        TrainingError, match="the gradients are not finite at step 1, although the loss is; nothing was"
    ):
        fit(module, FakeData(), tmp_path, callbacks=[TaskRouter(), spoil], gradient_clip_val=1.0)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), spoil.before, strict=True))


def test_a_checkpoint_of_other_trained_parameters_is_not_gone_on_from(tmp_path: Path) -> None:
    save = {"callbacks": [TaskRouter(), SaveCheckpoint(every=1)], "enable_checkpointing": True}
    module = make_module()
    fit(module, FakeData(), tmp_path, max_steps=1, **save)
    whole = sum(1 for part in module.built for p in part.parameters() if p.requires_grad)
    frozen = make_module(freeze="backbones")
    cross = {id(p) for p in frozen.built[0].cross_modal_parameters()}
    with pytest.raises(TrainingError, match=r"training of other parameters .*--model\.pretrained in the place") as told:
        fit(frozen, FakeData(), tmp_path, ckpt_path=tmp_path / "checkpoints/last.ckpt", max_steps=2, **save)
    there, _, here = str(told.value).partition("(")[2].partition(")")[0].partition("; here ")
    counts = [sum(int(part.split()[0]) for part in side.split(", ")) for side in (there, here)]
    assert counts == [whole, len(cross)] and "streams" in there and "streams" not in here


class Rates(Callback):
    """What each optimizer step is made with, by group."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.seen.append({group["name"]: dict(group) for group in optimizer.param_groups})


def test_who_goes_on_with_other_rates_trains_with_those(tmp_path: Path) -> None:
    """Rate times warm-up, by a loop; moments come from the checkpoint, the numbers of AdamW from this config."""
    checkpoint = {"callbacks": [TaskRouter(), SaveCheckpoint(every=2)], "enable_checkpointing": True}
    fit(make_module(), FakeData(), tmp_path, max_steps=2, **checkpoint)  # at 1e-2, warmed up in 2 steps
    other = OptimizerConfig(lr=3e-3, lr_cross=5e-3, warmup_steps=4, weight_decay=0.2, betas=(0.5, 0.6), eps=1e-5)
    rates, last = Rates(), tmp_path / "checkpoints/last.ckpt"
    fit(
        make_module(optimizer=other), FakeData(), tmp_path, callbacks=[TaskRouter(), rates], max_steps=6, ckpt_path=last
    )
    assert len(rates.seen) == 4
    for step, groups in enumerate(rates.seen, start=2):
        share = min(1.0, (step + 1) / 4)
        for name, group in groups.items():
            assert group["lr"] == pytest.approx((5e-3 if name.startswith("cross") else 3e-3) * share, rel=1e-12)
            assert group["weight_decay"] == (0.0 if name.endswith("_undecayed") else 0.2)
            assert (*group["betas"], group["eps"]) == (0.5, 0.6, 1e-5)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(TrainingError, match="clips a, b hold neither media nor latents"):
        make_module().encode(Batch(["a", "b"], ["", ""]))


def test_weights_of_another_shape_are_refused_by_their_first_key(module: JointDiffusion) -> None:
    module._trainer = SimpleNamespace(ckpt_path="last.ckpt")  # type: ignore[assignment]
    state = module.state_dict()
    state["net.blocks.0.video.modulation"] = torch.zeros(1, 6, 7)
    with pytest.raises(ValueError, match=r"net\.blocks\.0\.video\.modulation is \(1, 6, 7\), and \(1, 6, 16\) in this"):
        module.on_load_checkpoint({"batches": 3, "state_dict": state})
    del state["net.blocks.0.video.modulation"]
    with pytest.raises(ValueError, match=r"lacks 1 keys of this model, the first is net\.blocks\.0\.video\.modulation"):
        module.on_load_checkpoint({"batches": 3, "state_dict": state})


def test_a_sharded_checkpoint_of_another_model_is_refused_before_it_is_read(
    tmp_path: Path, module: JointDiffusion
) -> None:
    from torch.distributed.checkpoint import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that it saves from one process
        save({"state_dict": module.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
    other = make_module("gate")  # all of a gate's weights are there, and the context tokens' besides
    other.configure_model()
    for resumed in (module, other):
        resumed._trainer = SimpleNamespace(ckpt_path=tmp_path)  # type: ignore[assignment]
    module.on_fit_start()
    with pytest.raises(
        ValueError,
        match=r"has \d+ keys that this model has not, the first is net\.blocks\.0\.interaction\.a2v\.context\.",
    ):
        other.on_fit_start()


def test_weights_that_are_no_model_are_not_taken_for_one(tmp_path: Path) -> None:
    save_file({"encoder.conv_in.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(TrainingError, match=r"model\.pretrained: .* holds no weights of a Wan backbone"):
        make_module(pretrained=str(tmp_path)).configure_model()


def test_training_may_start_from_a_models_weights(tmp_path: Path, module: JointDiffusion) -> None:
    other = make_module(seed=9)
    other.configure_model()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    started = make_module(pretrained=str(tmp_path))
    started.configure_model()
    assert all(torch.equal(a, b) for a, b in zip(started.parameters(), other.parameters(), strict=True))


def test_training_may_start_from_a_runs_averaged_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(model_config()))
    for step, seed in ((4, 7), (8, 9)):
        other = make_module(seed=seed)
        other.configure_model()
        average = {f"ema.{name}": value + 1 for name, value in other.state_dict().items() if name.startswith("net.")}
        checkpoint = {"state_dict": {**other.state_dict(), **average}, "global_step": step}
        torch.save(checkpoint, run / f"checkpoints/step={step:06d}.ckpt")
    for source in (run, run / "checkpoints/step=000008.ckpt"):
        started = make_module(pretrained=str(source))
        started.configure_model()
        assert started.net is not None and other.net is not None and started.text is not None
        assert all(torch.equal(a, b + 1) for a, b in zip(started.net.parameters(), other.net.parameters(), strict=True))
    started = make_module(pretrained={"audio": str(run)})
    started.configure_model()
    assert torch.equal(started.net.audio.head.head.weight, other.net.audio.head.head.weight + 1)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(TrainingError, match=r"model\.pretrained: there is no checkpoint in"):
        make_module(pretrained=str(run)).configure_model()


def test_the_text_encoder_alone_may_come_from_another_model(tmp_path: Path) -> None:
    other, fresh = make_module(seed=9), make_module()
    other.configure_model(), fresh.configure_model()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    started = make_module(pretrained={"text": str(tmp_path)})
    started.configure_model()
    wanted = {**fresh.state_dict(), **{k: v for k, v in other.state_dict().items() if k.startswith("text.")}}
    assert all(torch.equal(value, wanted[name]) for name, value in started.state_dict().items())
    save_file({k: v for k, v in wanted.items() if k.startswith("net.")}, tmp_path / "model.safetensors")
    with pytest.raises(TrainingError, match=r"model\.pretrained: .*lacks \d+ keys"):
        make_module(pretrained={"text": str(tmp_path)}).configure_model()


def test_what_ships_is_found_by_its_name_wherever_the_package_lies() -> None:
    assert find.installed("ccl/checkpoints/embedded") == Path(find.__file__).parents[1] / "checkpoints/embedded"
    assert find.installed("ccl/other") == Path("ccl/other") and find.installed("a/ccl/checkpoints") == Path(
        "a/ccl/checkpoints"
    )


def test_a_source_for_a_stream_that_the_network_lacks_is_told() -> None:
    audio = WanStream(width=8, ffn=16, channels=CHANNELS.audio)
    alone = DualStreamTransformer(video=None, audio=audio, layers=1, head_dim=8, text_dim=8, freq_dim=16)
    with pytest.raises(
        ValueError, match=r"^x is given as \.video, and the network has no video stream; null leaves it out"
    ):
        begin(alone, make_text(), {"video": "x"})


def test_what_no_source_has_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_module(seed=9)
    other.configure_model()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    make_module(pretrained={"video": str(tmp_path), "audio": str(tmp_path), "text": None}).configure_model()
    said = capsys.readouterr().out
    assert re.search(
        r"of the video stream and the text encoder loaded\n.* audio stream and the text encoder loaded", said
    )
    assert re.findall(r"new, as initialised: .*", said) == [
        f"new, as initialised: {sum(1 for name, _ in other.net.named_parameters() if '.interaction.' in name)} "
        f"(interaction {sum(1 for name, _ in other.net.named_parameters() if '.interaction.' in name)})"
    ]


@pytest.mark.parametrize("kept", [("video", "audio"), ("audio",)])
def test_a_folder_gives_what_it_has_and_the_rest_stays_as_it_began(
    kept: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, fresh = make_module(seed=9), make_module()
    other.configure_model(), fresh.configure_model()
    state = {name: value for name, value in other.state_dict().items() if any(f".{part}." in name for part in kept)}
    save_file(state, tmp_path / "model.safetensors")
    started = make_module(pretrained=str(tmp_path))
    started.configure_model()
    for name, value in started.state_dict().items():
        assert torch.equal(value, (state if name in state else fresh.state_dict())[name]), name
    said = capsys.readouterr().out
    assert f"{tmp_path}: {len(state)} tensors of the {' and the '.join(kept)} stream loaded" in said
    assert "new, as initialised" in said and "interaction" in said and "text" in said


def test_streams_that_ship_and_do_not_fit_say_where_to_begin_and_damaged_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "checkpoints" / "streams"
    shipped.mkdir(parents=True)
    monkeypatch.setattr("ccl.weights.find.PACKAGE", tmp_path)
    of_another_size = make_module("gate")
    of_another_size.configure_model()
    state = {key: value[..., :1].contiguous() for key, value in of_another_size.state_dict().items()}
    save_file(state, shipped / "model.safetensors")
    with pytest.raises(TrainingError, match=r"others begin from nothing, with --config configs/trainer/scratch\.yaml"):
        make_module("gate", pretrained="ccl/checkpoints/streams").configure_model()
    (shipped / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrainingError) as caught:
        make_module("gate", pretrained="ccl/checkpoints/streams").configure_model()
    assert "scratch.yaml" not in str(caught.value)


def test_a_folder_with_another_interaction_is_told_how_to_give_its_streams_alone(tmp_path: Path) -> None:
    other = make_module("gate")
    other.configure_model()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(
        TrainingError, match=rf"`--model.pretrained.video {tmp_path} --model.pretrained.audio {tmp_path}`"
    ):
        make_module("cca", pretrained=str(tmp_path)).configure_model()
    streams = make_module("cca", pretrained={"video": str(tmp_path), "audio": str(tmp_path)})
    streams.configure_model()
    half = {name: value for name, value in other.state_dict().items() if "blocks.1.video" not in name}
    save_file(half, tmp_path / "model.safetensors")
    with pytest.raises(
        TrainingError, match=r"lacks 27 keys of \w+, the first is blocks\.1\.video\."
    ):  # a part is whole or absent
        make_module("gate", pretrained=str(tmp_path)).configure_model()


def test_parameter_groups_have_the_papers_rates(module: JointDiffusion) -> None:
    config = OptimizerConfig()
    assert module.net is not None and module.text is not None
    optimizer = config.build([module.net, module.text], module.net.cross_modal_parameters(), max_steps=1)["optimizer"]
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rate[id(p)] for p in module.net.cross_modal_parameters()} == {1e-4}
    assert {rate[id(p)] for p in (*module.net.stream_parameters(), *module.text.parameters())} == {1e-5}
    assert len(rate) == sum(1 for _ in (*module.net.parameters(), *module.text.parameters()))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in module.net.named_parameters():
        if name.endswith("bias") or "norm" in name or "modulation" in name or "context" in name:
            assert decays[id(parameter)] == 0, name
    assert decays[id(module.net.blocks[0].video.self_attn.q.weight)] == 0.01


def test_the_schedule_warms_up_and_bends_down() -> None:
    config = OptimizerConfig(warmup_steps=4, schedule="cosine", final=0.1)
    factors = [config.factor(step, max_steps=20) for step in range(25)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0 and math.isclose(factors[12], 0.55) and factors[20:] == [0.1] * 5
    assert {OptimizerConfig().factor(step, max_steps=-1) for step in range(9)} == {1.0}


def test_bfloat16_training_clips_gradients_with_a_fused_optimizer(tmp_path: Path) -> None:
    norms: list[float] = []

    class Look(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            norms.append(float(nn.utils.get_total_norm(p.grad for p in pl_module.parameters())))

        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if grads:
                norms.append(float(nn.utils.get_total_norm(grads)))

    module = make_module(optimizer=OptimizerConfig(lr=1e-2, lr_cross=1e-2, fused=True))
    module.configure_model()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    callbacks = [TaskRouter(), Look()]
    fit(module, FakeData(), tmp_path, precision="bf16-mixed", gradient_clip_val=1e-3, callbacks=callbacks, max_steps=2)
    # Before clipping, and as the next step's zero_grad finds them: at most 1e-3.
    assert norms[0] > 2e-3 and norms[1] == pytest.approx(1e-3, rel=1e-2)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())


def test_an_endless_cosine_is_refused() -> None:
    net = make_net()
    with pytest.raises(ValueError, match=r"set optimizer.decay_steps or trainer.max_steps"):
        OptimizerConfig(schedule="cosine").build([net], net.cross_modal_parameters(), max_steps=-1)


@pytest.mark.parametrize(
    ("given", "device", "per", "compiles"),
    [
        (None, "cuda", "batch", True),
        (None, "cuda", "sample", False),  # each mix of tasks would be compiled anew
        (None, "cpu", "batch", False),
        (False, "cuda", "batch", False),
        (True, "cpu", "sample", True),
    ],
)
def test_blocks_are_compiled_on_a_gpu_where_nothing_else_is_said(
    given: bool | None, device: str, per: str, compiles: bool
) -> None:
    module = make_module(compile=given)
    assert module.compiles is bool(given)  # where there is no trainer
    module._trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    module.router = TaskRouter(per)
    assert module.compiles is compiles


@pytest.mark.parametrize("reduce", ["float32", "bfloat16"])
def test_gradients_are_summed_over_gpus_as_is_said(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr("ccl.training.fsdp.fully_shard", lambda part, mesh, mp_policy: found.append(mp_policy))
    fsdp.shard(make_net(), DeviceMesh.__new__(DeviceMesh), bf16=True, reduce=reduce)
    assert {policy.reduce_dtype for policy in found} == {getattr(torch, reduce)}
    assert {policy.param_dtype for policy in found} == {torch.bfloat16}
