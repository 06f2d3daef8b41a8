"""Every network of the metrics is made in one way from its weights: `of(state)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccl.evaluation.nets.audiobox import Aesthetics
from ccl.evaluation.nets.i3d import InceptionI3d
from ccl.evaluation.nets.light_asd import LightASD
from ccl.evaluation.nets.musiq import MUSIQ
from ccl.evaluation.nets.s3fd import S3FD
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.evaluation.nets.syncnet import SyncNetwork
from ccl.evaluation.nets.wavlm import WavLM

Of = Callable[[Mapping[str, Tensor]], nn.Module]
NETS: dict[str, tuple[Callable[[], nn.Module], Of]] = {
    "Aesthetics": (lambda: Aesthetics(wavlm=WavLM(32, 2, 2, 48, 16)), Aesthetics.of),
    "InceptionI3d": (InceptionI3d, InceptionI3d.of),
    "LightASD": (LightASD, LightASD.of),
    "MUSIQ": (lambda: MUSIQ(24, 2, 48, 10), MUSIQ.of),
    "S3FD": (S3FD, S3FD.of),
    "SyncNetwork": (SyncNetwork, SyncNetwork.of),
    "Synchformer": (lambda: Synchformer(48, 2, 12), Synchformer.of),
    "WavLM": (lambda: WavLM(32, 2, 2, 48, 16), WavLM.of),
}


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_made_of_its_weights_without_a_copy(name: str) -> None:
    make, of = NETS[name]
    with torch.device("meta"):
        shapes = make().state_dict()
    state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
    before = torch.get_rng_state()
    net = of(state)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    held: dict[str, Any] = net.state_dict(keep_vars=True)
    assert {key: value.data_ptr() for key, value in held.items()} == {k: v.data_ptr() for k, v in state.items()}
    assert not any(tensor.is_meta for tensor in (*net.parameters(), *net.buffers()))


@pytest.mark.parametrize("name", NETS)
def test_weights_of_something_else_are_told_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"^these are not .* weights: [^\n]{5,}$"):
        NETS[name][1]({"layer.weight": torch.ones(2)})
