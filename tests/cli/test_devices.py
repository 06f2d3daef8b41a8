"""What a GPU will do, as far as it shows without one: tensors on the "meta" device have no numbers, but refuse to meet
others, so a network that runs there leaves nothing behind on the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.evaluation.exact import exact
from ccl.evaluation.metrics import FVD, METRICS, WER, AudioBox, DeSync, IBScore, SyncNet
from ccl.evaluation.metrics.desync import Segments, features
from ccl.evaluation.nets import wavlm
from ccl.evaluation.nets.audiobox import Aesthetics
from ccl.evaluation.nets.i3d import InceptionI3d
from ccl.evaluation.nets.imagebind import ImageBind, Tower
from ccl.evaluation.nets.s3fd import S3FD
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.evaluation.nets.syncnet import SyncNetwork, Towers

META = torch.device("meta")


def syncnet() -> list[torch.Tensor]:
    towers = Towers(SyncNetwork(), device=META)
    two = torch.tensor([0, 1, 2, 7, 8])
    return [towers.lip(torch.zeros(13, 224, 224, 3, dtype=torch.uint8)), towers.audio(torch.zeros(13, 60), two)]


def s3fd() -> list[torch.Tensor]:
    return [S3FD().to(META)(torch.zeros(2, 3, 64, 96, device=META))]


def synchformer() -> list[torch.Tensor]:
    net = Synchformer(32, 1, 4).to(META)
    index = torch.zeros(14, 16, dtype=torch.long)
    clip = Segments(
        torch.zeros(1, 224, 224, 3, dtype=torch.uint8), index, torch.zeros(14, 128, 66), torch.arange(14)[None]
    )
    seen, heard = features(net, [clip, clip], META)
    return [net.compare(seen[0][clip.windows], heard[1][clip.windows])]


def imagebind() -> list[torch.Tensor]:
    net = ImageBind(Tower(32, 1, 4), Tower(24, 1, 4), 16).to(META)
    pictures, sound = torch.zeros(2, 3, 2, 224, 224, device=META), torch.zeros(2, 1, 128, 204, device=META)
    return [net.embed("vision", pictures), net.embed("audio", sound)]


def audiobox() -> list[torch.Tensor]:
    net = Aesthetics(nth_layer=2, wavlm=wavlm.WavLM(48, 1, 4, 64, 32)).to(META)
    return [net(torch.zeros(2, 16_000, device=META), torch.ones(2, 16_000, dtype=torch.bool, device=META))]


def i3d() -> list[torch.Tensor]:
    return [InceptionI3d().to(META)(torch.zeros(2, 3, 9, 224, 224, device=META))]


@pytest.mark.parametrize("run", [syncnet, s3fd, synchformer, imagebind, audiobox, i3d])
def test_a_network_leaves_nothing_on_the_cpu(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wavlm, "_end", lambda mask: mask.shape[1])  # where it looks at numbers
    with torch.inference_mode():
        assert {out.device for out in run()} == {META}


@pytest.mark.parametrize("metric", [AudioBox, DeSync, FVD, IBScore, SyncNet, WER])
def test_on_a_gpu_a_forward_takes_many_clips(metric: Any) -> None:
    assert metric(device="cuda").batch_size >= 16
    assert metric().batch_size == metric.batch_size < 16


def test_metrics_without_a_network_on_the_device_are_left_alone() -> None:
    for name in ("mouth", "av_align", "dnsmos"):
        assert METRICS[name]().batch_size == 1


def test_float32_is_not_rounded_on_a_gpu_and_what_was_set_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with exact():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
