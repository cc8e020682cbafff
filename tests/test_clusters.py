"""The files in docs/clusters: the batch file trains, the others have the right form."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import tiny
import yaml

from fastfcn_jax import __main__ as door
from fastfcn_jax.config import experiment

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docs" / "clusters"
PAGE = (ROOT / "docs" / "clusters.md").read_text()


TINY = f"""#!/bin/sh
[ "$1" = eval ] && export TINY_COMMAND=evaluation
shift
exec {sys.executable} {ROOT}/tests/tiny.py "$@"
"""


@pytest.mark.parametrize("name", ["train.slurm", "jobset.yaml", "Containerfile"])
def test_the_page_shows_the_files_as_they_are(name):
    assert f"```\n{(FILES / name).read_text()}```" in re.sub("```[a-z]+\n", "```\n", PAGE)
    assert f"](clusters/{name})" in PAGE


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts a stand-in for Slurm on the PATH, and `fastfcn`, which has the tiny model."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in = ROOT / "tests" / "clusters" / "slurm.py"
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        (programs / name).write_text(f"#!{sys.executable}\n{stand_in.read_text()}")
    (programs / "fastfcn").write_text(TINY)
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / "state").write_text("RUNNING")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def submit(folder, *flags, last_fails=""):
    """Runs the batch file in two tasks; returns its result and how many steps it started."""
    command = ("sbatch", "--nodes=1", "--ntasks-per-node=2", FILES / "train.slurm")
    flags = (f"--config={ROOT}/tests/tiny.py", f"--workdir={folder}/run", *flags)
    result = subprocess.run(
        [*command, *flags],
        env={**os.environ, "LAST_FAILS": last_fails},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return result, (folder / "steps").read_text().count("\n")


@pytest.mark.slow
def test_the_batch_file_goes_on_after_a_killed_process(slurm):
    flags = ("--config.train.steps=14", "--config.train.eval_every=0")
    result, steps = submit(slurm, *flags, last_fails="death")
    assert (result.returncode, steps) == (0, 2), result.stdout + result.stderr
    assert result.stderr.count(f"process 1 on {os.uname().nodename} has ended; the training") == 1
    assert "2 x cpu in 2 processes" in result.stdout
    assert "resuming from the checkpoint of step" in result.stdout
    assert len(tiny.losses(slurm / "run")) == 14
    # As within a job: the command that the page shows.
    task = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_RESTART_COUNT": "0"}
    command = ("srun", "fastfcn", "eval", f"--checkpoint={slurm}/run")
    result = subprocess.run(command, env={**os.environ, **task}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("64 images, protocol single") == 1  # of process 0 alone
    assert json.loads((slurm / "run/eval/metrics.json").read_text())["num_images"] == 64


@pytest.mark.parametrize(
    ("status", "state", "restarts", "requeued"),
    [
        (75, "RUNNING", 0, True),  # a process was lost
        (137, "RUNNING", 0, True),  # ... and this is its own status
        (143, "RUNNING", 19, True),  # stopped before the time limit
        (143, "COMPLETING", 0, False),  # cancelled
        (75, "RUNNING", 20, False),
        (2, "RUNNING", 0, False),  # bad input
        (1, "RUNNING", 0, False),  # a bug
        (0, "RUNNING", 0, False),
    ],
)
def test_the_batch_file_requeues_what_can_go_on(slurm, status, state, restarts, requeued):
    (slurm / "bin" / "fastfcn").write_text(f"#!/bin/sh\nexit {status}\n")
    (slurm / "state").write_text(state)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    command = ["bash", FILES / "train.slurm", "--workdir=run"]
    assert subprocess.run(command, env={**os.environ, **job}).returncode == status
    assert (slurm / "steps").read_text() == "fastfcn train --workdir=run\n"
    assert (slurm / "requeued").exists() == requeued


def parsed(words):
    """The values of the flags of a command line that begins with `fastfcn`."""
    program, name, *flags = words
    assert program == "fastfcn"
    return door.command(name).parser().parse(flags)


def test_the_manifest_is_a_jobset():
    """By the part of JobSet's own schema that it needs, in which every other key is an error."""
    manifest = yaml.safe_load((FILES / "jobset.yaml").read_text())
    schema = json.loads((ROOT / "tests" / "clusters" / "jobset.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completions"] == spec["parallelism"]
    assert spec["backoffLimit"] == 0  # else a pod would come back alone
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    # The command as its shell makes it.
    script = container["args"][0].replace("exec fastfcn", "printf '%s\\n' fastfcn")
    environment = {"JOB_COMPLETION_INDEX": "3", "PATH": os.environ["PATH"]}
    said = subprocess.run(
        [*container["command"], script], env=environment, capture_output=True, text=True
    )
    arguments = parsed(said.stdout.splitlines())
    name, set_name = job["name"], manifest["metadata"]["name"]
    assert arguments.coordinator.rpartition(":")[0] == f"{set_name}-{name}-0-0.{set_name}"
    assert (arguments.num_processes, arguments.process_id) == (spec["completions"], 3)
    assert arguments.config.data.name == experiment.load("jpu_psp_cityscapes").data.name


def test_the_container_file_copies_what_an_installation_needs():
    lines = (FILES / "Containerfile").read_text().splitlines()
    copied = set()
    for line in (line for line in lines if line.startswith("COPY")):
        *sources, target = line.split()[1:]
        assert all((ROOT / source).exists() for source in sources), line
        assert target == "./" or [target] == sources
        copied |= set(sources)
    project = (ROOT / "pyproject.toml").read_text()
    assert {"pyproject.toml", re.search(r'readme = "(.+)"', project)[1], "LICENSE"} < copied
    assert {"fastfcn_jax", *re.findall(r"fastfcn_jax\.configs\" = \"(\w+)\"", project)} < copied
    (install,) = [shlex.split(line) for line in lines if "pip install" in line]
    (constraint,) = [word for word in install if word.endswith(".lock")]
    assert constraint in copied
    assert install[-1].replace("'", '"') in (ROOT / "README.md").read_text()
    assert shlex.split(lines[-1].partition("[")[2].strip("]")) == ["fastfcn"]
