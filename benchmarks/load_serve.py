"""Many clients at once against a running server: none may be dropped, and its memory is bounded.

    python benchmarks/load_serve.py --clients 200 --seconds 60

Starts `fastfcn serve`'s server on the loopback address, around a narrow network with random
weights, in a process of its own. Each client uploads a photograph, waits for the whole answer and
sends the next, over one connection. A connection that is refused, reset or closed, an answer that
is cut off, and any status but 200 count as dropped. The exit status is 1 if there is one, or if
the server's memory grew by more than 200 MiB after the first ten seconds.
"""

import argparse
import asyncio
import collections
import json
import multiprocessing
import statistics
import sys
import time

import cv2
import numpy as np
from fuzz_serve import GROWTH_MIB, resident_mib

SIZE = (64, 96)
SETTLED_SECONDS = 10.0


def run_server(port) -> None:
    """Tells the port it found, and serves until it is terminated."""
    import jax

    from fastfcn_jax import api
    from fastfcn_jax.config import experiment
    from fastfcn_jax.data import datasets
    from fastfcn_jax.serve import server

    config = experiment.load("demo")
    config.model.update(base_width=8, neck_channels=16, head_channels=16, auxiliary_channels=8)
    config.data.test_scale = SIZE[::-1]
    info = datasets.info(config.data.name, "")
    blank = np.zeros((1, *SIZE, 3), np.float32)
    variables = api.build(config).init(jax.random.key(0), blank, train=False)
    model = api.Model(config, info, variables, quiet=True).warmup(SIZE)
    listener = server.listen("127.0.0.1", 0)
    listener.listen(1024)
    port.send(listener.getsockname()[1])
    server.Server(listener, "127.0.0.1", model, protocol="single").run()


async def ask(reader, writer, request: bytes) -> str:
    """The status of the answer, once all of it has come."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")
    )
    json.loads(await reader.readexactly(length))
    return head[9:12]


async def client(port: int, request: bytes, end: float, tally, waits: list[float]) -> None:
    """Asks over one connection until `end`; opens another one if it was dropped."""
    while time.monotonic() < end:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while (begun := time.monotonic()) < end:
                tally[await ask(reader, writer, request)] += 1
                waits.append(time.monotonic() - begun)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            tally[type(error).__name__] += 1
        finally:
            if writer is not None:
                writer.close()


async def watch(process: int, end: float, seen: list[int]) -> None:
    """Notes the server's memory every half second, from when it has settled."""
    await asyncio.sleep(SETTLED_SECONDS)
    while time.monotonic() < end:
        seen.append(resident_mib(process))
        await asyncio.sleep(0.5)


async def load(port: int, process: int, clients: int, seconds: float):
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    request, end = head.encode() + data, time.monotonic() + seconds
    tally, waits, memory = collections.Counter(), [], []
    each = (client(port, request, end, tally, waits) for _ in range(clients))
    await asyncio.gather(*each, watch(process, end, memory))
    return tally, waits, memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_server, args=(sender,))
    process.start()
    port = receiver.recv()
    tally, waits, memory = asyncio.run(load(port, process.pid, given.clients, given.seconds))
    process.terminate()
    process.join()
    answered, asked = tally["200"], sum(tally.values())
    print(f"{given.clients} clients for {given.seconds:g} s: {answered} of {asked} answered")
    print(f"statuses and faults: {dict(sorted(tally.items()))}")
    if waits:
        print(
            f"an answer took {statistics.median(waits):.2f} s (median), {max(waits):.2f} s at most"
        )
    if memory:
        print(f"server: {memory[0]} MiB after {SETTLED_SECONDS:g} s, at most {max(memory)} MiB")
    grew = bool(memory) and max(memory) - memory[0] > GROWTH_MIB
    return 1 if answered < asked or grew or process.exitcode else 0


if __name__ == "__main__":
    sys.exit(main())
