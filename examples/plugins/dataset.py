"""A data set of your own layout: root/<class>-<number>.png, with a mask <class>-<number>.mask.png or none.

sal-fast run --data examples/plugins/dataset.py:side_by_side --root photos/
"""

from sal_fast.data.table import build


def side_by_side(root):
    """Rows of (id, image, class, mask, split). An empty split leaves the choice to the run's seed."""
    rows = []
    for image in sorted(root.glob("*.png")):
        if not image.name.endswith(".mask.png"):
            mask = image.with_suffix(".mask.png")
            label = image.stem.rpartition("-")[0]
            rows.append((image.stem, image, label, mask if mask.exists() else None, ""))
    return build(root.name, rows)
