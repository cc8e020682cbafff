from typing import Any

from absl.flags import FlagHolder, FlagValues

def DEFINE_config_file(
    name: str,
    default: str | None = None,
    help_string: str = ...,
    flag_values: FlagValues = ...,
    sys_argv: list[str] | None = None,
) -> FlagHolder[Any]: ...
def get_config_filename(flag: Any) -> str: ...
