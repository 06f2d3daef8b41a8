"""The embedded text encoder: what its states promise to the model."""

from __future__ import annotations

import pytest
import torch

from ccl.text import EmbeddedText
from ccl.text.embedded import CLOSE_QUOTE, END, OPEN_QUOTE, letter_pieces, pieces, spelled, tokenize

PROMPT = 'A woman with red hair says "the dog likes tea" in a blue room.'


@pytest.fixture(scope="module")
def text() -> EmbeddedText:
    torch.manual_seed(0)
    return EmbeddedText(dim=32, length=24, layers=2, heads=4, buckets=512).eval()


def test_states_have_the_promised_shape_and_zeros_after_the_end(text):
    states = text([PROMPT, ""])
    assert states.shape == (2, 24, 32)
    used = len(tokenize(PROMPT))
    assert (states[0, :used].abs().sum(-1) > 0).all()
    assert (states[0, used:] == 0).all()


def test_empty_prompt_is_one_state_and_not_zeros(text):
    states = text([""])
    assert states[0, 0].abs().sum() > 0
    assert (states[0, 1:] == 0).all()


def test_a_prompt_does_not_depend_on_its_neighbours(text):
    alone = text([PROMPT])
    among = text(['A bell rings. "never again I say"', PROMPT, ""])
    torch.testing.assert_close(among[1], alone[0], atol=1e-6, rtol=1e-5)


def test_words_in_quotes_know_their_letters_before_and_after():
    spoken = [token for token in tokenize(PROMPT) if token.spoken]
    assert [token.text for token in spoken] == ["the", "dog", "likes", "tea"]
    assert [token.before for token in spoken] == [0, 3, 6, 11]
    assert [token.after for token in spoken] == [11, 8, 3, 0]


def test_spoken_words_are_spelled_letter_by_letter_and_others_are_not():
    tokens = spelled(tokenize('A dog says "go in"'))
    assert [t.text for t in tokens if not t.spoken] == ["a", "dog", "says", OPEN_QUOTE, CLOSE_QUOTE, END]
    said = [t for t in tokens if t.spoken]
    assert [(t.text, t.letter) for t in said] == [("go", 0), ("go", 1), ("in", 0), ("in", 1)]
    assert [(t.before, t.after) for t in said] == [(0, 3), (1, 2), (2, 1), (3, 0)]


def test_a_letter_is_known_by_its_word_and_its_neighbours():
    first, second = (letter_pieces("good", i, 2**40) for i in (1, 2))
    assert first[0] == second[0] == pieces("good", 2**40)[0]  # the word
    assert first[1] == second[1] == letter_pieces("too", 1, 2**40)[1]  # an o, wherever it stands
    assert len({*first[2:], *second[2:]}) == 6  # g-o and o-o before, o-o and o-d after, and both
    assert letter_pieces("dog", 2, 2**40)[2] != letter_pieces("gods", 0, 2**40)[2]  # it ends there, it begins here


def test_with_letters_there_are_as_many_states_as_letters():
    torch.manual_seed(0)
    text = EmbeddedText(dim=16, length=12, buckets=64, letters=True)
    used = (text(['dog "go in"', '"go"']).abs().sum(-1) > 0).sum(1)
    assert used.tolist() == [1 + 2 + 4 + 1, 2 + 2 + 1]


def test_quotation_marks_are_directed_and_curly_ones_count():
    texts = [token.text for token in tokenize("He says “go” now")]
    assert texts == ["he", "says", OPEN_QUOTE, "go", CLOSE_QUOTE, "now", END]


def test_unclosed_quotation_runs_to_the_end():
    tokens = tokenize('He says "good day')
    assert [token.spoken for token in tokens] == [False, False, False, True, True, False]


def test_order_of_spoken_words_changes_the_states(text):
    one, other = text(['"dog likes tea"', '"tea likes dog"'])
    assert not torch.allclose(one, other, atol=1e-2)


def test_same_word_spoken_and_seen_differs(text):
    assert not torch.allclose(text(["red"])[0, 0], text(['"red"'])[0, 1], atol=1e-2)


def test_unseen_word_lies_nearer_to_its_look_alike():
    torch.manual_seed(0)
    text = EmbeddedText()
    like, unlike, word = text._words([("flowers", None), ("bicycle", None), ("flower", None)])
    similar = torch.cosine_similarity(word, like, dim=0)
    assert similar > torch.cosine_similarity(word, unlike, dim=0) + 0.1


def test_longer_prompts_are_cut_and_keep_their_end(text):
    states = text(["word " * 100])
    assert (states.abs().sum(-1) > 0).all()
    assert text._cut(tokenize("word " * 100))[-1].text == END


@pytest.mark.parametrize("prompt", ['日本語 "こんにちは" 😀', '"', '""', "x" * 10_000, "\n\t ", "e\u0301 \u0000"])
def test_any_text_is_encoded_to_finite_states(text, prompt):
    assert text([prompt]).isfinite().all()


def test_buckets_of_a_word_never_change():
    # Golden: blake2b of "word\x1fbell" and of the 3- to 5-grams of "<bell>"; a saved table relies on them.
    assert pieces("bell", 4096) == (533, 2622, 912, 1750, 1035, 238, 1205, 652, 1185, 1529)


def test_meta_build_filled_by_init_weights_equals_an_ordinary_one():
    ordinary = EmbeddedText(dim=16, length=8, buckets=64)
    torch.manual_seed(3)
    ordinary.init_weights()
    with torch.device("meta"):
        built = EmbeddedText(dim=16, length=8, buckets=64)
    built = built.to_empty(device="cpu")
    torch.manual_seed(3)
    built.init_weights()
    torch.testing.assert_close(built(["a dog"]), ordinary(["a dog"]), rtol=0, atol=0)


def test_every_parameter_receives_a_gradient(text):
    text.zero_grad()
    text([PROMPT, '"go"', "a bell"]).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in text.parameters())
    text.zero_grad()


def test_autocast_gives_finite_states(text):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert text([PROMPT]).float().isfinite().all()


def test_bad_sizes_are_refused_in_words():
    with pytest.raises(ValueError, match="multiple of the 4 heads"):
        EmbeddedText(dim=30)
    with pytest.raises(ValueError, match="a prompt has from 2 to 65,536 states"):
        EmbeddedText(length=1)
    for name in ("dim", "layers", "heads", "buckets", "frequencies"):
        for size in (0, -1, 2**63):
            with pytest.raises(ValueError, match=f"^text {name} is {size}; it must be a whole number from 1 to "):
                EmbeddedText(**{name: size})
