"""The output folder of a run: creates it and locks it, so that one training at a time uses it."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from fastfcn_jax import runtime
from fastfcn_jax.errors import UserError

LOCK = "lock"
BEAT = 5.0  # seconds between heartbeats, which update the lock file's modification time
SILENCE = 6 * BEAT  # a training on another host counts as dead after so long without a heartbeat
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # the file system has no locks


class Holder(NamedTuple):
    """The process that holds a folder, as written in its lock file."""

    host: str
    machine: str  # boot id: changes when the host restarts
    pid: int
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@contextlib.contextmanager
def hold(workdir: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Creates the folder and locks it; all processes of a training must call this.

    Process 0 locks `workdir/lock`. The system releases the lock when that process ends for any
    reason. If the file system has no locks, or locks that other hosts do not see, a heartbeat of
    the holder every `BEAT` seconds shows that it is alive.

    Raises:
      UserError: in every process, if the folder cannot be written, another training runs in it,
        or the processes do not see the same folder.
    """
    # All processes look before any creates it: process 0 would take a folder that another process
    # was quicker to create for one of the user's, and leave it behind.
    new = runtime.together(
        lambda: [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    )
    held = False
    with contextlib.ExitStack() as stack:

        def take() -> str:
            nonlocal held
            make(workdir)
            if jax.process_index() > 0:
                return ""
            try:
                token = stack.enter_context(_held(workdir, say))
            except FileNotFoundError as error:
                raise _removed(workdir) from error
            held = True
            return token

        try:
            token = runtime.gather(runtime.together(take))[0]
            runtime.together(lambda: _check_shared(workdir, token))
            yield
        except BaseException:
            if jax.process_index() == 0:
                _remove_unused(new, held)
            raise


def _remove_unused(new: list[Path], held: bool) -> None:
    """Removes the workdir and the folders around it that this start created and left empty.

    Args:
      new: the folders that did not exist before, from the inside out.
      held: whether this start still holds the lock. If another one does, the lock file is its.
    """
    with contextlib.suppress(OSError):  # raised by the first folder that holds something
        if held and new and [path.name for path in new[0].iterdir()] == [LOCK]:
            (new[0] / LOCK).unlink()
        for folder in new:
            folder.rmdir()


def make(workdir: Path) -> None:
    """Creates the output folder and checks that it can be written.

    Raises:
      UserError: it cannot be created or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write-test-{jax.process_index()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"workdir {workdir} cannot be written ({error.strerror}); choose another --workdir."
        ) from error


@contextlib.contextmanager
def _held(workdir: Path, say: Callable[[str], None]) -> Iterator[str]:
    path = workdir / LOCK
    with open(path, "a+b", buffering=0) as file:  # mode "w" would empty another holder's file
        _lock(workdir, file.fileno())
        _check_place(workdir, file.fileno())
        before = read_holder(path)
        if before is not None and not _is_gone(before, path, say):
            raise _occupied(workdir, before)
        mine = Holder(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            since=time.strftime("%Y-%m-%d %H:%M:%S%z"),
            token=secrets.token_hex(16),
        )
        _rewrite(file, json.dumps(mine._asdict()).encode())
        ended = threading.Event()
        beats = threading.Thread(target=_beat, args=(file.fileno(), ended), daemon=True)
        beats.start()
        try:
            yield mine.token
        finally:
            ended.set()
            beats.join()
            with contextlib.suppress(OSError):  # an empty lock shows that the holder has ended
                _rewrite(file, b"")


def read_holder(path: Path) -> Holder | None:
    """The holder named in a lock file; None if the file is empty, truncated or invalid."""
    try:
        found = json.loads(path.read_bytes())
        return Holder(**{name: kind(found[name]) for name, kind in Holder.__annotations__.items()})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lock(workdir: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _occupied(workdir, read_holder(workdir / LOCK)) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _check_place(workdir: Path, file: int) -> None:
    """Raises UserError if the locked file has no name any more: a refused start removed it."""
    try:
        named = os.path.samestat(os.fstat(file), (workdir / LOCK).stat())
    except FileNotFoundError:
        named = False
    if not named:
        raise _removed(workdir)


def _removed(workdir: Path) -> UserError:
    return UserError(f"{workdir}: a start that failed removed it just now; run again.")


def _occupied(workdir: Path, holder: Holder | None) -> UserError:
    path = workdir / LOCK
    silent = time.time() - path.stat().st_mtime
    who = f": {holder}" if holder is not None else ""
    text = (
        f"another training is running in {workdir}{who}; wait for it, stop it, or choose another "
        "--workdir."
    )
    if silent > SILENCE:  # a file server may keep the lock of a host that has crashed
        text += (
            f" It has given no sign of life for {silent / 60:.0f} minutes: if you are sure that "
            f"it has ended, delete {path}."
        )
    return UserError(text)


def _is_gone(holder: Holder, path: Path, say: Callable[[str], None]) -> bool:
    """Whether the holder that the lock file still names, although we could lock it, has ended."""
    if holder.machine == _machine():
        return holder.pid == os.getpid() or not _runs(holder.pid) or _locks_work(path)
    last, until = path.stat().st_mtime_ns, time.monotonic() + SILENCE
    say(f"{path} names {holder}, which did not end normally; waiting {SILENCE:.0f} s for a sign")
    while time.monotonic() < until:
        time.sleep(min(1.0, SILENCE / 4))
        with open(path, "rb") as file:  # open it again: a network file system may cache its time
            if os.fstat(file.fileno()).st_mtime_ns != last:
                return False
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _locks_work(path: Path) -> bool:
    """Whether our own lock is effective: another open of the file must find it locked."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _check_shared(workdir: Path, token: str) -> None:
    until = time.monotonic() + 2 * BEAT
    while (holder := read_holder(workdir / LOCK)) is None or holder.token != token:
        if time.monotonic() > until:  # network file systems show a new file after some seconds
            raise UserError(
                f"{workdir} on {socket.gethostname()} is not the folder that process 0 writes to; "
                "give all processes the same --workdir on a shared file system."
            )
        time.sleep(0.2)


def _machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _rewrite(file, content: bytes) -> None:
    os.ftruncate(file.fileno(), 0)
    file.write(content)
    os.fsync(file.fileno())


def _beat(file: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(file)
