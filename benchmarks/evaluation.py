"""What an evaluation costs beyond what it cannot do without: each metric, and the whole table, over its parts alone.

    python benchmarks/evaluation.py [--data ../shared] [--clips a.mp4 b.mp4] [--rounds 3] [--large] [--metrics sync,wer]

The parts are decoding (media.read_natural, once a clip) and the calls that a metric makes on detectors and networks:
those are taken down with their arguments in one run and made again alone, on arguments that are ready. Goal, for each
metric and for the table of all of them: 1.3 times the sum of the parts. Then fp32 against bf16, and the memory that a
run takes with few clips and with many.

--data names a folder with clips/ and weights/ as CCL_TEST_DATA has it. Networks whose published weights are not there
get random ones of the right shapes, which cost the same. Without --data: clips of the talking world, 48 x 48, and the
metrics whose weights are here. --large adds Synchformer (0.95 GB) and ImageBind (2.9 GB), in one round: minutes a clip.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from _timing import ratio, verdict
from _timing import turns as timed
from ccl.data.world import World
from ccl.evaluation import (
    CLAP,
    CLIP,
    DINO,
    DNSMOS,
    FAD,
    FVD,
    KL,
    LUFS,
    MUSIQ,
    WER,
    Aesthetic,
    AudioBox,
    AVAlign,
    Colours,
    DeSync,
    Dynamics,
    Face,
    IBScore,
    IBText,
    Javis,
    KLPaSST,
    Lengths,
    Mouth,
    Onset,
    PANNs,
    PaSST,
    Speaker,
    SyncNet,
    score,
)
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Measured, Metric, Result
from ccl.evaluation.metrics.heard import Divergence, Heard
from ccl.grid import Grid
from ccl.media import read_natural, write_clip
from ccl.rows import Row
from ccl.weights import catalogue as files

GOAL = 1.3
GROWTH = 1.1  # of memory from few clips to many
CLIPS = ("versebench_syncnet_1.mp4", "versebench_syncformer_1.mp4")
LARGE = ("desync", "ib", "ib_text", "javis")
SPEECH = "you know what they say about the early bird"  # of clips whose words nobody wrote down
COPIES = (8, 24)
GIVEN = {  # weights by the name of their file in --data's weights/
    "whisper-tiny.en": "whisper-tiny.en.pt",
    "yunet": "face_detection_yunet_2026may.onnx",
    "light_asd": "light_asd_ava.pt",
    "sface": "face_recognition_sface_2021dec.onnx",
}
NETWORKS = {  # by metric, whose published weights no folder of test data has
    "sync": ["syncnet"],
    "sync-speaker": ["syncnet"],
    "sync-s3fd": ["syncnet", "s3fd"],
    "audiobox": ["audiobox"],
    "fvd": ["i3d"],
    "desync": ["synchformer"],
    "ib": ["imagebind"],
    "speaker": ["resemblyzer"],
    "clap": ["clap"],
    "clip": ["clip"],
    "dino": ["dino"],
    "aesthetic": ["aesthetic", "clip-large"],
    "musiq": ["musiq-spaq"],
    "fad": ["vggish"],
    "panns": ["panns"],
    "kl": ["panns"],
    "passt": ["passt"],
    "kl_passt": ["passt"],
    "ib_text": ["imagebind", "clip-bpe"],
    "javis": ["imagebind"],
}
Cases = dict[str, Metric]


CLOCK = {"cpu": False, "warm": True}  # every run has been made once before it is timed


def turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    return timed(runs, rounds, **CLOCK)


# What is measured ----------------------------------------------------------------------------------------------------


def cases(precision: Literal["fp32", "bf16"] = "fp32") -> Cases:
    """Each metric by the name of its line; detectors and the choice of who speaks have lines of their own."""
    return {
        "sync": SyncNet(detector="yunet", precision=precision),
        "sync-speaker": SyncNet(detector="yunet", active_speaker=True),
        "sync-s3fd": SyncNet(detector="s3fd"),
        "wer": WER("tiny.en", precision=precision),
        "audiobox": AudioBox(precision=precision),
        "fvd": FVD(precision=precision),
        "dnsmos": DNSMOS(),
        "av_align": AVAlign(),
        "onset": Onset(),
        "mouth": Mouth(),
        "colours": Colours(),
        "desync": DeSync(precision=precision),
        "ib": IBScore(precision=precision),
        "lufs": LUFS(),
        "lengths": Lengths(),
        "dynamics": Dynamics(),
        "speaker": Speaker(),
        "face": Face(),
        "clap": CLAP(precision=precision),
        "clip": CLIP(precision=precision),
        "dino": DINO(),
        "aesthetic": Aesthetic(precision=precision),
        "musiq": MUSIQ(),
        "fad": FAD(precision=precision),
        "panns": PANNs(precision=precision),
        "kl": KL(precision=precision),
        "passt": PaSST(precision=precision),
        "kl_passt": KLPaSST(precision=precision),
        "ib_text": IBText(precision=precision),
        "javis": Javis(precision=precision),
    }


PRECISE = ("sync", "wer", "audiobox", "fvd", "desync", "ib")  # that offer bf16
# Variants, and what is measured where it is asked for by name: the table does not have them.
APART = (
    *("sync-speaker", "sync-s3fd", "lufs", "lengths", "dynamics", "speaker", "face"),
    *("clap", "clip", "dino", "aesthetic", "musiq", "fad", "panns", "kl", "passt", "kl_passt", "ib_text", "javis"),
)


def random_weights(name: str, folder: Path) -> Path:
    """A file of weights as they are before training, in the published layout."""
    from ccl.evaluation.nets import (
        audiobox,
        i3d,
        imagebind,
        musiq,
        panns,
        passt,
        s3fd,
        synchformer,
        syncnet,
        vggish,
        voice,
    )

    torch.manual_seed(0)
    file = folder / files.TABLE[name].file
    match name:
        case "audiobox":
            file = folder / "audiobox" / "model.safetensors"
            file.parent.mkdir()
            scale = {axis: {"mean": 5.0, "std": 1.0} for axis in audiobox.AXES}
            (file.parent / "config.json").write_text(json.dumps({"target_transform": scale}))
            save_file(audiobox.Aesthetics().state_dict(), file)
        case "i3d":
            file = file.with_suffix(".safetensors")
            save_file(i3d.InceptionI3d().state_dict(), file)
        case "clap" | "clip" | "clip-large" | "dino":
            hub_folder(name, file)
        case "clip-bpe":
            file.write_bytes(gzip.compress(b"#version: 0.2\n" + b"\n".join(b"a " + bytes([c]) for c in b"bcdefghi")))
        case "imagebind":
            torch.save(imagebind.ImageBind(text=imagebind.HUGE_TEXT).state_dict(), file)
        case _:
            net = {
                "syncnet": syncnet.SyncNetwork,
                "s3fd": s3fd.S3FD,
                "synchformer": synchformer.Synchformer,
                "resemblyzer": voice.VoiceEncoder,
                "vggish": vggish.VGGish,
                "panns": panns.Cnn14,
                "passt": passt.PaSST,
                "musiq-spaq": musiq.MUSIQ,
                "aesthetic": lambda: torch.nn.Linear(768, 1),
            }[name]()
            torch.save(net.state_dict(), file)
    return file


def hub_folder(name: str, folder: Path) -> None:
    """A folder as the hub has it, of the published sizes, which are transformers' own; its tokens are single bytes."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir()
    letters = list(bytes_to_unicode().values())
    match name:
        case "clap":
            net = transformers.ClapModel(transformers.ClapConfig())
            vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
            transformers.RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
            heard = transformers.ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad")
            heard.save_pretrained(folder)
        case "dino":
            net = transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
        case _:
            config = transformers.CLIPConfig()
            if name == "clip-large":
                wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
                seen = {**wide, "num_attention_heads": 16, "patch_size": 14}
                read = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
                config = transformers.CLIPConfig(text_config=read, vision_config=seen, projection_dim=768)
            net = transformers.CLIPModel(config)
            names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
            vocabulary = {token: i for i, token in enumerate(names)}
            transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    net.save_pretrained(folder)


def choose_weights(data: Path, temporary: Path, names: Sequence[str]) -> dict[str, Path]:
    """Name the files of these metrics' networks for this process; what is not published here is drawn."""
    chosen = {name: data / "weights" / file for name, file in GIVEN.items() if (data / "weights" / file).is_file()}
    for name in dict.fromkeys(network for metric in names for network in NETWORKS.get(metric, ())):
        published = data / "weights" / files.TABLE[name].file
        if published.is_file():
            chosen[name] = published
        elif not files.present(name):
            chosen[name] = random_weights(name, temporary)
            print(f"{name}: random weights, for the published ones are not here; speed does not depend on them")
    for name, file in chosen.items():
        files.use(name, file)
    return chosen


def world(count: int, folder: Path) -> list[Row]:
    """Clips of the talking world as mp4, with the rows that belong to them."""
    rows = []
    for source in World(0, "test", Grid()).sources(count):
        clip = source.load()
        path = folder / f"{clip.id}.mp4"
        write_clip(clip, path)
        speech = clip.meta.get("speech") or SPEECH
        rows.append(Row(clip.id, clip.prompt, speech=speech, reference=str(path)))
    return rows


def linked(clips: Sequence[Path], folder: Path) -> list[Row]:
    """Any clips as a folder to be scored, each its own reference."""
    for i, clip in enumerate(clips):
        (folder / f"{i:02}-{clip.stem}{clip.suffix}").symlink_to(clip.resolve())
    paths = sorted(folder.iterdir())
    said = 'green shirt, she says: "..."'
    return [Row(path.stem, said, speech=SPEECH, reference=str(path), voice=str(path)) for path in paths]


# Parts ---------------------------------------------------------------------------------------------------------------


@dataclass
class Calls:
    """Calls as they were made, to be made again alone."""

    made: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def taken(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its calls taken down."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.made.append((function, args, kwargs))
            return function(*args, **kwargs)

        return call

    @torch.inference_mode()
    def again(self) -> None:
        for function, args, kwargs in self.made:
            function(*args, **kwargs)


@dataclass
class Parts:
    """What a metric cannot do without, beside decoding."""

    detector: Calls = field(default_factory=Calls)
    network: Calls = field(default_factory=Calls)


def networks(metric: Metric) -> Iterator[tuple[Any, str]]:
    """Where a metric calls its networks: objects, and the names of their methods."""
    match metric:
        case SyncNet() if metric.settings.detector == "yunet":
            towers = metric.towers()
            yield from ((part, "forward") for part in (towers.cnnlip, towers.fclip, towers.cnnaud, towers.fcaud))
            if metric.active_speaker:
                yield loaded("ccl.evaluation.faces.speaker", "light_asd"), "forward"
        case DeSync():
            yield from ((metric.network(), name) for name in ("see", "hear", "compare"))
        case IBScore():
            yield metric.net, "embed"
        case AudioBox() | FVD() | Speaker() | DINO() | MUSIQ() | FAD() | Heard():
            yield metric.net, "forward"
        case CLAP():
            yield from ((metric.net, name) for name in ("get_audio_features", "get_text_features"))
        case CLIP():
            yield from ((metric.net, name) for name in ("get_image_features", "get_text_features"))
        case Aesthetic():
            yield metric.clip.net, "get_image_features"
        case WER():
            import whisper.decoding

            yield metric.recogniser.encoder, "forward"
            yield whisper.decoding, "decode"
        case DNSMOS():
            yield from ((session, "run") for session in metric.sessions)
        case Face():
            yield metric.session, "run"
        case AVAlign() | Dynamics():
            yield cv2, "calcOpticalFlowFarneback"
        case LUFS():
            levels = sys.modules["ccl.evaluation.metrics.loudness"]
            yield from ((levels, name) for name in ("read_channels", "integrated", "true_peak"))


def loaded(module: str, name: str, *more: str) -> Any:
    """The network that a module keeps for a file."""
    path = files.locate(name)
    return sys.modules[module].loaded(path, path.stat().st_mtime_ns, *more)


@contextlib.contextmanager
def taken_down(metric: Metric) -> Iterator[Parts]:
    """The calls that the metric makes within the block."""
    parts, detect = Parts(), sys.modules["ccl.evaluation.faces.detect"]
    make = detect.yunet  # a detector of OpenCV's takes no attributes, so another object stands for it

    class YuNet:
        def __init__(self, *args: Any) -> None:
            self.detect = parts.detector.taken(make(*args).detect)

    with contextlib.ExitStack() as stack:
        for owner in (detect, sys.modules["ccl.evaluation.metrics.face"]):
            stack.enter_context(patch.object(owner, "yunet", YuNet))
        if isinstance(metric, SyncNet) and metric.settings.detector == "s3fd":
            net = loaded("ccl.evaluation.faces.detect", "s3fd", "cpu")
            stack.enter_context(patch.object(net, "forward", parts.detector.taken(net.forward)))
        for owner, name in list(networks(metric)):
            stack.enter_context(patch.object(owner, name, parts.network.taken(getattr(owner, name))))
        yield parts


# Measurements --------------------------------------------------------------------------------------------------------


def scored(metric: Metric, folder: Path, rows: Sequence[Row]) -> list[Result]:
    """The metric alone on files."""
    return metric.score(Film.read(folder / f"{row.id}.mp4", row) for row in rows)


def decoded(metrics: Sequence[Metric], folder: Path, rows: Sequence[Row]) -> None:
    """Each clip once; and as its own reference, which is another file to those that compare with one."""
    for row in rows:
        for _ in range(1 + any(isinstance(metric, (Onset, Divergence)) for metric in metrics)):
            read_natural(folder / f"{row.id}.mp4")


def said(results: Sequence[Result]) -> str:
    """Values or the reason, of the first clip."""
    first = results[0]
    if not isinstance(first, Measured):
        return first.reason
    return ", ".join(f"{name} {value:.4g}" for name, value in first.values.items()) or "a feature"


def measure_metrics(
    metrics: Mapping[str, Metric], folder: Path, rows: Sequence[Row], rounds: int, parts: dict[str, Parts]
) -> dict[str, float]:
    """Print a line for each metric, and its parts; the calls are left in `parts`."""
    print(f"\n{'metric':<18}{'decode':>9}{'detector':>10}{'network':>10}{'metric':>10}   ms a clip")
    ratios = {}
    for name, metric in metrics.items():
        with taken_down(metric) as taken:
            results = scored(metric, folder, rows)
        runs: dict[str, Callable[[], object]] = {
            "decode": lambda m=metric: decoded([m], folder, rows),
            "detector": taken.detector.again,
            "network": taken.network.again,
            "whole": lambda m=metric: scored(m, folder, rows),
        }
        parts[name] = taken
        for kind, calls in (("detector", taken.detector), ("network", taken.network)):
            if not calls.made:
                del runs[kind]
        seconds = turns(runs, 1 if name in LARGE else rounds)  # the first run above
        ratios[name] = of_parts(seconds)
        columns = ("decode", "detector", "network", "whole")
        each = (1000 * statistics.median(seconds.get(key, [0.0])) / len(rows) for key in columns)
        numbers = "".join(f"{value:>{width}.1f}" for value, width in zip(each, (9, 10, 10, 10), strict=True))
        print(f"{name:<18}{numbers}   {verdict('over its parts', ratios[name], GOAL)}; {said(results)}", flush=True)
        if name in APART:
            del parts[name]
    return ratios


def of_parts(seconds: Mapping[str, list[float]]) -> float:
    """Median over the rounds of the whole over the sum of the parts."""
    rounds = zip(*(values for key, values in seconds.items() if key != "whole"), strict=True)
    return ratio(seconds["whole"], [sum(values) for values in rounds])


def measure_table(
    metrics: Mapping[str, Metric], folder: Path, rows: Sequence[Row], rounds: int, parts: Mapping[str, Parts]
) -> float:
    """`score` with all metrics over one decoding and every network; a detector's faces are shared."""
    chosen = [metrics[name] for name in parts]

    def whole() -> None:
        with tempfile.TemporaryDirectory() as out:
            score({"ours": folder}, rows, chosen, out)

    def alone() -> None:
        for part in parts.values():
            part.detector.again()
            part.network.again()

    for metric in chosen:
        metric.protocol()  # reads the weights' sums, once a process
    runs = {"decode": lambda: decoded(chosen, folder, rows), "parts": alone, "whole": whole}
    seconds = turns(runs, 1 if set(LARGE) & parts.keys() else rounds)
    value = of_parts(seconds)
    each = {key: statistics.median(values) / len(rows) for key, values in seconds.items()}
    print(
        f"\nthe table of {', '.join(parts)}: decoding {each['decode']:.2f} s, networks {each['parts']:.2f}, "
        f"score() {each['whole']:.2f} s a clip"
    )
    print(verdict("the table over its parts", value, GOAL), flush=True)
    return value


def measure_precision(metrics: Mapping[str, Metric], folder: Path, rows: Sequence[Row], rounds: int) -> None:
    print("\nbf16 against fp32")
    low = cases("bf16")
    for name in (name for name in metrics if name in PRECISE):
        results = {"fp32": scored(metrics[name], folder, rows), "bf16": scored(low[name], folder, rows)}
        pair = {"fp32": metrics[name], "bf16": low[name]}
        again = {key: lambda m=m: scored(m, folder, rows) for key, m in pair.items()}
        seconds = turns(again, 1 if name in LARGE else rounds)
        each = {key: statistics.median(values) / len(rows) for key, values in seconds.items()}
        print(
            f"{name:<10}{each['fp32']:7.2f} s a clip, bf16 {each['bf16']:7.2f} s "
            f"({ratio(seconds['fp32'], seconds['bf16']):.2f} times faster); {moved(results['fp32'], results['bf16'])}",
            flush=True,
        )


def moved(before: Sequence[Result], after: Sequence[Result]) -> str:
    """How far numbers went, the furthest of all clips: relative, and of a feature in its norm."""
    furthest: dict[str, float] = {}
    for a, b in zip(before, after, strict=True):
        if not isinstance(a, Measured) or not isinstance(b, Measured):
            continue
        pairs = {name: (np.array([a.values[name]]), np.array([b.values[name]])) for name in a.values}
        if not pairs and a.feature is not None and b.feature is not None:
            pairs = {"feature": (a.feature, b.feature)}
        for name, (x, y) in pairs.items():
            change = float(np.linalg.norm(y - x) / (np.linalg.norm(x) or 1))
            furthest[name] = max(furthest.get(name, 0.0), change)
        if a.text or b.text:
            furthest["other texts"] = furthest.get("other texts", 0) + (a.text != b.text)
    return ", ".join(f"{name} {value:.2g}" for name, value in furthest.items()) or "no clip has a value"


def peak(clip: Path, row: Row, count: int, chosen: Mapping[str, Path], names: Sequence[str], threads: int) -> float:
    """MB that a process of its own takes at most to score so many copies of a clip."""
    torch.set_num_threads(threads)
    for name, file in chosen.items():
        files.use(name, file)
    metrics = [metric for name, metric in cases().items() if name in names]
    for metric in metrics:
        metric.batch_size = min(COPIES[0] // 2, metric.batch_size)  # in both runs some batch meets a film decoded ahead
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        for i in range(count):
            (Path(folder) / f"{i:02}.mp4").symlink_to(clip.resolve())
        rows = [Row(f"{i:02}", row.prompt, speech=row.speech, reference=row.reference) for i in range(count)]
        score({"ours": folder}, rows, metrics, out)
    # Not getrusage: what it gives begins with the parent's memory.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory(clip: Path, row: Row, chosen: Mapping[str, Path], names: Sequence[str], threads: int) -> None:
    peaks = []
    for count in COPIES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(peak, clip, row, count, chosen, names, threads).result())
    print(f"\nmost memory of score() with {', '.join(names)}:")
    print(", ".join(f"{count} clips {value:.0f} MB" for count, value in zip(COPIES, peaks, strict=True)))
    print(verdict(f"memory of {COPIES[1]} clips over that of {COPIES[0]}", peaks[1] / peaks[0], GROWTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of clips/ and weights/, as CCL_TEST_DATA")
    parser.add_argument("--clips", nargs="+", type=Path, help="clips to score; default two of --data, else the world's")
    parser.add_argument("--metrics", help="lines to measure, separated by commas")
    parser.add_argument("--large", action="store_true", help="Synchformer and ImageBind too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="count the process's seconds; for a busy machine, 1 thread")
    parser.add_argument("--only", choices=("metrics", "table", "bf16", "memory"), help="one of the four measurements")
    args = parser.parse_args()
    CLOCK["cpu"] = args.cpu
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        wanted = args.metrics.split(",") if args.metrics else [n for n in cases() if args.large or n not in LARGE]
        chosen = choose_weights(args.data, temporary, wanted) if args.data else {}
        folder = temporary / "clips"
        folder.mkdir()
        clips = args.clips or [args.data / "clips" / clip for clip in CLIPS if args.data]
        rows = linked(clips, folder) if clips else world(8, folder)
        metrics = {name: metric for name, metric in cases().items() if name in wanted}
        for name, metric in list(metrics.items()):
            if reason := metric.missing():
                print(f"{name}: left out, {reason}")
                del metrics[name]
        sizes = sorted({"x".join(map(str, read_natural(folder / f"{row.id}.mp4")[0].video.shape[:3])) for row in rows})
        print(f"{len(rows)} clips of {', '.join(sizes)} pictures, {args.threads} threads, {args.rounds} rounds")
        table = [name for name in metrics if name not in APART]
        if args.only in (None, "metrics", "table"):
            parts: dict[str, Parts] = {}
            measure_metrics(metrics, folder, rows, args.rounds, parts)
            if args.only != "metrics":
                measure_table(metrics, folder, rows, args.rounds, parts)
            del parts
        if args.only in (None, "bf16"):
            measure_precision(metrics, folder, rows, args.rounds)
        if args.only in (None, "memory"):
            small = [name for name in table if name not in LARGE]
            measure_memory(folder / f"{rows[0].id}.mp4", rows[0], chosen, small, args.threads)


if __name__ == "__main__":
    main()
