"""What only a GPU can show: parts that run one after the other, each in a process of its own, within a time in all.

    bash benchmarks/gpu.sh [--small] [--only parity,attention] [--minutes 9] [-o DIR]

A part that fails or runs out of time says so in its row, and the others go on; the status is 1 where any did. With
--small it runs anywhere, at sizes whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).parent.parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Row = tuple[str, str, str]
"""What was looked at, what came out, and whether a goal was met; "" where there is none."""


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(run: Callable[[], object], times: int = 5) -> float:
    """The fastest of some, after one that warms up."""
    run()
    found = []
    for _ in range(times):
        begun = clock()
        run()
        found.append(clock() - begun)
    return min(found)


def met(yes: bool) -> str:
    return "met" if yes else "MISSED"


def apart(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm of b."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


# Parity with the CPU


def parity(small: bool, folder: Path) -> Iterator[Row]:
    """Every interaction's network and its gradients, and the embedded codecs: this device against the CPU's float32."""
    from ccl.cli.check import inlined
    from ccl.cli.parts import build
    from ccl.codecs import EmbeddedAudio, EmbeddedVideo
    from ccl.files.yamltext import read_yaml
    from ccl.grid import Grid
    from ccl.interaction import Interaction
    from ccl.model import DualStreamTransformer, WanStream
    from ccl.planning.follow import extras
    from ccl.types import AV

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    grid = Grid(frames=17, height=32, width=48)
    sizes: dict[str, Any] = {"layers": 4, "head_dim": 64, "text_dim": 32}
    for file in sorted((ROOT / "configs/interaction").glob("*.yaml")):
        make = build(Callable[..., Interaction], inlined(read_yaml(file), file), str(file))
        torch.manual_seed(0)
        streams = {"video": WanStream(128, 256, 16), "audio": WanStream(128, 256, 40)}
        net = DualStreamTransformer(**streams, **sizes, interaction=make)
        for p in net.parameters():
            p.data.normal_(std=0.05)
        x = AV(torch.randn(2, 16, grid.t_v, 4, 6), torch.randn(2, 40, grid.t_a))
        t = AV(torch.rand(2), torch.rand(2))
        given = (x, t, torch.randn(2, 16, 32), extras(net, grid, 2))
        cpu = stepped(net, grid, given, torch.device("cpu"))
        for name, dtype, bound in (("float32", None, 1e-4), ("bfloat16", torch.bfloat16, 0.1)):
            here = stepped(net, grid, given, DEVICE, dtype)
            worst = [apart(a, b) for a, b in zip(here, cpu, strict=True)]
            words = "video {:.1e}, audio {:.1e}, gradients {:.1e}".format(*worst)
            yield f"{file.stem}, {name}", words, met(max(worst) <= bound)
    video, audio = EmbeddedVideo(), EmbeddedAudio(iterations=8)
    z, s = torch.randn(1, video.channels, 3, 4, 4), torch.randn(1, audio.channels, 40)
    for name, codec, latents in (("video", video, z), ("audio", audio, s)):
        on_cpu = codec.cpu().decode(latents)
        gap = apart(codec.to(DEVICE).decode(latents.to(DEVICE)), on_cpu)
        yield f"embedded {name} codec, float32", f"{gap:.1e}", met(gap <= 1e-3)


def stepped(net: Any, grid: Any, given: Any, device: torch.device, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Both velocities and all gradients of a step, on the CPU."""
    net.to(device).zero_grad()
    x, t, text, more = moved(given, device)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        out = net(x, t, text, grid=grid, extras=more).velocity
    sum(v.float().square().mean() for v in out).backward()
    return [*out, torch.cat([p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None])]


def moved(value: Any, device: torch.device) -> Any:
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, lambda x: x.to(device), value)


# Attention


def attention(small: bool, folder: Path) -> Iterator[Row]:
    """Each backend of attention, forward and backward, against the definition in float64, and its speed."""
    from ccl.nn.attention import attention as ours

    length, heads = (256, 2) if small else (18_480, 12)
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    g = torch.Generator(DEVICE).manual_seed(0)
    q, k, v = (torch.randn(1, length, heads, 128, device=DEVICE, dtype=dtype, generator=g) for _ in range(3))
    few = slice(0, 64)
    true = ours(q[:, few].double(), k.double(), v.double(), backend="naive")
    flops = 4 * length**2 * heads * 128
    kinds: list[tuple[str, Any]] = [(kind.name, kind) for kind in (
        SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION
    )]  # fmt: skip
    for name, kind in [*kinds, ("flash-attn", None)]:
        if kind is None and find_spec("flash_attn") is None:
            yield name, "not installed here", ""
            continue

        def run(kind: Any = kind, grad: bool = False) -> Tensor:
            inputs = [x.detach().requires_grad_(grad) for x in (q, k, v)]
            if kind is None:
                out = ours(*inputs, backend="flash")
            else:
                with sdpa_kernel(kind):
                    out = ours(*inputs, backend="sdpa")
            if grad:
                out.sum().backward()
            return out

        try:
            gap = apart(run()[:, few], true)
            forward, both = seconds(run, 3), seconds(partial(run, grad=True), 3)
        except RuntimeError as error:
            yield name, f"not to be had: {str(error).splitlines()[0]}", ""
            continue
        rates = f"forward {flops / forward / 1e12:.3g} TFLOP/s, with backward {3.5 * flops / both / 1e12:.3g}"
        yield name, f"{rates}, error {gap:.1e}", met(gap <= 1e-2)


# Steps


def bench(folder: Path, name: str, *argv: str) -> dict[str, Any]:
    """What `ccl bench` finds."""
    from ccl import cli

    out = folder / f"{name}.json"
    cli.main(["bench", *argv, "-o", str(out)])
    return json.loads(out.read_text())


def stack(*files: str) -> list[str]:
    return [word for file in ("joint.yaml", *files) for word in ("--config", str(ROOT / "configs" / file))]


TINY = ["--grid.frames", "9", "--grid.height", "32", "--grid.width", "32", "--data.init_args.batch_size", "1"]
NARROW = [
    *("--model.net.init_args.video.init_args.width", "256", "--model.net.init_args.video.init_args.ffn", "256"),
    *("--model.net.init_args.audio.init_args.width", "256", "--model.net.init_args.audio.init_args.ffn", "256"),
    *("--model.net.init_args.text_dim", "64", "--model.text.init_args.dim", "64"),
]
BF16 = ["--trainer.precision", "bf16-mixed"]


def told(found: dict[str, Any]) -> Iterator[Row]:
    """Rows of a measured training."""
    for mode, one in found["modes"].items():
        if "error" in one:
            yield mode, f"not measured: {one['error']}", "FAILED"
            continue
        parts = ", ".join(f"{name} {x:.3g}" for name, x in one["seconds"].items())
        share = "" if one["mfu"] is None else f", MFU {one['mfu']:.1%}"
        words = f"{one['seconds_a_step']:.3g} s a step ({parts}), first {one['first_step']:.3g}"
        yield mode, f"{words}; {one['flops_per_second'] / 1e12:.3g} TFLOP/s{share}", ""
    memory = found["memory"]
    if memory is None or not memory["measured"].get("peak"):
        yield "memory", "not measured", "FAILED"
        return
    planned, peak = sum(memory["planned"].values()), memory["measured"]["peak"]
    yield (
        "memory",
        f"{peak / 1e9:.2f} GB, planned {planned / 1e9:.2f} ({planned / peak - 1:+.1%})",
        met(abs(planned / peak - 1) <= 0.1),
    )


def middle(small: bool, folder: Path) -> Iterator[Row]:
    """1.3 B + audio, whole: eager and compiled, memory against the plan."""
    sizes = [*TINY, *NARROW, "--layers", "2", "--modes", "eager"] if small else ["--modes", "eager,compile"]
    one = ["--data.init_args.batch_size", "1", "--steps", "2" if small else "8"]
    precision = [] if small else BF16
    yield from told(bench(folder, "wan1_3b", *stack("model/wan1_3b.yaml"), *sizes, *one, *precision))


def large(small: bool, folder: Path) -> Iterator[Row]:
    """Two blocks of 14 B."""
    sizes = [*TINY, *NARROW, "--modes", "eager"] if small else ["--modes", "eager,compile"]
    more = ["--layers", "2", "--steps", "2" if small else "8", "--data.init_args.batch_size", "1"]
    yield from told(bench(folder, "wan14b", *stack("model/wan14b.yaml"), *sizes, *more, *([] if small else BF16)))


def kept(small: bool, folder: Path) -> Iterator[Row]:
    """The same two blocks with attention's output kept where blocks are computed again."""
    how = [
        "--model.net.init_args.checkpointing",
        "attention",
        "--modes",
        "eager",
        "--layers",
        "2",
        "--steps",
        "2" if small else "8",
    ]
    more = [*TINY, *NARROW] if small else BF16
    yield from told(bench(folder, "kept", *stack("model/wan14b.yaml"), *how, *more))


def sharded(small: bool, folder: Path) -> Iterator[Row]:
    """FSDP2 with one process, over NCCL on a GPU."""
    more = [*TINY, "--steps", "2", "--modes", "eager"]
    yield from told(bench(folder, "fsdp", *stack("trainer/fsdp.yaml"), *more, *([] if small else BF16)))


# Peers


def peers(small: bool, folder: Path) -> Iterator[Row]:
    """A step of the video stream over that of diffusers' WanTransformer3DModel of equal size."""
    from diffusers import WanTransformer3DModel

    from ccl.grid import Grid
    from ccl.interaction import NoInteraction
    from ccl.model import DualStreamTransformer, WanStream
    from ccl.types import ALONE, AV

    heads, layers, grid = (
        (2, 2, Grid(frames=9, height=32, width=32)) if small else (12, 8, Grid(frames=81, height=352, width=640))
    )
    width, text = 128 * heads, 64
    theirs = WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=128, text_dim=text, ffn_dim=4 * width, num_layers=layers
    ).to(DEVICE)
    ours = DualStreamTransformer(
        video=WanStream(width, 4 * width, 16),
        audio=WanStream(128, 128, 8),
        layers=layers,
        head_dim=128,
        text_dim=text,
        interaction=NoInteraction,
    ).to(DEVICE)
    x = torch.randn(1, 16, grid.t_v, grid.latent_height, grid.latent_width, device=DEVICE)
    t, states = torch.tensor([0.5], device=DEVICE), torch.randn(1, text, text, device=DEVICE)
    runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "ours": (ours, lambda: ours(AV(x, None), AV(t, None), states, grid=grid, view=ALONE).velocity.video),
        "theirs": (theirs, lambda: theirs(x, 1000 * t, states).sample),
    }
    yield from beside("WanTransformer3DModel", runs)


def beside(name: str, runs: dict[str, tuple[nn.Module, Callable[[], Tensor]]]) -> Iterator[Row]:
    """Forward and step of ours over theirs, in bfloat16 on a GPU."""

    def step(module: nn.Module, run: Callable[[], Tensor]) -> None:
        module.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            out = run()
        out.float().square().mean().backward()

    found = {who: seconds(partial(step, *pair), 3) for who, pair in runs.items()}
    value = found["ours"] / found["theirs"]
    words = ", ".join(f"{who} {1e3 * s:.1f} ms" for who, s in found.items())
    yield f"a step over {name}'s", f"{value:.3f} ({words})", met(value <= 1.0)


def ltx2(small: bool, folder: Path) -> Iterator[Row]:
    """A step of both streams with LTX-2's interaction over that of diffusers' LTX2VideoTransformer3DModel."""
    from diffusers import LTX2VideoTransformer3DModel

    from ccl.grid import Grid
    from ccl.interaction import LTX2Attention
    from ccl.model import DualStreamTransformer, WanStream
    from ccl.types import AV

    heads, layers, frames, side = (2, 2, 3, 4) if small else (32, 4, 16, 24)
    head = AV(64, 32) if small else AV(128, 64)
    width = head.map(lambda size: size * heads)
    theirs = LTX2VideoTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=head.video, cross_attention_dim=width.video,
        audio_num_attention_heads=heads, audio_attention_head_dim=head.audio, audio_cross_attention_dim=width.audio,
        num_layers=layers, caption_channels=width.video,
    ).to(DEVICE)  # fmt: skip
    grid = Grid(
        frames=8 * frames - 7,
        fps=24.0,
        height=32 * side,
        width=32 * side,
        latent_rate=25.0,
        stride_time=8,
        stride_space=32,
        patch=1,
    )
    ours = DualStreamTransformer(
        video=WanStream(width.video, 4 * width.video, 128, head_dim=head.video),
        audio=WanStream(width.audio, 4 * width.audio, 128, head_dim=head.audio),
        layers=layers, head_dim=head.video, text_dim=width.video, patch=1, interaction=LTX2Attention,
    ).to(DEVICE)  # fmt: skip
    x = AV(torch.randn(1, 128, grid.t_v, side, side, device=DEVICE), torch.randn(1, 128, grid.t_a, device=DEVICE))
    t, states = torch.tensor([0.5], device=DEVICE), torch.randn(1, 64, width.video, device=DEVICE)

    def our() -> Tensor:
        return torch.cat([v.flatten() for v in ours(x, AV(t, t), states, grid=grid).velocity])

    def their() -> Tensor:
        pictures, sound = (z.flatten(2).transpose(1, 2) for z in x)
        times = [1000 * t[:, None].expand(1, tokens.shape[1]) for tokens in (pictures, sound)]
        video = {"hidden_states": pictures, "encoder_hidden_states": states, "timestep": times[0]}
        audio = {"hidden_states": sound, "encoder_hidden_states": states, "timestep": times[1]}
        sizes = {"num_frames": grid.t_v, "height": side, "width": side, "fps": 24.0, "audio_num_frames": grid.t_a}
        out = theirs(**video, **{f"audio_{name}": x for name, x in audio.items()}, **sizes, return_dict=False)
        return torch.cat([v.flatten() for v in out[:2]])

    sizes = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    yield "parameters", f"ours {sizes[0] / 1e6:.1f} M, theirs {sizes[1] / 1e6:.1f} M", ""
    yield from beside("LTX2VideoTransformer3DModel", {"ours": (ours, our), "theirs": (theirs, their)})


# Clips and their scores


def sampling(small: bool, folder: Path) -> Iterator[Row]:
    """A clip of the shipped model with --offload in bfloat16, and the evaluations of a clip of 1.3 B."""
    from ccl import cli

    out = folder / "clip.mp4"
    begun = clock()
    prompt = 'A man with brown hair in front of a yellow wall says "it is cold in the house"'
    how = ["--steps", "2" if small else "30", "--offload", "--dtype", "bfloat16"]
    status = cli.main(["generate", "--prompt", prompt, "-o", str(out), *how])
    yield "a clip of what ships, --offload, bfloat16", f"{clock() - begun:.1f} s, with loading", met(status == 0)
    sizes = [*TINY, *NARROW, "--layers", "2"] if small else []
    found = bench(folder, "clip", *stack("model/wan1_3b.yaml"), "--generate", "--steps", "2" if small else "6", *sizes)
    one = found["modes"]["eager"]
    if "error" in one:
        yield "an evaluation at 1.3 B", one["error"], "FAILED"
        return
    words = f"{one['seconds_an_evaluation']:.3g} s, a clip {one['seconds_a_clip']:.3g} s"
    yield "an evaluation at 1.3 B", f"{words}, {one['flops_per_second'] / 1e12:.3g} TFLOP/s", ""
    planned, peak = sum(found["memory"]["planned"].values()), found["memory"]["measured"]["peak"]
    yield "its memory", f"{peak / 1e9:.3f} GB, planned {planned / 1e9:.3f} ({planned / peak - 1:+.1%})", ""


def offload(small: bool, folder: Path) -> Iterator[Row]:
    """Evaluations of twelve blocks of 14 B that come from the CPU two at a time, against all on the device."""
    from ccl.cli.planned import planned_of
    from ccl.planning.follow import extras, inputs
    from ccl.types import View

    sizes = [*TINY, *NARROW, "--model.net.init_args.layers", "3"] if small else ["--model.net.init_args.layers", "12"]
    planned = planned_of([*stack("model/wan14b.yaml"), *sizes])
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    torch.manual_seed(0)
    with DEVICE, torch.inference_mode(False), torch.no_grad():
        net = planned.make().eval().requires_grad_(False).to(dtype)
        for p in net.parameters():
            p.normal_(std=0.02)
        x, t, states = inputs(net, planned.grid, 1, planned.text().length)
        x, states = x.map(torch.randn_like), torch.randn_like(states)
        more = extras(net, planned.grid, 1)

    @torch.no_grad()
    def run() -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            out = net(x, t, states, grid=planned.grid, view=View(), extras=more).velocity
        return torch.cat([v.flatten() for v in out])

    found: dict[str, tuple[float, float]] = {}
    true = run()
    for how in ("on the device", "from the CPU"):
        if how == "from the CPU":
            net.to("cpu")
            net.offload_blocks(DEVICE)
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        taken = seconds(run, 3)
        found[how] = taken, torch.cuda.max_memory_allocated() / 1e9 if DEVICE.type == "cuda" else 0.0
        yield f"blocks {how}", f"{taken:.3g} s an evaluation, {found[how][1]:.2f} GB at most", ""
    slower = found["from the CPU"][0] / found["on the device"][0]
    size = sum(p.nbytes for block in net.blocks for p in block.parameters()) / 1e9
    copied = size / found["from the CPU"][0]
    goal = met(slower <= 1.1) if DEVICE.type == "cuda" else ""  # on a CPU nothing is hidden behind anything
    yield "offloaded over resident", f"{slower:.3f}, {size:.2f} GB of blocks at {copied:.3g} GB/s", goal
    yield "the same velocities", f"{apart(run(), true):.1e} apart", met(torch.equal(run(), true))


def metrics(small: bool, folder: Path) -> Iterator[Row]:
    """Networks of the benchmark, of random weights: many clips at once against one after the other, and the same."""
    from ccl.evaluation.nets.syncnet import SyncNetwork

    torch.manual_seed(0)
    net, count = SyncNetwork().to(DEVICE).eval(), 4 if small else 64
    x = torch.rand(count, 3, 5, 224, 224, device=DEVICE)
    with torch.inference_mode():
        one = seconds(lambda: [net.lip(x[i : i + 1]) for i in range(count)], 2)
        many = seconds(lambda: net.lip(x), 2)
        gap = apart(net.lip(x), torch.cat([net.lip(x[i : i + 1]) for i in range(count)]))
    yield (
        "SyncNet's lip tower, batched",
        f"{one / many:.2f} times as fast as one by one, {gap:.1e} apart",
        met(gap <= 1e-3),
    )


PARTS: dict[str, Callable[[bool, Path], Iterator[Row]]] = {
    "parity": parity,
    "attention": attention,
    "middle": middle,
    "large": large,
    "kept": kept,
    "sharded": sharded,
    "peers": peers,
    "ltx2": ltx2,
    "sampling": sampling,
    "offload": offload,
    "metrics": metrics,
}


def lines(name: str, rows: Sequence[Row]) -> Iterator[str]:
    for what, found, goal in rows:
        yield f"| {name} | {what} | {found} | {goal} |".replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--minutes", type=float, default=9.0, help="in all; a part gets what is left")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu"), help="folder of table.md and the measurements")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        for row in PARTS[args.part](args.small, args.out):
            print("ROW", json.dumps(row), flush=True)
        return 0
    if unknown := set(args.only.split(",")) - set(PARTS):
        parser.error(f"there is no part {min(unknown)}; there are {', '.join(PARTS)}")
    end = time.monotonic() + 60 * args.minutes
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    head = f"{device}, torch {torch.__version__}" + (", --small: figures mean nothing" if args.small else "")
    table = [head, "", "| part | what | found | goal |", "|---|---|---|---|"]
    failed = False
    for name in args.only.split(","):
        begun, left = time.monotonic(), end - time.monotonic()
        command = [sys.executable, __file__, "--part", name, "-o", str(args.out), *(["--small"] if args.small else [])]
        why = "no time is left"
        rows: list[Row] = []
        if left > 0:
            with (args.out / f"{name}.log").open("w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
                try:
                    status = process.wait(left)
                    why = "" if status == 0 else f"ended with status {status}"
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    why = f"was not done in the {left:.0f} s that were left"
            text = (args.out / f"{name}.log").read_text(errors="replace").splitlines()
            rows = [tuple(json.loads(line[4:])) for line in text if line.startswith("ROW ")]
            last = next((line for line in reversed(text) if line.strip() and not line.startswith("ROW ")), "")
            why += f": {last[:160]}" if why and last else ""
        rows += [("", why, "FAILED")] if why else []
        failed = failed or any(goal in ("FAILED", "MISSED") for *_, goal in rows)
        table += lines(name, [*rows, ("time", f"{time.monotonic() - begun:.0f} s", "")])
        (args.out / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
