"""Outlines in the file formats of annotation programs become labels, and nothing is changed."""

import base64
import io
import itertools
import json
import zlib

import numpy as np
import pytest
from layouts import sentence
from messy import listed, photo, put
from PIL import Image
from pycocotools import mask as coco_mask

from fastfcn_jax.data import datasets
from fastfcn_jax.data.annotations import label_studio, shapes
from fastfcn_jax.doctor import adopt

SIZE = 24, 32  # height, width
# A square of cat, and a dog that lies partly over it.
CAT, DOG = [(4, 4), (20, 4), (20, 20), (4, 20)], [(12, 8), (30, 8), (30, 16), (12, 16)]


def expected(shift=0):
    label = np.zeros(SIZE, np.uint8)
    label[4:20, 4 + shift : 20 + shift] = 1
    label[8:16, 12:30] = 2
    return label


def moved(ring, shift):
    return [(x + shift, y) for x, y in ring]


def photos(root, place="images/{}.jpg", count=3):
    for i in range(count):
        put(root / place.format(i), photo(i, SIZE))


def labels(root):
    """Number of the photograph -> array of class names as training reads them."""
    found = {}
    for part in ("train", "val"):
        source = datasets.load("folder", str(root), part)
        names = np.array([*source.info.class_names, *["?"] * 255])
        for i, name in enumerate(source.ids):
            number = int("".join(c for c in name.rpartition("/")[2] if c.isdigit()))
            found[number] = names[source[i].label]
    return found


def check(root, count=3, names=("background", "cat", "dog")):
    found = labels(root)
    assert len(found) == count
    for number, label in found.items():
        np.testing.assert_array_equal(label, np.array(names)[expected(number)])


def coco(count=3, name="{}.jpg", rle=None):
    images = [
        {"id": 10 + i, "file_name": name.format(i), "height": SIZE[0], "width": SIZE[1]}
        for i in range(count)
    ]
    outlines = []
    for i in range(count):
        for category, ring in ((3, moved(CAT, i)), (7, DOG)):
            outline = [np.ravel(ring).tolist()]
            if rle is not None:
                outline = rle(outline)
            place = {"id": len(outlines), "image_id": 10 + i, "category_id": category}
            outlines.append({**place, "segmentation": outline, "iscrowd": 0, "bbox": [0, 0, 1, 1]})
    return {
        "images": images,
        "annotations": outlines,
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


def compressed(outline):
    packed = coco_mask.merge(coco_mask.frPyObjects(outline, *SIZE))
    return {"size": list(SIZE), "counts": packed["counts"].decode()}


def uncompressed(outline):
    flat = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outline, *SIZE))).ravel("F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(SIZE), "counts": runs}


@pytest.mark.parametrize("rle", [None, compressed, uncompressed])
def test_coco(tmp_path, rle):
    photos(tmp_path)
    (tmp_path / "instances.json").write_text(json.dumps(coco(rle=rle)))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    lines = adopt.adopt(tmp_path)
    check(tmp_path)
    assert "  labels are drawn from the outlines of COCO in instances.json" in lines
    assert listed(tmp_path)["images/1.jpg"] == "fastfcn_labels/images/1.png"
    assert all(p.read_bytes() == data for p, data in before.items())


def test_coco_of_roboflow_in_the_folders_of_a_split(tmp_path):
    for part, numbers in (("train", (0, 1)), ("valid", (2,))):
        content = coco(3, "a{}_jpg.rf.0c.jpg")
        ids = [10 + i for i in numbers]
        content["images"] = [i for i in content["images"] if i["id"] in ids]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
        content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
        for i in numbers:
            put(tmp_path / part / f"a{i}_jpg.rf.0c.jpg", photo(i, SIZE))
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    lines = adopt.adopt(tmp_path)
    assert "2 photos to train on, 1 to validate" in lines
    assert datasets.load("folder", str(tmp_path), "val").info.class_names == (
        "background",
        "cat",
        "dog",
    )


def test_labelme(tmp_path):
    for i in range(3):
        put(tmp_path / f"{i}.jpg", photo(i, SIZE))
        x1, x2 = 4 + i, 20 + i
        mask = io.BytesIO()
        Image.fromarray(np.ones((8, 18), bool)).save(mask, "PNG")
        outlines = [
            {"label": "cat", "points": [[x2, 20], [x1, 4]], "shape_type": "rectangle"},
            {
                "label": "dog",
                "points": [[12, 8], [29, 15]],
                "shape_type": "mask",
                "mask": base64.b64encode(mask.getvalue()).decode(),
            },
            {"label": "here", "points": [[3, 3]], "shape_type": "point"},
        ]
        if i == 2:
            outlines[0] |= {"points": moved(CAT, 2), "shape_type": "polygon"}
        content = {"version": "5.4.1", "flags": {}, "shapes": outlines, "imagePath": f"{i}.jpg"}
        content |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (tmp_path / f"{i}.json").write_text(json.dumps(content))
    lines = adopt.adopt(tmp_path)
    check(tmp_path)
    assert "  not drawn, as it is not an area: point (3)" in lines


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>dog</name><color>#33ddff</color><type>any</type></label>
<label><name>cat</name><color>#fa3253</color><type>any</type></label></labels></task></meta>
{}</annotations>"""


def test_cvat(tmp_path):
    photos(tmp_path)
    images = []
    for i in range(3):
        points = ";".join(f"{x},{y}" for x, y in moved(CAT, i))
        dogs = (
            '<polygon label="dog" points="12,8;30,8;30,16;12,16" z_order="1"/>',
            '<box label="dog" xtl="12.00" ytl="8.00" xbr="30.00" ybr="16.00" z_order="1"/>',
            '<mask label="dog" rle="0, 144" left="12" top="8" width="18" height="8" z_order="1"/>',
        )
        images.append(
            f'<image id="{i}" name="{i}.jpg" width="32" height="24">{dogs[i]}'
            f'<polygon label="cat" source="manual" occluded="0" points="{points}" z_order="0"/>'
            '<points label="cat" points="1,1"/></image>'
        )
    (tmp_path / "annotations.xml").write_text(CVAT.format("".join(images)))
    lines = adopt.adopt(tmp_path)
    check(tmp_path)
    assert "  not drawn, as it is not an area: points (3)" in lines
    info = datasets.load("folder", str(tmp_path), "train").info
    assert info.palette.tolist() == [[0, 0, 0], [51, 221, 255], [250, 50, 83]]


@pytest.mark.parametrize("program", ["roboflow", "labelme"])
def test_pascal_voc_with_polygons(tmp_path, program):
    photos(tmp_path, "JPEGImages/{}.jpg")
    (tmp_path / "Annotations").mkdir()
    for i in range(3):
        objects = ""
        for name, ring in (("cat", moved(CAT, i)), ("dog", DOG)):
            if program == "roboflow":
                numbered = enumerate(ring, 1)
                points = "".join(f"<x{k}>{x}</x{k}><y{k}>{y}</y{k}>" for k, (x, y) in numbered)
            else:
                points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ring)
            objects += f"<object><name>{name}</name><polygon>{points}</polygon></object>"
        objects += "<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"
        (tmp_path / f"Annotations/{i}.xml").write_text(
            f"<annotation><folder/><filename>{i}.jpg</filename><size><width>32</width>"
            f"<height>24</height><depth>3</depth></size>{objects}</annotation>"
        )
    lines = adopt.adopt(tmp_path)
    check(tmp_path)
    assert "  not drawn, as it is not an area: box without an outline (3)" in lines


def percent(ring):
    return [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in ring]


def packed(mask):
    """A brush as Label Studio stores it: RGBA run lengths, here one run for each change."""
    flat = np.repeat(mask.ravel() * np.uint8(255), 4)
    bits = f"{flat.size:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    starts = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    for a, b in itertools.pairwise(starts):
        bits += f"1{3:02b}{b - a - 1:016b}{flat[a]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_label_studio(tmp_path):
    photos(tmp_path)
    tasks = []
    for i in range(3):
        size = {"original_width": SIZE[1], "original_height": SIZE[0]}
        cat = {"points": percent(moved(CAT, i)), "closed": True, "polygonlabels": ["cat"]}
        (x, y), (right, bottom) = percent(DOG)[0], percent(DOG)[2]
        dog = {"x": x, "y": y, "width": right - x, "height": bottom - y, "rotation": 0}
        brush = {"format": "rle", "rle": packed(expected(i) == 2), "brushlabels": ["dog"]}
        result = [
            {**size, "type": "polygonlabels", "value": cat},
            {**size, "type": "brushlabels", "value": brush}
            if i
            else {**size, "type": "rectanglelabels", "value": {**dog, "rectanglelabels": ["dog"]}},
        ]
        tasks.append(
            {
                "id": i,
                "file_upload": f"1a2b3c4d-{i}.jpg",
                "data": {"image": f"/data/upload/1/1a2b3c4d-{i}.jpg"},
                "annotations": [
                    {"was_cancelled": True, "result": result[:1]},
                    {"was_cancelled": False, "result": result},
                ],
            }
        )
    (tmp_path / "project-1.json").write_text(json.dumps(tasks))
    adopt.adopt(tmp_path)
    check(tmp_path)


def test_label_studio_min(tmp_path):
    photos(tmp_path)
    size = {"original_width": SIZE[1], "original_height": SIZE[0]}
    tasks = [
        {
            "image": f"/data/local-files/?d=images/{i}.jpg",
            "label": [
                {"points": percent(moved(CAT, i)), "polygonlabels": ["cat"], **size},
                {"points": percent(DOG), "polygonlabels": ["dog"], **size},
            ],
        }
        for i in range(3)
    ]
    (tmp_path / "min.json").write_text(json.dumps(tasks))
    adopt.adopt(tmp_path)
    check(tmp_path)


def test_a_brush_of_single_numbers():
    bits = (
        f"{4:032b}{7:05b}"
        + f"{2:04b}" * 4
        + "0"
        + "01"
        + "011"
        + "".join(f"{n:08b}" for n in (9, 0, 7, 255))
    )
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert label_studio._brush(data).tolist() == [9, 0, 7, 255]


def test_supervisely(tmp_path):
    photos(tmp_path, "ds/img/{}.jpg")
    (tmp_path / "ds/ann").mkdir()
    for i in range(3):
        png = io.BytesIO()
        Image.fromarray(np.full((8, 18, 4), 255, np.uint8)).save(png, "PNG")
        data = base64.b64encode(zlib.compress(png.getvalue())).decode()
        ring = {"exterior": moved(CAT, i), "interior": []}
        content = {
            "size": {"height": SIZE[0], "width": SIZE[1]},
            "objects": [
                {"classTitle": "cat", "geometryType": "polygon", "points": ring},
                {
                    "classTitle": "dog",
                    "geometryType": "bitmap",
                    "bitmap": {"data": data, "origin": [12, 8]},
                },
            ],
        }
        (tmp_path / f"ds/ann/{i}.jpg.json").write_text(json.dumps(content))
    adopt.adopt(tmp_path)
    check(tmp_path)


def test_yolo_of_roboflow(tmp_path):
    for part, numbers in (("train", (0, 1)), ("valid", (2,))):
        for i in numbers:
            put(tmp_path / part / f"images/{i}.jpg", photo(i, SIZE))
            rings = [[(x / 32, y / 24) for x, y in ring] for ring in (moved(CAT, i), DOG)]
            rows = [
                f"{1 - k} " + " ".join(f"{v:.6f}" for v in np.ravel(r)) for k, r in enumerate(rings)
            ]
            path = tmp_path / part / f"labels/{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*rows, "0 0.5 0.5 0.1 0.1"]))
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['dog', 'cat']\n"
    )
    lines = adopt.adopt(tmp_path)
    check(tmp_path)
    assert "2 photos to train on, 1 to validate" in lines
    assert "  not drawn, as it is not an area: box without an outline (3)" in lines


class TestChoices:
    def test_photos_without_a_shape_are_left_out_unless_asked_for(self, tmp_path):
        photos(tmp_path, count=4)
        content = coco(4)
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 13]
        (tmp_path / "a.json").write_text(json.dumps(content))
        lines = adopt.adopt(tmp_path)
        assert any("no shape is drawn in them: 1 photo (--empty" in x for x in lines)
        assert len(labels(tmp_path)) == 3
        adopt.adopt(tmp_path, empty=True, overwrite=True)
        assert (labels(tmp_path)[3] == "background").all()

    def test_pictures_of_labels_come_before_outlines(self, tmp_path):
        photos(tmp_path)
        for i in range(3):
            put(tmp_path / f"masks/{i}.png", expected(i))
        (tmp_path / "a.json").write_text(json.dumps(coco()))
        lines = adopt.adopt(tmp_path)
        assert "  outlines in a.json are not used (--labels a.json uses them instead)" in lines
        assert set(listed(tmp_path).values()) == {f"masks/{i}.png" for i in range(3)}
        adopt.adopt(tmp_path, labels="a.json", overwrite=True)
        check(tmp_path)

    def test_two_programs_are_refused(self, tmp_path):
        photos(tmp_path)
        (tmp_path / "a.json").write_text(json.dumps(coco()))
        (tmp_path / "b.xml").write_text(
            CVAT.format('<image id="0" name="0.jpg" width="32" height="24"/>')
        )
        text = sentence(lambda: adopt.adopt(tmp_path))
        assert "a.json holds outlines of COCO and b.xml of CVAT" in text

    def test_two_files_for_one_photo_are_refused(self, tmp_path):
        photos(tmp_path)
        for name in ("a", "b"):
            (tmp_path / f"{name}.json").write_text(json.dumps(coco()))
        assert "a.json and b.json both have outlines" in sentence(lambda: adopt.adopt(tmp_path))

    def test_void_is_ignored(self, tmp_path):
        photos(tmp_path)
        content = coco()
        content["categories"][0]["name"] = "void"
        (tmp_path / "a.json").write_text(json.dumps(content))
        adopt.adopt(tmp_path)
        for number, label in labels(tmp_path).items():
            np.testing.assert_array_equal(label == "?", expected(number) == 2)

    def test_a_photo_of_another_size_is_named(self, tmp_path):
        photos(tmp_path)
        put(tmp_path / "images/1.jpg", photo(1, (30, 40)))
        (tmp_path / "a.json").write_text(json.dumps(coco()))
        text = sentence(lambda: adopt.adopt(tmp_path))
        assert "images/1.jpg: 40x30 pixels" in text
        assert "a photo of 32x24" in text
        adopt.adopt(tmp_path, skip_bad=True)
        assert len(labels(tmp_path)) == 2

    def test_a_broken_file_is_named(self, tmp_path):
        photos(tmp_path)
        content = coco()
        del content["annotations"][0]["image_id"]
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert "a.json: not valid for its format" in sentence(lambda: adopt.adopt(tmp_path))

    def test_new_photographs_keep_the_numbers_of_classes(self, tmp_path):
        photos(tmp_path)
        (tmp_path / "a.json").write_text(json.dumps(coco()))
        adopt.adopt(tmp_path)
        photos(tmp_path, count=6)
        content = coco(6)
        content["categories"].append({"id": 1, "name": "ant"})
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert any("3 new photos" in x for x in adopt.adopt(tmp_path, update=True))
        check(tmp_path, 6)
        content["annotations"][0]["category_id"] = 1
        (tmp_path / "a.json").write_text(json.dumps(content))
        text = sentence(lambda: adopt.adopt(tmp_path, update=True))
        assert "'ant' is not a class of classes.json" in text


class TestShapes:
    def test_pixels_whose_centres_lie_within(self):
        area = shapes.polygon([[(0.6, 0), (3.4, 0), (3.4, 2.6), (0.6, 2.6)]])(4, 5)
        np.testing.assert_array_equal(area, np.pad(np.ones((3, 2), bool), ((0, 1), (1, 2))))

    def test_neighbours_share_no_pixel_and_leave_none(self):
        rng = np.random.default_rng(0)
        x, y = rng.uniform(4, 28), rng.uniform(4, 20)
        corners = [(0, 0), (32, 0), (32, 24), (0, 24)]
        parts = [
            shapes.polygon([[a, b, (x, y)]])(24, 32).astype(int)
            for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        ]
        np.testing.assert_array_equal(sum(parts), 1)

    def test_a_ring_within_another_is_a_hole_and_outside_is_cut(self):
        outer, inner = [(-9, -9), (99, -9), (99, 99), (-9, 99)], [(2, 2), (4, 2), (4, 4), (2, 4)]
        area = shapes.polygon([outer, inner])(6, 7)
        assert (~area).sum() == 4
        assert not area[2:4, 2:4].any()

    def test_an_ellipse_turns_and_a_bitmap_is_cut_at_the_border(self):
        assert shapes.ellipse(16, 12, 10, 3, 90)(24, 32)[3, 16]
        assert abs(shapes.ellipse(16, 12, 10, 5)(24, 32).sum() - np.pi * 50) < 5
        area = shapes.bitmap(np.ones((4, 4)), -2, 22)(24, 32)
        assert area.sum() == 4
        assert area[22:, :2].all()
