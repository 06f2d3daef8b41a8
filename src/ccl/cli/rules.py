"""`--guidance` before anything large is imported: the names of ccl's rules, and the keys of their YAML files."""

from __future__ import annotations

from pathlib import Path

from ccl.cli.errors import CLASS, UsageError, compose, did_you_mean, is_yaml, nodes, others, read_yaml

# ccl.guidance.RULES: each one's class, and the strengths that this takes.
RULES = {
    "none": ("NoGuidance", ()),
    "text_cfg": ("TextCFG", ("scale",)),
    "ucg2": ("UCG2", ("scale",)),
    "ucg3": ("UCG3", ("text", "modal")),
    "multimodal_cfg": ("MultiModalCFG", ("text", "modal")),
}


def check_guidance(given: str | None) -> None:
    """UsageError where it can be right for no model: a name that there is not, or a file with a wrong key."""
    if given is not None and is_yaml(given):
        check_keys(Path(given))
    elif given is not None and given not in RULES:
        raise UsageError(f"there is no guidance '{given}'{did_you_mean(given, RULES)}; there are: {', '.join(RULES)}")


def check_keys(file: Path) -> None:
    """UsageError, with the line, at the first key that its rule has not; those of a rule that is no one of ccl's, or
    that is named otherwise, are known once it is imported."""
    kind = str(read_yaml(file).get("class_path"))
    strengths = {f"ccl.guidance.{name}": keys for name, keys in RULES.values()}.get(kind)
    if strengths is None:
        return
    known = {(): CLASS, ("init_args",): strengths}
    known |= {("init_args", strength): ("video", "audio") for strength in strengths}
    for (*above, key), part, line, _ in nodes(compose(file), file):
        words = known.get(tuple(above))
        if words is not None and key not in words:
            where = f"there is no key '{'.'.join((*above, key))}' in {part}, line {line}"
            raise UsageError(f"{where}{did_you_mean(key, words) or others(list(words))}")
