"""Runs one job at a time beside the training steps, and raises its error in the training loop."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread for jobs; the error of one is raised once, by whichever method is called next."""

    def __init__(self, name: str):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._job: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Waits for the job before, then starts this one."""
        self.wait()
        self._job = self._thread.submit(job)

    def check(self) -> None:
        """Raises the error of a job that has failed; does not wait."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is left to do."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        self._thread.shutdown()
