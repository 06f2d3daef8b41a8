"""What the README says works: its `ccl` lines and its Python run here as written, smaller; its `make` targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import ccl
from ccl import cli
from ccl.grid import Grid
from ccl.media import read_clip
from ccl.storage import model_folder
from helpers.tiny import SMALL, tiny_config, tiny_pipeline
from helpers.tiny_clips import tiny_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FIT = ["--config", "small.yaml", "--data.init_args.batch_size", "1"]
WORLD = [*FIT, "--data.init_args.clips", "2", "--data.init_args.makers", "0"]
NOT_HERE = "`ccl weights fetch wan2.1-t2v-14b mmaudio-v1-16 mmaudio-best-netg` fetches them"
# How a line begins -> what is appended to make it small. Two lines may share an entry; a line without one fails.
SMALLER: dict[str, list[str]] = {
    "ccl generate --prompt ": [],  # the model that ships is a tiny one here
    "ccl generate --prompts evaluation/testset/world/easy.jsonl": [],  # of which two rows are left here
    "ccl fit --config configs/joint.yaml --config configs/data/shards.yaml": [
        *FIT,
        "--data.init_args.num_workers",
        "0",
    ],
    "ccl fit --config configs/joint.yaml --config configs/model/wan14b.yaml": [],
    "ccl fit --config configs/joint.yaml": WORLD,
    "ccl shards make my-clips": [],
    "ccl evaluate --ckpt": ["--metrics", "mouth", "colours", "--limit", "1"],
    "ccl evaluate --videos": ["--metrics", "mouth", "colours"],
    "ccl evaluate --methods": ["--metrics", "av_align", "--limit", "1"],  # of folders that are empty here
    "ccl weights list": [],
}


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.M | re.S)


def lines(command: str) -> list[str]:
    """The README's lines that call a command, those that go on after a backslash as one."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.split()[:1] == [command]]


def smaller(line: str) -> list[str]:
    """A line's arguments and what makes it small: of its longest prefix in the table."""
    found = [prefix for prefix in SMALLER if line.startswith(prefix)]
    assert found, f"README's line `{line}` has no entry in SMALLER"
    return [*shlex.split(line, comments=True)[1:], *SMALLER[max(found, key=len)]]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README finds it: the repository's configs, a few prompts, own clips, a tiny model that ships."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    prompts = Path("evaluation/testset/world/easy.jsonl")
    (tmp_path / prompts).parent.mkdir(parents=True)
    (tmp_path / prompts).write_text("".join((ROOT / prompts).read_text().splitlines(keepends=True)[:2]))
    (tmp_path / "small.yaml").write_text(SMALL)
    tiny_folder(tmp_path / "my-clips", 2, Grid())
    for name in ("ours", "ovi"):
        (tmp_path / "out" / name).mkdir(parents=True)
    captions = "file,prompt\nclip0.mp4,a square\nclip1.mp4,another square\n"
    (tmp_path / "captions.csv").write_text(captions)
    pipe = tiny_pipeline()
    parts = {"net": pipe.net, "text": pipe.text}
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    model_folder.save_model(tmp_path / "shipped", tiny_config(), state)
    monkeypatch.setattr(model_folder, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path / "weights"))  # where none are
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.timeout(400)
def test_every_line_of_the_readme_works_one_after_the_other(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines("ccl")) >= 12
    for line in lines("ccl"):
        status = cli.main(smaller(line))
        said = capsys.readouterr().err
        if "wan14b" in line:
            assert status == 2 and NOT_HERE in said, line
        else:
            assert status == 0, f"{line}\n{said}"
    for name in ("joint.mp4", "a2v.mp4", "v2a.mp4", "ball.mp4"):
        clip = read_clip(checkout / name)
        assert clip.video is not None and clip.audio is not None, name
    assert (checkout / "t2a.wav").is_file()
    assert {path.name for path in (checkout / "runs").iterdir()} == {"joint", "mine", "gate"}
    for name in ("joint", "mine", "gate"):
        assert (checkout / "runs" / name / "checkpoints" / "step=000001.ckpt").is_file()
    assert (checkout / "out" / "easy" / "scores" / "table.md").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/first_clip.md"])
def test_every_python_block_of_a_first_page_works(checkout: Path, page: str) -> None:
    found = blocks("python", (ROOT / page).read_text())
    assert found
    for block in found:
        exec(compile(block, page, "exec"), {})
    clip = read_clip(checkout / "out.mp4")
    assert clip.video is not None and clip.audio is not None


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {line.split()[1] for line in lines("make")} | set(re.findall(r"`make (\w+)`", README))
    assert named
    assert named <= targets


def test_every_path_of_the_readmes_map_exists() -> None:
    table = README.split("## Map")[1].split("\n## ")[0]
    for cell in re.findall(r"^\| (`.*?) \|", table, flags=re.M):
        folder = ROOT
        for name in re.findall(r"`([^`]+)`", cell):
            path = ROOT / name if (ROOT / name).exists() else folder / name
            assert path.exists(), name
            folder = path.parent


def test_the_shipped_checkpoint_speaks() -> None:
    clip = ccl.load()('A man with black hair and a blue shirt says in a low voice "the river is cold"', steps=2)
    assert clip.video is not None and clip.video.shape == (77, 48, 48, 3)
    assert clip.audio is not None and clip.audio.std() > 1e-3


def test_every_variable_of_the_environment_stands_in_the_readme() -> None:
    files = [file for folder in ("src", "tests") for file in (ROOT / folder).rglob("*.py")]
    named = {
        name for file in files for name in re.findall(r"\bCCL_[A-Z]+(?:_[A-Z]+)*", file.read_text(encoding="utf-8"))
    }
    table = README.split("## Environment")[1]
    assert {"CCL_WEIGHTS", "CCL_DEBUG", "CCL_TEST_DATA"} <= named
    assert {name for name in named if f"| `{name}` |" not in table} == set()
