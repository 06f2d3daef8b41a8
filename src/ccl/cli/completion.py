"""`ccl completion`: what a shell needs to complete verbs, options and their choices."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Mapping

from ccl.cli import VERBS, run
from ccl.cli.parser import Parser

# An option in a help text, without or with a short one before it, and its choices.
_OPTION = re.compile(r"^  (?:-\w(?: \S+)?, )?(--[a-z][\w-]*)(?: \{([^}\s]+)\}|$|\s)", re.MULTILINE)

BASH = """\
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
FISH = """\
# Completion of ccl; made by `ccl completion {shell}`.
{head}function __ccl
    set -l before (commandline -opc)
    set -l words
    set -l flags
    switch "$before[2] $before[3]"
{cases}
    end
    switch (count $before)
    case 1
        set words {first}
    case 2
        switch $before[2]
{second}
        end
    end
    switch (commandline -ct)
    case '-*'
        set words $flags
    case '*'
        switch "$before[2] $before[-1]"
{choices}
        end
    end
    string join -- \\n $words
end
complete -c ccl -f -n 'string length -q -- (__ccl)' -a '(__ccl)'
"""
HEADS = {"bash": "", "zsh": "autoload -Uz +X compinit bashcompinit\ncompinit\nbashcompinit\n", "fish": ""}
# Of a script: what chooses by words, how a case sets the words that are offered, and what begins with a word.
FORMS = {
    "bash": (BASH, "    {0}) {1}='{2}' ;;", "'{0} '*"),
    "fish": (FISH, "    case {0}; set {1} {2}", "'{0} *'"),
}


def main(argv: list[str]) -> int:
    parser = Parser(
        "completion",
        "Print what a shell needs to complete verbs, options and their choices.",
        'eval "$(ccl completion bash)"   # in ~/.bashrc',
        'eval "$(ccl completion zsh)"    # in ~/.zshrc',
        "ccl completion fish | source    # in ~/.config/fish/config.fish",
    )
    parser.add_argument("shell", choices=list(HEADS), help="whose")
    sys.stdout.write(script(parser.parse(argv).shell))
    return 0


def script(shell: str) -> str:
    """The script for a shell, by what every verb says of itself."""
    options = {verb: options_of(verb) for verb in VERBS}
    # Verbs of two words first, as the first word may be one by itself.
    order = sorted(options, key=lambda verb: -len(verb.split()))
    groups: dict[str, list[str]] = {}
    for verb in VERBS:
        first, _, second = verb.partition(" ")
        groups.setdefault(first, []).extend([second] if second else [])
    choices = {
        f"'{verb.split()[0]} {flag}'": values for verb in order for flag, values in options[verb].items() if values
    }  # of a verb of one word, where both have the option
    form, case, begins = FORMS.get(shell, FORMS["bash"])

    def cases(name: str, found: Mapping[str, Iterable[str]]) -> str:
        return "\n".join(case.format(words, name, " ".join(offered)) for words, offered in found.items())

    return form.format(
        shell=shell,
        head=HEADS[shell],
        cases=cases("flags", {f"'{verb}'" if " " in verb else begins.format(verb): options[verb] for verb in order}),
        first=" ".join(groups),
        second=cases("words", {first: words for first, words in groups.items() if words}),
        choices=cases("words", choices),
    )


def options_of(verb: str) -> dict[str, list[str]]:
    """The options of a verb, by its help, and the choices of each."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        run([*verb.split(), "--help"])
    return {flag: choices.split(",") if choices else [] for flag, choices in _OPTION.findall(said.getvalue())}
