"""CLAP and CLIP: against transformers' own processors and models on small weights, and files that are not theirs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccl import cli
from ccl.evaluation import CLAP, CLIP, Film, Measured, Metric, Row
from ccl.evaluation.metrics.base import Failed
from ccl.evaluation.metrics.clap import WINDOW, windows
from ccl.evaluation.metrics.clip import squared
from ccl.evaluation.metrics.sets import frechet
from ccl.evaluation.pictures import normalised
from ccl.media import Clip
from ccl.weights import catalogue as weights
from helpers.tiny_hub import tiny_clap, tiny_clip

PROMPTS = ("a dog barks in the yard", "A violin plays; rain falls.", "x")


@pytest.fixture(scope="module")
def clap(tmp_path_factory) -> Path:
    return tiny_clap(tmp_path_factory.mktemp("hub") / "tiny-clap")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("hub") / "tiny-clip")


def film(i: int = 0, seconds: float = 2.0, prompt: str | None = None, rate: int = 48_000) -> Film:
    """A tone in noise of its own, pictures of a colour of their own."""
    rng = np.random.default_rng(i)
    tone = np.sin(2 * np.pi * 220 * 2**i * np.arange(round(seconds * rate)) / rate)
    video = rng.integers(0, 256, (12, 40, 56, 3), dtype=np.uint8) // 4 + np.uint8(60 * i)
    sound = (0.3 * tone + 0.05 * rng.standard_normal(len(tone))).astype(np.float32)
    return Film(Clip(video, sound, 6.0, rate), Row(f"f{i}", PROMPTS[i] if prompt is None else prompt))


def values(metric: Metric, films: list[Film]) -> list[float]:
    results = metric.score(films)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values[metric.name] for result in results]  # type: ignore[union-attr]


# CLAP -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion, seconds", [(False, 0.3), (False, 10.0), (True, 2.0)])
def test_clap_is_what_transformers_gives(fusion, seconds, tmp_path):
    """As JavisBench's calc_clap_score: ClapProcessor, ClapModel, cosine; of 10 s at most nothing is drawn."""
    from transformers import ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizer

    folder = tiny_clap(tmp_path / "clap", fusion=fusion)
    processor = ClapProcessor(ClapFeatureExtractor.from_pretrained(folder), RobertaTokenizer.from_pretrained(folder))
    net = ClapModel.from_pretrained(folder).eval()
    shown = film(1, seconds)
    given = processor(text=[PROMPTS[1]], audio=[shown.audio], return_tensors="pt", padding=True, sampling_rate=48_000)
    given["is_longer"] = torch.zeros_like(given["is_longer"])  # with fusion the processor says so of one at random
    with torch.inference_mode():
        out = net(**given)
    expected = float(F.cosine_similarity(out.text_embeds, out.audio_embeds)[0])
    assert values(CLAP(weights=folder), [shown]) == [pytest.approx(expected, abs=1e-5)]


def test_a_long_sound_is_covered_by_windows_from_end_to_end():
    sound = np.arange(round(2.3 * WINDOW), dtype=np.float32)
    cut = windows(sound)
    assert [len(one) for one in cut] == [WINDOW] * 3
    assert cut[0][0] == 0 and cut[-1][-1] == sound[-1] and cut[1][0] == round(0.65 * WINDOW)
    assert [len(one) for one in windows(sound[:WINDOW])] == [WINDOW]
    assert [len(one) for one in windows(sound[:77])] == [77]


def test_a_long_sounds_embedding_is_the_mean_of_its_windows(clap):
    metric = CLAP(weights=clap)
    long = film(0, 25.0)
    with torch.inference_mode():
        each = metric.hear(windows(long.audio))
        word = metric.read([PROMPTS[0]])
    expected = float(F.cosine_similarity(each.mean(0, keepdim=True), word)[0])
    assert len(each) == 3 and values(metric, [long]) == [pytest.approx(expected, abs=1e-5)]


def test_a_sound_scores_the_same_in_any_company(clap):
    films = [film(0, 2.0), film(1, 11.0), film(2, 0.5, rate=16_000)]
    together = values(CLAP(weights=clap), films)
    alone = [values(CLAP(weights=clap), [one])[0] for one in films]
    assert together == pytest.approx(alone, abs=1e-5) and len({round(value, 4) for value in together}) == 3


def test_sounds_are_as_far_from_others_as_the_frechet_distance_of_their_embeddings(clap):
    films = [film(i % 3, 1.0 + 0.1 * i) for i in range(4)]
    metric = CLAP(weights=clap)
    metric.update(films)
    assert np.isnan(metric.compute()["fad_clap"]) and metric.compute()["scored"] == 4
    metric.update(films[1:], reference=True)
    own, true = ([result.feature for result in metric.score(some)] for some in (films, films[1:]))
    expected = frechet(np.stack(own), np.stack(true))
    assert metric.compute()["fad_clap"] == pytest.approx(expected, abs=1e-6) and expected > 0
    assert metric.compute()["clap"] == pytest.approx(np.mean(values(metric, films)), abs=1e-6)


def test_only_the_first_77_tokens_of_a_prompt_are_read(clap):
    start = "a" * 75  # a token each, and one at either end
    metric = CLAP(weights=clap)
    with torch.inference_mode():
        short, same, other = metric.read([start, start + "b" * 300, start[:40] + "b" * 35])
    torch.testing.assert_close(short, same)
    assert (short - other).abs().max() > 1e-3


# CLIP -----------------------------------------------------------------------------------------------------------------


def test_clip_is_what_transformers_gives(clip):
    """As JavisBench's calc_clip_score, with Pillow's resizing: unit embeddings of each picture against the prompt's."""
    from PIL import Image
    from transformers import CLIPModel, CLIPTokenizer

    shown = film(1)
    net, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    pictures = []
    for at in np.linspace(0, 11, 5).round().astype(int):
        picture = Image.fromarray(shown.video[at]).resize((int(32 * 56 / 40), 32), Image.Resampling.BICUBIC)
        left = round((picture.width - 32) / 2)
        pictures.append(torch.from_numpy(np.array(picture.crop((left, 0, left + 32, 32)))).permute(2, 0, 1))
    with torch.inference_mode():
        seen = net.get_image_features(normalised(torch.stack(pictures))).pooler_output
        word = net.get_text_features(**tokenizer([PROMPTS[1]], return_tensors="pt")).pooler_output
    seen, word = (x / x.norm(dim=-1, keepdim=True) for x in (seen, word))
    expected = float((seen @ word.T).mean())
    assert values(CLIP(weights=clip, pictures=5), [shown]) == [pytest.approx(expected, abs=2e-3)]  # bytes by one


def test_a_picture_is_cropped_in_its_middle():
    tall = torch.arange(80, dtype=torch.uint8)[None, None, :, None].expand(1, 3, 80, 32).contiguous()
    assert squared(tall, 32)[0, 0, :, 0].tolist() == list(range(24, 56))


def test_pictures_score_the_same_in_any_company(clip):
    films = [film(i) for i in range(3)]
    together = values(CLIP(weights=clip, pictures=6), films)
    alone = [values(CLIP(weights=clip, pictures=6, chunk=1), [one])[0] for one in films]
    assert together == pytest.approx(alone, abs=1e-5) and len({round(value, 4) for value in together}) == 3


# Both -----------------------------------------------------------------------------------------------------------------


def taught(metric: Any, projections: tuple[str, str]) -> Any:
    """A metric whose last layers have learned which of three films belongs to which prompt; all before is as drawn."""
    metric.load()
    inputs = [metric.prepare(film(i)) for i in range(3)]
    held: dict[str, torch.Tensor] = {}
    layers = [getattr(metric.net, name) for name in projections]
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: held.update({name: given[0]}))
        for name, layer in zip(projections, layers, strict=True)
    ]
    with torch.no_grad():
        metric.measure(inputs)
    for hook in hooks:
        hook.remove()
    optimizer = torch.optim.Adam([p.requires_grad_() for layer in layers for p in layer.parameters()], 3e-3)
    for _ in range(1000):
        given, words = (F.normalize(layer(held[name]), dim=-1) for name, layer in zip(projections, layers, strict=True))
        given = given.view(3, -1, given.shape[-1]).mean(1)
        loss = F.cross_entropy(given @ words.T / 0.1, torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metric.net.requires_grad_(False)
    return metric


@pytest.mark.parametrize("kind", ["clap", "clip"])
def test_a_wrong_text_and_noise_score_lower_once_the_network_knows(kind, clap, clip):
    """No published weights are here; a small network that was taught three pairs tells them from wrong ones."""
    if kind == "clap":
        metric = taught(CLAP(weights=clap), ("audio_projection", "text_projection"))
    else:
        metric = taught(CLIP(weights=clip, pictures=4), ("visual_projection", "text_projection"))
    true = values(metric, [film(i) for i in range(3)])
    wrong = values(metric, [film(i, prompt=PROMPTS[(i + 1) % 3]) for i in range(3)])
    rng = np.random.default_rng(9)
    noise = Clip(
        rng.integers(0, 256, (12, 40, 56, 3), np.uint8), rng.uniform(-1, 1, 96_000).astype(np.float32), 6.0, 48_000
    )
    drowned = values(metric, [Film(noise, Row("n", prompt)) for prompt in PROMPTS])
    assert min(true) > max(wrong) and np.mean(true) > np.mean(drowned) + 0.1


@pytest.mark.parametrize("cls, lack", [(CLAP, "audio"), (CLIP, "video")])
def test_without_a_prompt_nothing_is_to_be_compared_and_without_a_stream_there_is_a_reason(cls, lack, clap, clip):
    metric = cls(weights=clap if cls is CLAP else clip)
    whole = film(0).clip
    half = Clip(None if lack == "video" else whole.video, None if lack == "audio" else whole.audio, 6.0, 48_000)
    results = metric.score([film(0, prompt="  "), Film(half, Row("h", "a dog"))])
    assert all(isinstance(result, Failed) for result in results)
    assert "no prompt" in results[0].reason and results[1].reason == f"no {lack} stream"
    assert "no prompt" in metric.inapplicable(Row("a"), speech=True)
    assert metric.inapplicable(Row("a", "a dog"), speech=True) == ""


@pytest.mark.parametrize("cls, name, repo", [(CLAP, "clap", "CLAP"), (CLIP, "clip", "CLIP")])
def test_missing_weights_are_one_sentence_with_the_command(cls, name, repo, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert f"`ccl weights fetch {name}`, or --weights {name}=FOLDER" in cls().missing() and repo in cls().missing()
    assert "there is no file or folder" in cls(weights=tmp_path / "gone").missing()
    (tmp_path / name).mkdir()
    assert "holds neither model.safetensors nor pytorch_model.bin" in cls().missing()
    with pytest.raises(ValueError, match="holds neither"):
        cls().update([film(0)])


def test_a_folder_of_another_network_or_with_other_keys_is_refused(clap, clip, tmp_path):
    from safetensors.torch import load_file, save_file

    (wrong,) = CLAP(weights=clip).score([film(0)])
    assert isinstance(wrong, Failed) and "is of clip, not of CLAP" in wrong.reason
    for change, said in (("lacks", "lacks 1 keys of CLAP"), ("has", "has 1 keys that CLAP has not")):
        folder = Path(shutil.copytree(clap, tmp_path / change))
        state = load_file(folder / "model.safetensors")
        if change == "lacks":
            del state["audio_projection.linear2.bias"]
        else:
            state["audio_projection.linear3.bias"] = torch.zeros(2)
        save_file(state, folder / "model.safetensors")
        (result,) = CLAP(weights=folder).score([film(0)])
        assert isinstance(result, Failed) and said in result.reason
    bare = Path(shutil.copytree(clap, tmp_path / "bare"))
    for file in bare.glob("tokenizer*"):
        file.unlink()
    (result,) = CLAP(weights=bare).score([film(0)])
    assert isinstance(result, Failed) and "bare has no tokenizer of CLAP" in result.reason


def test_an_older_file_of_torch_is_read_and_never_unpickled(clap, tmp_path):
    """pytorch_model.bin, which some repositories have alone, with the positions that older releases kept."""
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(clap, tmp_path / "old"))
    state = load_file(folder / "model.safetensors") | {"text_model.embeddings.position_ids": torch.arange(90)[None]}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert values(CLAP(weights=folder), [film(0)]) == values(CLAP(weights=clap), [film(0)])
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    (result,) = CLAP(weights=folder).score([film(0)])
    assert isinstance(result, Failed) and "pytorch_model.bin" in result.reason


def test_protocols_name_the_folder_and_the_sum_of_its_weights(clap, clip):
    for metric, folder in ((CLAP(weights=clap), clap), (CLIP(weights=clip), clip)):
        protocol = metric.protocol()
        assert protocol["weights"] == weights.sha256(folder / "model.safetensors") and folder.name in protocol["model"]
        assert json.loads(json.dumps(protocol)) == protocol


@pytest.mark.parametrize("cls", [CLAP, CLIP])
def test_bf16_stays_near_fp32(cls, clap, clip):
    given = clap if cls is CLAP else clip
    one, other = (values(cls(weights=given, precision=precision), [film(0)])[0] for precision in ("fp32", "bf16"))
    assert one != other and one == pytest.approx(other, abs=0.05)


def test_the_command_line_takes_a_folder_or_a_file_in_it(clap, clip, tmp_path, capsys):
    for i in range(2):
        film(i).clip.save(tmp_path / f"clips/f{i}.mp4")
    rows = "".join(json.dumps({"id": f"f{i}", "prompt": PROMPTS[i]}) + "\n" for i in range(2))
    (tmp_path / "rows.jsonl").write_text(rows)
    argv = ["evaluate", "--videos", str(tmp_path / "clips"), "--testset", str(tmp_path / "rows.jsonl")]
    argv += ["--metrics", "clap", "clip", "-o", str(tmp_path / "out")]
    argv += ["--weights", f"clap={clap}", "--weights", f"clip={clip / 'model.safetensors'}"]
    assert cli.main(argv) == 0
    found = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    assert {row["metric"] for row in found} == {"clap", "clip"} and all(row["value"] is not None for row in found)
    assert "CLAP" in capsys.readouterr().out
