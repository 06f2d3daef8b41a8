# ruff: noqa: RUF001 - letters of many languages
"""Word error rate: counting against a naive edit distance, recognition against Whisper's own, languages, the gate."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.normalizers import BasicTextNormalizer

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics import wer
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.wer import WER, Utterance, spoken, word_errors
from ccl.evaluation.recogniser import closed, language_of, transcribe
from ccl.evaluation.speech import SILENT, unclear
from ccl.evaluation.vad import CONTEXT, LEAST, RATE, VAD, WINDOW, probabilities, spans
from ccl.evaluation.words import UNSPACED, normaliser
from ccl.media import Clip
from ccl.rows import Row
from ccl.weights import catalogue as weights

JFK = "And so, my fellow Americans: ask not what your country can do for you, ask what you can do for your country."
# Words that the English normaliser leaves as they are.
WORDS = ("apple", "river", "stone", "green", "window", "paper", "garden", "music")
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)


def distance(a: list[str], b: list[str]) -> int:
    """Edit distance, by its recursive definition."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if not i or not j:
                table[i, j] = i + j
            else:
                table[i, j] = min(
                    table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
                )
    return int(table[-1, -1])


@given(sentences, st.lists(st.sampled_from(WORDS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_errors_are_the_edit_distance_over_words(said: list[str], heard: list[str]) -> None:
    assert word_errors(" ".join(said), " ".join(heard)) == (distance(said, heard), len(said))


@given(sentences, st.data())
@settings(max_examples=40, deadline=None)
def test_wrong_words_raise_the_errors_by_exactly_their_number(said: list[str], data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, len(said) - 1)))
    heard = ["zebra" if i in wrong else word for i, word in enumerate(said)]
    assert word_errors(" ".join(said), " ".join(heard))[0] == len(wrong)
    assert word_errors(" ".join(said), " ".join(said[len(wrong) :]))[0] == len(wrong)
    assert word_errors(" ".join(said), " ".join([*said, *["zebra"] * len(wrong)]))[0] == len(wrong)


def test_case_punctuation_and_contractions_are_no_errors() -> None:
    assert word_errors("We're going, at forty-two!", "we are going at 42") == (0, 5)


def test_an_ellipsis_is_no_word() -> None:
    assert word_errors("I know...", "i know") == word_errors("I know", "I know…") == (0, 2)


def test_nothing_heard_is_every_word_lost() -> None:
    assert word_errors("Ask not what", "") == (3, 3)
    assert word_errors("Ask not what", " ... ") == (3, 3)


def test_a_reference_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no words"):
        word_errors("...", "you")


@pytest.mark.parametrize(
    ("lang", "said", "heard", "expected"),
    [
        ("zh", "你好。世界", "你好世界", (0, 4)),
        ("zh", "你好。世界", "你好视界", (1, 4)),
        ("ja", "こんにちは。", "こんばんは", (2, 5)),
        ("ko", "안녕 세상", "안녕 세계", (1, 2)),
        ("de", "Schöne, neue Welt!", "schöne neue Wald", (1, 3)),
        ("fr", "L'été est là.", "l'été est là", (0, 4)),
    ],
)
def test_letters_are_counted_where_words_have_no_spaces(
    lang: str, said: str, heard: str, expected: tuple[int, int]
) -> None:
    assert word_errors(said, heard, lang) == expected


def test_speech_comes_from_the_row_or_from_the_quotes_of_its_prompt() -> None:
    assert spoken("Hello there", 'She says "something else"') == "Hello there"
    assert spoken("", 'One says "Hello", another “good day”') == "Hello good day"
    assert spoken("", "A man. <S>Hello there<E> <AUDCAP>A calm voice<ENDAUDCAP>") == "Hello there"
    assert spoken("", "A cat sleeps.") == ""


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ('A 27" screen; a man says "hello"', "hello"),
        ('A 27" screen beside a 32" one; a man, 6\'2", says "hello"', "hello"),
        ('A man says "I am 42"', "I am 42"),
        ('他说"你好"', "你好"),
        ("Ein Mann sagt „Hallo“", "Hallo"),
        ("Mówi „Dzień dobry”", "Dzień dobry"),
        ("Er sagt »Hallo« und ‚ja‘", "Hallo ja"),
        ("Il dit « Bonjour », elle «\u202fSalut\u202f»", "Bonjour Salut"),
        ("Hän sanoo »Hei»", "Hei"),
        ("Hon säger ”Hej”", "Hej"),
        ("Ela diz “Olá” e “adeus”", "Olá adeus"),
        ("男は「こんにちは『世界』」と言う", "こんにちは『世界』"),
        ("他说：『你好』", "你好"),
        ("他说＂你好＂", "你好"),
        ("Il dit «Elle a dit «oui» hier»", "Elle a dit «oui» hier"),
        ("Er sagt „Sie rief „Halt“ und ging“", "Sie rief „Halt“ und ging"),
        ("She says “don’t”; it’s the ’90s", "don’t"),
        ("", ""),
    ],
)
def test_quotes_of_many_languages_hold_what_is_spoken(prompt: str, words: str) -> None:
    assert spoken("", prompt) == words and unclear(prompt) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        'A man says "hello',
        'A man says "hello" and "good',
        "Ein Mann sagt „Hallo",
        "Elle dit «Salut",
        "A man says <S>Hello",
        'A man says "a 27" screen is here"',
        'A 27" screen; a man says "hello',
        "A man says 'hello there'",
        "A man says ‘hello there’",
        "A man says ❝hello❞",
        "A man says &quot;hello&quot;",
        "A man says ``hello''",
        "A man says ''hello there''",
    ],
)
def test_quotes_that_are_not_clear_are_a_reason_that_says_which_count(prompt: str) -> None:
    assert spoken("", prompt) == "" and '"...", “...”, „...“' in unclear(prompt)
    assert spoken("as the row says", prompt) == "as the row says"


def test_unclear_quotes_are_a_failure_and_no_speech_is_none(hearing: list[tuple[str, int]]) -> None:
    [result] = WER().score([film(prompt='says "hello')])
    assert isinstance(result, Failed) and "do not all close" in result.reason
    assert WER().inapplicable(Row("a", 'says "hello'), speech=True) == ""
    assert WER().inapplicable(Row("a", "A cat; it's 5'"), speech=True) == SILENT


@pytest.mark.parametrize(
    ("lang", "said", "heard", "expected"),
    [
        ("hi", "काम", "कीमा", (1, 1)),  # work, minced meat
        ("hi", "मैं हिंदी में बोलता हूँ।", "मैं हिंदी में बोलती हूँ", (1, 5)),
        ("bn", "আমি বাংলায় গান গাই", "আমি বাংলায় গান গাই", (0, 4)),
        ("ta", "வணக்கம் உலகம்", "வணக்கம் உலகு", (1, 2)),
        ("ar", "السَّلَامُ عَلَيْكُمْ", "السلام عليكم", (0, 2)),  # vowel signs are help to readers
        ("ar", "كَتَبَ", "كتاب", (1, 1)),
        ("he", "שָׁלוֹם עוֹלָם", "שלום עולם", (0, 2)),
        ("tr", "İstanbul IĞDIR", "istanbul ığdır", (0, 2)),
        ("tr", "kız", "kiz", (1, 1)),
        ("az", "İki", "iki", (0, 1)),
        ("vi", unicodedata.normalize("NFD", "Việt Nam"), "việt nam", (0, 2)),
        ("yo", "ẹ̀kọ́ dára", unicodedata.normalize("NFD", "ẹ̀kọ́ dára"), (0, 2)),  # not all have composed letters
        ("fa", "می\u200cخواهم", "می\u200cخواهم", (0, 1)),
        ("pt", "Ah 👩‍👩‍👧 não ❤️você", "ah não você", (0, 3)),
        ("th", "ที่ดี", "ทีดี", (1, 2)),  # letters with their marks
        ("th-TH", "สวัสดี", "สวัสดี", (0, 4)),
        ("km", "ខ្មែរ", "ខ្មែរ", (0, 3)),
        ("my", "မြန်မာ", "မြန်မာ", (0, 3)),
    ],
)
def test_a_combining_mark_breaks_no_word(lang: str, said: str, heard: str, expected: tuple[int, int]) -> None:
    assert word_errors(said, heard, lang) == expected
    assert word_errors(said, said, lang) == (0, expected[1])


@pytest.mark.parametrize(
    ("lang", "said", "heard", "expected"),
    [
        ("en", "don’t stop", "don't stop", (0, 3)),  # do not stop: contractions are written out
        ("en", "I’m 25 years old", "I am twenty five years old", (0, 5)),
        ("en", "he said ‘hello there’ twice", "he said hello there twice", (0, 5)),
        ("en-US", "It＇s the boysʼ room", "it's the boys room", (0, 5)),
        ("uk", "пʼять імен", "п'ять імен", (0, 3)),
        ("fr", "l’été", "l'été", (0, 2)),
        ("br", "cʼhoar", "c’hoar", (0, 2)),
        ("hi", "मैं २५ साल का हूँ", "मैं 25 साल का हूँ", (0, 5)),
        ("ar", "٣ كتب", "3 كتب", (0, 2)),
        ("fa", "۷ روز", "7 روز", (0, 2)),
        ("th", "๑๒", "12", (0, 2)),
        ("bn", "১০ টাকা", "11 টাকা", (1, 2)),
    ],
)
def test_apostrophes_and_digits_are_the_same_however_they_are_written(
    lang: str, said: str, heard: str, expected: tuple[int, int]
) -> None:
    assert word_errors(said, heard, lang) == expected == word_errors(heard, said, lang)


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("de", "Schöne, neue (laut) Welt! [Musik] 3,5 % <x>"),
        ("fr", "L'été — c’est «là»… œuvre"),
        ("ru", "Привет, мир: ёлка и йод"),
        ("ko", "안녕, 세상! 한국어"),
        ("zh", "你好。世界 ＡＢＣ 123"),
        ("ja", "こんにちは、ガラス。"),
        ("es", "¿Qué? ¡Señor Núñez!"),
    ],
)
def test_texts_without_loose_marks_are_normalised_as_whisper_does(lang: str, text: str) -> None:
    theirs = BasicTextNormalizer(split_letters=lang in UNSPACED)
    assert normaliser(lang)(text).split() == theirs(text).split()


def test_languages_are_those_of_the_network() -> None:
    english, many, large = ({"n_vocab": n} for n in (51_864, 51_865, 51_866))
    assert language_of("en", english) == language_of("en-GB", english) == "en"
    assert language_of("zh-CN", many) == "zh"
    assert language_of("yue", large) == "yue"
    for lang, dims in (("de", english), ("yue", many), ("tlh", large)):
        with pytest.raises(Unscorable, match=lang):
            language_of(lang, dims)


STAMP = 1000  # tokens from here on are times


@pytest.mark.parametrize(
    ("tokens", "kept", "steps"),
    [
        ([STAMP, 5, 6, STAMP + 50], 4, None),  # one closed segment: done
        ([STAMP, 5, 6], 3, None),  # never closed: the whole window is one segment
        ([STAMP, 5, STAMP + 50, STAMP + 50, 6, STAMP + 90], 6, None),  # the last is closed too
        ([STAMP, 5, STAMP + 50, STAMP + 50, 6], 3, 50),  # the last is open: again from 50
        ([STAMP, 5, STAMP + 50, STAMP + 50], 3, 50),
        ([], 0, None),
    ],
)
def test_a_window_ends_at_its_last_closed_segment(tokens: list[int], kept: int, steps: int | None) -> None:
    assert closed(tokens, STAMP) == (tokens[:kept], steps)


# The metric, with a recogniser that hears what it is told ---------------------------------------------------


def film(speech: str = "", *, prompt: str = "", lang: str = "en", audio: np.ndarray | None = None) -> Film:
    sound = np.zeros(RATE, np.float32) if audio is None else audio
    return Film(Clip(None, sound, sample_rate=RATE), Row("clip", prompt, speech=speech, lang=lang))


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """WER hears the samples' first value as the number of a sentence; gives the calls as (language, sounds)."""
    calls: list[tuple[str, int]] = []
    texts = ["", "Hello there.", "Hallo!", "Hello where"]

    def transcribe(model: object, sounds: list[np.ndarray], lang: str, precision: str) -> list[str]:
        calls.append((lang, len(sounds)))
        return [texts[int(sound[0])] for sound in sounds]

    monkeypatch.setattr(wer, "transcribe", transcribe)
    monkeypatch.setattr(WER, "recogniser", None)
    monkeypatch.setattr(WER, "dims", {"n_vocab": 51_865})
    return calls


def number(i: int) -> np.ndarray:
    return np.full(RATE, i, np.float32)


def test_languages_are_decoded_in_groups_and_results_keep_their_order(hearing: list[tuple[str, int]]) -> None:
    films = [
        film("Hello there", audio=number(1)),
        film("Hallo", lang="de", audio=number(2)),
        film("Hello there", audio=number(3)),
        film("Hello there", audio=number(0)),
    ]
    results = WER().score(films)
    assert hearing == [("en", 3), ("de", 1)]
    assert [r.values["wer"] for r in results if isinstance(r, Measured)] == [0, 0, 0.5, 1.0]
    assert [r.text for r in results if isinstance(r, Measured)] == ["Hello there.", "Hallo!", "Hello where", ""]


def test_the_corpus_rate_weighs_by_words_and_the_mean_by_clips(hearing: list[tuple[str, int]]) -> None:
    metric = WER()
    metric.missing = lambda: ""  # type: ignore[method-assign]
    metric.update([film("Hello there", audio=number(1)), film("Good morning to all of you", audio=number(0))])
    totals = metric.compute()
    assert totals["wer"] == 6 / 8 and totals["wer_mean"] == 0.5
    assert totals["wer_errors"] == 3 and totals["scored"] == 2


def test_a_clip_in_which_nobody_was_to_speak_has_no_rate(hearing: list[tuple[str, int]]) -> None:
    results = WER().score([film(prompt="A cat sleeps."), film("..."), film("Hi", audio=np.empty(0, np.float32))])
    reasons = [r.reason for r in results if isinstance(r, Failed)]
    assert reasons == ["nothing was to be spoken", "nothing is left of '...' after normalising", "no audio stream"]
    assert hearing == []


def test_behind_the_gate_a_clip_without_speech_is_not_even_heard(
    hearing: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VAD, "share", lambda self, sound: float(sound[0] == 1))
    results = WER(gate=True).score([film("Hello there", audio=number(1)), film("Hello there", audio=number(3))])
    assert [r.values["wer"] for r in results if isinstance(r, Measured)] == [0, 1]
    assert hearing == [("en", 1)]


def test_what_is_missing_is_one_sentence_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert "ccl weights fetch whisper-large-v3" in WER().missing() and "GB" in WER().missing()
    assert "load_model" in WER("medium").missing()
    assert "large-v3" in WER("huge").missing()
    assert "there is no file" in WER(str(tmp_path / "mine.pt")).missing()
    own = tmp_path / "whisper" / "large-v3.pt"  # where Whisper itself keeps it
    own.parent.mkdir()
    own.touch()
    assert WER().missing() == "" and WER().path == own
    assert "ccl weights fetch silero_vad" in WER(gate=True).missing()


def test_half_precision_needs_a_gpu() -> None:
    assert WER().precision == "fp32" and WER(device="cuda").precision == "fp16"
    with pytest.raises(ValueError, match="fp16"):
        WER(precision="fp16")


def test_a_file_that_is_no_whisper_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_text("nothing")
    [result] = WER(str(tmp_path / "mine.pt")).score([film("Hello")])
    assert isinstance(result, Failed) and "no file of Whisper's weights" in result.reason


# Voice activity ---------------------------------------------------------------------------------------------


class Session:
    """Gives the loudest sample of a window as its probability, counts windows in its state, keeps what it was given."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        assert inputs["state"].flat[0] == len(self.pieces) and inputs["sr"] == RATE
        self.pieces.append(inputs["input"])
        return inputs["input"][:, CONTEXT:].max(1, keepdims=True), inputs["state"] + 1


def test_each_window_is_read_behind_the_end_of_the_one_before() -> None:
    sound = np.random.default_rng(0).random(WINDOW * 3 + 7).astype(np.float32)
    session = Session()
    speech = probabilities(session, sound)
    assert len(speech) == 4 and speech[1] == sound[WINDOW : 2 * WINDOW].max()
    assert np.array_equal(session.pieces[0][0, CONTEXT:], sound[:WINDOW])
    assert not session.pieces[0][0, :CONTEXT].any()
    assert np.array_equal(session.pieces[2][0], sound[2 * WINDOW - CONTEXT : 3 * WINDOW])
    assert np.array_equal(session.pieces[3][0, CONTEXT : CONTEXT + 7], sound[-7:])
    assert not session.pieces[3][0, CONTEXT + 7 :].any()


def test_speech_is_what_stays_above_the_threshold_long_enough() -> None:
    def found(*runs: tuple[float, int]) -> list[tuple[int, int]]:
        speech = np.concatenate([np.full(count, p) for p, count in runs])
        return [(a // WINDOW, b // WINDOW) for a, b in spans(speech, len(speech) * WINDOW)]

    assert found((0.0, 10)) == []
    assert found((0.0, 5), (0.9, 10), (0.0, 10)) == [(5, 15)]
    assert found((0.9, int(LEAST * RATE / WINDOW)), (0.0, 10)) == []  # a click
    assert found((0.9, 10), (0.4, 10), (0.0, 10)) == [(0, 20)]  # between the thresholds it goes on
    assert found((0.4, 10), (0.9, 10), (0.0, 3), (0.9, 10)) == [(10, 33)]  # a short pause is part of it
    assert found((0.9, 10), (0.0, 5), (0.9, 10)) == [(0, 10), (15, 25)]


def test_the_share_of_speech_is_over_the_whole_sound() -> None:
    vad = VAD()
    vad.__dict__["session"] = Session()
    sound = np.zeros(40 * WINDOW, np.float32)
    sound[10 * WINDOW : 20 * WINDOW] = 0.9
    assert vad.share(sound) == 0.25
    assert vad.share(sound[:0]) == 0


# With real weights ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> WER:
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no weights of Whisper")
    return WER(str(Path(data) / "weights" / "whisper-tiny.en.pt"))


@pytest.fixture(scope="module")
def clips(tiny: WER) -> dict[str, Film]:
    folder = Path(os.environ["CCL_TEST_DATA"]) / "clips"
    speech = {"jfk.flac": JFK, "ovi_two_men.mp4": "Hello there", "condfoley_hitting_metal.mp4": "Hello there"}
    return {name: Film.read(folder / name, Row(name, speech=said)) for name, said in speech.items()}


def test_kennedy_is_understood_word_for_word(tiny: WER, clips: dict[str, Film]) -> None:
    assert tiny.missing() == ""
    [result] = tiny.score([clips["jfk.flac"]])
    assert isinstance(result, Measured)
    assert result.values == {"wer": 0.0, "wer_mean": 0.0, "wer_errors": 0, "wer_words": 22}
    assert "fellow Americans" in result.text
    assert tiny.protocol()["weights"] == weights.TABLE["whisper-tiny.en"].digest.removeprefix("sha256:")


def test_kennedy_is_understood_in_bf16_too(tiny: WER, clips: dict[str, Film]) -> None:
    [text] = transcribe(tiny.recogniser, [clips["jfk.flac"].sound(RATE)], "en", precision="bf16")
    assert word_errors(JFK, text) == (0, 22)


def test_clips_together_are_heard_as_whisper_hears_them_singly(tiny: WER, clips: dict[str, Film]) -> None:
    """One of them without speech, one over 30 s, which takes a second window."""
    jfk, men, blows = (clip.sound(RATE) for clip in clips.values())
    sounds = [blows, np.concatenate([jfk, np.zeros(RATE * 15, np.float32), men])]
    options = {"language": "en", "temperature": 0.0, "condition_on_previous_text": False, "fp16": False}
    singly = [tiny.recogniser.transcribe(sound, **options)["text"].strip() for sound in sounds]
    together = transcribe(tiny.recogniser, sounds, "en")
    assert together == singly
    assert singly[0] == "" and "country" in singly[1] and "kill you" in singly[1]


def test_an_english_whisper_refuses_other_languages(tiny: WER) -> None:
    [result] = tiny.score([film("Guten Tag", lang="de")])
    assert result == Failed("the speech is in 'de', and this Whisper knows English only")


def test_the_real_gate_tells_speech_from_blows(clips: dict[str, Film]) -> None:
    vad = VAD()
    if vad.missing():
        pytest.skip(vad.missing())
    shares = {name: vad.share(clip.sound(RATE)) for name, clip in clips.items()}
    assert shares["jfk.flac"] > 0.5 and shares["condfoley_hitting_metal.mp4"] == 0


def test_fields_of_an_utterance_are_small() -> None:
    """What waits for a batch is the sound, not the film."""
    utterance = WER.prepare(SimpleNamespace(dims={"n_vocab": 51_864}, gate=None, normaliser="whisper"), film("Hello"))  # type: ignore[arg-type]
    assert isinstance(utterance, Utterance) and utterance.sound is not None and utterance.sound.nbytes == 4 * RATE


def test_a_path_alone_has_no_words_and_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WER, "missing", lambda self: "")
    with pytest.raises(ValueError, match=r"needs the words .*Row\(id, speech="):
        WER()(["clip.mp4"])
