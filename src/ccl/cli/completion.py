"""`ccl completion`: what a shell needs to complete verbs, options and their choices."""

from __future__ import annotations

import contextlib
import io
import re
import sys

from ccl.cli import VERBS, run
from ccl.cli.parser import Parser

# An option in a help text, without or with a short one before it, and its choices.
_OPTION = re.compile(r"^  (?:-\w(?: \S+)?, )?(--[a-z][\w-]*)(?: \{([^}\s]+)\}|$|\s)", re.MULTILINE)

SCRIPT = """\
# Completion of ccl; made by `ccl completion {shell}`.
{head}_ccl() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words="" flags=""
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{cases}
    esac
    case "$COMP_CWORD" in
    1) words="{first}" ;;
    2) case "${{COMP_WORDS[1]}}" in
{second}
       esac ;;
    esac
    case "$word" in
    -*) words="$flags" ;;
    *) case "${{COMP_WORDS[1]}} $before" in
{choices}
       esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _ccl ccl
"""
HEADS = {"bash": "", "zsh": "autoload -Uz +X compinit bashcompinit\ncompinit\nbashcompinit\n"}


def main(argv: list[str]) -> int:
    parser = Parser(
        "completion",
        "Print what a shell needs to complete verbs, options and their choices.",
        'eval "$(ccl completion bash)"   # in ~/.bashrc',
        'eval "$(ccl completion zsh)"    # in ~/.zshrc',
    )
    parser.add_argument("shell", choices=list(HEADS), help="whose")
    sys.stdout.write(script(parser.parse(argv).shell))
    return 0


def script(shell: str) -> str:
    """The script for a shell, by what every verb says of itself."""
    options = {verb: options_of(verb) for verb in VERBS}
    # Verbs of two words first, as the first word may be one by itself.
    order = sorted(options, key=lambda verb: -len(verb.split()))
    cases = [f"    {pattern(verb)}) flags='{' '.join(options[verb])}' ;;" for verb in order]
    groups: dict[str, list[str]] = {}
    for verb in VERBS:
        first, _, second = verb.partition(" ")
        groups.setdefault(first, []).extend([second] if second else [])
    seconds = [f"       {first}) words='{' '.join(words)}' ;;" for first, words in groups.items() if words]
    choices = {
        (verb.split()[0], flag): values for verb in order for flag, values in options[verb].items() if values
    }  # of a verb of one word, where both have the option
    chosen = [f"       '{verb} {flag}') words='{' '.join(values)}' ;;" for (verb, flag), values in choices.items()]
    return SCRIPT.format(
        shell=shell,
        head=HEADS[shell],
        cases="\n".join(cases),
        first=" ".join(groups),
        second="\n".join(seconds),
        choices="\n".join(chosen),
    )


def options_of(verb: str) -> dict[str, list[str]]:
    """The options of a verb, by its help, and the choices of each."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        run([*verb.split(), "--help"])
    return {flag: choices.split(",") if choices else [] for flag, choices in _OPTION.findall(said.getvalue())}


def pattern(verb: str) -> str:
    """Of the first two words, in a `case`."""
    return f"'{verb}'" if " " in verb else f"'{verb} '*"
