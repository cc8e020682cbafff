"""Several processes divide the photographs between them."""

import json
import sys

import pytest
import toy

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import ray_job, shards
from fastfcn_jax.predict.shards import ALL, Shard

SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "3"}
MPIRUN = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("words", "environment", "shard", "said"),
    [
        (None, {}, ALL, ""),
        (None, SRUN, Shard(1, 3), "shard 1/3 by srun (SLURM_PROCID); --shard 0/1 takes everything"),
        (None, MPIRUN, Shard(2, 4), "by mpirun (OMPI_COMM_WORLD_RANK)"),
        # Open MPI starts its helpers by srun, one a node, and its processes inherit their rank.
        (None, SRUN | MPIRUN, Shard(2, 4), "by mpirun"),
        (None, {"PMI_RANK": "0", "PMI_SIZE": "2"}, Shard(0, 2), "by mpirun (PMI_RANK)"),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, ALL, "`srun` divides it"),
        (None, SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, ALL, ""),
        ("0/1", SRUN, ALL, ""),
        ("2/5", MPIRUN, Shard(2, 5), "shard 2/5"),
    ],
)
def test_the_rank_chooses_the_shard_unless_the_flag_does(words, environment, shard, said):
    found, sentence = shards.choose(words, environment)
    assert found == shard
    assert said in sentence
    assert bool(said) == bool(sentence)


@pytest.mark.parametrize("words", ["3/3", "1", "-1/2", "1/0", "a/b", "1/2/3", "²/3"])
def test_what_is_no_shard_is_one_sentence(words):
    with pytest.raises(UserError, match=rf"--shard {words}: write I/N, .* counted from 0"):
        shards.parse(words)


def test_shards_together_predict_each_photograph_once_with_a_manifest_each(tmp_path, monkeypatch):
    names = [f"{'x/' * (i % 3)}{i}.png" for i in range(20)]
    toy.lay(tmp_path / "in", *names)
    done = []
    for index in range(3):
        summary, model = toy.predict(
            monkeypatch, tmp_path / "in", tmp_path / "out", shard=f"{index}/3"
        )
        assert summary.total == len(model.predicted) > 0
        lines = (tmp_path / "out" / f"predictions.{index}-of-3.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [r["name"] for r in records if r["status"] == "ok"] == model.predicted
        done += model.predicted
    assert sorted(done) == sorted(name.removesuffix(".png") for name in names)
    assert len(list((tmp_path / "out").rglob("*_overlay.png"))) == 20


def test_a_photograph_keeps_its_shard_when_others_come_and_go(tmp_path, monkeypatch):
    toy.lay(tmp_path / "in", *(f"{i}.png" for i in range(10)))
    _, before = toy.predict(monkeypatch, tmp_path / "in", tmp_path / "a", shard="1/2")
    toy.lay(tmp_path / "in", "00.png", "01.png", "55.png")
    _, after = toy.predict(monkeypatch, tmp_path / "in", tmp_path / "b", shard="1/2")
    assert set(before.predicted) <= set(after.predicted)


def test_names_of_other_shards_clash_as_well(tmp_path, monkeypatch):
    toy.lay(tmp_path / "in", "a.png", "a.bmp")
    for index in range(2):
        with pytest.raises(UserError, match=r"would both give a\.png"):
            toy.predict(monkeypatch, tmp_path / "in", tmp_path / "out", shard=f"{index}/2")
    assert not (tmp_path / "out").exists()


def test_ray_without_its_package_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    toy.lay(tmp_path / "in", "a.png")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'--ray needs ray: pip install "fastfcn-jax\[ray\]"'):
        ray_job.predict(tmp_path / "in", tmp_path / "out", checkpoint="toy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input": "-"}, "--input -: one picture or video is not for --ray"),
        ({"input": "absent"}, "--input .*absent: no such image"),
        ({"legend": True, "overlay": False}, "--legend stands below the overlay"),
        ({"output": "s3://bucket/out"}, "results go into a folder"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_it_starts(tmp_path, options, said):
    arguments = {"input": str(tmp_path), "output": tmp_path / "out", **options}
    with pytest.raises(UserError, match=said):
        ray_job.predict(**arguments, checkpoint="toy")
