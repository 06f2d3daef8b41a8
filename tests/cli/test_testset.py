"""The benchmark's data: rows that are what they say, the paper's numbers, refined prompts, first pictures."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import itertools
import json
import re
import string
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ccl import cli
from ccl.cli import testset as verb
from ccl.cli import testsets
from ccl.data.first_frames import Frame, Painter, draw_frames, fitted, take_frames, text_to_image
from ccl.rows import Row, read_rows
from helpers import ROOT

BENCHMARK = ROOT / "evaluation"
SUBSETS = ("easy", "hard")
FILES = {subset: BENCHMARK / "testset" / "paper" / f"{subset}.jsonl" for subset in SUBSETS}
ROWS = {subset: read_rows(file, give=()) for subset, file in FILES.items()}
ALL = [row for rows in ROWS.values() for row in rows]
RAW = {row["id"]: row for file in FILES.values() for row in map(json.loads, file.read_text().splitlines())}

LETTERS = {"zh": "[一-鿿]", "ja": "[぀-ヿ]", "ko": "[가-힯]", "ru": "[Ѐ-ӿ]"}
LETTERS |= {"hi": "[ऀ-ॿ]", "ar": "[؀-ۿ]"}
LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese", "ko": "Korean"}
LANGUAGES |= {"pt": "Portuguese", "ru": "Russian", "zh": "Mandarin", "hi": "Hindi", "ar": "Arabic"}
STILL = re.compile(
    r"\b(still|stillness|motionless|unmoving|static|frozen|freezes|rigid|steady|statue|rooted)\b"
    "|not move|without moving",
    re.IGNORECASE,
)
NEAR = re.compile(r"portrait|close-up|shoulders|upper|chest|waist|bust|half-length", re.IGNORECASE)
WHOLE = re.compile(
    r"full[- ](length|body|bodies|figures?)|head[- ]to[- ](toe|foot|shoes|boots)|(whole|entire|full) (figures?|body)",
    re.IGNORECASE,
)


def pairs() -> list[tuple[Row, Row]]:
    hard = {row.pair: row for row in ROWS["hard"]}
    return [(row, hard[row.pair]) for row in ROWS["easy"]]


def seen(row: Row) -> str:
    """The prompt without its words and its sound: what the pictures show."""
    return re.sub(r'"[^"]*"', "", row.prompt.removesuffix(row.meta["audio"]))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def alike(one: str, other: str) -> float:
    """Share of words that two texts have in common."""
    a, b = words(one), words(other)
    return len(a & b) / len(a | b)


@cache
def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


# The rows -----------------------------------------------------------------------------------------------------------


def test_a_hundred_rows_each_with_ids_and_seeds_of_their_own() -> None:
    assert [len(ROWS[subset]) for subset in SUBSETS] == [100, 100]
    assert (
        len({row.id for row in ALL}) == len({row.seed for row in ALL}) == len({row.image_prompt for row in ALL}) == 200
    )
    for subset, rows in ROWS.items():
        assert [row.id for row in rows] == [f"paper-{subset}-{n:03d}" for n in range(1, 101)]
        assert {row.subset for row in rows} == {subset}
        assert {row.seconds for row in rows} == {5.0}
        assert all(RAW[row.id]["image"] == f"images/{row.id}.png" for row in rows)


def test_speech_is_the_quoted_text() -> None:
    for row in ALL:
        assert " ".join(re.findall(r'"([^"]+)"', row.prompt)) == row.speech, row.id
        assert row.prompt.count('"') == 2 * row.meta["speakers"], row.id
        assert not re.search(r"[“”„«»]", row.prompt), row.id


def test_a_pair_shares_its_sound_and_not_its_picture() -> None:
    assert len({easy.pair for easy, _ in pairs()}) == 100
    for easy, hard in pairs():
        assert (easy.speech, easy.lang, easy.seconds, easy.meta) == (hard.speech, hard.lang, hard.seconds, hard.meta)
        assert easy.prompt.endswith(easy.meta["audio"]), easy.id
        assert hard.prompt.endswith(hard.meta["audio"]), hard.id
        assert alike(easy.image_prompt, hard.image_prompt) < 0.4, easy.pair
        assert easy.seed != hard.seed


def test_no_two_pairs_are_nearly_the_same() -> None:
    for rows in ROWS.values():
        for a, b in itertools.combinations(rows, 2):
            assert alike(a.prompt, b.prompt) < 0.35, (a.id, b.id)
            assert alike(a.image_prompt, b.image_prompt) < 0.4, (a.id, b.id)
    for a, b in itertools.combinations(ROWS["easy"], 2):
        assert alike(a.speech, b.speech) < 0.35, (a.speech, b.speech)
        letters = difflib.SequenceMatcher(None, a.speech.lower(), b.speech.lower())
        # What is quickly told is never less than the ratio.
        assert letters.quick_ratio() < 0.75 or letters.ratio() < 0.75, (a.speech, b.speech)


def test_the_words_can_be_said_in_the_time() -> None:
    for row in ALL:
        assert row.seconds
        if row.lang in ("zh", "ja"):
            assert 8 <= len(re.findall(r"\w", row.speech)) <= 22, row.speech
        else:
            assert 1.2 <= len(row.speech.split()) / row.seconds <= 3.2, row.speech
        assert len(row.speech) / row.seconds < 17, row.speech  # letters: long words take longer
        assert not re.search(r"\d", row.speech), "a number in figures can be read in several ways"


def test_one_in_six_speaks_another_language_in_its_own_letters() -> None:
    others = [row for row in ROWS["easy"] if row.lang != "en"]
    assert 12 <= len(others) <= 20
    assert {row.lang for row in others} == set(LANGUAGES)
    for row in ALL:
        if row.lang == "en":
            assert row.speech.isascii()
        else:
            assert LANGUAGES[row.lang] in seen(row), row.id
        for lang, letters in LETTERS.items():
            assert bool(re.search(letters, row.speech)) == (lang == row.lang or (row.lang, lang) == ("ja", "zh")), (
                row.id
            )


def test_sounds_and_speakers_are_many() -> None:
    metas = [row.meta for row in ROWS["easy"]]
    assert sum(meta["speakers"] == 2 for meta in metas) == 10
    assert len({meta["emotion"] for meta in metas}) >= 20
    assert len({meta["sound"] for meta in metas}) >= 20
    assert (
        max(
            sum(meta[key] == value for meta in metas)
            for key in ("emotion", "sound")
            for value in {m[key] for m in metas}
        )
        < 20
    )


def test_easy_keeps_still_and_near_hard_moves_and_is_whole() -> None:
    for row in ROWS["easy"]:
        assert STILL.search(seen(row)), row.prompt
        assert NEAR.search(row.image_prompt), row.image_prompt
        assert not WHOLE.search(row.image_prompt), row.image_prompt
    for row in ROWS["hard"]:
        assert not STILL.search(seen(row)), row.prompt
        assert WHOLE.search(row.image_prompt), row.image_prompt


def test_the_image_prompt_is_the_prompts_picture_and_holds_no_speech() -> None:
    for row in ALL:
        assert '"' not in row.image_prompt
        assert row.speech not in row.image_prompt
        assert row.prompt.startswith(row.image_prompt[:40]), row.id  # the same person and place


def test_the_worlds_rows_have_the_same_form() -> None:
    easy, hard = (read_rows(BENCHMARK / "testset" / "world" / f"{subset}.jsonl", give=()) for subset in SUBSETS)
    assert [(row.pair, row.speech, row.lang, row.seconds) for row in easy] == [
        (row.pair, row.speech, row.lang, row.seconds) for row in hard
    ]
    assert all(f'"{row.speech}"' in row.prompt for row in [*easy, *hard])


def test_ovis_prompts_follow_from_the_rule_in_their_readme() -> None:
    folder = BENCHMARK / "testset" / "prompts"
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(code[1], names)
    refined = {row.id: row.prompt for row in read_rows(folder / "ovi.jsonl", give=())}
    assert refined == {id: names["ovi"](row) for id, row in RAW.items()}
    for row in ALL:
        said = re.findall("<S>(.+?)<E>", refined[row.id])
        assert " ".join(said) == row.speech
        assert refined[row.id].endswith(f" <AUDCAP>{row.meta['audio']}<ENDAUDCAP>")
        assert '"' not in refined[row.id]


# The paper's numbers and the conventions ------------------------------------------------------------------------------


def test_the_papers_relations_hold_between_its_values() -> None:
    paper = yaml.safe_load((BENCHMARK / "paper.yaml").read_text())
    one, two = paper["table_1"], paper["table_2"]
    assert testsets.published() == one
    assert min(one, key=lambda name: one[name]["sync_d"]["easy"]) == "Ovi"  # the paper bolds CCL's
    assert max(one, key=lambda name: one[name]["sync_c"]["easy"]) == "Ovi"
    assert [one[name]["sync_d"]["easy"] for name in ("Ovi", "CCL")] == [7.32, 7.48]
    assert max(one, key=lambda name: one[name]["pq"]["mean"]) == "MOVA"
    assert one["MOVA"]["wer"]["mean"] - one["CCL"]["wer"]["mean"] == pytest.approx(0.0347)  # Sec. 6.2
    without, with_ucg = two["TARP + LCT/DCR"], two["TARP + LCT/DCR + UCG"]
    gained = {column: with_ucg[column]["mean"] - without[column]["mean"] for column in without}
    said = {"sync_c": 0.52, "sync_d": -1.03, "desync": -0.02, "ib_score": 0.01}  # Sec. 6.3
    assert {column: gained[column] for column in said} == pytest.approx(said)
    assert list(paper["data"]) == list(one)


def test_the_papers_columns_are_ours() -> None:
    paper = yaml.safe_load((BENCHMARK / "paper.yaml").read_text())
    wanted = {"cu", "pq", "wer", "sync_c", "sync_d", "desync", "ib_score"}
    for table, columns in (("table_1", wanted), ("table_2", wanted - {"cu", "pq"})):
        for numbers in paper[table].values():
            assert set(numbers) == columns
            assert all(set(by_subset) in ({"mean"}, set(SUBSETS)) for by_subset in numbers.values())
            assert 0 < numbers["wer"]["mean"] < 1, "a fraction"


def test_the_protocol_spells_every_default_of_every_metric() -> None:
    from ccl.evaluation.metrics import METRICS

    protocol = yaml.safe_load((BENCHMARK / "protocol.yaml").read_text())
    assert set(protocol) == set(METRICS)
    for name, node in protocol.items():
        module, _, cls = node["class_path"].rpartition(".")
        assert getattr(importlib.import_module(module), cls) is METRICS[name]
        takes = inspect.signature(METRICS[name]).parameters
        assert (node["init_args"] or {}) == {key: parameter.default for key, parameter in takes.items()}, name


# First pictures -----------------------------------------------------------------------------------------------------

FRAMES = [Frame(f"f{number}", f"a picture of {number}", number) for number in range(3)]
SIZE = (40, 24)


def painter(calls: list[tuple[str, int]], **recipe: Any) -> Painter:
    """Draws a picture's seed as its colour, and writes down what it was asked."""

    def draw(prompt: str, seed: int) -> Image.Image:
        calls.append((prompt, seed))
        return Image.new("RGB", (80, 48), (seed, 0, 0))

    return Painter(draw, {"model": "fake", "steps": 2, **recipe})


def test_pictures_are_drawn_once_and_recorded(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    told: list[tuple[int, int, str]] = []
    paths = draw_frames(FRAMES, painter(calls), tmp_path, size=SIZE, progress=lambda *args: told.append(args))
    draw_frames(FRAMES, painter(calls), tmp_path, size=SIZE)
    assert calls == [(frame.prompt, frame.seed) for frame in FRAMES]
    assert told[-1] == (3, 3, "f2")
    assert pixels(paths[2]).shape == (24, 40, 3)
    assert (pixels(paths[2]) == (2, 0, 0)).all()
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["made"] == {"model": "fake", "steps": 2, "size": [40, 24]}
    sha256 = hashlib.sha256(paths[1].read_bytes()).hexdigest()
    assert recipe["images"]["f1"] == {"prompt": "a picture of 1", "seed": 1, "sha256": sha256}
    assert {path.name for path in tmp_path.iterdir()} == {"f0.png", "f1.png", "f2.png", "recipe.json"}


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ccl.data.first_frames as module

    calls: list[tuple[str, int]] = []
    write, number = module.write_whole, itertools.count()

    def killed(path: Path, content: str | bytes) -> None:
        if next(number) == 3:  # the second picture, whose entry is written
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(module, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        draw_frames(FRAMES, painter(calls), tmp_path, size=SIZE)
    monkeypatch.undo()
    assert not (tmp_path / "f1.png").exists()
    draw_frames(FRAMES, painter(calls), tmp_path, size=SIZE)
    assert [seed for _, seed in calls] == [0, 1, 1, 2]


def test_only_what_changed_is_drawn_anew(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    paths = draw_frames(FRAMES, painter([]), tmp_path, size=SIZE)
    paths[0].write_bytes(b"touched by hand")
    changed = [FRAMES[0], FRAMES[1], Frame("f2", "another picture", 2)]
    draw_frames(changed, painter(calls), tmp_path, size=SIZE)
    assert calls == [("a picture of 0", 0), ("another picture", 2)]


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    draw_frames(FRAMES, painter([]), tmp_path, size=SIZE)
    with pytest.raises(ValueError, match=r"made otherwise \(steps 2, not 9\); give another folder, or --overwrite"):
        draw_frames(FRAMES, painter([], steps=9), tmp_path, size=SIZE)
    with pytest.raises(ValueError, match="made otherwise"):
        take_frames(FRAMES, tmp_path.parent, tmp_path, size=SIZE)
    calls: list[tuple[str, int]] = []
    draw_frames(FRAMES, painter(calls, steps=9), tmp_path, size=SIZE, overwrite=True)
    assert len(calls) == 3


def test_pictures_nobody_recorded_are_not_replaced(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "f1.png")
    with pytest.raises(ValueError, match=r"holds f1\.png, which no recipe speaks of"):
        draw_frames(FRAMES, painter([]), tmp_path, size=SIZE)


def test_own_pictures_are_turned_cropped_and_brought_to_size(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    tall = np.zeros((80, 48, 3), np.uint8)
    tall[:40] = (255, 0, 0)  # stored upright, to be shown turned: EXIF 6 is a quarter to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tall).save(own / "f0.jpg", exif=exif, quality=95)
    Image.new("RGBA", (400, 24), (0, 0, 255, 255)).save(own / "f1.PNG")
    Image.new("L", (10, 10), 128).save(own / "f2.webp")
    paths = take_frames(FRAMES, own, tmp_path / "images", size=SIZE)
    pictures = [pixels(path) for path in paths]
    assert [picture.shape for picture in pictures] == [(24, 40, 3)] * 3
    assert pictures[0][12, 35, 0] > 200
    assert pictures[0][12, 4, 0] < 50
    recipe = json.loads((tmp_path / "images" / "recipe.json").read_text())
    assert recipe["images"]["f1"]["file"] == "f1.PNG"
    assert recipe["images"]["f1"]["sha256"] == hashlib.sha256(paths[1].read_bytes()).hexdigest()


def test_missing_own_pictures_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", SIZE).save(own / "f0.png")
    with pytest.raises(ValueError, match=r"lacks 2 of 3 pictures .*: f1, f2"):
        take_frames(FRAMES, own, tmp_path / "images", size=SIZE)
    (own / "f1.png").write_text("no picture")
    Image.new("RGB", SIZE).save(own / "f2.jpg")
    with pytest.raises(ValueError, match=r"f1\.png is not a picture"):
        take_frames(FRAMES, own, tmp_path / "images", size=SIZE)
    assert not (tmp_path / "images").exists()
    with pytest.raises(ValueError, match="they would be replaced"):
        take_frames(FRAMES, own, own, size=SIZE)


def pipeline(folder: Path) -> Path:
    """A Stable Diffusion of a few thousand random numbers, as a folder."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        **ends,
    )
    tiny: dict[str, Any] = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=4,
        **tiny,
    )
    vae = AutoencoderKL(latent_channels=4, **tiny)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=words, merges=[], model_max_length=16),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def test_a_diffusers_pipeline_draws_the_rows_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pipeline(tmp_path / "sd")
    out = tmp_path / "mine"
    argv = ["--pipeline", str(model), "--limit", "1", "-o", str(out), "--draw-size", "32x16", "--steps", "1"]
    assert verb.images([*argv, "--device", "cpu"]) == 0
    rows = testsets.testset_of(str(out)).rows()
    assert len(rows) == 200
    drawn = {path.stem: path for path in (out / "images").glob("*.png")}
    assert set(drawn) == {"paper-easy-001", "paper-hard-001"}
    assert all((out / RAW[id]["image"]).is_file() for id in drawn), "where the rows look for them"
    assert {pixels(path).shape for path in drawn.values()} == {(352, 640, 3)}
    recipe = json.loads((out / "images" / "recipe.json").read_text())
    expected = {
        "model": str(model),
        "pipeline": "StableDiffusionPipeline",
        "steps": 1,
        "guidance": 7.5,
        "drawn": [32, 16],
    }
    assert recipe["made"].items() >= expected.items()
    assert recipe["images"]["paper-easy-001"]["prompt"] == rows[0].image_prompt
    again, entry = text_to_image(str(model), steps=1, size=(32, 16)), recipe["images"]["paper-easy-001"]
    one, other = (again.draw(entry["prompt"], entry["seed"] + k) for k in (0, 1))
    assert np.array_equal(pixels(drawn["paper-easy-001"]), np.asarray(fitted(one, (640, 352))))
    assert one.tobytes() != other.tobytes()


def test_what_cannot_be_drawn_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def told(*argv: str) -> str:
        with pytest.raises(ValueError) as caught:
            verb.images(list(argv))
        return cli.one_sentence(caught.value)

    assert "neither in the local cache nor to be had" in told("--pipeline", "nobody/nothing", "-o", str(tmp_path / "x"))
    assert told("--pipeline", "./none").startswith("there is no folder ./none")
    assert "no model_index.json" in told("--pipeline", str(tmp_path))
    assert "has no image_prompt" in told("--pipeline", str(tmp_path), "--testset", "world")
    assert "lacks 200 of 200 pictures" in told("--images", str(tmp_path))
    assert "--steps goes with --pipeline" in told("--images", str(tmp_path), "--steps", "3")
    assert "'640' is no size" in told("--images", str(tmp_path), "--size", "640")
    assert "did you mean 'paper'?" in told("--images", str(tmp_path), "--testset", "papr")
    assert not (tmp_path / "x").exists()


def test_half_files_of_a_world_whose_writing_was_killed_are_swept(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".partial-host-1-a.png").write_bytes(b"half")
    monkeypatch.setattr("ccl.data.world.testset.write_testset", lambda folder, **how: [folder / "easy.jsonl"])
    assert cli.main(["testset", "-o", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.rglob("*")] == ["images"]


@pytest.mark.parametrize("text", ["", "[", "table_1: 5", "table_2: {}", "table_1: {Ovi: {cu: {mean: x}}}", "\xff: {"])
def test_a_damaged_file_of_published_numbers_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "paper.yaml").write_bytes(text.encode("latin-1"))
    monkeypatch.setattr(testsets, "benchmark", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"paper\.yaml cannot be read as the paper's numbers \(\S"):
        testsets.published()
