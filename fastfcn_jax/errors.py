"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """Bad input: one sentence that names the file or key and the remedy.

    Entry points print it without a traceback and exit with status 2
    (`fastfcn_jax.cli.run`); everything else that escapes is a bug.
    """
