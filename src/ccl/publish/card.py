"""The model card, README.md of a repository: what the model is, how to load it, what it was made of, how it scores."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

import ccl
from ccl.evaluation.tables.typeset import md_escape, md_table
from ccl.files.plaintext import printable
from ccl.publish.model import Pushed
from ccl.publish.parts import Part
from ccl.publish.samples import Sample
from ccl.storage.run import leaf
from ccl.text.vocabulary import unknown
from ccl.weights.find import command

PAPER = "https://arxiv.org/abs/2603.18600"
# Of the hub's own lists: https://huggingface.co/tasks.
PIPELINE_TAG, LIBRARY = "text-to-video", "ccl"
TAGS = ("joint-audio-video", "text-to-audio-video", "diffusion")
TASK_TAGS = {"a2v": "audio-to-video", "v2a": "video-to-audio"}
# Where no sample has a prompt: the talking world's, and where a model has not learned its words, what to put there.
PROMPT, OTHER = 'A woman says in a high voice "where is my little sister"', "a prompt in the words of its captions"
ABREAST, WIDTH = 2, 320  # samples, and pixels of one
NETWORK = ("video", "audio", "interaction")  # arguments of a network that have rows of their own


@dataclass(frozen=True)
class Said:
    """What a user says of a model, which no file of it holds.

    Args:
        licence: of its weights, as the hub calls it (apache-2.0); "" where none is stated.
        data: what it was trained on, in a sentence.
    """

    licence: str = ""
    data: str = ""


def card(
    repository: str,
    model: Pushed,
    *,
    said: Said | None = None,
    samples: Sequence[Sample] = (),
    scores: Sequence[str] = (),
    page: str = "",
) -> str:
    """A whole README.md.

    Args:
        repository: OWNER/NAME.
        model: that it is of.
        said: of the model by its user.
        samples: shown as clips, from where they lie on the hub.
        scores: tables in Markdown.
        page: address of the repository on the hub.
    """
    said = said or Said()
    parts = model.outline.parts
    sections = [
        f"# {md_escape(repository.partition('/')[2])}",
        opening(model),
        "## Samples\n\n" + shown(samples, page) if samples else "",
        "## How to load it\n\n" + loading(repository, model, samples),
        "## Scores\n\n" + "\n\n".join(scores) if scores else "",
        "## The model\n\n" + table(model_rows(model)),
        "## Training\n\n" + table(training_rows(model, said.data)),
        "## Licences\n\n" + licences(parts, said.licence),
        f"*Written by `ccl push` {ccl.__version__} on {date.today().isoformat()}.*",
    ]
    text = f"---\n{metadata(model, parts, said)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"
    return printable(text)  # prompts and names are of any origin


def metadata(model: Pushed, parts: Iterable[Part], said: Said) -> str:
    """The YAML above a card, by huggingface_hub."""
    from huggingface_hub import ModelCardData

    tasks = model.config.get("tasks") or {}
    bases = list(dict.fromkeys(part.repository for part in parts if part.repository))
    given: dict[str, Any] = {
        "license": said.licence or None,
        "base_model": bases or None,
        "library_name": LIBRARY,
        "pipeline_tag": PIPELINE_TAG,
        "tags": [*TAGS, *(tag for task, tag in TASK_TAGS.items() if task in tasks)],
    }
    return ModelCardData(**given).to_yaml().strip()


def opening(model: Pushed) -> str:
    numbers = sum(model.numbers.values())
    interaction = short(leaf(model.config, "net.init_args.interaction"))
    seen = f" They see each other by {interaction}." if interaction else ""
    return (
        f"Pictures and their sound together, from a prompt: a joint audio-video diffusion transformer of "
        f"{millions(numbers)} parameters, trained and sampled with ccl, an implementation of "
        f"[cross-modal context learning]({PAPER}). One stream makes the pictures, the other the sound.{seen}"
    )


def loading(repository: str, model: Pushed, samples: Sequence[Sample]) -> str:
    """How to load it, in Python and in a shell, and what must be there before."""
    outline = model.outline
    learned = leaf(model.config, "provenance.words")
    spare = OTHER if learned and unknown([PROMPT], learned) else PROMPT
    prompt = min((one_line(sample.prompt) for sample in samples if sample.prompt.strip()), key=len, default=spare)
    modules = outline.modules
    trust = f", trust={tuple(modules)!r}" if modules else ""
    options = "".join(f" --trust {module}" for module in modules)
    lines = [
        f'```python\nimport ccl\n\npipe = ccl.load("{repository}"{trust})\nclip = pipe({prompt!r})\n'
        'clip.save("out.mp4")\n```',
        f"```sh\nccl generate --ckpt {repository}{options} --prompt {shlex.quote(prompt)} -o out.mp4\n```",
    ]
    if fetch := command(outline.fetched):
        lines.insert(0, f"Before, once, the published weights that it needs:\n\n```sh\n{fetch}\n```")
    if modules:
        named = " and ".join(f"`{module}`" for module in modules)
        lines.append(
            f"Its config names classes of {named}, which is part neither of `ccl` nor of this repository: have it "
            "where Python finds it, read it, and trust it as above."
        )
    lines.append(
        "`revision=` takes a branch, tag or commit. The weights are safetensors"
        + (", and config.yaml names classes of `ccl` alone." if not modules else ".")
    )
    if learned:
        lines.append(
            f"Its captions had {len(learned):,} words, all in config.yaml; a prompt with others is taken, and they "
            "are told in a note."
        )
    return "\n\n".join(lines)


def shown(samples: Sequence[Sample], page: str) -> str:
    """Clips beside each other, each with its prompt below."""
    cells = [
        f'<td><video controls loop width="{WIDTH}" src="{page}/resolve/main/{quote(one.name)}">'
        f"</video><br>{html.escape(one_line(one.prompt))}</td>"
        for one in samples
    ]
    rows = [cells[start : start + ABREAST] for start in range(0, len(cells), ABREAST)]
    return "<table>\n" + "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows) + "\n</table>"


def one_line(prompt: str) -> str:
    """A prompt whose lines mean nothing to Markdown."""
    return printable(" ".join(prompt.split()))


def model_rows(model: Pushed) -> dict[str, str]:
    """What the model is, by its config."""
    config = model.config
    net = leaf(config, "net.init_args") or {}
    grid, text = model.grid, model.numbers.get("text", 0)
    codec = leaf(config, "codec.init_args") or {}
    rest = {key: value for key, value in net.items() if key not in NETWORK}
    tasks = {name: task.get("prob") for name, task in (config.get("tasks") or {}).items() if isinstance(task, dict)}
    rows = {
        "parameters": f"{millions(model.numbers['net'])} of the network, {millions(text)} of the text encoder, "
        f"in {model.dtype}",
        "network": f"{short(config['net'])}: {words(rest)}",
        **{f"{name} stream" if name != "interaction" else name: words(net.get(name)) for name in NETWORK},
        "text encoder": words(config["text"]),
        "image encoder": words(config.get("image")),
        **{f"{name} codec": words(value) for name, value in codec.items()},
        "clip": f"{grid.frames} pictures of {grid.height} x {grid.width} at {grid.fps:g} a second, "
        f"{grid.frames / grid.fps:.2f} s, sound at {grid.sample_rate / 1000:g} kHz",
        "guidance": words(leaf(config, "sampling.guidance")),
        "solver": words({k: v for k, v in (config.get("sampling") or {}).items() if k != "guidance"}),
        "tasks trained": ", ".join(f"{name} {float(prob):.0%}" for name, prob in tasks.items() if prob is not None),
    }
    return rows


def training_rows(model: Pushed, data: str) -> dict[str, str]:
    """How it was trained, as far as the folder that was pushed says it."""
    outline, known = model.outline, model.config["provenance"]
    run, given = outline.training, outline.model
    begun = [part.name for part in outline.parts if any("pretrained" in key for key in part.use)]
    begun += ["weights of its own, not published"] if outline.unpublished else []
    return {
        "data": data or trained_on(run, outline.data),
        "steps": f"{step:,}" if isinstance(step := known.get("step"), int) else words(step),
        "clips a step": batch(run),
        "began with": ", ".join(begun) if begun else "random weights" if run else "",
        "trained": trained(given) if run else "",
        "optimizer": words(given.get("optimizer")),
        "precision": str(leaf(run, "trainer.precision") or ""),
        "LoRAs in its weights": words(known.get("loras")),
        "run": str(known.get("run") or ""),
        "seed": str(known.get("seed", "")),
        "made with": words(known.get("versions")),
        "commit of ccl": f"{known['commit']}{', changed' if known.get('dirty') else ''}" if known.get("commit") else "",
        "config.yaml": f"sha256 {model.config_sha256}",
        "model.safetensors": f"sha256 {known['weights_sha256']}" if "weights_sha256" in known else "",
    }


def trained_on(run: Mapping[str, Any], sums: Sequence[str]) -> str:
    """The data of a run, without the folders that they lay in."""
    if not run:
        return "not stated"
    name, clips = short(run.get("data")), leaf(run, "data.init_args.clips")
    if name == "WorldData":
        return f"the talking world, which ccl makes: {words(clips)} clips, seed {leaf(run, 'data.init_args.seed')}"
    known = f", sha256 {' '.join(one[:12] for one in sums)}" if sums else ""
    return f"{name}, not described{known}" if name else "not stated"


def batch(run: Mapping[str, Any]) -> str:
    """Clips of an optimizer's step, as far as numbers say it."""
    size, over = leaf(run, "data.init_args.batch_size"), leaf(run, "trainer.accumulate_grad_batches") or 1
    many = [leaf(run, "trainer.devices"), leaf(run, "trainer.num_nodes") or 1]
    if not all(isinstance(number, int) for number in (size, over, *many)):
        return ""
    return str(size * over * many[0] * many[1])


def trained(given: Mapping[str, Any]) -> str:
    """Which of its parameters were."""
    frozen = {"text": "all but the text encoder", "backbones": "the cross-modal parameters", "all": "adapters alone"}
    lora = given.get("lora")
    adapters = f", by adapters of rank {lora.get('rank')}" if isinstance(lora, dict) else ""
    return f"{frozen.get(str(given.get('freeze')), 'all parameters')}{adapters}"


def licences(parts: Sequence[Part], own: str) -> str:
    """Of the weights, and of every part that they need or began with."""
    rows = [["the weights in this repository", md_escape(own) or "not stated", ""]]
    for part in parts:
        name = f"[{md_escape(part.name)}]({part.link})" if part.link else md_escape(part.name)
        rows.append([name, md_escape(part.licence), ", ".join(f"`{key}`" for key in part.use)])
    rows.append(["`ccl`, which builds and samples it", "Apache-2.0", "code"])
    return md_table(["part", "licence", "for"], rows, escaped=True).strip()


def table(rows: Mapping[str, str]) -> str:
    """Rows of two columns; empty ones are left out."""
    return md_table(["", ""], [[name, said] for name, said in rows.items() if said]).strip()


def short(node: Any) -> str:
    """The class of a part of a config; "" where it is none."""
    return str(node.get("class_path", "")).rpartition(".")[2] if isinstance(node, Mapping) else ""


def words(node: Any) -> str:
    """A part of a config in words: its class, then what it is given; what is null is left out."""
    if isinstance(node, Mapping):
        if "class_path" in node:
            given = words(node.get("init_args"))
            return f"{short(node)} ({given})" if given else short(node)
        pairs = [(str(key).replace("_", " "), value) for key, value in node.items() if value is not None]
        return ", ".join(f"{key} {inner(value)}" for key, value in pairs)
    if isinstance(node, list | tuple):
        return " ".join(map(words, node))
    if isinstance(node, bool) or node is None:
        return {True: "yes", False: "no", None: ""}[node]
    return f"{node:g}" if isinstance(node, float) else str(node)


def inner(node: Any) -> str:
    """The same inside a list of arguments, where a table stands in brackets."""
    said = words(node)
    return f"({said})" if isinstance(node, Mapping) and "class_path" not in node else said


def millions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.3g} M"
