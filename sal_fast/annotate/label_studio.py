"""Label Studio: a query becomes tasks with the pictures in them, its JSON export becomes answers."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from sal_fast.annotate.answers import Answer, Asked, Problems, in_order, new_folder, pictures
from sal_fast.data import files
from sal_fast.errors import InputError

PART = 100 * 2**20  # bytes of pictures in one tasks file; Label Studio takes uploads of at most 250 MB
FEW = 8  # classes, with a digit each to choose them; more have a search field
UNSEEN = "\u2060"  # a joiner of no width
EXPECTED = "expected Label Studio's export in the format JSON (not JSON-MIN, CSV, COCO or another)"

CONFIG = """<View>
  <Header value="$id" size="5"/>
  <View style="display: flex; align-items: flex-start; gap: 16px">
    <View style="flex: 1; min-width: 0">{brush}
      <Image name="image" value="$image" zoom="true" zoomControl="true" rotateControl="false"/>
    </View>
    <View style="width: 260px">{search}
      <View style="max-height: 70vh; overflow-y: auto">
        <Choices name="label" toName="image" choice="single" required="true"
                 requiredMessage="Choose the class, or skip the image.">
{choices}
        </Choices>
      </View>
    </View>
  </View>
</View>
"""
BRUSH = """
      <BrushLabels name="map" toName="image">
        <Label value="salient" background="#ff0000" selected="true"/>
      </BrushLabels>"""
SEARCH = """
      <Filter name="search" toName="label" minlength="0" placeholder="find a class"/>"""

README = """Query {query} of the run {run}, for Label Studio. Images: {count}.

1. Install and start it, in an environment of its own:
       python -m venv label-studio && label-studio/bin/pip install label-studio
       label-studio/bin/label-studio start
   It opens http://localhost:8080. Sign up: the account stays on this machine.
2. "Create" a project. In "Data Import" upload {tasks}. The pictures are in there:
   nothing has to be served. In "Labeling Setup" choose "Custom template", then "Code", and put all of
   config.xml in place of what is there. Save.
3. "Label All Tasks". For every image:{draw}
     - choose the class on the right{search};
     - Submit; or Skip, where it cannot be told.
   Do not turn the picture, and leave id, run and query of a task as they are.
4. Several people: each signs up with an address of their own. Two answers to one image are two
   annotations of its task.
5. "Export", format "JSON" (not JSON-MIN). Then:
       sal-fast query import RUN FILE
"""
DRAW = """
     - paint over all that shows what it is (on the picture's right: brush, key B; eraser, E; zoom; [ and ]
       change the size);"""


def export(asked: Asked, out: Path) -> list[Path]:
    """A new folder `out`: tasks.json with the pictures in it, config.xml, README.txt; the tasks files.

    Beyond 100 MB of pictures there are tasks-2.json and so on. Raises InputError where `out` holds anything,
    or names the images that cannot be read.
    """
    names: list[str] = []
    with new_folder(out) as folder:
        part: list[str] = []
        length = 0

        def write() -> None:
            names.append("tasks.json" if not names else f"tasks-{len(names) + 1}.json")
            (folder / names[-1]).write_text("[\n" + ",\n".join(part) + "\n]\n", encoding="utf-8")

        for name, data, suffix in pictures(asked):
            kind = "jpeg" if suffix == ".jpg" else "png"
            image = f"data:image/{kind};base64,{b64encode(data).decode()}"
            if part and length + len(image) > PART:
                write()
                part, length = [], 0
            length += len(image)
            task = {"id": name, "run": asked.run, "query": asked.query, "image": image}
            part.append(json.dumps({"data": task}, ensure_ascii=False))
        write()
        (folder / "config.xml").write_text(config(asked), encoding="utf-8")
        readme = README.format(
            query=asked.query,
            run=asked.run,
            count=len(asked.ids),
            tasks=names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, one after the other",
            draw=DRAW if asked.maps else "",
            search=" (type a part of its name to find it)" if len(asked.classes) > FEW else "",
        )
        (folder / "README.txt").write_text(readme, encoding="utf-8")
    return [out / name for name in names]


def config(asked: Asked) -> str:
    """The labeling interface: the picture, a brush if maps are wanted, the class."""
    many = len(asked.classes) > FEW
    key = f' hotkey="{UNSEEN}"' if many else ""  # else letters choose classes, those of brush and eraser too
    choices = (f"          <Choice value={quoteattr(_shown(name))}{key}/>" for name in asked.classes)
    text = CONFIG.format(
        brush=BRUSH if asked.maps else "", search=SEARCH if many else "", choices="\n".join(choices)
    )
    return text.replace(UNSEEN, f"&#{ord(UNSEEN)};")  # so that it can be seen here, and pasted


def _shown(label: str) -> str:
    """A class as a choice: $word would be a field of the task, so something unseen stands between."""
    return label.replace("$", f"${UNSEEN}")


def read(file: Path, asked: Asked) -> list[Answer]:
    """The answers in Label Studio's JSON export, in the order of the query; tasks without one are left out.

    Regions of one annotation are united; drafts and predictions are passed over, and tasks of the run's other
    queries, unless there are no others. Without `asked.maps` no map is looked at. Raises InputError with
    everything that is wrong, each with its task.
    """
    problems = Problems(file.name)
    answers: list[tuple[str, Answer]] = []
    elsewhere: list[tuple[object, str]] = []
    tasks = _tasks(file)
    if tasks and not any({"id", "run", "query"} <= task["data"].keys() for task in tasks):
        raise InputError(
            f"{file.name}: an export of another project (no task has id, run and query of sal-fast); export "
            f"the project that holds this query's tasks.json"
        )
    for number, task in enumerate(tasks, start=1):
        place = f"task {_identity(task, number)}"
        name = task["data"].get("id")
        if "run" not in task["data"] or "query" not in task["data"] or not isinstance(name, str):
            problems.add(place, "has no id, run and query of sal-fast; leave other tasks out of the project")
            continue
        if task["data"]["run"] == asked.run and task["data"]["query"] != asked.query:
            elsewhere.append((task["data"]["query"], place))
            continue
        asked.refuse_others(task["data"]["run"], task["data"]["query"], f"{file.name}, {place}")
        place += f" (id {name!r})"
        if name not in asked.row_of:
            problems.add(place, asked.id_problem(name))
            continue
        for nth, annotation in enumerate(map(_object, task["annotations"]), start=1):
            where = place
            if len(task["annotations"]) > 1:
                where += f", annotation {_identity(annotation, nth)}"
            try:
                answers.append((where, _answer(annotation, name, asked)))
            except ValueError as error:
                problems.add(where, str(error))
    if elsewhere and len(elsewhere) == len(tasks):
        query, place = elsewhere[0]
        asked.refuse_others(asked.run, query, f"{file.name}, {place}")
    return in_order(asked, answers, problems)


def _tasks(file: Path) -> list[dict[str, Any]]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"file not found: {file}") from None
    if data.startswith(b"PK"):
        raise InputError(f"{file.name}: a ZIP archive; {EXPECTED}")
    try:
        tasks = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{file.name}, {where}: not JSON ({error.msg}); {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.name}: not JSON ({error}); {EXPECTED}") from None
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations"), list)
        for task in tasks
    ):
        raise InputError(f"{file.name}: other JSON; {EXPECTED}")
    return tasks


def _answer(annotation: Mapping[str, Any], name: str, asked: Asked) -> Answer:
    """One annotation; ValueError says what is wrong with it."""
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    annotator = "" if by is None else str(by)
    time = annotation.get("lead_time")
    seconds = None if time is None else _number(time, 0, 1e9, "a lead_time")
    if annotation.get("was_cancelled") is True:
        return Answer(name, None, None, annotator, seconds, skipped=True)
    regions = [_object(region) for region in _array(annotation.get("result"))]
    chosen = [
        choice
        for region in regions
        if (region.get("type"), region.get("from_name")) == ("choices", "label")
        for choice in _array(_object(region.get("value")).get("choices"))
    ]
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen) or 'no'} classes are chosen, expected one; choose one, or skip")
    label = next((name for name in asked.classes if chosen[0] in (name, _shown(name))), None)
    if label is None:
        raise ValueError(asked.class_problem(str(chosen[0])))
    mask = _mask(regions, asked.images[asked.row_of[name]]) if asked.maps else None
    return Answer(name, label, mask, annotator, seconds, skipped=False)


def _mask(regions: list[dict[str, Any]], image: Path) -> np.ndarray | None:
    """All that was drawn: uint8 [H, W], 0 or 255."""
    mask: np.ndarray | None = None
    size = (0, 0)
    for region in regions:
        kind = str(region.get("type")).removesuffix("labels")
        if kind in ("keypoint", "vector", "bitmask"):
            raise ValueError(f"a region of type {region.get('type')!r} cannot be read; draw with the brush")
        if kind not in ("brush", "rectangle", "ellipse", "polygon"):
            continue
        if mask is None:
            try:
                size = files.read(image).size
            except files.Unreadable as error:
                raise ValueError(str(error)) from None
            mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        drawn_on = (region.get("original_width"), region.get("original_height"))
        if drawn_on != size:
            raise ValueError(
                f"a map for {drawn_on[0]}x{drawn_on[1]} pixels, the image has {size[0]}x{size[1]}; "
                f"label the pictures as they were exported"
            )
        if region.get("image_rotation"):
            raise ValueError("the picture was turned in Label Studio; turn it back and draw the map again")
        value = _object(region.get("value"))
        if kind == "brush":
            alpha = decode(value.get("rle"), size)
            mask[alpha > alpha.max() // 2] = 255  # a brush's edge is soft, an interface may be translucent
        else:
            mask[_inside(_outline(kind, value, size), size)] = 255
    return mask


def _outline(kind: str, value: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The corners of a shape in pixels, float64 [k, 2] of x, y, (0, 0) the top left; an ellipse has 360."""

    def number(item: object) -> float:
        return _number(item, -1000, 1000, f"a {kind} with a place or size in percent")

    if kind == "polygon":
        pairs = [_array(point) for point in _array(value.get("points"))]
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
            raise ValueError("a polygon with a damaged outline, expected three points or more; draw it again")
        return np.array([[number(item) for item in pair] for pair in pairs]) * size / 100
    origin = np.array([number(value.get("x")), number(value.get("y"))]) * size / 100
    if kind == "rectangle":
        extent = np.array([number(value.get("width")), number(value.get("height"))]) * size / 100
        points = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * extent
    else:
        extent = np.array([number(value.get("radiusX")), number(value.get("radiusY"))]) * size / 100
        turn = np.radians(np.arange(360))
        points = np.stack([np.cos(turn), np.sin(turn)], axis=1) * extent
    angle = math.radians(number(value.get("rotation", 0)))  # clockwise, about x, y
    cos, sin = math.cos(angle), math.sin(angle)
    return origin + points @ np.array([[cos, sin], [-sin, cos]])


def _inside(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W], the pixels whose centre an outline holds (even-odd)."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    inside = np.zeros((size[1], size[0]), dtype=bool)
    centres = np.arange(size[0]) + 0.5
    for row in range(size[1]):
        level = row + 0.5
        cut = (y <= level) != (next_y <= level)
        slope = (next_x[cut] - x[cut]) / (next_y[cut] - y[cut])
        crossings = np.sort(x[cut] + (level - y[cut]) * slope)
        inside[row] = np.searchsorted(crossings, centres) % 2 == 1
    return inside


# --- the brush's run-length code (that of @thi.ng/rle-pack) ----------------------------------------------
# 32 bits: how many values. 5: bits of a value less 1. Four times 4: the lengths' sizes in bits, less 1.
# Then pieces: 1 bit, whether it is a run; 2: which size; a length less 1; one value of a run, or all of them.
# A picture's values are its RGBA bytes, row by row.

SIZES = (3, 4, 8, 16)


def encode(mask: np.ndarray) -> list[int]:
    """uint8 [H, W] -> the code of a picture with the mask in all four channels."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    lengths = np.diff(starts, append=flat.size) * 4
    most = 1 << SIZES[-1]
    pieces = -(-lengths // most)
    which = np.repeat(np.searchsorted([1 << size for size in SIZES[:-1]], lengths), pieces)
    size = np.array(SIZES)[which]
    values = np.repeat(flat[starts], pieces).astype(np.int64)
    last = np.cumsum(pieces) - 1
    cut = np.full(len(values), most)
    cut[last] = lengths - (pieces - 1) * most
    words = (((4 | which) << size | cut - 1) << 8) | values
    width = 3 + size + 8
    bits = np.unpackbits((words << (32 - width)).astype(">u4").view(np.uint8)).reshape(-1, 32)
    header = (mask.size * 4) << 21 | 7 << 16
    for place, size_bits in enumerate(SIZES):
        header |= (size_bits - 1) << (12 - 4 * place)
    head = np.unpackbits(np.frombuffer(header.to_bytes(7, "big"), dtype=np.uint8))[3:]
    out = np.packbits(np.concatenate([head, bits[np.arange(32) < width[:, None]]]))
    return [int(byte) for byte in out]


def decode(rle: object, size: tuple[int, int]) -> np.ndarray:
    """The alpha channel, uint8 [H, W], of the code of a picture of `size` (width, height).

    Raises ValueError for a damaged code, before anything larger than the picture is made.
    """
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise ValueError("the brush's code is damaged (expected a list of bytes); draw the map again")
    data = bytes(rle)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    end = len(bits)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        first, position = position, position + count
        if position > end:
            raise ValueError("the brush's code ends too early; export again, or draw the map again")
        whole = int.from_bytes(data[first >> 3 : (position + 7) >> 3], "big")
        return whole >> (-position & 7) & ((1 << count) - 1)

    count, width = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if count != size[0] * size[1] * 4:
        raise ValueError(
            f"the brush's code holds {count:,} values, expected {size[0]}x{size[1]} pixels of four; "
            f"label the pictures as they were exported"
        )
    if width != 8:
        raise ValueError(f"the brush's code has values of {width} bits, expected 8; draw the map again")
    values = np.empty(count, dtype=np.uint8)
    done = 0
    while done < count:
        run, length = take(1), take(sizes[take(2)]) + 1
        if done + length > count:
            raise ValueError("the brush's code runs beyond the picture; export again, or draw the map again")
        if run:
            values[done : done + length] = take(8)
        else:
            position += 8 * length
            if position > end:
                raise ValueError("the brush's code ends too early; export again, or draw the map again")
            values[done : done + length] = np.packbits(bits[position - 8 * length : position])
        done += length
    return values.reshape(size[1], size[0], 4)[..., 3]


# --- JSON of any kind ------------------------------------------------------------------------------------


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _identity(item: Mapping[str, Any], place: int) -> int:
    """How Label Studio calls it, else where it stands."""
    return item["id"] if type(item.get("id")) is int else place


def _array(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object, low: float, high: float, what: str) -> float:
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{what} of {value!r}, expected {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]
