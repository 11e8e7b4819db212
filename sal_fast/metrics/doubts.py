"""Sentences on figures that mean little."""

from collections.abc import Sequence

FEW = 50  # test images: with fewer the interval of an accuracy of 0.5 is at least 0.27 wide


def doubts(images: Sequence[int], predicted: Sequence[str], maps: int | None = None) -> list[str]:
    """Say in sentences why the figures of a test mean little; an empty list if nothing speaks against them.

    Args:
        images: the number of test images of each class.
        predicted: the names of the classes that the model predicted for any of them.
        maps: the number of test images with a map; None or 0 if no figure is made of maps.
    """
    said = []
    total = sum(images)
    if total < FEW:
        said.append(
            f"only {_counted(total)} {'was' if total == 1 else 'were'} tested, fewer than {FEW}: "
            f"the figures may change a lot with other images"
        )
    if len(predicted) == 1 and sum(count > 0 for count in images) > 1:
        said.append(
            f"every test image was taken for {predicted[0]!r}: accuracy is that class's share of the images, "
            f"and the maps show nothing that tells classes apart"
        )
    if maps and maps < FEW <= total:
        said.append(
            f"only {_counted(maps)} of the test set {'has' if maps == 1 else 'have'} a map, fewer than "
            f"{FEW}: the figures of maps may change a lot with other images"
        )
    return said


def _counted(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}"
