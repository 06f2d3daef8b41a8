"""A network that is shown a first picture: diffusers' WanImageToVideoPipeline says what it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from ccl import planning
from ccl.callbacks.preview import Preview
from ccl.codecs.wan import WanVideo
from ccl.generation import Pipeline
from ccl.grid import Grid
from ccl.guidance import TextCFG, guided
from ccl.image.clip import CLIPVision
from ccl.image.first import show
from ccl.model import DualStreamTransformer, Shown, WanImageStream
from ccl.model.load import load_stream
from ccl.planning import follow
from ccl.rows import Row
from ccl.sampling import solve
from ccl.storage.model_folder import build, from_run, save_model
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.training.module import JointDiffusion, TrainingError
from ccl.types import AV, CLOSED, OPEN, Batch, Scale
from helpers.fakes import CHANNELS, GRID, make_batch, make_codec, make_net, make_text
from helpers.plans import short
from helpers.tiny import awake, tiny_config
from helpers.wan_streams import ours, wan

SIZE, DIM, TOKENS = 32, 32, 5
SIZES: dict[str, Any] = {
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 16,
    "hidden_act": "gelu",
}


@pytest.fixture(scope="module")
def clip() -> CLIPVisionModel:
    torch.manual_seed(0)
    return CLIPVisionModel(CLIPVisionConfig(**SIZES)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(clip: CLIPVisionModel, vae: AutoencoderKLWan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a pipeline, in diffusers' layout."""
    folder = tmp_path_factory.mktemp("i2v")
    vae.save_pretrained(folder / "vae")
    clip.save_pretrained(folder / "image_encoder")
    return folder


@pytest.fixture(scope="module")
def theirs(clip: CLIPVisionModel, vae: AutoencoderKLWan) -> WanImageToVideoPipeline:
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        image_processor=processor,
        image_encoder=clip,
    )


def encoder(path: Path, **more: Any) -> CLIPVision:
    return CLIPVision(path, **{"dim": DIM, "tokens": TOKENS, **more})


def picture(height: int = 16, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def signed(image: np.ndarray) -> Tensor:
    return torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# What the network is shown


@torch.no_grad()
def test_states_of_a_picture_are_diffusers(folder: Path, theirs: WanImageToVideoPipeline) -> None:
    image = picture(SIZE, SIZE)
    states = encoder(folder)(signed(image))
    assert states.shape == (1, TOKENS, DIM) and states.dtype == torch.float32
    assert relative(states, theirs.encode_image(Image.fromarray(image), torch.device("cpu"))) < 1e-5


@torch.no_grad()
def test_a_wide_picture_is_squeezed_as_by_wans_own_code(folder: Path, clip: CLIPVisionModel) -> None:
    x = signed(picture(40, 72))
    square = torch.nn.functional.interpolate(x, (SIZE, SIZE), mode="bicubic", align_corners=False)
    plain = CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    pixels = plain((square[0] * 0.5 + 0.5).numpy(), return_tensors="pt", input_data_format="channels_first")
    expected = clip(**pixels, output_hidden_states=True).hidden_states[-2]
    assert relative(encoder(folder)(x), expected) < 1e-5


@torch.no_grad()
def test_mask_and_latents_of_a_picture_are_diffusers(folder: Path, theirs: WanImageToVideoPipeline) -> None:
    x = torch.cat([signed(picture(32, 48, seed)) for seed in range(2)])
    shown = show(x, 9, WanVideo(folder), encoder(folder))
    for row in range(2):
        _, expected = theirs.prepare_latents(x[row : row + 1], 1, 16, 32, 48, 9, torch.float32, torch.device("cpu"))
        assert shown.latents[row].shape == expected[0].shape == (20, 3, 4, 6)
        assert torch.equal(shown.latents[row, :4], expected[0, :4])
        assert relative(shown.latents[row, 4:], expected[0, 4:]) < 1e-5


def test_every_layout_of_the_encoder_gives_the_same_states(folder: Path, clip: CLIPVisionModel, tmp_path: Path) -> None:
    """Beside a projection, with the prefix that transformers has had, or the folder itself."""
    whole = CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, projection_dim=8))
    whole.vision_model.load_state_dict(clip.state_dict())
    whole.save_pretrained(tmp_path / "projection")
    (tmp_path / "projection" / "config.json").write_text((folder / "image_encoder" / "config.json").read_text())
    states = encoder(folder)(signed(picture()))
    for path in (folder / "image_encoder", tmp_path / "projection"):
        torch.testing.assert_close(encoder(path)(signed(picture())), states)


def test_an_encoder_has_no_weights_in_a_checkpoint_and_gives_its_memory_back(folder: Path) -> None:
    eyes = encoder(folder)
    before = eyes(signed(picture()))
    assert not eyes.state_dict() and not list(eyes.parameters())
    eyes.unload()
    assert eyes.network.net is None
    torch.testing.assert_close(eyes(signed(picture())), before)
    assert relative(encoder(folder, dtype="bfloat16")(signed(picture())), before) < 0.02


def test_weights_that_are_none_are_told_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    x = signed(picture())
    with pytest.raises(ValueError, match=r"image_encoder gives 5 states of 32 numbers; .* set to 257 of 1280"):
        CLIPVision(folder)(x)
    with pytest.raises(ValueError, match="is of AutoencoderKLWan, not of the image encoder CLIP"):
        encoder(folder / "vae")(x)
    with pytest.raises(ValueError, match=r"holds nothing of the image encoder CLIP: no config\.json"):
        encoder(tmp_path)(x)
    with pytest.raises(ValueError, match="there is no file or folder"):
        encoder(tmp_path / "none")(x)


@torch.no_grad()
def test_latents_of_a_whole_sampling_are_diffusers(folder: Path, theirs: WanImageToVideoPipeline) -> None:
    """Picture, CLIP, VAE, transformer, guidance and solver together."""
    transformer = wan(32, in_channels=36, image_dim=DIM, added_kv_proj_dim=64)
    net = ours(32, video=WanImageStream(64, 96, 16, image_dim=DIM, image_tokens=TOKENS))
    load_stream(net, transformer.state_dict())
    g = torch.Generator().manual_seed(0)
    texts = {name: torch.randn(1, 512, 24, generator=g) for name in ("positive", "negative")}
    image, noise = picture(SIZE, SIZE), torch.randn(1, 16, 3, 4, 4, generator=g)

    pipe = WanImageToVideoPipeline(**{**theirs.components, "transformer": transformer})
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        Image.fromarray(image),
        prompt_embeds=texts["positive"],
        negative_prompt_embeds=texts["negative"],
        height=SIZE,
        width=SIZE,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        latents=noise,
        output_type="latent",
    ).frames

    rule = TextCFG(Scale(3.0, 3.0))

    def sampled(image: np.ndarray) -> Tensor:
        shown = show(signed(image), 9, WanVideo(folder), encoder(folder))
        grid, generated = Grid(frames=9, height=SIZE, width=SIZE), AV(True, False)
        velocity = guided(net, rule, CLOSED, texts, grid=grid, generated=generated, extras={"image": shown})
        return solve(velocity, AV(noise, None), pipe.scheduler.sigmas, solver="euler").video

    assert relative(sampled(image), expected) < 1e-4
    assert relative(sampled(picture(SIZE, SIZE, seed=1)), expected) > 1e-2


# Generation


def config(folder: Path) -> dict[str, Any]:
    whole = tiny_config()
    size = whole["net"]["init_args"]["video"] | {"image_dim": DIM, "image_tokens": TOKENS}
    whole["net"]["init_args"]["video"] = {"class_path": "ccl.model.WanImageStream", "init_args": size}
    whole["codec"]["init_args"]["video"] = {"class_path": "ccl.codecs.wan.WanVideo", "init_args": {"path": str(folder)}}
    given = {"path": str(folder), "dim": DIM, "tokens": TOKENS}
    whole["image"] = {"class_path": "ccl.image.clip.CLIPVision", "init_args": given}
    return whole


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    model = build(config(folder), "i2v")
    awake(model.net), awake(model.text, 1)
    path = tmp_path_factory.mktemp("models") / "i2v"
    parts = {"net": model.net, "text": model.text}
    state = {f"{part}.{name}": x for part, net in parts.items() for name, x in net.state_dict().items()}
    save_model(path, config(folder), state)
    return path


@pytest.fixture(scope="module")
def pipe(saved: Path) -> Pipeline:
    return Pipeline.load(saved, device="cpu")


def test_a_clip_follows_from_the_picture_that_is_shown(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    forward = pipe.net.forward
    monkeypatch.setattr(pipe.net, "forward", lambda x, t, *a, **k: times.append(t.video) or forward(x, t, *a, **k))
    one, other = (pipe("a bird sings", image=picture(seed=seed)) for seed in (1, 2))
    assert one.video.shape == (9, 16, 16, 3) and one.audio.shape == (pipe.grid.samples,)
    assert not np.array_equal(one.video, other.video)
    assert all(t.ndim == 1 for t in times)  # no frame is held, so none has a time of its own


def test_rows_are_each_shown_their_own_picture(pipe: Pipeline) -> None:
    rows = [Row(str(i), "a bird sings", image=picture(seed=i), seed=i) for i in range(2)]
    for row, clip in zip(rows, pipe.generate(rows), strict=True):
        alone = pipe.generate([row])[0].video.astype(int)
        assert np.abs(alone - clip.video.astype(int)).max() <= 1


def test_offloading_makes_the_same_clip(pipe: Pipeline, saved: Path) -> None:
    offload = Pipeline.load(saved, device="cpu", offload=True)
    assert np.array_equal(offload("a bird", image=picture()).video, pipe("a bird", image=picture()).video)
    assert offload.image is not None and offload.image.network.net is None


def test_a_row_without_a_picture_is_told_of_in_a_sentence(pipe: Pipeline, folder: Path) -> None:
    rows = [Row("a", "a bird", image=picture()), Row("b", "a bird")]
    with pytest.raises(ValueError, match=r"^b: this network is always shown a first picture: give `image`$"):
        pipe.generate(rows)
    model = build({key: value for key, value in config(folder).items() if key != "image"}, "i2v")
    bare = Pipeline(model.net, model.text, model.codec, model.grid, **vars(model.sampling))
    with pytest.raises(ValueError, match="config has no encoder of it, `image`"):
        bare("a bird", image=picture())


def test_sound_alone_needs_no_picture_and_given_pictures_show_their_first(pipe: Pipeline) -> None:
    assert pipe("a bird", wanted=AV(False, True)).audio.shape == (pipe.grid.samples,)
    video = np.stack([picture(seed=i) for i in range(9)])
    clip = pipe("a bird", video=video)
    assert np.array_equal(clip.video, video) and clip.audio.shape == (pipe.grid.samples,)


def test_a_run_hands_its_encoder_to_the_model_that_is_exported(folder: Path) -> None:
    whole = config(folder)
    run = {key: whole[key] for key in ("codec", "grid")} | {
        "model": {key: whole[key] for key in ("net", "text", "image")}
    }
    assert from_run(run)["image"] == whole["image"]
    del run["model"]["image"]
    assert "image" not in from_run(run)


# Training


def network(layers: int = 1) -> DualStreamTransformer:
    shown = WanImageStream(width=16, ffn=32, channels=CHANNELS.video, image_dim=DIM, image_tokens=TOKENS)
    return make_net(layers=layers, video=shown)


def module(folder: Path | None, **more: Any) -> JointDiffusion:
    image = None if folder is None else encoder(folder)
    built = JointDiffusion(network, make_text, make_codec(), GRID, image=image, **more)
    built.configure_model()
    return built


def media(grid: Grid = GRID) -> Batch:
    g = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (2, 3, grid.frames, grid.height, grid.width), generator=g, dtype=torch.uint8)
    return Batch(["a", "b"], ["one", "two"], media=AV(video, torch.randn(2, grid.samples, generator=g)))


def test_training_shows_each_clips_first_picture_and_counts_every_frame(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = module(folder)
    assert not any("image_encoder" in name or "network" in name for name in own.state_dict())
    awake(own.net)
    image = Given("first_frame")  # which has no say: all frames are generated
    task = Task(1.0, (Term(OPEN, {"video": image}),))
    batch = media()
    (loss,), _ = own.losses(batch, task, index=0)
    everything = replace(task, terms=(Term(OPEN),))
    assert torch.equal(own.losses(batch, everything, index=0).terms[0].video, loss.video)
    sum(x.sum() for x in loss).backward()
    assert own.net.video.img_emb.proj[1].weight.grad.abs().sum() > 0
    first = batch.media.video[:, :, :1].float() / 127.5 - 1
    shown = own.show(batch)
    assert torch.equal(shown.states, encoder(folder)(first[:, :, 0]))
    grey = torch.zeros(2, 3, GRID.frames - 1, GRID.height, GRID.width)
    assert torch.equal(shown.latents[:, 4:], own.codec.video.encode(torch.cat([first, grey], 2)))
    other = Shown(shown.latents, shown.states.flip(0))
    monkeypatch.setattr(own, "show", lambda batch: other)
    assert not torch.equal(own.losses(batch, task, index=0).terms[0].video, loss.video)


def test_training_on_latents_or_without_an_encoder_is_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"model\.image must be an encoder of it"):
        module(None)
    task = next(iter(PAPER_TASKS.values()))
    with pytest.raises(TrainingError, match="are latents, but this network is shown each clip's first picture"):
        module(folder).losses(make_batch(0, range(2)), task, index=0)


def test_previews_of_prompts_alone_are_left_out_with_a_word() -> None:
    preview = Preview(["a bird"], every=1)
    with pytest.warns(UserWarning, match="there are no previews: this network is shown a first picture"):
        preview.on_fit_start(None, SimpleNamespace(net=network()))
    assert preview.prompts == []


def test_a_plan_counts_what_the_picture_costs() -> None:
    net = network(layers=2)
    for part in net.modules():
        if hasattr(part, "backend"):
            part.backend = "naive"
    with FlopCounterMode(display=False) as counter:
        net(*follow.inputs(net, GRID, 2, 6), grid=GRID, extras=follow.extras(net, GRID, 2))
    planned = planning.total(planning.forward_flops(short(lambda: network(layers=2)), GRID, text=6, batch=2))
    assert planned == pytest.approx(counter.get_total_flops(), rel=1e-3)
