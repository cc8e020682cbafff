"""ArrayRecord by TensorFlow Datasets: written and read without TensorFlow, resumed, checked."""

import builtins
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from layouts import label_of, photo, sentence, write_jpg, write_png
from scipy.io import savemat

from fastfcn_jax.data import datasets, prepare
from fastfcn_jax.data.tfds import builders, prepared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cityscapes_prepared(tmp_path_factory, shared_data):
    output = tmp_path_factory.mktemp("prepared")
    prepare.prepare("cityscapes", str(shared_data / "cityscapes"), str(output), ("train", "val"))
    return output


def test_a_prepared_data_set_gives_the_samples_of_its_files(cityscapes_prepared, shared_data):
    plain = datasets.load("cityscapes", str(shared_data / "cityscapes"), "train")
    records = datasets.load("cityscapes", str(cityscapes_prepared), "train")
    assert list(records.ids) == list(plain.ids)
    for i in (0, 5):
        expected, sample = plain[i], records[i]
        assert sample.id == expected.id
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.label, expected.label)
    assert len(datasets.load("cityscapes", str(cityscapes_prepared), "val")) == 1
    assert "no split 'test'" in sentence(
        lambda: datasets.load("cityscapes", str(cityscapes_prepared), "test")
    )


def test_it_works_in_worker_processes_and_threads(cityscapes_prepared):
    source = pickle.loads(
        pickle.dumps(datasets.load("cityscapes", str(cityscapes_prepared), "train"))
    )
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda i: source[i % 6].id, range(12)))
    assert ids == list(source.ids) * 2


def test_the_version_folder_itself_is_a_root_too(cityscapes_prepared):
    directory = prepared.find(str(cityscapes_prepared), "cityscapes")
    assert directory.name == "1.0.0"
    assert len(datasets.load("cityscapes", str(directory), "train")) == 6


def test_tensorflow_is_not_imported(cityscapes_prepared):
    program = (
        "import sys\n"
        "from fastfcn_jax.data import datasets\n"
        f"datasets.load('cityscapes', {str(cityscapes_prepared)!r}, 'train')[0]\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_cityscapes_prepared_by_the_official_builder(tmp_path, shared_data):
    """Its features, its config in the path, its split names; its download code needs TF."""
    official = tfds.builder("cityscapes/semantic_segmentation", data_dir=tmp_path)
    frames = sorted((shared_data / "cityscapes/leftImg8bit/train/aachen").glob("*.png"))[:2]

    class Cityscapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = official.version
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="semantic_segmentation")]  # noqa: RUF012

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=official.info.features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for path in frames:
                name = path.name.removesuffix("_leftImg8bit.png")
                labels = shared_data / "cityscapes/gtFine/train/aachen"
                yield (
                    name,
                    {
                        "image_id": name,
                        "image_left": path,
                        "segmentation_label": labels / f"{name}_gtFine_labelIds.png",
                    },
                )

    builder = Cityscapes(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = datasets.load("cityscapes", str(tmp_path), "train")
    plain = datasets.load("cityscapes", str(shared_data / "cityscapes"), "train")
    sample = source[0]
    expected = plain[plain.ids.index(sample.id)]
    np.testing.assert_array_equal(sample.label, expected.label)
    np.testing.assert_array_equal(sample.image, expected.image)


def test_records_that_need_tensorflow_are_named(tmp_path):
    directory = tmp_path / "camvid" / "1.0.0"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text('{"name": "camvid", "fileFormat": "tfrecord"}')
    text = sentence(lambda: datasets.load("camvid", str(tmp_path), "train"))
    assert "file_format='array_record'" in text


@pytest.fixture
def many(camvid_root, monkeypatch):
    """Twelve CamVid photos, four per shard."""
    monkeypatch.setattr(builders, "EXAMPLES_PER_SHARD", 4)
    for i in range(2, 12):
        write_png(camvid_root / "train" / f"{i:02}.png", np.full((12, 20, 3), 20 * i, np.uint8))
        write_png(camvid_root / "trainannot" / f"{i:02}.png", np.full((12, 20), i % 11, np.uint8))
    return camvid_root


def test_a_stopped_run_resumes_with_the_first_missing_file(many, tmp_path, monkeypatch):
    output = tmp_path / "out"
    real_open, read = builtins.open, []

    def stop_at_sixth_photo(path, *args, **kwargs):
        if "/train/" in str(path):
            read.append(str(path))
            if len(read) == 6:
                raise KeyboardInterrupt
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", stop_at_sixth_photo)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare("camvid", str(many), str(output), ("train",))
    assert prepared.find(str(output), "camvid") is None
    prepare.prepare("camvid", str(many), str(output), ("train",))
    first_run, second_run = read[:5], read[6:]
    assert not set(first_run[:4]) & set(second_run[:8])  # the finished shard is not read again
    source = datasets.load("camvid", str(output), "train")
    plain = datasets.load("camvid", str(many), "train")
    assert list(source.ids) == plain.ids
    for i in range(12):
        np.testing.assert_array_equal(source[i].image, plain[i].image)
    assert sorted(p.name for p in output.iterdir()) == ["camvid"]


def test_a_bad_file_stops_the_preparation_with_its_sentence(many, tmp_path):
    write_png(many / "trainannot" / "03.png", np.full((12, 20), 77, np.uint8))
    text = sentence(lambda: prepare.prepare("camvid", str(many), str(tmp_path / "o"), ("train",)))
    assert text.startswith(str(many / "trainannot" / "03.png"))
    assert prepared.find(str(tmp_path / "o"), "camvid") is None


def test_what_is_prepared_is_not_overwritten(cityscapes_prepared, shared_data):
    text = sentence(
        lambda: prepare.prepare(
            "cityscapes", str(shared_data / "cityscapes"), str(cityscapes_prepared), ("train",)
        )
    )
    assert "prepared already" in text


def test_unknown_builder(tmp_path):
    assert "known: cityscapes" in sentence(
        lambda: prepare.prepare("folder", "x", str(tmp_path), ("train",))
    )


def test_labels_of_matlab_files_become_pngs(tmp_path):
    raw, output = tmp_path / "raw", tmp_path / "prepared"
    (raw / "dataset/cls").mkdir(parents=True)
    for i in range(2):
        write_jpg(raw / f"dataset/img/{i}.jpg", photo(i))
        savemat(raw / f"dataset/cls/{i}.mat", {"GTcls": {"Segmentation": label_of(range(21), i)}})
    (raw / "dataset/train.txt").write_text("0\n1\n")
    prepare.prepare("pascal_aug", str(raw), str(output), ("train",))
    plain, records = (datasets.load("pascal_aug", str(r), "train") for r in (raw, output))
    assert list(records.ids) == ["0", "1"]
    for i in range(2):
        np.testing.assert_array_equal(records[i].image, plain[i].image)
        np.testing.assert_array_equal(records[i].label, plain[i].label)
