"""Shell completion: a script for bash and zsh that knows the commands, flags, keys and choices.

eval "$(fastfcn config complete bash)"

After a blank it offers what may come next: the values of the flag before it, or else the flags.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastfcn_jax.config import base, experiment, schema

# All names are inserted when the script is generated, so pressing Tab starts no Python. The script
# reads COMP_LINE, not COMP_WORDS, because bash splits words at "=" and ":" and zsh does not.
SCRIPT = r"""
_fastfcn_jax() {
    local line="${COMP_LINE:0:$COMP_POINT}" word door="" program="" previous="" current=""
    local values="" files="" flags="" asked="" after=0  # `after`: words after the command
    case "$line" in *[[:space:]]) line="$line ''" ;; esac  # the current word is empty
    for word in $line; do
        previous="$current" current="$word" after=$((after + 1))
        case "$word" in
            "''") current="" ;;
            train.py|*/train.py) program=train after=0 ;;
            eval.py|*/eval.py) program=eval after=0 ;;
            fastfcn_jax.*) program="${word#fastfcn_jax.}" after=0 ;;
            fastfcn|*/fastfcn|fastfcn_jax) door=yes ;;
            *) if [ -n "$door" ] && [ -z "$program" ]; then program="$word" after=0; fi ;;
        esac
    done
    case "$previous" in --*=*) previous="value" ;; esac
    COMPREPLY=()
    local typed="$current"
    case "$previous $current" in
        "fastfcn "*|*"/fastfcn "*|"fastfcn_jax "*) values="@commands@" ;;
        *" --config="*) typed="${current#*=}" files=yes ;;
        "--config "*) files=yes ;;
@choices@
        *" --config."*) case "$program" in @configured@) values="@keys@" ;; esac ;;
        *" --"*=*) typed="${current#*=}" asked="${current%%=*}" ;;
        *" -"*) flags=yes ;;
        "--config."*) ;;  # any value
        *) case "$after $program" in
@first@
                "1 config") values="list show diff document complete rename-class" ;;
                *) asked="$previous" ;;
            esac ;;
    esac
    if [ -n "$asked" ]; then
        case "$program $asked" in
@values@
            "config complete") values="bash zsh" ;;
            "config "*) files=yes ;;
            "report "[!-]*) ;;  # another run, which is a folder
            "weights get"|"weights where") values="@weights@" ;;
            *) if [ -z "$current" ]; then flags=yes; fi ;;
        esac
    fi
    if [ -n "$flags" ]; then
        case "$program" in
@flags@
        esac
    fi
    if [ -n "$files" ]; then
        values="@configs@"
        for word in configs/[a-z]*.py; do
            case "$word" in "$typed"*) COMPREPLY+=("$word") ;; esac
        done
    fi
    if [ -n "$values" ]; then
        COMPREPLY+=($(compgen -W "$values" -- "$typed"))
    fi
    if [ -n "$files" ] && [ ${#COMPREPLY[@]} -eq 0 ]; then
        COMPREPLY=($(compgen -f -X '!*.py' -- "$typed"))
    fi
    case "$typed" in  # a value follows
        --config.*) if type compopt > /dev/null 2>&1; then compopt -o nospace 2> /dev/null; fi ;;
    esac
    # If the shell does not split at "=", replies have to repeat the text before it.
    case "${COMP_WORDBREAKS-}" in
        *=*) ;;
        *)  local prefix="${current%"$typed"}" index
            for ((index = 0; index < ${#COMPREPLY[@]}; index++)); do
                COMPREPLY[index]="$prefix${COMPREPLY[index]}"
            done ;;
    esac
}
complete -o default -F _fastfcn_jax fastfcn python python3
"""
ZSH_HEAD = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"


class Words(NamedTuple):
    """What may follow a command.

    flags: all of them.
    values: the choices of the flags that take a value; None: any value, or a file name.
    first: the choices of a word without a flag; (): a file name; None: there is no such word.
    """

    flags: Sequence[str]
    values: Mapping[str, Sequence[str] | None]
    first: Sequence[str] | None


def script(shell: str, commands: Mapping[str, Words], weights: Sequence[str] = ()) -> str:
    """The completion script for "bash" or "zsh".

    Args:
      commands: what may follow each command.
      weights: the names of published weights.
    """
    keys = [f"--config.{key}=" for key, _ in schema.flatten(base.get_config())]
    parts = {
        "commands": " ".join(commands),
        "configured": "|".join(n for n, words in commands.items() if "--config" in words.flags),
        "keys": " ".join(keys),
        "configs": " ".join(experiment.names()),
        "choices": "\n".join(_choices()),
        "flags": "\n".join(
            f'{"":12}{name}) values="{" ".join(words.flags)}" ;;'
            for name, words in commands.items()
        ),
        "first": "\n".join(
            f'{"":16}"1 {name}") values="{" ".join(words.first)}" ;;'
            for name, words in commands.items()
            if words.first is not None and name != "config"
        ),
        "values": "\n".join(
            f'{"":12}"{name} {flag}") values="{" ".join(choices or ())}" ;;'
            for name, words in commands.items()
            for flag, choices in words.values.items()
        ),
        "weights": " ".join(weights),
    }
    text = SCRIPT
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return (ZSH_HEAD if shell == "zsh" else "") + text


def _choices() -> list[str]:
    """Lines of the script's `case` for keys with a fixed set of values."""
    values = {
        key: ("True", "False")
        for key, value in schema.flatten(base.get_config())
        if isinstance(value, bool)
    }
    values |= schema.CHOICES
    case = (
        '        *" --config.{0}="*) typed="${{current#*=}}" values="{1}" ;;\n'
        '        "--config.{0} "*) values="{1}" ;;'
    )
    return [case.format(key, " ".join(map(str, known))) for key, known in values.items()]
