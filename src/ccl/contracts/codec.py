"""What the two codecs promise (`ccl.codecs.base`): latents of the grid's lengths, the same for a clip in any batch.

b clips, f pictures of h x w pixels, t latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ccl.codecs.base import AudioCodec, VideoCodec
from ccl.contracts.base import Broken, Clause, apart, given, require

NEAR = 1e-3  # latents have unit variance, pictures and sound run from -1 to 1
CELLS = 4  # latent pixels each way of the pictures that are tried
STEPS = 2  # latent frames after the first

MakeVideo = Callable[[], VideoCodec]
MakeAudio = Callable[[], AudioCodec]


def pictures(codec: VideoCodec, clips: int = 2, steps: int = STEPS) -> Tensor:
    """Smooth pictures that move, (b, 3, f, h, w) in [-1, 1]."""
    side = CELLS * codec.stride_space
    f, y, x = torch.meshgrid(torch.arange(1 + steps * codec.stride_time), *[torch.arange(side)] * 2, indexing="ij")
    return (
        torch.stack(
            [torch.stack([torch.sin(f / 9 + y / 7 * k + x / 11 + clip) for k in range(3)]) for clip in range(clips)]
        )
        * 0.8
    )


def sounds(codec: AudioCodec, clips: int = 2, seconds: float = 1.0) -> Tensor:
    """Tones, (b, s) in [-1, 1]."""
    time = torch.arange(round(seconds * codec.sample_rate)) / codec.sample_rate
    return torch.stack([0.3 * torch.sin(time * 2 * torch.pi * 220 * (clip + 1)) for clip in range(clips)])


def length(codec: AudioCodec, seconds: float = 1.0) -> int:
    return int(seconds * codec.latent_rate)


def is_built_with_strides_and_channels(make: MakeVideo) -> None:
    codec = make()
    require(isinstance(codec, VideoCodec), f"it is a {type(codec).__name__}, which is no VideoCodec")
    for name in ("channels", "stride_time", "stride_space"):
        size = getattr(codec, name, None)
        require(isinstance(size, int) and size >= 1, f"{name} is {size}; it must be a whole number of at least 1")


def is_built_with_rates_and_channels(make: MakeAudio) -> None:
    codec = make()
    require(isinstance(codec, AudioCodec), f"it is a {type(codec).__name__}, which is no AudioCodec")
    for name in ("channels", "sample_rate", "latent_rate"):
        size = getattr(codec, name, None)
        require(isinstance(size, int | float) and size > 0, f"{name} is {size}; it must be a number above 0")


def names_its_latent_space_alike_whenever_it_is_built(make: Callable[[], VideoCodec | AudioCodec]) -> str:
    codec = make()
    first = codec.identity
    require(isinstance(first, str) and first, f"identity is {first!r}; it must be a name")
    encoded(codec)
    for when, now in (("after it has encoded", codec.identity), ("built once more", make().identity)):
        require(now == first, f"identity is '{first}', and {when} '{now}'")
    return first


def encoded(codec: VideoCodec | AudioCodec, clips: int = 2) -> Tensor:
    """Latents of what is tried."""
    if isinstance(codec, VideoCodec):
        z = codec.encode(pictures(codec, clips))
    else:
        z = codec.encode(sounds(codec, clips), length(codec))
    return given(z, codec, "encode", Tensor)


def decoded(codec: VideoCodec | AudioCodec, z: Tensor) -> Tensor:
    return given(codec.decode(z), codec, "decode", Tensor)


def encodes_pictures_to_as_many_latents_as_the_grid_has(make: MakeVideo) -> None:
    codec = make()
    for steps in (0, STEPS):
        z = codec.encode(pictures(codec, steps=steps))
        shape = (2, codec.channels, 1 + steps, CELLS, CELLS)
        frames = 1 + steps * codec.stride_time
        require(tuple(z.shape) == shape, f"{frames} pictures become {tuple(z.shape)}; the grid asks for {shape}")
        require(z.dtype == torch.float32 and z.isfinite().all(), f"latents are {z.dtype}, or no numbers")


def encodes_sound_to_as_many_latents_as_it_is_asked_for(make: MakeAudio) -> None:
    codec = make()
    wanted = length(codec)
    for what, seconds in (("as long", 1.0), ("too short", 0.5), ("too long", 1.5)):
        z = codec.encode(sounds(codec, seconds=seconds), wanted)
        shape = (2, codec.channels, wanted)
        require(tuple(z.shape) == shape, f"sound that is {what} becomes {tuple(z.shape)}; {shape} was asked for")
        require(z.dtype == torch.float32 and z.isfinite().all(), f"latents are {z.dtype}, or no numbers")


def encodes_silence(make: MakeAudio) -> None:
    codec = make()
    z = codec.encode(torch.zeros_like(sounds(codec)), length(codec))
    require(z.isfinite().all(), "silence becomes what is no number")


def encodes_a_clip_alike_in_any_batch(make: Callable[[], VideoCodec | AudioCodec]) -> None:
    codec = make()
    both, alone = encoded(codec), encoded(codec, clips=1)
    gap = apart(both[:1], alone)
    require(gap <= NEAR, f"a clip's latents are {gap:.2g} apart alone and beside another")
    gap = apart(decoded(codec, both)[:1], decoded(codec, both[:1]))
    require(gap <= NEAR, f"a clip that is decoded is {gap:.2g} apart alone and beside another")


def encodes_the_first_picture_whatever_follows(make: MakeVideo) -> None:
    """So that a first picture that is given is a latent frame that is given."""
    codec = make()
    x = pictures(codec)
    gap = apart(codec.encode(x)[:, :, :1], codec.encode(x[:, :, :1]))
    require(gap <= NEAR, f"the first latent frame moves by {gap:.2g} with the pictures after it")


def decodes_to_pictures_of_the_same_size(make: MakeVideo) -> str:
    codec = make()
    x = pictures(codec)
    y = codec.decode(codec.encode(x))
    require(y.shape == x.shape, f"pictures {tuple(x.shape)} come back as {tuple(y.shape)}")
    require(y.isfinite().all() and y.abs().max() <= 1, "pictures come back beyond [-1, 1]")
    pieces = torch.cat(list(codec.stream(codec.encode(x))), 2)
    gap = apart(pieces, y)
    require(gap <= NEAR, f"in pieces, pictures come back {gap:.2g} apart")
    return f"mean error {float((y - x).abs().mean()):.2g}"


def decodes_to_sound_of_the_same_length(make: MakeAudio) -> None:
    codec = make()
    z = encoded(codec)
    y = codec.decode(z)
    exact = z.shape[-1] / codec.latent_rate * codec.sample_rate
    one = codec.sample_rate / codec.latent_rate
    require(y.ndim == 2 and len(y) == len(z), f"{tuple(z.shape)} become {tuple(y.shape)}; (b, s) is sound")
    require(abs(y.shape[-1] - exact) <= one, f"{exact:.0f} samples come back as {y.shape[-1]}, a latent or more apart")
    require(y.isfinite().all() and y.abs().max() <= 1, "sound comes back beyond [-1, 1]")
    require(torch.equal(y, codec.decode(z)), "the same latents come back as another sound")


def keeps_no_gradients(make: Callable[[], VideoCodec | AudioCodec]) -> None:
    codec = make()
    z = encoded(codec)
    require(not z.requires_grad, "encode() gives what asks for gradients: put torch.no_grad() before it")
    require(not codec.decode(z).requires_grad, "decode() gives what asks for gradients: put torch.no_grad() before it")


def refuses_pictures_and_latents_that_do_not_fit(make: MakeVideo) -> None:
    codec = make()
    x = pictures(codec)
    wrong = {"latents of one channel more": lambda: codec.decode(torch.zeros(1, codec.channels + 1, 1, CELLS, CELLS))}
    if codec.stride_time > 1:
        wrong[f"{x.shape[2] - 1} pictures"] = lambda: codec.encode(x[:, :, 1:])
    if codec.stride_space > 1:
        wrong[f"pictures of {x.shape[3] - 1} pixels"] = lambda: codec.encode(x[:, :, :, 1:])
    refused(wrong)


def refuses_latents_that_do_not_fit(make: MakeAudio) -> None:
    codec = make()
    refused({"latents of one channel more": lambda: codec.decode(torch.zeros(1, codec.channels + 1, 8))})


def refused(wrong: dict[str, Callable[[], Tensor]]) -> None:
    """Broken where something that does not fit is taken."""
    for what, give in wrong.items():
        try:
            given = give()
        except ValueError:
            continue
        raise Broken(f"it takes {what} and gives {tuple(given.shape)}; frames would be dropped in silence")


VIDEO: tuple[Clause, ...] = (
    is_built_with_strides_and_channels,
    names_its_latent_space_alike_whenever_it_is_built,
    encodes_pictures_to_as_many_latents_as_the_grid_has,
    encodes_a_clip_alike_in_any_batch,
    encodes_the_first_picture_whatever_follows,
    decodes_to_pictures_of_the_same_size,
    keeps_no_gradients,
    refuses_pictures_and_latents_that_do_not_fit,
)
AUDIO: tuple[Clause, ...] = (
    is_built_with_rates_and_channels,
    names_its_latent_space_alike_whenever_it_is_built,
    encodes_sound_to_as_many_latents_as_it_is_asked_for,
    encodes_silence,
    encodes_a_clip_alike_in_any_batch,
    decodes_to_sound_of_the_same_length,
    keeps_no_gradients,
    refuses_latents_that_do_not_fit,
)
