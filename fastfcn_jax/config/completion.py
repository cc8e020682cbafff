"""Shell completion: a script for bash and zsh that knows the commands, flags, keys and choices.

eval "$(python -m fastfcn_jax.config complete bash)"
"""

import re
from pathlib import Path

from fastfcn_jax.config import base, experiment

PACKAGE = Path(__file__).parent

# Everything is put in when the script is written: pressing Tab starts no Python. COMP_LINE is read
# and not COMP_WORDS, because bash breaks words at "=" and ":" and zsh does not.
SCRIPT = r"""
_fastfcn_jax() {
    local line="${COMP_LINE:0:$COMP_POINT}" word program="" previous="" current=""
    local values="" files=""
    for word in $line; do
        previous="$current" current="$word"
        case "$word" in
            train.py|*/train.py|eval.py|*/eval.py|fastfcn_jax.*) program="${word##*/}" ;;
        esac
    done
    case "$line" in *[[:space:]]) previous="$current" current="" ;; esac
    COMPREPLY=()
    local typed="$current"
    case "$previous $current" in
        "-m "*) values="@modules@" ;;
        *" --config="*) typed="${current#*=}" files=yes ;;
        "--config "*) files=yes ;;
@choices@
        *" --config."*) case "$program" in @configured@) values="@keys@" ;; esac ;;
        *" -"*) case "$program" in
@flags@
            esac ;;
        *"complete "*) values="bash zsh" ;;
        "fastfcn_jax.config "*) values="show diff document complete" ;;
        *)  case "$program" in fastfcn_jax.config) files=yes ;; esac ;;
    esac
    if [ -n "$values" ]; then
        COMPREPLY=($(compgen -W "$values" -- "$typed"))
    fi
    if [ -n "$files" ]; then
        for word in configs/[a-z]*.py; do
            case "$word" in "$typed"*) COMPREPLY+=("$word") ;; esac
        done
        if [ ${#COMPREPLY[@]} -eq 0 ]; then
            COMPREPLY=($(compgen -f -X '!*.py' -- "$typed"))
        fi
    fi
    case "$typed" in  # a value follows
        --config.*) if type compopt > /dev/null 2>&1; then compopt -o nospace 2> /dev/null; fi ;;
    esac
    # What is offered replaces the part behind the last break only.
    case "${COMP_WORDBREAKS-}" in
        *=*) ;;
        *)  local prefix="${current%"$typed"}" index
            for ((index = 0; index < ${#COMPREPLY[@]}; index++)); do
                COMPREPLY[index]="$prefix${COMPREPLY[index]}"
            done ;;
    esac
}
complete -o default -F _fastfcn_jax python python3
"""
ZSH_HEAD = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"


def script(shell: str) -> str:
    """What the shell ("bash" or "zsh") has to evaluate."""
    flags = {program: _flags(path) for program, path in _programs().items()}
    keys = [f"--config.{key}=" for key, _ in experiment.flatten(base.get_config())]
    parts = {
        "modules": " ".join(name for name in flags if name.startswith("fastfcn_jax.")),
        "configured": "|".join(name for name, found in flags.items() if "--config" in found),
        "keys": " ".join(keys),
        "choices": "\n".join(_choices()),
        "flags": "\n".join(
            f'{"":16}{name}) values="{" ".join(found)}" ;;'
            for name, found in flags.items()
            if found
        ),
    }
    text = SCRIPT
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return (ZSH_HEAD if shell == "zsh" else "") + text


def _programs() -> dict[str, Path]:
    """Name as typed behind `python` or `python -m` -> its source."""
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if '\nif __name__ == "__main__"' in path.read_text("utf-8")
    }
    scripts = {name: PACKAGE.parent / name for name in ("train.py", "eval.py")}
    return {name: path for name, path in (scripts | modules).items() if path.is_file()}


def _flags(path: Path) -> list[str]:
    """The names of the absl flags that a source defines."""
    return [f"--{name}" for name in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text("utf-8"))]


def _choices() -> list[str]:
    """Lines of the script's `case` for the keys of few values."""
    values = {
        key: ("True", "False")
        for key, value in experiment.flatten(base.get_config())
        if isinstance(value, bool)
    }
    values |= experiment.CHOICES
    case = '        *" --config.{}="*) typed="${{current#*=}}" values="{}" ;;'
    return [case.format(key, " ".join(map(str, known))) for key, known in values.items()]
