"""`fastfcn serve`: a web page that predicts the labels of photographs."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.need(
        "--checkpoint",
        "runs/demo",
        "Checkpoint folder, or published name.",
        type=cli.path,
        metavar="DIR",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on; default: this machine only."
    )
    parser.add_argument("--port", type=cli.at_least(0), default=8000, help="Port; 0: any free one.")
    parser.add_argument("--protocol", help="single | ms_flip | …; default: the model's.")


def run(arguments: Namespace) -> None:
    from fastfcn_jax.serve.server import serve

    serve(
        arguments.checkpoint,
        host=arguments.host,
        port=arguments.port,
        protocol=arguments.protocol,
    )


COMMAND = cli.Command(
    name="serve",
    example="fastfcn serve --checkpoint runs/demo",
    about="""Serves a local page: drop a photograph, see its classes, download the results.

Nothing is stored. Other machines can reach the page only if --host allows it.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
