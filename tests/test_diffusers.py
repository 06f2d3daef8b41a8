"""The pipeline with diffusers' interface makes what ccl's own makes, and works as users of diffusers are used to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import export_to_video
from PIL import Image
from safetensors.torch import load_file

from ccl.diffusers import CCLPipeline, next_seed
from ccl.generation import Pipeline
from ccl.guidance import named
from ccl.media import read_clip
from ccl.model.adapter import LoRA
from ccl.model.save_lora import save_comfyui
from ccl.storage import model_folder
from ccl.types import Scale
from helpers.hub_server import COMMIT, Hub, serving
from helpers.tiny import PROMPTS, awake, tiny_config, tiny_state

HELLO = PROMPTS[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    model_folder.save_model(path, tiny_config(), tiny_state())
    return path


@pytest.fixture
def pipe(folder: Path) -> CCLPipeline:
    made = CCLPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: Any, b: Any) -> bool:
    return np.array_equal(a.video, b.video) and np.array_equal(a.audio, b.audio)


def test_a_seed_gives_the_very_clip_that_ccl_gives(pipe: CCLPipeline, folder: Path) -> None:
    out = pipe(prompt=HELLO, num_inference_steps=3, generator=seeded(7))
    own = Pipeline.load(folder, device="cpu")(HELLO, steps=3, seed=7)
    assert same(out.clips[0], own)
    assert np.array_equal(np.stack([np.asarray(picture) for picture in out.frames[0]]), own.video)
    assert np.array_equal(out.audio[0, 0].numpy(), own.audio)


def test_a_model_of_the_hub_is_loaded_and_saved_as_it_was_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(Hub(folder), tmp_path, monkeypatch):
        loaded = CCLPipeline.from_pretrained("user/tiny", revision="v1")
        assert loaded.pipeline.provenance["hub"] == {"repository": "user/tiny", "revision": "v1", "commit": COMMIT}
        with pytest.raises(ValueError, match=r"^user/tiny on the hub has no revision v9$"):
            CCLPipeline.from_pretrained("user/tiny", revision="v9")
    loaded.save_pretrained(tmp_path / "saved")  # without the hub
    there, here = load_file(tmp_path / "saved" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in here)


def test_a_lora_is_put_on_and_taken_off_and_the_pipeline_says_what_it_is(
    pipe: CCLPipeline, folder: Path, tmp_path: Path
) -> None:
    adapted = LoRA(rank=2).adapt(copy.deepcopy(pipe.pipeline.net))
    awake(adapted, 4)
    save_comfyui(tmp_path / "style.safetensors", adapted.state_dict(), LoRA(rank=2), dtype=torch.float32)
    plain, styled, after = [], [], []
    for found, act in (
        (plain, lambda: None),
        (styled, lambda: pipe.load_lora_weights(tmp_path / "style.safetensors", 0.5)),
        (after, pipe.unload_lora_weights),
    ):
        act()
        found.append(np.stack(pipe(HELLO, generator=seeded(0), output_type="np").frames[0]))
    assert (plain[0] != styled[0]).any() and (plain[0] == after[0]).all()
    assert repr(pipe) == f"CCLPipeline({folder}; 9 pictures of 16 x 16 at 25 fps; on cpu)"


def test_frames_and_audio_have_the_shapes_of_ltx2(pipe: CCLPipeline) -> None:
    shape, samples = (9, 16, 16), pipe.pipeline.grid.samples
    out = pipe(HELLO, generator=seeded(0))
    assert len(out.frames) == 1 and len(out.frames[0]) == 9 and isinstance(out.frames[0][0], Image.Image)
    frames, audio = pipe([HELLO, HELLO], generator=seeded(0), output_type="np", return_dict=False)
    assert frames.shape == (2, *shape, 3) and 0 <= frames.min() <= frames.max() <= 1
    assert audio.shape == (2, 1, samples) and isinstance(audio, np.ndarray)
    frames, audio = pipe(HELLO, generator=seeded(0), output_type="pt", return_dict=False)
    assert frames.shape == (1, 9, 3, 16, 16) and audio.shape == (1, 1, samples)


def test_a_generator_moves_on_as_diffusers_moves_it(pipe: CCLPipeline) -> None:
    used = seeded(7)
    one, two = pipe(HELLO, generator=used).clips + pipe(HELLO, generator=used).clips
    both = pipe(HELLO, num_videos_per_prompt=2, generator=seeded(7)).clips
    assert not np.array_equal(one.video, two.video)
    assert np.abs(both[0].video.astype(int) - one.video).max() <= 1  # batched arithmetic rounds otherwise
    assert np.abs(both[1].video.astype(int) - two.video).max() <= 1


def test_without_a_generator_torchs_own_seed_decides(pipe: CCLPipeline) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        clip = pipe(HELLO).clips[0]
        assert not np.array_equal(pipe(HELLO).clips[0].video, clip.video)
    assert same(clip, pipe.pipeline(HELLO, seed=3))


def test_a_list_of_generators_has_one_for_each_clip(pipe: CCLPipeline) -> None:
    assert [next_seed(seeded(seed)) for seed in (0, 1, 2**40)] == [0, 1, 2**40]
    with pytest.raises(ValueError, match="1 generators for 2 clips"):
        pipe(PROMPTS[:2], generator=[seeded(0)])


def test_scales_are_those_of_the_models_rule(pipe: CCLPipeline) -> None:
    out = pipe(HELLO, guidance_scale=5.0, audio_guidance_scale=1.5, generator=seeded(0))
    rule = named("ucg2", pipe.pipeline.guidance, scale=Scale(5.0, 1.5))
    assert same(out.clips[0], pipe.pipeline(HELLO, guidance=rule))
    assert not same(out.clips[0], pipe.pipeline(HELLO))


def test_pil_pictures_are_given_as_arrays_are(pipe: CCLPipeline) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    out = pipe(HELLO, image=Image.fromarray(pixels), generator=seeded(0))
    assert same(out.clips[0], pipe.pipeline(HELLO, image=pixels))
    film = [Image.fromarray(pixels)] * 9
    assert same(
        pipe(HELLO, video=film, generator=seeded(0)).clips[0], pipe.pipeline(HELLO, video=np.stack([pixels] * 9))
    )


def test_each_step_calls_back_with_its_number_and_time(pipe: CCLPipeline) -> None:
    seen: list[tuple[int, float]] = []
    pipe(HELLO, num_inference_steps=4, callback_on_step_end=lambda self, i, t, more: seen.append((i, float(t))))
    assert seen == [(0, 1000.0), (1, 750.0), (2, 500.0), (3, 250.0)]


def test_what_a_callback_raises_ends_the_call(pipe: CCLPipeline) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(HELLO, num_inference_steps=50, callback_on_step_end=stop)


def test_the_progress_bar_counts_the_steps_and_can_be_switched_off(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = CCLPipeline.from_pretrained(folder)
    made(HELLO, num_inference_steps=3)
    assert "3/3" in capfd.readouterr().err
    made.set_progress_bar_config(disable=True)
    made(HELLO, num_inference_steps=3)
    assert capfd.readouterr().err == ""


def test_offload_and_devices_change_no_bit_on_a_cpu(pipe: CCLPipeline) -> None:
    whole = pipe(HELLO, generator=seeded(1)).clips[0]
    assert pipe.to("cpu") is pipe and pipe.device == torch.device("cpu")
    pipe.enable_model_cpu_offload(device="cpu")
    assert pipe.pipeline.offload
    assert same(pipe(HELLO, generator=seeded(1)).clips[0], whole)


def test_a_saved_pipeline_comes_back(pipe: CCLPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "copy")
    again = CCLPipeline.from_pretrained(tmp_path / "copy")
    assert same(again(HELLO, generator=seeded(2)).clips[0], pipe(HELLO, generator=seeded(2)).clips[0])


def test_export_to_video_takes_the_frames_and_a_clip_saves_its_sound_too(pipe: CCLPipeline, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    out = pipe(HELLO, generator=seeded(0))
    export_to_video(out.frames[0], str(tmp_path / "mute.mp4"), fps=25)
    assert (tmp_path / "mute.mp4").stat().st_size > 0
    out.clips[0].save(tmp_path / "out.mp4")
    read = read_clip(tmp_path / "out.mp4")
    assert read.video is not None and len(read.video) == 9 and read.audio is not None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"height": 512}, "height is 512; clips of this model are 16 x 16"),
        ({"output_type": "latent"}, "there is no output_type 'latent'"),
        ({"audio_guidance_scale": 2.0}, "without guidance_scale"),
        ({"num_frames": 3}, "clips of this model last"),
        ({"guidance": "ucg9"}, "did you mean"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(pipe: CCLPipeline, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipe(HELLO, **asked)


def test_types_and_devices_that_are_not_there_are_refused_in_words(pipe: CCLPipeline, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"torch.float16; models of CCL run in"):
        CCLPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    with pytest.raises(ValueError, match="gets its dtype as it is loaded"):
        pipe.to(torch.bfloat16)
    with pytest.raises(ValueError, match="no device 'nowhere'"):
        pipe.to("nowhere")
    with pytest.raises(ValueError, match="there is no checkpoint"):
        CCLPipeline.from_pretrained("no/such/folder")
    with pytest.raises(ValueError, match="made of parts"):
        CCLPipeline(pipe.pipeline).save_pretrained("x")
