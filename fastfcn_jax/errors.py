"""The exception for mistakes that the user can fix."""


class UserError(Exception):
    """Bad input: one sentence that names the file or key and the remedy.

    Commands print it without a traceback and exit with status 2
    (`fastfcn_jax.cli.guarded`); any other exception that reaches the user is a bug.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks print instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]
