"""The same clips by several protocols in one table: `python benchmarks/protocols.py --data FOLDER -o OUT`.

FOLDER holds clips/*.mp4 and weights/face_detection_yunet_2026may.onnx. SyncNet's weights are the file given, else they
are filled from the crc32 of each key, which tells how conventions differ and nothing of clips; where S3FD's file is not
given YuNet finds the faces for all. Prints the table; OUT has all the files of `ccl evaluate`.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml

from ccl import cli
from ccl.cli.protocols import shipped
from ccl.evaluation.nets.syncnet import SyncNetwork

SUITES = ("joonson", "latentsync", "mova", "verse-bench")
CLIPS = ("versebench_syncnet_1", "ovi_two_men", "latentsync_demo1")  # those with faces


def filled() -> dict[str, torch.Tensor]:
    """Weights of SyncNet's sizes, the same wherever they are made."""
    state = SyncNetwork().state_dict()
    for key, old in state.items():
        if not old.is_floating_point():
            continue
        x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(old.shape), dtype=np.float32)
        if key.endswith("running_var"):
            x = 1 + 0.1 * np.abs(x)
        elif key.endswith(("running_mean", "bias")):
            x = 0.02 * x
        else:
            x = 1 + 0.1 * x if x.ndim == 1 else x / np.sqrt(np.prod(x.shape[1:]))
        state[key] = torch.from_numpy(np.asarray(x, np.float32))
    return state


def by_yunet(name: str, folder: Path) -> Path:
    """A suite's file with YuNet in the place of its detector, for sync alone."""
    file = shipped()[name]
    assert file is not None
    node = yaml.safe_load(file.read_text(encoding="utf-8"))["sync"]
    node["init_args"]["detector"], node["lacks"] = "yunet", f"{name}'s detector; faces are found by YuNet"
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"sync": node}), encoding="utf-8")
    return folder / f"{name}.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", nargs="+", default=CLIPS)
    parser.add_argument("--syncnet", type=Path, help="syncnet_v2.model")
    parser.add_argument("--s3fd", type=Path, help="sfd_face.pth")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "clips").mkdir()
        for name in args.clips:
            (folder / "clips" / f"{name}.mp4").symlink_to((args.data / "clips" / f"{name}.mp4").resolve())
        syncnet = args.syncnet or folder / "filled.model"
        if not args.syncnet:
            torch.save(filled(), syncnet)
        names = ["paper", *(name if args.s3fd else str(by_yunet(name, folder)) for name in SUITES)]
        argv = ["--videos", folder / "clips", "--metrics", "sync", "--embed-mb", 0, "-o", args.out]
        argv += [word for name in names for word in ("--protocol", name)]
        files = {
            "syncnet": syncnet,
            "s3fd": args.s3fd,
            "yunet": args.data / "weights/face_detection_yunet_2026may.onnx",
        }
        argv += [word for name, file in files.items() if file for word in ("--weights", f"{name}={file}")]
        return cli.main(["evaluate", *map(str, argv)])


if __name__ == "__main__":
    raise SystemExit(main())
