"""Small data sets in the formats of other programs, with what each of them shows."""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sal_fast.data import Table, files
from sal_fast.data.readers.brush_code import encode

WIDTH, HEIGHT = 31, 24


class Shown(NamedTuple):
    """One image: its class, name, split, pixels and mask (bool [H, W], several annotators' in a list)."""

    label: str
    name: str
    split: str
    pixels: np.ndarray
    mask: np.ndarray | list[np.ndarray] | None


def pictures(count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def blobs(count: int) -> Iterator[np.ndarray]:
    """Masks with a ragged edge and a hole, bool [H, W]."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        far = np.hypot(x - 8 - number % 9, y - 11) + rng.random((HEIGHT, WIDTH))
        yield (far < 8) & (far > 2)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write_plain(root: Path, shown: list[Shown]) -> Path:
    """The plain folder of the same content, with splits if there are any."""
    for one in shown:
        below = f"{one.split}/{one.label}" if one.split else one.label
        save(root / "images" / below / f"{one.name}.png", one.pixels)
        if isinstance(one.mask, list):
            for number, mask in enumerate(one.mask):
                save(root / "masks" / below / one.name / f"{number}.png", mask.astype(np.uint8) * 255)
        elif one.mask is not None:
            save(root / "masks" / below / f"{one.name}.png", one.mask.astype(np.uint8) * 255)
    return root


Row = tuple[bytes, str, str, list[bytes]]  # of an image: its pixels, class and split, and those of its masks


def content(table: Table) -> list[Row]:
    """All that a table says, but for ids and places, in the order of the pixels."""

    def pixels(path: Path) -> bytes:
        array = files.grades(files.read(path))
        return bytes(str(array.shape), "ascii") + array.tobytes()

    rows = []
    for row in range(len(table)):
        mask = table.masks[row]
        drawn = [] if mask is None else sorted(pixels(one) for one in files.of_mask(mask))
        image = files.rgb(files.read(table.images[row])).tobytes()
        rows.append((image, table.class_name(row), table.split[row], drawn))
    return sorted(rows)


def meant(shown: list[Shown]) -> list[Row]:
    """What `content` must give, without any file."""
    rows = []
    for one in shown:
        several = one.mask if isinstance(one.mask, list) else [] if one.mask is None else [one.mask]
        assert all(0 < mask.sum() < mask.size for mask in several)
        drawn = [bytes(str(mask.shape), "ascii") + (mask * np.uint8(255)).tobytes() for mask in several]
        rows.append((one.pixels.tobytes(), one.label, one.split, sorted(drawn)))
    return sorted(rows)


# --- COCO

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
SQUARE = [2.5, 3.0, 12.5, 3.0, 12.5, 13.0, 2.5, 13.0]
TRIANGLE = [15.0, 2.0, 29.3, 20.7, 10.1, 22.0]


def coco_pixels(*polygons: list[float]) -> np.ndarray:
    """By pycocotools."""
    codes = coco_mask.frPyObjects(list(polygons), HEIGHT, WIDTH)
    with warnings.catch_warnings(action="ignore"):  # pycocotools warns of numpy 2
        return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def write_coco(root: Path) -> list[Shown]:
    """train and val: polygons, a compressed code, a crowd's code, two categories, and a tie of two."""
    blob, other = blobs(2)
    compressed = coco_mask.encode(np.asfortranarray(blob.astype(np.uint8)))
    compressed["counts"] = compressed["counts"].decode()
    flat = other.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    crowd = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}
    small = [1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]
    tie = [20.0, 5.0, 25.0, 5.0, 25.0, 10.0, 20.0, 10.0], [2.0, 5.0, 7.0, 5.0, 7.0, 10.0, 2.0, 10.0]
    wanted: list[tuple[str, str, list[tuple[int, Any, int]], np.ndarray]] = [
        ("train", "cat", [(7, [SQUARE, TRIANGLE], 0), (3, [small], 0)], coco_pixels(SQUARE, TRIANGLE)),
        ("train", "dog", [(3, compressed, 0), (7, [small], 0)], blob),
        ("train", "cat", [(7, crowd, 1), (7, [SQUARE], 0)], other | coco_pixels(SQUARE)),
        ("val", "cat", [(3, [tie[1]], 0), (7, [tie[0]], 0)], coco_pixels(tie[0])),
    ]
    shown = []
    sets: dict[str, dict[str, list[Any]]] = {}
    for number, ((split, label, drawn, mask), pixels) in enumerate(zip(wanted, pictures(4), strict=True)):
        name = f"{number:012d}"
        save(root / f"{split}2017" / f"{name}.png", pixels)
        one = sets.setdefault(split, {"images": [], "annotations": [], "categories": CATEGORIES})
        one["images"].append({"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
        for category, segmentation, crowd_flag in drawn:
            entry = {"id": len(one["annotations"]), "image_id": number, "category_id": category}
            one["annotations"].append(entry | {"segmentation": segmentation, "iscrowd": crowd_flag})
        shown.append(Shown(label, name, split, pixels, mask))
    (root / "annotations").mkdir()
    for split, one in sets.items():
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(one))
    return shown


# --- LabelMe


def labelme_pixels(draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw(ImageDraw.Draw(canvas))
    return np.array(canvas, dtype=bool)


def write_labelme(root: Path) -> list[Shown]:
    """A polygon, a rectangle, a circle, a mask, a flag, and two labels."""
    points = [[2.2, 3.1], [20.7, 4.9], [11.5, 21.4]]
    (blob,) = blobs(1)
    rows, columns = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    cut = blob[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    radius = math.dist((12.5, 11.5), (17.0, 14.0))
    polygon = labelme_pixels(lambda pen: pen.polygon([tuple(p) for p in points], fill=1, outline=1))
    box = labelme_pixels(lambda pen: pen.rectangle([4.5, 5.5, 9.0, 20.0], fill=1, outline=1))
    circle = labelme_pixels(
        lambda pen: pen.ellipse(
            [12.5 - radius, 11.5 - radius, 12.5 + radius, 11.5 + radius], fill=1, outline=1
        )
    )
    shapes = {
        "polygon": {"shape_type": "polygon", "points": points},
        "box": {"shape_type": "rectangle", "points": [[9.0, 20.0], [4.5, 5.5]]},
        "circle": {"shape_type": "circle", "points": [[12.5, 11.5], [17.0, 14.0]]},
        "mask": {
            "shape_type": "mask",
            "points": [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]],
            "mask": base64.b64encode(png(cut)).decode(),
        },
        "line": {"shape_type": "line", "points": [[0, 0], [3, 3]]},
    }
    wanted: list[tuple[str, dict[str, bool], list[tuple[str, str]], np.ndarray]] = [
        ("cat", {}, [("cat", "polygon"), ("dog", "box"), ("cat", "line")], polygon),
        ("dog", {"cat": False}, [("dog", "circle"), ("dog", "box")], circle | box),
        ("cat", {"cat": True}, [("spot", "mask")], blob),
        ("dog", {}, [("dog", "mask"), ("cat", "box")], blob),
    ]
    shown = []
    for number, ((label, flags, drawn, mask), pixels) in enumerate(zip(wanted, pictures(4), strict=True)):
        name = f"photo{number}"
        data: dict[str, Any] = {"version": "5.4.1", "flags": flags, "imagePath": f"..\\pics\\{name}.png"}
        if number < 3:
            save(root / "pics" / f"{name}.png", pixels)
        else:
            data["imageData"] = base64.b64encode(png(pixels)).decode()
        data["shapes"] = [{"label": one, "flags": {}, **shapes[shape]} for one, shape in drawn]
        data |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}.json").write_text(json.dumps(data))
        shown.append(Shown(label, name, "", pixels, mask))
    return shown


# --- CVAT


def write_cvat(root: Path) -> list[Shown]:
    """Polygon, box, turned box, ellipse, mask and tag, in two subsets."""
    (blob,) = blobs(1)
    rows, columns = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    cut = blob[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].ravel()
    edges = np.flatnonzero(np.diff(cut, prepend=False))
    rle = ", ".join(str(count) for count in np.diff([0, *edges, cut.size]))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    ellipse = ((x - 15) / 9.25) ** 2 + ((y - 12) / 5.25) ** 2 < 1
    points = ";".join(f"{x},{y}" for x, y in zip(TRIANGLE[::2], TRIANGLE[1::2], strict=True))
    box = 'xtl="2.5" ytl="3.0" xbr="12.5" ybr="13.0"'
    mask = (
        f'<mask label="cat" rle="{rle}" left="{columns[0]}" top="{rows[0]}" '
        f'width="{columns[-1] - columns[0] + 1}" height="{rows[-1] - rows[0] + 1}"/>'
    )
    wanted = [
        ("train", "cat", f'<polygon label="cat" points="{points}"/>', coco_pixels(TRIANGLE)),
        (
            "train",
            "dog",
            f'<box label="dog" {box}/><polyline label="cat" points="1,1;2,2"/>',
            coco_pixels(SQUARE),
        ),
        ("train", "cat", mask, blob),
        ("val", "dog", '<ellipse label="dog" cx="15" cy="12" rx="9.25" ry="5.25"/>', ellipse),
        ("test", "cat", f'<box label="spot" {box} rotation="90"/><tag label="cat"/>', coco_pixels(SQUARE)),
    ]
    shown, parts = [], []
    for number, ((split, label, shapes, drawn), pixels) in enumerate(zip(wanted, pictures(5), strict=True)):
        name = f"frame_{number}"
        save(root / "images" / split / f"{name}.png", pixels)
        parts.append(
            f'<image id="{number}" name="{name}.png" subset="{split}" width="{WIDTH}" height="{HEIGHT}">'
            f"{shapes}</image>"
        )
        shown.append(Shown(label, name, split, pixels, drawn))
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        + "".join(parts)
        + "</annotations>"
    )
    return shown


# --- Pascal VOC


def write_voc(root: Path) -> list[Shown]:
    """Masks by object, masks by class with a void, and boxes; splits in ImageSets/Main."""
    blob, other = blobs(2)
    box = np.zeros((HEIGHT, WIDTH), dtype=bool)
    box[2:20, 4:17] = True  # xmin 5, ymin 3, xmax 17, ymax 20, counted from 1
    large, small = (5, 3, 17, 20), (20, 2, 24, 6)
    by_object = blob * np.uint8(2) + (other & ~blob) * np.uint8(1)
    by_object[0] = 255
    by_class = blob * np.uint8(12) + (other & ~blob) * np.uint8(8)
    by_class[0] = 255
    wanted = [
        ("train", "cat", [("dog", small), ("cat", large)], "SegmentationObject", by_object, blob),
        ("val", "dog", [("dog", small), ("cat", large)], "SegmentationClass", by_class, blob),
        ("test", "cat", [("cat", large)], "", None, box),
    ]
    palette = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8)
    lists: dict[str, str] = {}
    shown = []
    for number, ((split, label, objects, folder, values, mask), pixels) in enumerate(
        zip(wanted, pictures(3), strict=True)
    ):
        name = f"2007_{number:06d}"
        save(root / "JPEGImages" / f"{name}.png", pixels)
        if values is not None:
            picture = Image.fromarray(values)
            picture.putpalette(palette.tolist())
            (root / folder).mkdir(exist_ok=True)
            picture.save(root / folder / f"{name}.png")
        entries = "".join(
            f"<object><name>{one}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax>"
            f"<ymax>{b[3]}</ymax></bndbox></object>"
            for one, b in objects
        )
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height>"
            f"<depth>3</depth></size>{entries}</annotation>"
        )
        lists[split] = lists.get(split, "") + f"{name}\n"
        shown.append(Shown(label, name, split, pixels, mask))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, text in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return shown


# --- Label Studio


def region(kind: str, value: dict[str, Any], *labels: str) -> dict[str, Any]:
    value = {**value, kind: list(labels)} if labels else value
    return {"type": kind, "value": value, "original_width": WIDTH, "original_height": HEIGHT}


def write_label_studio(root: Path) -> list[Shown]:
    """A brush, a polygon, a rectangle, an ellipse, choices, two annotators, and an embedded picture."""
    blob, other = blobs(2)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    square = {"x": 10, "y": 25, "width": 50, "height": 50}
    in_square = (x > 3.1) & (x < 18.6) & (y > 6) & (y < 18)
    triangle = {"points": [[0, 0], [100, 0], [0, 100]]}
    in_triangle = x / WIDTH + y / HEIGHT < 1
    ellipse = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20}
    in_ellipse = ((x - WIDTH / 2) / (0.3 * WIDTH)) ** 2 + ((y - HEIGHT / 2) / (0.2 * HEIGHT)) ** 2 < 1
    brush = region("brushlabels", {"format": "rle", "rle": encode(blob.astype(np.uint8) * 255)}, "cat")
    another = region("brushlabels", {"format": "rle", "rle": encode(other.astype(np.uint8) * 255)}, "cat")
    rectangle = region("rectanglelabels", square, "dog")
    choice = {"type": "choices", "from_name": "kind", "value": {"choices": ["dog"]}}

    def about(kind: str) -> dict[str, Any]:
        """A result about the region called r."""
        return {"type": kind, "id": "r", "value": {**square, kind: ["cat"]}}

    wanted: list[tuple[str, list[list[Any]], Any]] = [
        ("cat", [[brush]], blob),
        (
            "dog",
            [[rectangle, region("ellipselabels", {**ellipse, "radiusX": 1, "radiusY": 1}, "cat")]],
            in_square,
        ),
        ("dog", [[choice, region("polygon", triangle)]], in_triangle),
        ("cat", [[region("ellipselabels", ellipse, "cat")]], in_ellipse),
        ("cat", [[brush], [another], [rectangle]], [blob, other]),
        ("dog", [[choice]], None),
        ("cat", [[{**region("rectangle", square), "id": "r"}, about("labels"), about("choices")]], in_square),
    ]
    shown, tasks = [], []
    for number, ((label, answers, mask), pixels) in enumerate(zip(wanted, pictures(7), strict=True)):
        name = f"p{number}"
        if number == 0:
            image = "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
        else:
            save(root / "upload" / f"{name}.png", pixels)
            prefix = "/data/upload/3/0a1b2c3d-" if number == 1 else "/data/local-files/?d=upload/"
            image = f"{prefix}{name}.png"
        annotations = [{"id": n, "result": result} for n, result in enumerate(answers)]
        tasks.append({"id": 100 + number, "data": {"image": image, "note": "x"}, "annotations": annotations})
        shown.append(Shown(label, name, "", pixels, mask))
    (root / "export.json").write_text(json.dumps(tasks))
    return shown


# --- Hugging Face


def write_hf_folder(root: Path) -> list[Shown]:
    shown = []
    lines: dict[str, list[str]] = {}
    for number, (pixels, blob) in enumerate(zip(pictures(6), blobs(6), strict=True)):
        split, label = ("train", "validation", "test")[number % 3], ("cat", "dog")[number // 3]
        save(root / split / f"{number}.png", pixels)
        save(root / split / "masks" / f"{number}.png", blob.astype(np.uint8) * 255)
        entry = {
            "file_name": f"{number}.png",
            "mask_file_name": f"masks/{number}.png",
            "label": label,
            "age": 3,
        }
        lines.setdefault(split, []).append(json.dumps(entry))
        shown.append(Shown(label, str(number), split.replace("validation", "val"), pixels, blob))
    for split, entries in lines.items():
        (root / split / "metadata.jsonl").write_text("\n".join(entries) + "\n")
    return shown


def write_hf_parquet(root: Path) -> list[Shown]:
    shown: list[Shown] = []
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    kind = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    (root / "data").mkdir(parents=True)
    for place, split in enumerate(("train", "validation", "test")):
        rows: dict[str, list[Any]] = {"image": [], "mask": [], "label": []}
        for number, (pixels, blob) in enumerate(zip(pictures(4), blobs(4), strict=True)):
            pixels = np.roll(pixels, place + 1, axis=0)
            rows["image"].append({"bytes": png(pixels), "path": f"{number}.png"})
            mask = {"bytes": png(blob.astype(np.uint8) * 255), "path": None}
            rows["mask"].append(mask if number else None)
            rows["label"].append(number % 2)
            label = ("cat", "dog")[number % 2]
            drawn = blob if number else None
            shown.append(Shown(label, f"{split}{number}", split.replace("validation", "val"), pixels, drawn))
        frame = pl.DataFrame(rows, schema={"image": kind, "mask": kind, "label": pl.Int64})
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        frame.write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", metadata=meta)
    return shown


FORMATS: dict[str, Callable[[Path], list[Shown]]] = {
    "coco": write_coco,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "voc": write_voc,
    "label-studio": write_label_studio,
    "hf-folder": write_hf_folder,
    "hf-parquet": write_hf_parquet,
}
