"""CCL's pipeline as nodes of ComfyUI: load, text to clip, a clip for a given sound, save.

Pictures are ComfyUI's IMAGE, (T, H, W, 3) float32 in [0, 1]; sound is its AUDIO, a dict of a waveform (1, 1, S) and its
sample_rate. ComfyUI's own modules are imported where they are used, so that tests can stand in for them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccl.generation import Pipeline
from ccl.guidance import rules
from ccl.media import Clip, resample

OWN = "the model's own"
HOW = {
    "prompt": ("STRING", {"multiline": True, "default": "", "tooltip": "spoken words in double quotes"}),
    "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
    "steps": ("INT", {"default": 30, "min": 1, "max": 1000}),
    "guidance": ([OWN, *rules()], {"default": OWN}),
}
MORE = {
    "negative": ("STRING", {"multiline": True, "default": ""}),
    "seconds": (
        "FLOAT",
        {"default": 0.0, "min": 0.0, "max": 600.0, "step": 0.1, "tooltip": "0: as long as the model's"},
    ),
}


class Load:
    """A model folder, a run folder, a .ckpt in one or a model of the hub."""

    CATEGORY, FUNCTION = "CCL", "load"
    RETURN_TYPES = ("CCL_MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "its path, or OWNER/NAME[@REVISION] of the hub; empty: what ships with ccl",
                    },
                ),
                "dtype": (["float32", "bfloat16"], {"default": "float32"}),
                "offload": ("BOOLEAN", {"default": False, "tooltip": "each part on the GPU only while it works"}),
            }
        }

    def load(self, model: str, dtype: Any, offload: bool) -> tuple[Pipeline]:
        return (Pipeline.load(model.strip() or None, dtype=dtype, offload=offload),)


class TextToClip:
    """Pictures and sound of a prompt."""

    CATEGORY, FUNCTION = "CCL", "generate"
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT")
    RETURN_NAMES = ("images", "audio", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("CCL_MODEL",), **HOW}, "optional": MORE}

    def generate(
        self,
        model: Pipeline,
        prompt: str,
        seed: int,
        steps: int,
        guidance: str,
        negative: str = "",
        seconds: float = 0.0,
        **given: Any,
    ) -> tuple[torch.Tensor, dict[str, Any], float]:
        import comfy.utils

        bar = comfy.utils.ProgressBar(steps)
        clip = model(
            prompt,
            negative=negative,
            seed=seed,
            steps=steps,
            guidance=None if guidance == OWN else guidance,
            seconds=seconds or None,
            progress=lambda done, total: bar.update_absolute(done, total),
            **given,
        )
        for note in clip.meta.get("notes", ()):
            logging.getLogger("ccl").warning(note)
        waveform = torch.from_numpy(clip.audio)[None, None]
        return (
            torch.from_numpy(clip.video).float() / 255,
            {"waveform": waveform, "sample_rate": clip.sample_rate},
            clip.fps,
        )


class ClipForSound(TextToClip):
    """Pictures of a prompt for a given sound, which comes out as the model takes it: mono, at its rate and length."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("CCL_MODEL",), "audio": ("AUDIO",), **HOW}, "optional": MORE}

    def generate(
        self, model: Pipeline, audio: dict[str, Any], **how: Any
    ) -> tuple[torch.Tensor, dict[str, Any], float]:
        sound = resample(mono(audio), audio["sample_rate"], model.grid.sample_rate)
        return super().generate(model, audio=sound, **how)


class Save:
    """An mp4 of pictures, and sound where there is one, in ComfyUI's output folder."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "CCL", "save", True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE",),
                "fps": ("FLOAT", {"default": 25.0, "min": 1.0, "max": 120.0, "step": 0.01}),
                "filename_prefix": ("STRING", {"default": "ccl/clip"}),
            },
            "optional": {"audio": ("AUDIO",)},
        }

    def save(
        self, images: torch.Tensor, fps: float, filename_prefix: str, audio: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        import folder_paths

        _, height, width, _ = images.shape
        output = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output, width, height)
        file = f"{name}_{counter:05}_.mp4"
        sound = {} if audio is None else {"sample_rate": audio["sample_rate"]}
        pictures = (images[..., :3] * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        Clip(pictures, None if audio is None else mono(audio), fps=fps, **sound).save(Path(folder) / file)
        shown = {"filename": file, "subfolder": subfolder, "type": "output"}
        return {"ui": {"images": [shown], "animated": (True,)}}


def mono(audio: dict[str, Any]) -> np.ndarray:
    """The one sound of an AUDIO, its channels averaged: (S,) float32.

    Raises:
        ValueError: it holds several.
    """
    waveform = audio["waveform"]
    if len(waveform) != 1:
        raise ValueError(f"the audio is a batch of {len(waveform)} sounds; give one")
    return waveform[0].float().mean(0).cpu().numpy()


NODE_CLASS_MAPPINGS = {"CCLLoad": Load, "CCLTextToClip": TextToClip, "CCLClipForSound": ClipForSound, "CCLSave": Save}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CCLLoad": "CCL: load a model",
    "CCLTextToClip": "CCL: text to clip",
    "CCLClipForSound": "CCL: clip for a given sound",
    "CCLSave": "CCL: save as mp4",
}
