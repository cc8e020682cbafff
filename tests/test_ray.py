"""`predict --ray` and `eval --ray` on a real cluster here: the results of one process."""

import io
import json
import tarfile
import types
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet
import ray_nodes
import ray_tiny
import tiny
import toy

from fastfcn_jax import ray_cluster
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import ray_eval, run
from fastfcn_jax.predict import chosen_model, ray_job, ray_rows

pytestmark = pytest.mark.slow

NAMES = tuple(f"{'x/' * (i % 3)}{i}.png" for i in range(12))


@pytest.fixture(scope="module")
def cluster():
    with ray_nodes.Nodes() as nodes, ray_cluster.joined(nodes.address):
        yield nodes


@pytest.fixture
def call(cluster, tmp_path, monkeypatch):
    """Predicts with the toy model on the cluster, or with `ray=False` in this process."""
    toy.lay(tmp_path / "in", *NAMES)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr(ray_rows, "BATCH", 5)

    def predict(output, source=tmp_path / "in", *, ray=True, model=None, **options):
        if not ray:
            return toy.predict(monkeypatch, source, tmp_path / output, model, **options)[0]
        model = model or toy.Model()
        monkeypatch.setattr(chosen_model, "load_model", lambda *_, **__: model)
        monkeypatch.setattr(chosen_model, "checksum", lambda loaded, _: loaded.mark)
        return ray_job.predict(source, tmp_path / output, checkpoint="toy", **options)

    return predict


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    del found["predictions.jsonl"]
    return found


def records(folder: Path) -> list[dict]:
    """Without the first line of each call, in the order of their names."""
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return sorted((line for line in lines if "name" in line), key=lambda line: line["name"])


def test_results_and_records_are_those_of_one_process(call, tmp_path):
    options = {"confidence": True, "legend": True, "polygons": "coco"}
    there, here = call("there", **options), call("here", ray=False, **options)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert records(tmp_path / "there") == records(tmp_path / "here")
    assert there == here
    assert len(there.failures) == 1


def test_what_is_done_is_not_done_again(call, tmp_path, capsys):
    call("out", tmp_path / "in" / "x")
    call("out", skip_existing=True, source=tmp_path / "in" / "x")
    assert "4 of 4 are done already" not in capsys.readouterr().out  # names of another folder
    names = [record["name"] for record in records(tmp_path / "out")]
    assert len(names) == len(set(names)) == len(list((tmp_path / "in" / "x").rglob("*.png")))


def test_results_without_a_manifest_count_as_done(call, tmp_path, capsys):
    call("out")
    (tmp_path / "out" / "predictions.jsonl").unlink()
    call("out", skip_existing=True)
    assert "12 of 13 are done already" in capsys.readouterr().out


@pytest.mark.parametrize(("cpus", "each"), [(8, 1), (2, 0), (1, 0)])
def test_actors_on_gpus_leave_a_cpu_to_read(cpus, each):
    node = {"Alive": True, "Resources": {"CPU": cpus, "GPU": 2}}
    ray = types.SimpleNamespace(nodes=lambda: [node])
    assert ray_cluster.workers(ray, reads=True) == (2, each, 1)


def test_a_table_of_addresses_and_one_of_pictures(call, tmp_path):
    paths = [str(tmp_path / "in" / name) for name in NAMES]
    content = [Path(path).read_bytes() for path in paths]
    pyarrow.parquet.write_table(pyarrow.table({"path": paths}), tmp_path / "paths.parquet")
    image = [{"bytes": b, "path": p} for b, p in zip(content, NAMES, strict=True)]
    pyarrow.parquet.write_table(
        pyarrow.table({"image": image, "label": list(range(12))}), tmp_path / "images.parquet"
    )
    assert call("a", tmp_path / "paths.parquet").total == 12
    assert call("b", f"file://{tmp_path}/images.parquet").total == 12
    here = tmp_path / "here"
    call("here", ray=False)
    for name in NAMES:
        stem = name.removesuffix(".png")
        wanted = (here / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == wanted
        assert (tmp_path / "a" / f"{tmp_path}/in/{stem}.png".lstrip("/")).read_bytes() == wanted
    assert [r["input"] for r in records(tmp_path / "a")] == sorted(paths)
    call("b", tmp_path / "images.parquet", skip_existing=True)
    assert len(records(tmp_path / "b")) == 12, "nothing was done twice"


def test_shards_are_read_as_far_as_they_can_be(call, tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for path in sorted((tmp_path / "in").rglob("*.png")):
            tar.add(path, str(path.relative_to(tmp_path / "in")))
        tar.add(tmp_path / "in" / "0.png", "0.bmp")  # the same stem
        tar.add(__file__, "0.txt")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(whole.getvalue())
    (tmp_path / "shards" / "b.tar").write_bytes(whole.getvalue()[:2000])  # cut
    summary = call("out", tmp_path / "shards")
    call("here", ray=False)
    for name in NAMES:
        assert (tmp_path / "out" / "a" / name).read_bytes() == (
            tmp_path / "here" / name
        ).read_bytes()
    said = " ".join(summary.failures)
    assert "0.bmp: would replace the results of 0.png" in said
    assert "b.tar: cannot be read to its end" in said
    assert "a.tar/bad.png: damaged" in said
    assert len(summary.failures) == 3


def test_an_actor_with_another_model_refuses(call, tmp_path):
    class Changing(toy.Model):
        """Has another checksum in each process."""

        @property
        def mark(self):
            import os

            return str(os.getpid())

        @mark.setter
        def mark(self, _):
            pass

    with pytest.raises(UserError, match="the model here is another one"):
        call("out", model=Changing())
    assert records(tmp_path / "out") == []


def test_addresses_are_read_in_the_actors(call, tmp_path):
    (tmp_path / "zip").mkdir()
    with fsspec.open(f"local://{tmp_path}/zip/a.png", "wb") as file:
        file.write((tmp_path / "in" / "0.png").read_bytes())
    assert call("out", f"local://{tmp_path}/zip").total == 1
    call("here", ray=False)
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "here" / "0.png").read_bytes()


@pytest.mark.usefixtures("tiny_model", "cluster")
def test_scores_are_those_of_one_process_to_the_last_digit(tmp_path, monkeypatch):
    c = tiny.config()
    c.data.test_scale = (48, 32)
    model, info = tiny.build(c.model, 9), datasets.info("synthetic", "")
    variables = dict(model.init(jax.random.key(0), jnp.zeros((1, 32, 48, 3))))
    card = model_folder.model_card(c, info, {})
    model_folder.save_model(tmp_path / "run", jax.tree.map(np.asarray, variables), card)
    scores = {"calibration": True, "boundary": True}
    here = run.evaluate_folder(tmp_path / "run", output=tmp_path / "here", **scores)
    monkeypatch.setattr(ray_eval, "load", ray_tiny.load)
    there = run.evaluate_folder(tmp_path / "run", output=tmp_path / "there", ray="", **scores)
    np.testing.assert_array_equal(there.matrix, here.matrix)
    np.testing.assert_array_equal(there.counts, here.counts)
    assert (there.ids, there.num_images) == (here.ids, 64)
    names = ("metrics.json", "report.html")
    assert (tmp_path / "there" / names[0]).read_bytes() == (
        tmp_path / "here" / names[0]
    ).read_bytes()
    assert (tmp_path / "there" / names[1]).is_file()
    with pytest.raises(UserError, match="leave --shard out"):
        run.evaluate_folder(tmp_path / "run", output=tmp_path / "c", ray="", shard="0/2")


@pytest.mark.usefixtures("tiny_model", "cluster")
def test_a_damaged_file_ends_an_evaluation_with_its_name(camvid_root, tmp_path, monkeypatch):
    c = tiny.config()
    c.data.update(name="camvid", root=str(camvid_root), val_split="train", test_scale=(48, 32))
    model, info = tiny.build(c.model, 11), datasets.info("camvid", "")
    variables = dict(model.init(jax.random.key(0), jnp.zeros((1, 32, 48, 3))))
    card = model_folder.model_card(c, info, {})
    model_folder.save_model(tmp_path / "run", jax.tree.map(np.asarray, variables), card)
    (camvid_root / "trainannot" / "1.png").write_bytes(b"no picture")
    monkeypatch.setattr(ray_eval, "load", ray_tiny.load)
    with pytest.raises(UserError, match=r"trainannot/1\.png"):
        run.evaluate_folder(tmp_path / "run", output=tmp_path / "out", ray="")
