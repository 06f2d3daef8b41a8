"""What a text encoder promises (`ccl.text.base`): states of one length, zeros after the last, each prompt alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ccl.contracts.base import Broken, Clause, apart, given, require
from ccl.text import TextEncoder

PROMPTS = ['A woman with red hair says "the dog likes tea".', "", "a bell", "word " * 600]
NEAR = 1e-3

Make = Callable[[], TextEncoder]


def states(encoder: TextEncoder, prompts: list[str]) -> Tensor:
    return given(encoder.eval()(prompts), encoder, "forward", Tensor).detach()


def is_built_with_a_width_and_a_length(make: Make) -> None:
    encoder = make()
    require(isinstance(encoder, TextEncoder), f"it is a {type(encoder).__name__}, which is no TextEncoder")
    for name in ("dim", "length"):
        size = getattr(encoder, name, None)
        require(isinstance(size, int) and size >= 1, f"{name} is {size}; it must be a whole number of at least 1")


def gives_states_of_its_width_and_length(make: Make) -> None:
    encoder = make()
    x, shape = states(encoder, PROMPTS), (len(PROMPTS), encoder.length, encoder.dim)
    require(tuple(x.shape) == shape, f"{len(PROMPTS)} prompts become {tuple(x.shape)}; it promises {shape}")
    require(x.isfinite().all(), "states hold what is no number")


def fills_with_zeros_after_the_last_token(make: Make) -> str:
    x = states(make(), PROMPTS)
    used = [int(row.abs().sum(-1).ne(0).sum()) for row in x]
    for prompt, row, count in zip(PROMPTS, x, used, strict=True):
        require(not row[count:].any(), f"of '{prompt[:20]}' a state of zeros stands before the last")
    require(used[1] >= 1, "the empty prompt is zeros alone; it must be encoded, as dropped prompts are")
    require(used[2] < used[3], f"'a bell' fills {used[2]} states, and 600 words {used[3]}")
    return f"the empty prompt has {used[1]} of {x.shape[1]} states"


def encodes_a_prompt_alike_among_others(make: Make) -> None:
    encoder = make()
    among = states(encoder, PROMPTS)
    for prompt, row in zip(PROMPTS, among, strict=True):
        gap = apart(states(encoder, [prompt])[0], row)
        require(gap <= NEAR, f"'{prompt[:20]}' moves by {gap:.2g} among others")


def refuses_one_text_in_place_of_a_list(make: Make) -> None:
    try:
        make()("a bell")  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return
    raise Broken("it takes a text for a list of prompts, and would encode its letters")


def names_its_weights_alike_whenever_it_is_built(make: Make) -> str:
    first, again = make().identity, make().identity
    require(first == again, f"identity is '{first}', and built once more '{again}'")
    return first or "it trains"


CLAUSES: tuple[Clause, ...] = (
    is_built_with_a_width_and_a_length,
    gives_states_of_its_width_and_length,
    fills_with_zeros_after_the_last_token,
    encodes_a_prompt_alike_among_others,
    refuses_one_text_in_place_of_a_list,
    names_its_weights_alike_whenever_it_is_built,
)
