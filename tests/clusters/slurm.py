"""Stands in for sbatch, srun, squeue and scontrol on one host, whichever name it is called by.

It sets the variables that Slurm sets. The folder FAKE_SLURM holds its state. At the first start of
a job the last task gets TINY_FAILURE from LAST_FAILS.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])


def sbatch(*words):
    """Runs the batch file, and again as often as it is requeued."""
    given = [word for word in words if word.startswith("--") and word in words[: place(words)]]
    script, *arguments = words[len(given) :]
    inside = re.findall(r"^#SBATCH (.+)$", Path(script).read_text(), re.M)
    options = dict([*x.split("="), ""][:2] for line in (*inside, *given) for x in line.split())
    nodes, each = int(options["--nodes"]), int(options["--ntasks-per-node"])
    environment = {
        **os.environ,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NTASKS": str(nodes * each),
        "SLURM_NTASKS_PER_NODE": str(each),
    }
    for count in range(4):
        environment["SLURM_RESTART_COUNT"] = str(count)
        status = subprocess.run(["bash", script, *arguments], env=environment).returncode
        if "--requeue" not in options or not (STATE / "requeued").exists():
            break
        (STATE / "requeued").unlink()
    return status


def place(words):
    """Where the first word stands that is no flag."""
    return next(i for i, word in enumerate(words) if not word.startswith("--"))


def srun(*words):
    """Starts the tasks of a step; the status is the highest, as Slurm's."""
    command = words[place(words) :]
    count = int(os.environ["SLURM_NTASKS"])
    first = os.environ["SLURM_RESTART_COUNT"] == "0"
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": str(count),
        "SLURM_NODEID": "0",
    }
    with (STATE / "steps").open("a") as file:
        file.write(" ".join(command) + "\n")
    tasks = []
    for i in range(count):
        own = {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}
        if first and i == count - 1:
            own["TINY_FAILURE"] = os.environ.get("LAST_FAILS", "")
        tasks.append(subprocess.Popen(command, env={**os.environ, **step, **own}))
    statuses = [task.wait() for task in tasks]
    return max(128 - status if status < 0 else status for status in statuses)


def squeue(*_):
    print((STATE / "state").read_text())


def scontrol(action, job):
    assert (action, job) == ("requeue", os.environ["SLURM_JOB_ID"])
    (STATE / "requeued").touch()


if __name__ == "__main__":
    sys.exit(globals()[Path(sys.argv[0]).name](*sys.argv[1:]))
