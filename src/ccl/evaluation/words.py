"""What is counted of a text: words of the normalised text, or letters where a language writes no spaces.

English goes through Whisper's own normaliser. Its basic one, for all other languages, puts a space in the place of
every combining mark and so breaks words of Hindi, Tamil or pointed Arabic; ours is that one with the marks left in.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import regex

from ccl.evaluation.recogniser import code_of, quiet

Normaliser = Literal["whisper", "verse-bench", "fastvideo"]
NORMALISERS = {  # in the words of tables
    "whisper": "Whisper's in English; else Whisper's basic one with combining marks kept in their words, "
    "Arabic and Hebrew points dropped; one apostrophe and one set of digits; "
    "words without letter or digit are dropped",
    "verse-bench": "small letters, punctuation kept; what is heard counts as nothing where it is punctuation alone",
    "fastvideo": "NFKC, small letters, punctuation dropped; letters are counted in Chinese, Japanese and Korean; "
    "what is heard counts as nothing where it is punctuation alone",
}
# FastVideo's: of ASCII, and these.
PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？、；：「」『』（）《》【】—…")  # noqa: RUF001
EAST_ASIAN = regex.compile(r"[\u4e00-\u9fff\u3400-\u4dbf\u3040-\u30ff\uac00-\ud7af]")
LETTERS, WORDS = ("zh", "ja", "ko", "yue"), ("en", "de", "fr", "es", "it", "pt")  # counted so whatever the text holds
# Written without spaces between words, so letters are counted (CER): the Whisper paper's list, and Cantonese and Khmer.
UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
DOTTED = frozenset({"tr", "az"})  # their I has no dot, and their İ has one, in both cases
# Help to readers that most texts, and recognisers, leave out: Arabic vowel signs and the stroke that widens, Hebrew
# points and accents.
POINTS = regex.compile(
    r"[\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06ed\u0640\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"
)
UNSEEN = regex.compile(r"[\p{Cf}\p{Me}\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # joiners, direction, forms of emoji
LETTER = regex.compile(r"[^\p{M}\s]\p{M}*")
DIGIT = regex.compile(r"\p{Nd}")
APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʻ＇", "'"))  # noqa: RUF001
ALONE = regex.compile(r"(?<![\p{L}\p{N}\p{M}])\p{M}+")  # marks on what is no letter


def compared(reference: str, heard: str, lang: str, how: Normaliser = "whisper") -> tuple[list[str], list[str]]:
    """What is counted of the text that was to be spoken, and of the one that was heard.

    Sources: Verse-Bench wer/wer_inferencer.py, FastVideo fastvideo/eval/metrics/audio/wer/metric.py.
    """
    if how == "whisper":
        return words_of(reference, lang), words_of(heard, lang)
    if set(heard) <= set(string.punctuation):
        heard = ""
    if how == "verse-bench":
        return reference.lower().split(), heard.lower().split()
    texts = [unicodedata.normalize("NFKC", text).lower().translate(PUNCTUATION) for text in (reference, heard)]
    code = code_of(lang)
    letters = code in LETTERS or (code not in WORDS and any(map(EAST_ASIAN.search, texts)))
    first, second = ["".join(text.split()) if letters else text.split() for text in texts]
    return list(first), list(second)


def words_of(text: str, lang: str) -> list[str]:
    """What is counted: words of the normalised text, or letters.

    Whisper's English normaliser leaves a lone "." of an ellipsis, which as a word would be an error nobody can hear.
    """
    # One apostrophe and one set of digits, whatever keyboards have: Whisper's English normaliser knows the straight
    # apostrophe alone, so that "don’t" would be two words, both of them wrong.
    text = DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text.translate(APOSTROPHES))
    text = normaliser(code_of(lang))(text)
    return [word for word in text.split() if any(letter.isalnum() for letter in word)]


@lru_cache
def normaliser(lang: str) -> Callable[[str], str]:
    """To one form: case, punctuation, and in English contractions, numerals and spelling."""
    if lang == "en":
        from whisper.normalizers import EnglishTextNormalizer

        with quiet():
            return EnglishTextNormalizer()
    return lambda text: basic(text, lang)


def basic(text: str, lang: str) -> str:
    """Whisper's basic normaliser, with marks kept in their words; letters with their marks apart where `lang` is so."""
    if lang in DOTTED:
        text = unicodedata.normalize("NFC", text).replace("I", "\u0131").replace("İ", "i")
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\(([^)]+?)\)", "", text)
    text = unicodedata.normalize("NFKC", POINTS.sub("", UNSEEN.sub("", unicodedata.normalize("NFKC", text))))
    text = "".join(" " if unicodedata.category(letter)[0] in "SP" else letter for letter in text).lower()
    text = ALONE.sub("", text)
    return " ".join(LETTER.findall(text)) if lang in UNSPACED else text
