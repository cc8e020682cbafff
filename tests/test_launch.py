"""Several processes on this machine by `--processes`, and how a process finds the others."""

import concurrent.futures
import os
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from jax._src.clusters import cloud_tpu_cluster
from processes import finish, start

from fastfcn_jax import launch, runtime
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.errors import UserError

QUICK = ("--config.train.steps=6", "--config.train.eval_every=0", "--processes=2")


def test_the_flag_is_left_out_of_the_command_of_the_processes():
    for given in (["--processes", "4"], ["--processes=4"]):
        words = ["train.py", *given, "--config", "a", "--config.b=--processes"]
        left = launch.without_flag(words, "--processes")
        assert left == ["train.py", "--config", "a", "--config.b=--processes"]


@pytest.mark.parametrize(("cores", "count"), [(8, 3), (4, 4), (2, 5)])
def test_each_process_has_its_share_of_the_cores(cores, count):
    shares = [launch.share_of(range(cores), i, count) for i in range(count)]
    assert all(shares)
    used = [core for share in shares for core in share]
    assert set(used) == set(range(cores))
    assert len(used) == max(cores, count)  # none twice, unless there are too few


def gpus(monkeypatch, tmp_path, count):
    program = tmp_path / "nvidia-smi"
    program.write_text("".join(["#!/bin/sh\n", *(f"echo 'GPU {i}: x'\n" for i in range(count))]))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


def test_each_process_has_gpus_of_its_own_or_all_compute_on_the_cpu(monkeypatch, tmp_path):
    gpus(monkeypatch, tmp_path, 4)
    seen = [x["CUDA_VISIBLE_DEVICES"] for x in launch.devices(2)]
    assert seen == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert [x["CUDA_VISIBLE_DEVICES"] for x in launch.devices(2)] == ["GPU-a", "GPU-b"]
    assert launch.devices(3) == [{"JAX_PLATFORMS": "cpu"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.devices(2) == [{}, {}]


@pytest.mark.slow
def test_two_processes_train_and_a_signal_to_the_first_stops_both(tmp_path):
    process = start(tmp_path, *QUICK, "--config.train.steps=100000", devices=2)
    before = []
    for line in process.stdout:
        before.append(line)
        if line.startswith("step 5/"):
            break
    process.send_signal(signal.SIGINT)
    (said,) = finish(process, status=130)
    assert any("4 x cpu in 2 processes; strategy: jit" in line for line in before)
    assert len([line for line in before if line.startswith("step 5/")]) == 1  # of process 0 alone
    assert "process 1:" not in said
    stopped = int(re.search(r"stopped after step (\d+)", said)[1])
    assert "--processes=2" in said.splitlines()[-1]  # what the user typed, not what process 0 was
    assert stopped in model_folder.finished_steps(tmp_path)


@pytest.mark.slow
def test_the_first_bad_status_is_returned_and_errors_have_a_name(tmp_path):
    (said,) = finish(start(tmp_path, *QUICK, "--config.train.batch_size=3"), status=2)
    assert "\nprocess 1: error: " in said
    assert said.count("Traceback") == 0


def ended(code):
    process = subprocess.Popen(["sh", "-c", code], stderr=subprocess.DEVNULL)
    return launch.Started(0, process, launch.Path(os.devnull))


def test_the_status_is_that_of_the_process_that_ended_badly_first(monkeypatch):
    monkeypatch.setattr(launch, "PATIENCE", 1.0)
    begun = time.monotonic()
    running = [ended("exit 0"), ended("sleep 0.5; exit 75"), ended("kill -9 $$"), ended("sleep 60")]
    assert launch.wait(running) == 137
    assert time.monotonic() - begun < 30  # the last one is not waited for


@pytest.mark.parametrize("sizes", [(0, 0), (5, 0), (1024, 1023), (1025, 3000)])
def test_bytes_of_any_length_are_exchanged_in_pieces(monkeypatch, sizes):
    """Two threads in place of two processes."""
    meet, shown = threading.Barrier(2), [None, None]

    def allgather(array):
        shown[int(threading.current_thread().name[-1])] = array
        meet.wait(10)
        both = np.stack(shown)
        meet.wait(10)
        return both

    monkeypatch.setattr(runtime, "PIECE", 1024)
    monkeypatch.setattr(runtime.jax, "process_count", lambda: 2)
    monkeypatch.setattr(runtime.multihost_utils, "process_allgather", allgather)
    data = [np.random.default_rng(i).bytes(size) for i, size in enumerate(sizes)]
    with concurrent.futures.ThreadPoolExecutor(2, "process") as pool:
        assert list(pool.map(runtime.gather_bytes, data)) == [data, data]


def test_an_error_may_name_a_file_that_is_no_utf_8():
    name = os.fsdecode(b"stra\xdfe.png")
    assert runtime.gather(name) == [name]

    def refuse():
        raise UserError(name)

    with pytest.raises(UserError, match=name):
        runtime.together(refuse)


def test_open_mpi_5_says_where_process_0_is_on_one_host_alone():
    told = {
        "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "prterun-host-1@1",
    }  # fmt: skip
    address, *rest = runtime._by_open_mpi(told, None, None, None)
    assert rest == [4, 3, [1]]
    host, port = address.split(":")
    assert host == "127.0.0.1"
    assert 61440 <= int(port) < 65536
    assert (
        runtime._by_open_mpi({**told, "OMPI_COMM_WORLD_RANK": "0"}, None, None, None)[0] == address
    )
    two = {**told, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    with pytest.raises(UserError, match="add --coordinator HOST:PORT"):
        runtime._by_open_mpi(two, None, None, None)
    assert runtime._by_open_mpi(two, "a:1", None, None) == ("a:1", 4, 3, [1])
    version_4 = {**told, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}
    assert runtime._by_open_mpi(version_4, None, None, None) == (None, None, None, None)
    assert runtime._by_open_mpi({}, "a:1", 2, 0) == ("a:1", 2, 0, None)


@pytest.mark.parametrize(("hosts", "several"), [("h0,h1", True), ("h0", False)])
def test_hosts_of_a_tpu_slice_are_recognised(monkeypatch, hosts, several):
    metadata = {"agent-worker-number": "1", "worker-network-endpoints": hosts, "tpu-env": ""}
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)  # JAX sets it where no TPU is
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", lambda key: (metadata[key], 200))
    assert runtime.on_tpu_hosts() == several
    monkeypatch.undo()
    assert not runtime.on_tpu_hosts()
