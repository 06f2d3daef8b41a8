"""Parts of one's own from outside of the package, one of each kind: checked, planned, trained, sampled, scored."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ccl import cli
from helpers import ROOT

# The rule and the interaction of CONTRIBUTING, as they stand there.
MINE = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[1]
MINE += '''
import numpy as np

from ccl.codecs.base import VideoCodec
from ccl.evaluation import Column, Measured, Metric


class Video(VideoCodec):
    """Means of 8 x 8 pixels of every fourth picture, in each of its channels."""

    channels, stride_time, stride_space = 3, 4, 8

    @property
    def identity(self):
        return "means-3"

    @torch.no_grad()
    def encode(self, video):
        self.check_pictures(video)
        return torch.nn.functional.avg_pool3d(video[:, :, ::4].float(), (1, 8, 8))

    @torch.no_grad()
    def decode(self, z):
        self.check_latents(z)
        frames = z.repeat_interleave(4, 2)[:, :, 3:]
        return frames.repeat_interleave(8, 3).repeat_interleave(8, 4).clamp(-1, 1)


class Loudness(Metric):
    """Root mean square of the sound."""

    name = "loudness"
    columns = (Column("rms", "RMS", better=""),)

    def prepare(self, film):
        return film.audio

    def measure(self, inputs):
        return [Measured({"rms": float(np.sqrt(np.mean(sound**2)))}) for sound in inputs]
'''
FILES = {
    "fusion.yaml": "class_path: mine.Fusion\ninit_args: {rank: 4}\n",
    "rule.yaml": "class_path: mine.Rule\ninit_args: {by: 1.5}\n",
    "protocol.yaml": "loudness: {class_path: mine.Loudness}\n",
    "mine.yaml": """\
grid: {frames: 77, height: 16, width: 16}
codec: {video: {class_path: mine.Video, init_args: {}}}
model:
  net:
    init_args:
      video: {width: 64, ffn: 64, channels: 3}
      audio: {width: 32, ffn: 32}
      layers: 1
      interaction: fusion.yaml
  optimizer: {schedule: constant}
  pretrained: null
  freeze: null
data: {init_args: {clips: 2, makers: 0, batch_size: 1}}
trainer:
  max_steps: 2
  callbacks: [{class_path: ccl.callbacks.TaskRouter}, {class_path: ccl.callbacks.SaveCheckpoint}]
sampling: {steps: 1, guidance: rule.yaml}
""",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


@pytest.mark.timeout(400)
def test_parts_of_ones_own_go_the_whole_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ccl(*argv: str) -> str:
        status = cli.main(list(argv))
        done = capsys.readouterr()
        assert status == 0, f"{argv}: {done.out}{done.err}"
        return done.out

    config = ["--config", str(ROOT / "configs" / "joint.yaml"), "--config", "mine.yaml"]
    checked = ccl("check", "mine.yaml", "protocol.yaml")
    for kind in (
        "mine.Fusion, interaction",
        "mine.Rule, guidance rule",
        "mine.Video, video codec",
        "mine.Loudness, metric",
    ):
        assert kind in checked
    assert "FAILED" not in checked
    assert "interaction" in ccl("plan", *config)
    ccl("fit", *config)
    ccl("generate", "--ckpt", "runs/joint", "--trust", "mine", "--prompt", "a bell", "-o", "clips/bell.mp4")
    assert json.loads((folder / "clips" / "bell.json").read_text())["guidance"]["rule"] == "mine.Rule"
    ccl("evaluate", "--videos", "clips", "--protocol", "protocol.yaml", "--metrics", "loudness", "-o", "scores")
    assert "RMS" in (folder / "scores" / "table.md").read_text()


def test_a_part_that_breaks_a_promise_ends_the_check_with_1_and_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = MINE.replace("AV(self.by, self.by)", "AV(2.0, self.by)").replace("by: float", "by")
    (folder / "mine.py").write_text(source)
    assert cli.main(["check", "rule.yaml"]) == 1
    done = capsys.readouterr()
    assert "FAILED  says the type of each argument: by has none" in done.out
    assert "FAILED  gives each stream weights that sum to one: the weights of video sum to 1.5 at time" in done.out
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("mine.Fussion", "has no 'Fussion' (did you mean 'Fusion'?)"),
        ("nothere.yaml", "there is no config file nothere.yaml"),
        ("mine.Fusion {rnk: 4}", "mine.Fusion {rnk: 4}: there is no key 'rnk'"),
        ("nowhere_at_all.Fusion", "PART: there is no module 'nowhere_at_all' for nowhere_at_all.Fusion"),
        ("json.JSONDecoder", "names no part of a kind that has a contract: interaction, guidance rule"),
    ],
)
def test_what_is_no_part_is_said_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], part: str, said: str
) -> None:
    assert cli.main(["check", part]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
