"""The `ccl` command: a static table of verbs, each of which imports its machinery when it is chosen.

So `ccl --help` answers at once. Whatever goes wrong ends in one sentence: exit 2 where the command line or a config is
at fault, 1 where the work failed, 130 where it was interrupted. CCL_DEBUG=1 shows the traceback instead.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from ccl import __version__
from ccl.cli.errors import UsageError, one_sentence
from ccl.cli.machine import WSL, WSL_MEND, windows
from ccl.files.plaintext import printable
from ccl.spelling import did_you_mean

# verb: (what it does, module, function taking the rest of the command line)
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("train, generate and score the embedded default, end to end", "ccl.demo", "main"),
    "fit": ("train from one or more stacked YAML files", "ccl.cli.front", "main"),
    "check": ("put parts, ours or your own, through the contract of their kind", "ccl.cli.check", "main"),
    "init": ("write the configs that ship into a folder", "ccl.cli.init", "main"),
    "plan": ("what a config costs: parameters, FLOPs, memory a GPU, time", "ccl.cli.plan", "main"),
    "bench": ("how fast this machine takes a config's steps, and what they hold", "ccl.bench.verb", "main"),
    "generate": ("make clips from prompts, and from a picture, a sound or a video", "ccl.cli.verbs", "generate"),
    "serve": ("a page in the browser on which prompts become clips", "ccl.serve.verb", "main"),
    "evaluate": ("score a checkpoint, or any folders of clips", "ccl.cli.evaluate", "evaluate"),
    "evaluate merge": ("put the results of several labs into one table", "ccl.cli.merge", "merge"),
    "study make": ("blind pairs of clips on a page, for people to judge", "ccl.cli.study", "make"),
    "study read": ("what they answered: win rates, intervals, agreement", "ccl.cli.study", "read"),
    "inspect words": ("how much a model listens to what it is told to say and to show", "ccl.cli.inspect", "words"),
    "inspect attention": ("what pictures and sound attend to of each other", "ccl.cli.inspect", "attention"),
    "inspect quantized": ("what a model loses in 8 bits, by layer", "ccl.cli.inspect", "quantized"),
    "inspect route": ("who sees whom, in each task and each pass of guidance", "ccl.cli.inspect", "route"),
    "inspect voice": ("whether a model keeps a voice that it is given", "ccl.cli.voice", "voice"),
    "inspect seams": ("whether one sees or hears where windows of clips meet", "ccl.cli.seams", "seams"),
    "inspect alignment": ("what the windows between pictures and sound do", "ccl.cli.inspect", "alignment"),
    "ablate": ("a matrix of trainings, samplings and scorings, with its cost first", "ccl.ablation.verb", "main"),
    "export": ("turn a checkpoint of a run into a model folder", "ccl.cli.verbs", "export"),
    "push": ("send a model to the Hugging Face hub, with its card", "ccl.publish.verb", "main"),
    "shards make": ("write shards from a folder of own videos", "ccl.cli.shards", "make"),
    "shards caption": ("describe the clips of a folder, with what is said in quotes", "ccl.cli.shards", "caption"),
    "shards world": ("write shards of the embedded talking world", "ccl.cli.shards", "world"),
    "shards encode": ("encode shards once, into shards of ready latents", "ccl.cli.shards", "encode"),
    "shards verify": ("read shards whole, and say which are damaged", "ccl.cli.shards", "verify"),
    "weights list": ("files that metrics need: what is here, size, licence", "ccl.cli.weights", "list_"),
    "weights fetch": ("download files by name, checked and resumable", "ccl.cli.weights", "fetch"),
    "weights verify": ("check the files that are here", "ccl.cli.weights", "verify"),
    "testset": ("write the talking world's test set: manifests, pictures, sounds", "ccl.cli.verbs", "testset"),
    "testset images": ("make the first pictures of the paper's test set", "ccl.cli.testset", "images"),
    "doctor": ("what will not work here, and the command that mends it", "ccl.cli.doctor", "main"),
    "schema": ("a JSON Schema of configs, with which an editor completes their keys", "ccl.cli.schema", "main"),
    "completion": ("what a shell needs to complete all of this", "ccl.cli.completion", "main"),
    "codec fit": ("fit the embedded video codec's basis to the world", "ccl.cli.verbs", "codec_fit"),
}

HELP = """\
usage: ccl VERB ...

{verbs}

`ccl VERB --help` says more. CCL_DEBUG=1 shows tracebacks. Start with: ccl demo --smoke
"""


def help_text() -> str:
    width = max(map(len, VERBS))
    return HELP.format(verbs="\n".join(f"  {verb:<{width}}  {what}" for verb, (what, _, _) in VERBS.items()))


def choose(argv: list[str]) -> tuple[str, list[str]]:
    """Split the command line into a verb of one or two words and the rest.

    Raises:
        UsageError: with the nearest verb, where there is none such.
    """
    for words in (2, 1):
        verb = " ".join(argv[:words])
        if len(argv) >= words and verb in VERBS:
            return verb, argv[words:]
    group = {verb: None for verb in VERBS if verb.startswith(f"{argv[0]} ")}
    if group:
        given = " ".join(argv[:2]) if len(argv) > 1 and not argv[1].startswith("-") else argv[0]
        raise UsageError(f"'{given}' is not a whole verb; there are: {', '.join(group)}")
    raise UsageError(f"there is no verb '{argv[0]}'{did_you_mean(argv[0], VERBS)}; `ccl --help` lists them")


def run(argv: list[str]) -> int:
    """Run one command line; raises what goes wrong."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        sys.stdout.write(f"ccl {__version__}\n")
        return 0
    verb, rest = choose(argv)
    if windows() and verb != "doctor":
        raise UsageError(f"{WSL}: `{WSL_MEND}`")
    _, module, function = VERBS[verb]
    return getattr(importlib.import_module(module), function)(rest) or 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `ccl` script: the exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed (`>&-`): else the next file that is opened takes its number
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        sys.stderr.write("\nccl: interrupted; what was already written is kept\n")
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has left; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # torch's distributed checkpoints raise what is no Exception
        if os.environ.get("CCL_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(f"ccl: {printable(one_sentence(error))}{where(error)}\n")
        return 2 if isinstance(error, UsageError) else 1


def where(error: BaseException) -> str:
    """For errors nobody foresaw: the place in the code and how to see more. Empty for those told in words."""
    from ccl.files import machine_trouble

    told = isinstance(error, ValueError | OSError | ImportError) or type(error).__name__ == "MisconfigurationException"
    if told or machine_trouble(error) or error.__traceback__ is None:
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}; CCL_DEBUG=1 shows the traceback)"
