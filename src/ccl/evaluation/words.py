"""What is counted of a text: words of the normalised text, or letters where a language writes no spaces.

English goes through Whisper's own normaliser. Its basic one, for all other languages, puts a space in the place of
every combining mark and so breaks words of Hindi, Tamil or pointed Arabic; ours is that one with the marks left in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import regex

from ccl.evaluation.recogniser import code_of, quiet

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
