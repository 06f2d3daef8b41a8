"""The words of a training's captions, kept with the run for whoever prompts its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ccl.storage.source import find_source, located
from ccl.text.embedded import EmbeddedText
from ccl.text.vocabulary import gather, unknown, write_words


class Words(Callback):
    """Writes words.txt as a training begins: the words of its captions, which its text encoder learns.

    A model that began from another's weights knows that one's words, too; where those, or the captions, are not known,
    there is no list. One whose text encoder is frozen knows no others, and is warned where its captions have some.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module.text, EmbeddedText):
            return
        start = trainer.ckpt_path and Path(trainer.ckpt_path)
        if start and start.absolute().parent.parent == self.folder.absolute():
            return  # it goes on with the same captions
        prompts = getattr(getattr(trainer, "datamodule", None), "prompts", None)
        before: list[list[str] | None] = [known_to(source) for source in sources(pl_module.pretrained, start)]
        known = {word for words in before for word in words or ()}
        if not any(parameter.requires_grad for parameter in pl_module.text.parameters()):
            write_words(self.folder, sorted(known) if known else None)
            if known and prompts is not None and (note := unknown(prompts(), known)):
                rank_zero_warn(f"{note}, and its text encoder is frozen: --model.freeze null trains it")
        elif prompts is None or None in before:
            write_words(self.folder, None)
        else:
            write_words(self.folder, gather(prompts(), known))


def sources(pretrained: str | Mapping[Any, str | None] | None, start: Path | None) -> Iterator[str | Path]:
    """Whose weights a training begins with."""
    if start is not None:
        yield start
    elif pretrained is not None:
        given = (pretrained,) if isinstance(pretrained, str) else dict.fromkeys(pretrained.values())
        yield from (source for source in given if source is not None)


def known_to(source: str | Path) -> list[str] | None:
    """The words that weights have learned; none of those of other people's networks, None where it is not known."""
    try:
        config = find_source(located(source)).config
    except ValueError:  # no model of ours; the weights are there already, so it is no damaged one
        return []
    learned = isinstance(config["text"], dict) and str(config["text"].get("class_path")).endswith("EmbeddedText")
    return config["provenance"].get("words") if learned else []
