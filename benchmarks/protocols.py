"""The same clips by everyone's conventions.

    python benchmarks/protocols.py --data FOLDER -o OUT [--write docs/protocols.md]

FOLDER holds clips/ and weights/ as CCL_TEST_DATA does. Each suite measures what it states (`ccl evaluate --protocol`),
a metric at a time; OUT keeps the scores, and the same command goes on where it was stopped. The networks of SyncNet,
Synchformer, ImageBind and PaSST are the files that --weights gives. Where none is given they are filled, in the
published sizes: then the columns tell what conventions do to a number, and nothing of the clips. Where S3FD's file is
not given, YuNet finds the faces for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from ccl import cli
from ccl.cli.protocols import shipped
from ccl.evaluation import SyncNet
from ccl.evaluation.film import Film
from ccl.evaluation.nets.imagebind import ImageBind
from ccl.evaluation.nets.passt import PaSST
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.evaluation.nets.syncnet import SyncNetwork
from ccl.files import write_whole
from ccl.media import Clip, read_audio, write_clip

FPS = 25
GIVEN = {
    "yunet": "face_detection_yunet_2026may.onnx",
    "light_asd": "light_asd_ava.pt",
    "whisper-tiny.en": "whisper-tiny.en.pt",
}
MARK = "<!-- made by `python benchmarks/protocols.py --data FOLDER -o OUT --write docs/protocols.md` -->"
SAID = "And so, my fellow Americans: ask not what your country can do for you, ask what you can do for your country."


@dataclass(frozen=True)
class Part:
    """One metric.

    Args:
        clips: by name.
        protocols: that state it.
        columns: name and digits.
        network: what has to be filled; "" is none.
    """

    clips: Sequence[str]
    protocols: Sequence[str]
    columns: Mapping[str, int]
    network: str = ""


PARTS = {
    "sync": Part(
        ("versebench_syncnet_1", "ovi_two_men", "latentsync_demo1"),
        (
            "paper",
            "the-speaker",
            "joonson",
            "latentsync",
            "mova",
            "verse-bench",
            "verse-bench-least",
        ),
        {"sync_c": 2, "sync_d": 2, "sync_offset": 0},
        "syncnet",
    ),
    "desync": Part(
        ("versebench_syncnet_1", "mova_sglang_8s"),
        ("paper", "av-benchmark", "javisbench", "mova"),
        {"desync": 2},
        "synchformer",
    ),
    "ib": Part(
        ("versebench_syncnet_1", "mova_sglang_8s"),
        ("paper", "av-benchmark", "javisbench", "mova"),
        {"ib_score": 4},
        "imagebind",
    ),
    "av_align": Part(
        ("versebench_syncnet_1", "universe_instrument_1", "condfoley_hitting_metal"),
        ("paper", "at-240", "javisbench", "mova"),
        {"av_align": 3},
    ),
    "dnsmos": Part(
        ("versebench_syncnet_1", "ovi_two_men", "mova_sglang_8s"),
        ("paper", "mova"),
        {"dnsmos_ovrl": 3, "dnsmos_p808": 3},
    ),
    "wer": Part(("kennedy",), ("paper", "verse-bench"), {"wer": 3}),
    "kl_passt": Part(
        ("versebench_syncnet_1", "mova_sglang_8s", "kennedy"),
        ("paper", "av-benchmark", "verse-bench"),
        {"kl_passt": 4},
        "passt",
    ),
}
OWN: dict[str, tuple[str, dict[str, Any]]] = {  # copies of a suite's conventions, and what they change
    "the-speaker": ("paper", {"active_speaker": True}),
    "verse-bench-least": ("verse-bench", {"distance": "least"}),
    "at-240": ("paper", {"height": 240}),
}


# Networks -------------------------------------------------------------------------------------------------------------


def filled(network: nn.Module) -> nn.Module:
    """The network with weights that are the same wherever they are made: drawn from the crc32 of each key."""
    state = network.state_dict()
    for key, old in state.items():
        if not old.is_floating_point():
            continue
        x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(old.shape), dtype=np.float32)
        if key.endswith("running_var"):
            x = 1 + 0.1 * np.abs(x)
        elif key.endswith(("running_mean", "bias")):
            x = 0.02 * x
        else:
            x = 1 + 0.1 * x if x.ndim < 2 else x / np.sqrt(np.prod(x.shape[1:]))
        state[key] = torch.from_numpy(np.asarray(x, np.float32))
    network.load_state_dict(state)
    return network.eval()


@torch.inference_mode()
def meeting(network: SyncNetwork, film: Path, yunet: Path) -> SyncNetwork:
    """The same with faces and sounds of a clip around one place, some 10 wide, as training would bring them together.

    As filled, any face lies far from every sound, and the zeros beyond the ends of the sound are always the nearest.
    """
    [talk] = SyncNet(detector="yunet", face_weights={"yunet": yunet}).prepare(Film.read(film))
    at = np.linspace(0, talk.windows - 1, 24).round().astype(int)
    faces = np.stack([talk.faces[i : i + 5, ..., ::-1].transpose(3, 0, 1, 2) for i in at]).astype(np.float32)
    sounds = np.stack([talk.mfcc[4 * i : 4 * i + 20].T[None] for i in at]).astype(np.float32)
    place = torch.from_numpy(np.random.default_rng(0).standard_normal(1024).astype(np.float32))
    lip, heard = network.lip(torch.from_numpy(faces)), network.audio(torch.from_numpy(sounds))
    for head, seen in ((network.netfclip[3], lip), (network.netfcaud[3], heard)):
        assert isinstance(head, nn.Linear)
        scale = 10 / float((seen - seen.mean(0)).norm(dim=1).mean())
        head.weight *= scale
        head.bias.copy_(head.bias * scale - seen.mean(0) * scale + place)
    return network


def network_file(name: str, folder: Path, data: Path) -> Path:
    """A file of filled weights in the published layout."""
    file = folder / f"{name}.pth"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        networks = {"syncnet": SyncNetwork, "synchformer": Synchformer, "imagebind": ImageBind, "passt": PaSST}
        made = networks[name]()
        filled(made)
        if isinstance(made, SyncNetwork):
            made = meeting(made, data / "clips" / f"{PARTS['sync'].clips[0]}.mp4", data / "weights" / GIVEN["yunet"])
        torch.save(made.state_dict(), half := file.with_suffix(".half"))
        half.rename(file)
    return file


# Scores ---------------------------------------------------------------------------------------------------------------


def stated(protocol: str, metric: str, folder: Path, s3fd: bool) -> str:
    """The name of a suite, or a file of its conventions where something has to stand in another's place."""
    base, changes = OWN.get(protocol, (protocol, {}))
    file = shipped()[base]
    node = yaml.safe_load(file.read_text(encoding="utf-8"))[metric] if file else {"init_args": {}}
    if metric == "sync" and file and not s3fd:
        changes = changes | {"detector": "yunet"}
        node["lacks"] = f"{protocol}'s detector; faces are found by YuNet"
    if not changes:
        return protocol
    node["init_args"] |= changes
    (folder / f"{protocol}.yaml").write_text(yaml.safe_dump({metric: node}), encoding="utf-8")
    return str(folder / f"{protocol}.yaml")


def kennedy(sound: Path, film: Path) -> None:
    """A public speech as a film of black pictures."""
    heard = read_audio(sound)
    pictures = np.zeros((len(heard) * FPS // 16_000, 48, 48, 3), np.uint8)
    write_clip(Clip(pictures, heard, float(FPS), 16_000), film)


def measure(metric: str, args: argparse.Namespace, given: Mapping[str, Path]) -> dict[tuple[str, str, str], Any]:
    """By protocol, clip and column: a value, or the reason why there is none."""
    part, out = PARTS[metric], args.out / metric
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "clips").mkdir()
        for name in part.clips:
            film = folder / "clips" / f"{name}.mp4"
            if name == "kennedy":
                kennedy(args.data / "clips" / "jfk.flac", film)
            else:
                film.symlink_to((args.data / "clips" / film.name).resolve())
        rows = [{"id": name, "prompt": name, "speech": SAID if metric == "wer" else ""} for name in part.clips]
        if metric == "kl_passt":  # of true sounds none is here: each clip's is the next one's
            for row, other in zip(rows, [*part.clips[1:], part.clips[0]], strict=True):
                row["reference"] = str(folder / "clips" / f"{other}.mp4")
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        names = [stated(name, metric, folder, "s3fd" in given) for name in part.protocols]
        argv = ["--videos", folder / "clips", "--testset", folder / "rows.jsonl", "--metrics", metric]
        argv += ["--embed-mb", 0, "-o", out, *(word for name in names for word in ("--protocol", name))]
        files = dict(given)
        if part.network and part.network not in files:
            files[part.network] = network_file(part.network, args.out / "networks", args.data)
        argv += [word for name, file in files.items() for word in ("--weights", f"{name}={file}")]
        argv += ["--whisper", "tiny.en"] if metric == "wer" else []
        if cli.main(["evaluate", *map(str, argv)]):
            raise SystemExit(f"{metric}: not measured")
    found: dict[tuple[str, str, str], Any] = {}
    for protocol in part.protocols:
        for line in (out / "protocols" / protocol / "scores.jsonl").read_text(encoding="utf-8").splitlines():
            score = json.loads(line)
            found[protocol, score["id"], score["metric"]] = score["reason"] or float(score["value"])
    return found


# The page -------------------------------------------------------------------------------------------------------------


def table(metric: str, found: Mapping[tuple[str, str, str], Any]) -> str:
    """Protocols as rows, clips as columns; a reason has a letter, and stands below."""
    part, reasons = PARTS[metric], dict[str, str]()

    def cell(protocol: str, clip: str) -> str:
        values = [found[protocol, clip, column] for column in part.columns]
        if isinstance(values[0], str):
            return reasons.setdefault(values[0], f"- ({chr(ord('a') + len(reasons))})")
        return ", ".join(f"{value:.{digits}f}" for value, digits in zip(values, part.columns.values(), strict=True))

    lines = [f"| {', '.join(part.columns)} | {' | '.join(part.clips)} |", "|---" * (1 + len(part.clips)) + "|"]
    lines += [f"| {name} | {' | '.join(cell(name, clip) for clip in part.clips)} |" for name in part.protocols]
    below = [f"({mark[3:-1]}) {reason}.  " for reason, mark in reasons.items()]
    return "\n".join([*lines, *([""] if below else []), *below])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--metrics", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="published files, by ccl's names")
    parser.add_argument("--write", type=Path, help="the page; what stands above its mark is kept")
    args = parser.parse_args()
    given = {name: args.data / "weights" / file for name, file in GIVEN.items()}
    given |= {name: Path(file) for name, file in (pair.split("=", 1) for pair in args.weights)}
    tables = {metric: table(metric, measure(metric, args, given)) for metric in args.metrics}
    page = "\n\n".join(f"### {metric}{by(metric, given)}\n\n{text}" for metric, text in tables.items())
    print(page)
    if args.write:
        above = args.write.read_text(encoding="utf-8").split(MARK)[0] if args.write.is_file() else ""
        write_whole(args.write, f"{above}{MARK}\n\n{page}\n")
    return 0


def by(metric: str, given: Mapping[str, Path]) -> str:
    """Whose weights a table is by."""
    network = PARTS[metric].network
    if not network:
        return ""
    return ", published weights" if network in given else ", filled weights: what conventions do, and no more"


if __name__ == "__main__":
    raise SystemExit(main())
