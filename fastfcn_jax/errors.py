"""The exception for mistakes that the user can fix."""


class UserError(Exception):
    """Bad input: one sentence that names the file or key and the remedy.

    Commands print it without a traceback and exit with status 2
    (`fastfcn_jax.cli.guarded`); any other exception that reaches the user is a bug.
    """
