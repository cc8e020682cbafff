"""Generates docs/configuration.md: each key, its default and its comment in `base.py`.

fastfcn config document > docs/configuration.md
"""

import ast
import inspect
import itertools
import tokenize
from collections.abc import Iterator
from io import StringIO

from fastfcn_jax.config import base

HEAD = """# Configuration, key by key

Which settings are there, and what does each one do?

A configuration is a Python file in `configs/` that overrides some of the defaults below. `--config`
takes the file or its bare name, with an optional variant after a colon. Any key can be set on the
command line: `--config.train.batch_size=16`, `--config.data.crop_size="(512, 512)"`. A misspelt key
or a value of the wrong type is an error.

```
fastfcn config list
fastfcn config show jpu_psp_cityscapes:4x4
fastfcn config diff jpu_psp_ade20k jpu_enc_ade20k:160k
fastfcn config document > docs/configuration.md
```

`list` prints the names, `show` every value of one configuration, `diff` the keys in which two
differ. `document` generates this page from the comments of `fastfcn_jax/config/base.py`.

With `eval "$(fastfcn config complete bash)"` in `~/.bashrc` (or `complete zsh` in `~/.zshrc`), the
Tab key completes commands, flags, configurations, keys and their choices.
"""


def page() -> str:
    """The whole page, as Markdown."""
    table = ["", "| key | default | meaning |", "|---|---|---|"]
    lines = [*HEAD.splitlines(), *table]
    for name, default, meaning in entries():
        if default is None:
            lines += ["", f"## {name}", "", f"{meaning[0].upper()}{meaning[1:]}.", *table]
        else:
            meaning = meaning.replace("|", "\\|")
            lines.append(f"| `{name}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def entries() -> Iterator[tuple[str, str | None, str]]:
    """Yields (key, default, comment) in file order; the default of a section is None.

    The comment consists of the lines above the assignment and the text after it.
    """
    source = inspect.getsource(base.get_config)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    prefixes = {"c": ""}
    for before, statement in itertools.pairwise(function.body):
        lines = range((before.end_lineno or 0) + 1, (statement.end_lineno or 0) + 1)
        meaning = " ".join(comments[n] for n in lines if n in comments)
        match statement:
            case ast.Assign(targets=[ast.Attribute(ast.Name(owner), key)], value=value):
                yield prefixes[owner] + key, ast.unparse(value), meaning
            case ast.Assign(targets=[ast.Name(short), ast.Attribute(ast.Name(owner), key)]):
                prefixes[short] = f"{prefixes[owner]}{key}."
                yield prefixes[owner] + key, None, meaning
