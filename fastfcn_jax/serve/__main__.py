"""`fastfcn serve`: a web page that predicts the labels of photographs."""

import sys
from argparse import Namespace

from fastfcn_jax import cli


def define(parser: cli.Parser) -> None:
    parser.add_argument(
        "--checkpoint", type=cli.path, metavar="DIR", help="Checkpoint folder, or published name."
    )
    parser.add_argument(
        "--model", type=cli.path, metavar="FILE", help="Exported file, instead of --checkpoint."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on; default: this machine only."
    )
    parser.add_argument("--port", type=cli.at_least(0), default=8000, help="Port; 0: any free one.")
    parser.add_argument("--protocol", help="single | ms_flip | …; default: the model's.")
    parser.add_argument(
        "--queue",
        type=cli.at_least(1),
        metavar="N",
        help="Requests that may wait; others get status 503. Default: 256.",
    )


def run(arguments: Namespace) -> None:
    from fastfcn_jax.serve.server import serve

    serve(
        arguments.checkpoint,
        model=arguments.model,
        host=arguments.host,
        port=arguments.port,
        protocol=arguments.protocol,
        queue=arguments.queue,
    )


COMMAND = cli.Command(
    name="serve",
    example="fastfcn serve --checkpoint runs/demo",
    about="""Serves a local page: drop photographs, see their classes, download the results; and an
HTTP interface for programs, POST /v1/predict, which /docs describes.

Nothing is stored. Other machines can reach it only if --host allows it. Needs the extra serve:
pip install 'fastfcn-jax[serve]'.""",
    define=define,
    run=run,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
