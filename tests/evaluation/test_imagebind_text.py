"""ImageBind's text tower and byte pairs, and what JavisBench measures with ImageBind, against upstream's own output."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ccl.evaluation import Film, IBScore, IBText, Javis, Measured, Row, Unscorable
from ccl.evaluation.metrics.base import Failed
from ccl.evaluation.metrics.imagebind import RATE, audio_clips, network, streamed, vision_clips
from ccl.evaluation.metrics.javis import cut, doubled
from ccl.evaluation.nets.bpe import Tokens
from ccl.evaluation.nets.imagebind import HUGE_TEXT, MASK, ImageBind, Tower, ours
from ccl.evaluation.pictures import normalised, resize_bicubic
from ccl.media import Clip
from helpers import TESTS

DATA = Path(os.environ.get("CCL_TEST_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("CCL_TEST_DATA"), reason="CCL_TEST_DATA is not set")
GOLDEN = json.loads((TESTS / "golden/imagebind_text.json").read_text())


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """A short list of merges, packed as the published one."""
    file = tmp_path_factory.mktemp("bpe") / "bpe.txt.gz"
    file.write_bytes(gzip.compress("\n".join(["#version: 0.2", *GOLDEN["merges"]]).encode()))
    return file


@pytest.fixture(scope="module")
def tiny() -> ImageBind:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ImageBind(Tower(32, 1, 2), Tower(24, 1, 2), 16, Tower(24, 1, 2))
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.2)
    return net.eval()


def film(seconds: float = 5.0, fps: float = 8.0, *, seed: int = 0, prompt: str = "the dog barks") -> Film:
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (round(seconds * fps), 30, 40, 3), dtype=np.uint8)
    sound = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    return Film(Clip(video, sound, fps, RATE), Row("a", prompt))


def given(metric: Any, net: ImageBind) -> Any:
    vars(metric)["net"] = net  # in place of the published weights
    return metric


# Network --------------------------------------------------------------------------------------------------------------


@needs_data
def test_texts_and_single_pictures_are_what_the_reference_gives() -> None:
    spec = importlib.util.spec_from_file_location("fill", DATA / "golden" / "fill.py")
    assert spec is not None and spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    net = ImageBind(Tower(128, 2, 4), Tower(96, 2, 4), 64, Tower(96, 2, 4))
    net.load_state_dict(fill.fill_state_dict(net.state_dict()))
    net.eval()
    rng, tokens = np.random.default_rng(0), np.zeros((3, 77), np.int64)
    for row, n in enumerate((3, 20, 75)):
        tokens[row, : n + 2] = [49_406, *rng.integers(0, 49_406, n), 49_407]
    pictures = rng.standard_normal((2, 3, 224, 224), dtype=np.float32)
    with torch.inference_mode():
        found = {
            "text": net.read(torch.from_numpy(tokens)),
            "picture": net("vision", doubled(torch.from_numpy(pictures))),
        }
    for name, out in found.items():
        golden = np.array(GOLDEN[name])
        np.testing.assert_allclose(out[:, ::4], golden, rtol=0, atol=1e-4 * np.abs(golden).max())


@needs_data
def test_huge_has_the_published_keys_and_shapes_of_text() -> None:
    published = json.loads((DATA / "spec" / "keys" / "imagebind_huge_keys.json").read_text())
    with torch.device("meta"):
        net = ImageBind(text=HUGE_TEXT)
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == ours(published, text=True)


def test_the_published_files_infinite_mask_is_no_fault(tmp_path: Path) -> None:
    """Its text tower holds which token sees which, -inf where it may not, and every reader of the file meets it."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in ImageBind(text=HUGE_TEXT).state_dict().items()}
    state = {
        key: torch.zeros(()).expand(shape) for key, shape in shapes.items()
    }  # one number a tensor, in the file too
    state[MASK] = torch.full((77, 77), -math.inf).triu(1)
    torch.save(state, tmp_path / "imagebind_huge.pth")
    for text in (False, True):
        assert (
            hasattr(network(tmp_path / "imagebind_huge.pth", torch.device("cpu"), text=text).modality_heads, "text")
            == text
        )


def test_no_token_sees_a_later_one(tiny: ImageBind) -> None:
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[:, :4] = torch.tensor([49_406, 5, 9, 49_407])
    tokens[1, 4:] = 7  # after the end
    a, b = tiny.read(tokens)
    torch.testing.assert_close(a, b)
    assert (
        a - tiny.read(tokens.index_put((torch.tensor([0]), torch.tensor([2])), torch.tensor(8)))[0]
    ).abs().max() > 1e-3


# Words ----------------------------------------------------------------------------------------------------------------


def test_texts_are_cut_into_the_pairs_that_the_reference_gives(words: Path) -> None:
    tokens = Tokens(words)(GOLDEN["texts"])
    for row, text, ids in zip(tokens.tolist(), GOLDEN["texts"], GOLDEN["ids"], strict=True):
        assert row == ids + [0] * (77 - len(ids)), text


def test_a_marks_name_in_a_prompt_is_plain_text(words: Path) -> None:
    start, *inner, end = (token for token in Tokens(words)(["a <|endoftext|> b"])[0].tolist() if token)
    assert len({start, end} - set(inner)) == 2 and len(inner) > 3


@pytest.mark.parametrize(
    ("merges", "packed"), [("", False), ("plain", False), ("", True), ("#v\na b c\n", True), ("#v\na\n", True)]
)
def test_a_file_that_is_no_list_of_merges_is_refused(merges: str, packed: bool, tmp_path: Path) -> None:
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress(merges.encode()) if packed else merges.encode())
    with pytest.raises(ValueError, match=r"bpe.txt.gz"):
        Tokens(tmp_path / "bpe.txt.gz")


# IB-TV and IB-TA ------------------------------------------------------------------------------------------------------


def test_scores_are_cosines_of_the_prompts_embedding(tiny: ImageBind, words: Path) -> None:
    shown = film()
    pictures, pairs = streamed(shown)
    with torch.inference_mode():
        video = tiny("vision", vision_clips(pictures, pairs)[None])[0].double()
        audio = tiny("audio", audio_clips(torch.tensor(shown.audio))[None])[0].double()
        text = tiny.read(Tokens(words)(["the dog barks"]))[0].double()
    (result,) = given(IBText(convention="av-benchmark", words=words), tiny).score([shown])
    assert isinstance(result, Measured)
    for name, other in (("ib_tv", video), ("ib_ta", audio)):
        assert result.values[name] == pytest.approx(float(F.cosine_similarity(text, other, dim=0)), abs=1e-5)


def test_a_film_scores_the_same_in_any_company(tiny: ImageBind, words: Path) -> None:
    films = [film(seed=0), film(3.0, seed=1, prompt="and the other dog"), film(6.5, seed=2, prompt="x")]
    for make, names in ((lambda: IBText(words=words), ("ib_tv", "ib_ta")), (Javis, ("javis_score", "avh_score"))):
        metric = given(make(), tiny)
        together, alone = metric.score(films), [given(make(), tiny).score([one])[0] for one in films]
        for a, b in zip(together, alone, strict=True):
            assert [a.values[n] for n in names] == pytest.approx([b.values[n] for n in names], abs=1e-5)
        assert len({round(result.values[names[0]], 5) for result in together}) == 3


def test_another_prompt_changes_both_scores_and_none_is_no_failure(tiny: ImageBind, words: Path) -> None:
    metric = given(IBText(words=words), tiny)
    one, other, none = metric.score([film(), film(prompt="ring ring ring"), film(prompt=" ")])
    assert all(abs(one.values[name] - other.values[name]) > 1e-4 for name in ("ib_tv", "ib_ta"))
    assert isinstance(none, Failed) and metric.inapplicable(Row("a"), speech=False) == none.reason


def test_missing_files_are_told_one_after_the_other(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "ccl weights fetch clip-bpe" in IBText().missing() and "1.36 MB" in IBText().missing()
    assert "ccl weights fetch imagebind" in IBText(words=words).missing() and "not for commercial" in Javis().missing()
    (tmp_path / "ib.pth").write_bytes(b"x")
    for metric in (IBText(words=words, weights=tmp_path / "ib.pth"), Javis(weights=tmp_path / "ib.pth")):
        assert metric.missing() == "" and json.loads(json.dumps(metric.protocol()))["licence"]
    (result,) = IBText(words=words, weights=tmp_path / "ib.pth").score([film()])
    assert isinstance(result, Failed) and "ib.pth" in result.reason


# JavisScore and AVHScore ----------------------------------------------------------------------------------------------


def naive(shown: Film, net: ImageBind, window: float, overlap: float) -> tuple[float, float]:
    """JavisBench's AVScoreDataset and calc_av_score, read as loops."""
    pictures = []
    for picture in shown.video:
        small = resize_bicubic(torch.from_numpy(picture).permute(2, 0, 1)[None], 224)
        left = round((small.shape[3] - 224) / 2)
        pictures.append(normalised(small[..., left : left + 224])[0])
    sound, fps = torch.tensor(shown.audio), shown.clip.fps
    with torch.inference_mode():
        frames = [net("vision", torch.stack([p, p], 1)[None, None])[0] for p in pictures]
        whole = net("audio", audio_clips(sound)[None])[0]
        avh = np.mean([float(F.cosine_similarity(frame, whole, dim=0)) for frame in frames])
        seen, heard = [], []
        for total, rate, found in ((len(frames), fps, seen), (len(sound), RATE, heard)):
            start, size = 0, int(window * rate)
            while True:
                first = min(start, total - size)
                found.append((first, first + size))
                if first + size >= total:
                    break
                start += size - int(overlap * rate)
        scores = []
        for (a, b), (c, d) in zip(seen, heard, strict=False):
            each = []
            part = sound[c:d]
            part -= part.mean()  # upstream's three equal clips of two seconds, in place
            bands = audio_clips(part)
            ear = net("audio", bands[None])[0]
            for frame in frames[a:b]:
                each.append(float(F.cosine_similarity(frame, ear, dim=0)))
            scores.append(np.mean(sorted(each)[: int(len(each) * 0.4)]))
    return float(np.mean(scores)), float(avh)


@pytest.mark.parametrize("window, overlap", [(2.0, 1.5), (2.0, 0.0)])
def test_both_scores_are_those_of_a_naive_loop(window: float, overlap: float, tiny: ImageBind) -> None:
    (result,) = given(Javis(window=window, overlap=overlap, chunk=5), tiny).score([film(5.0)])
    javis, avh = naive(film(5.0), tiny, window, overlap)
    assert (result.values["javis_score"], result.values["avh_score"]) == (
        pytest.approx(javis, abs=1e-5),
        pytest.approx(avh, abs=1e-5),
    )


def test_windows_are_as_many_as_both_streams_have() -> None:
    seen, heard, length = cut(40, 8.0, 5 * RATE, 2.0, 1.5)
    assert seen[:, 0].tolist() == [0, 4, 8, 12, 16, 20, 24] and seen.shape == (7, 16)
    assert heard == [8_000 * i for i in range(7)] and length == 2 * RATE
    assert len(cut(40, 8.0, 3 * RATE, 2.0, 1.5)[1]) == 3  # the sound ends earlier
    assert cut(41, 8.0, 5 * RATE, 2.0, 0.0)[0][:, 0].tolist() == [0, 16, 25]  # the last ends with the film
    seen, heard, length = cut(12, 8.0, 90_000, 2.0, 1.5)  # shorter than a window: all of both
    assert (seen.tolist(), heard, length) == ([list(range(12))], [0], 90_000)


def test_a_window_of_two_pictures_has_no_lowest_two_fifths() -> None:
    with pytest.raises(Unscorable, match="has 2 pictures"):
        cut(100, 1.0, 100 * RATE, 2.0, 0.0)
    with pytest.raises(ValueError, match="less than the window"):
        Javis(window=0.5, overlap=0.5)


class Planted:
    """In place of the network: bright pictures and loud sounds point one way, dark and quiet ones another."""

    def embed(self, kind: str, clips: torch.Tensor) -> torch.Tensor:
        level = clips.flatten(1).mean(1)
        return torch.stack([level, -level], 1).clamp(min=0) + 0.1


def test_javis_score_falls_where_picture_and_sound_go_apart_and_harmony_cannot_see_it() -> None:
    """Bright and loud together, then each half with the other's sound: what the windows see, the whole does not."""
    level = np.repeat([0.0, 1.0], 4)
    video = (level.repeat(8)[:, None, None, None] * 255).astype(np.uint8) * np.ones((1, 30, 40, 3), np.uint8)
    noise = np.random.default_rng(0).standard_normal(8 * RATE).astype(np.float32)
    true, apart = (noise * (0.3 * louder + 1e-6).repeat(RATE).astype(np.float32) for louder in (level, level[::-1]))
    scores = []
    for sound in (true, apart):
        metric = given(Javis(window=2.0, overlap=0.0), Planted())  # type: ignore[arg-type]
        (result,) = metric.score([Film(Clip(video, sound, 8.0, RATE))])
        scores.append(result.values)
    assert scores[0]["javis_score"] > 0.9 > 0.5 > scores[1]["javis_score"]
    assert scores[0]["avh_score"] == pytest.approx(scores[1]["avh_score"], abs=0.1)


def test_ib_score_is_as_it_was_beside_the_text_tower(tiny: ImageBind) -> None:
    plain = ImageBind(Tower(32, 1, 2), Tower(24, 1, 2), 16)
    plain.load_state_dict({key: value for key, value in tiny.state_dict().items() if ".text." not in key})
    scores = [given(IBScore(), net.eval()).score([film()])[0].values["ib_score"] for net in (tiny, plain)]
    assert scores[0] == scores[1]
