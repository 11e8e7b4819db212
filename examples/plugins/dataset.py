"""A data set of your own layout: root/<class>-<number>.png, with root/<class>-<number>.mask.png or without.

`sal-fast run --data examples/plugins/dataset.py:side_by_side --root photos/` reads it.
"""

from sal_fast.data import Sample, make_table


def side_by_side(root):
    """The table of all pictures in the folder `root`. The run draws the splits, since none are given."""
    samples = []
    for image in sorted(root.glob("*.png")):
        if not image.name.endswith(".mask.png"):
            mask = image.with_suffix(".mask.png")
            label = image.stem.rpartition("-")[0]
            samples.append(Sample(image.stem, image, label, mask if mask.exists() else None))
    return make_table(root.name, samples)
