"""Shell completion: a script for bash and zsh that knows the commands, flags, keys and choices.

eval "$(fastfcn config complete bash)"
"""

from collections.abc import Mapping, Sequence

from fastfcn_jax.config import base, experiment, schema

# All names are inserted when the script is generated, so pressing Tab starts no Python. The script
# reads COMP_LINE, not COMP_WORDS, because bash splits words at "=" and ":" and zsh does not.
SCRIPT = r"""
_fastfcn_jax() {
    local line="${COMP_LINE:0:$COMP_POINT}" word door="" program="" previous="" current=""
    local values="" files=""
    case "$line" in *[[:space:]]) line="$line ''" ;; esac  # the current word is empty
    for word in $line; do
        previous="$current" current="$word"
        case "$word" in
            "''") current="" ;;
            train.py|*/train.py) program=train ;;
            eval.py|*/eval.py) program=eval ;;
            fastfcn_jax.*) program="${word#fastfcn_jax.}" ;;
            fastfcn|*/fastfcn|fastfcn_jax) door=yes ;;
            *) if [ -n "$door" ] && [ -z "$program" ]; then program="$word"; fi ;;
        esac
    done
    COMPREPLY=()
    local typed="$current"
    case "$previous $current" in
        "fastfcn "*|*"/fastfcn "*|"fastfcn_jax "*) values="@commands@" ;;
        *" --config="*) typed="${current#*=}" files=yes ;;
        "--config "*) files=yes ;;
@choices@
        *" --config."*) case "$program" in @configured@) values="@keys@" ;; esac ;;
        *" -"*) case "$program" in
@flags@
            esac ;;
        "complete "*) values="bash zsh" ;;
        "config "*|"fastfcn_jax.config "*) values="list show diff document complete" ;;
        *)  case "$program" in config) files=yes ;; esac ;;
    esac
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


def script(shell: str, flags: Mapping[str, Sequence[str]]) -> str:
    """The completion script for "bash" or "zsh".

    Args:
      flags: the flags of each command.
    """
    keys = [f"--config.{key}=" for key, _ in schema.flatten(base.get_config())]
    parts = {
        "commands": " ".join(flags),
        "configured": "|".join(name for name, found in flags.items() if "--config" in found),
        "keys": " ".join(keys),
        "configs": " ".join(experiment.names()),
        "choices": "\n".join(_choices()),
        "flags": "\n".join(
            f'{"":16}{name}) values="{" ".join(found)}" ;;' for name, found in flags.items()
        ),
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
    case = '        *" --config.{}="*) typed="${{current#*=}}" values="{}" ;;'
    return [case.format(key, " ".join(map(str, known))) for key, known in values.items()]
