"""Files of weights as users have them: whole, cut short, of another network, in the wrappings their authors chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ccl.evaluation import AudioBox, DeSync, IBScore, SyncNet
from ccl.evaluation.faces import detect, speaker
from ccl.evaluation.nets import i3d
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.evaluation.nets.syncnet import SyncNetwork
from ccl.weights import catalogue as weights

LOADERS: dict[str, Callable[[Path], Any]] = {
    "syncnet": lambda path: SyncNet(weights=path).towers(),
    "s3fd": lambda path: detect.loaded(path, 0, "cpu"),
    "light_asd": lambda path: speaker.loaded(path, 0),
    "synchformer": lambda path: DeSync(weights=path).network(),
    "imagebind": lambda path: IBScore(weights=path).net,
    "audiobox": lambda path: AudioBox(weights=path).checkpoint,
    "i3d": lambda path: i3d.load(path),
}
HELD = {
    "another network": {"weight": torch.ones(2)},
    "a nested one": {"model": {"weight": torch.ones(2)}},
    "a broken wrapping": {"model": 3, "state_dict": 3, "model_cfg": 3, "target_transform": 3},
}


@pytest.mark.parametrize("held", [*HELD, "a part of a file"])
@pytest.mark.parametrize("network", LOADERS)
def test_a_file_of_something_else_is_named_in_one_sentence(network: str, held: str, tmp_path: Path) -> None:
    path = tmp_path / "given.pth"
    torch.save(HELD.get(held, {"weight": torch.ones(1000)}), path)
    if held == "a part of a file":
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"given\.pth") as caught:
        LOADERS[network](path)
    assert "\n" not in str(caught.value)
    assert "Error(s)" not in str(caught.value)
    assert len(str(caught.value)) < 330


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("counters", [True, False])
def test_syncnet_is_read_as_old_and_new_torch_save_it(zipped: bool, counters: bool, tmp_path: Path) -> None:
    """The published file may predate both the zip format and the counters of batch normalisation."""
    state = {k: v for k, v in SyncNetwork().state_dict().items() if counters or not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=zipped)
    SyncNet(weights=tmp_path / "syncnet_v2.model").towers()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_synchformer_is_read_bare_or_wrapped_and_computes_in_fp32(
    dtype: torch.dtype, prefix: str, tmp_path: Path
) -> None:
    state = {prefix + key: value.to(dtype) for key, value in Synchformer(96, 1).state_dict().items()}
    torch.save({"model": state, "epoch": 3} if prefix else state, tmp_path / "synchformer.pth")
    net = DeSync(weights=tmp_path / "synchformer.pth").network()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_a_wrong_file_is_read_once_and_is_every_clips_reason(tmp_path, monkeypatch):
    path = tmp_path / "syncnet.pth"
    torch.save({"other": torch.zeros(3)}, path)
    reads: list[object] = []
    read = weights.read
    monkeypatch.setattr(weights, "read", lambda file: reads.append(file) or read(file))
    metric = SyncNet(weights=path)
    results = metric.measured([object(), object(), object()])
    assert len({result.reason for result in results}) == 1 and "syncnet.pth" in results[0].reason
    metric.measured([object()])
    assert len(reads) == 1
