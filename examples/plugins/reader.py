"""A reader: photographs in a folder, and labels.txt, whose lines are a file's name and a class.

`sal-fast run --data photos/ --format examples/plugins/reader.py:Lines` uses it.
"""

from sal_fast.data.readers import Found, Look, Reader, Reading


class Lines(Reader):
    """Images are used where they are; the run draws the splits, since none are given."""

    def looks(self, path):
        return Look("it has a labels.txt") if (path / "labels.txt").is_file() else None

    def read(self, path, options):
        reading = Reading()
        reading.used.add(path / "labels.txt")
        for line in (path / "labels.txt").read_text().splitlines():
            name, label = line.split()
            image = path / name
            if image.is_file():
                reading.found.append(Found(image.stem, image, label))
            else:
                reading.leave_out(name, "images in labels.txt that are not there")
        return reading
