"""Tell which axes of a module's output are rows, columns and channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Grid = tuple[int, int]
Kind = Literal["nchw", "nhwc", "tokens"]

CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Layout:
    """Rearranges a module's output, or the gradient to it, into maps [B, C, h, w]; it selects and permutes.

    kind: `nchw` [B, C, h, w], `nhwc` [B, h, w, C], or `tokens` [B, extra + rows * columns, C], whose first
    `extra` tokens (class, distillation and register tokens) are left out and whose others go row by row.
    """

    kind: Kind
    rows: int
    columns: int
    extra: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        """Maps [B, C, h, w]; ValueError if an output of tokens has another number of them."""
        if self.kind == "nchw":
            return output
        if self.kind == "nhwc":
            return output.permute(0, 3, 1, 2)
        tokens = self.extra + self.rows * self.columns
        if output.ndim != 3 or output.shape[1] != tokens:
            raise ValueError(
                f"explain: expected an output [B, {tokens}, C] of {self.extra} tokens and a grid of "
                f"{self.rows} x {self.columns} patches, got {list(output.shape)}; find the layout again for "
                "images of another size"
            )
        return output[:, self.extra :].mT.unflatten(2, (self.rows, self.columns))


class Clues:
    """What one forward pass tells about layouts.

    Convolutions have channels first, so their outputs show the grids of positions that occur in the network.
    Layers without convolutions halve them (patch merging, pooling).

    Args:
        image: rows and columns of the images, None if they are not [B, C, H, W].
        grids: those of the outputs of convolutions.
        extra: for each number of tokens, how many of the first do not depend on the image. These are class,
            distillation and register tokens, as they are before the first attention.
        head_inputs: the number of inputs of the linear head, None without such a head.
    """

    def __init__(
        self, image: Grid | None, grids: Iterable[Grid], extra: dict[int, int], head_inputs: int | None
    ) -> None:
        self._image, self._extra, self._head_inputs = image, extra, head_inputs
        self._grids = set(grids)
        self._halved = _halved(self._grids)

    def layout(self, shape: Sequence[int], known: Kind | None) -> Layout | None:
        """The layout of an output of this shape; None where it is not a map, or where nothing tells the axes.

        known: the kind that the type of the module tells; `nhwc` says of tokens, too, that channels are last.
        """
        if len(shape) == 3:
            return self._tokens(shape[1], shape[2], known)
        if len(shape) != 4:
            return None
        _, a, b, c = shape
        first, last = self._is_grid((b, c)), self._is_grid((a, b))
        if known is None and first != last:
            known = "nchw" if first else "nhwc"
        if known is None and first and (a == self._head_inputs) != (c == self._head_inputs):
            known = "nchw" if a == self._head_inputs else "nhwc"
        if known is None:
            return None
        return Layout("nchw", b, c) if known == "nchw" else Layout("nhwc", a, b)

    def _is_grid(self, grid: Grid) -> bool:
        """True if the positions of a map can be in this grid."""
        if self._halved:
            return grid in self._halved
        return self._image is not None and grid[0] * self._image[1] == grid[1] * self._image[0]

    def _tokens(self, tokens: int, channels: int, known: Kind | None) -> Layout | None:
        # A class token that went through a stage of a network depends on the image in the next.
        for extra in (self._extra.get(tokens, 0), max(self._extra.values(), default=0)):
            grid = self._grid(tokens - extra)
            if grid is not None:
                last = known == "nhwc" or extra > 0 or channels == self._head_inputs != tokens
                # [B, C, T] would be read as tokens where C, too, is the size of a grid.
                return Layout("tokens", *grid, extra) if last or self._grid(channels) is None else None
        return None

    def _grid(self, positions: int) -> Grid | None:
        """The only grid of that many positions, None if there are none or several."""
        for grids in (self._grids, self._halved, self._of_square_patches(positions)):
            fits = [grid for grid in grids if grid[0] * grid[1] == positions]
            if fits:
                return fits[0] if len(fits) == 1 else None
        return None

    def _of_square_patches(self, positions: int) -> set[Grid]:
        """The grid of that many square patches which cover the image, for networks without convolutions."""
        if self._image is None or self._grids:
            return set()
        height, width = self._image
        return {
            (height // size, width // size)
            for size in range(1, min(height, width) + 1)
            if height % size == width % size == 0 and height * width == positions * size**2
        }


def kind_by_type(module: nn.Module) -> Kind | None:
    """`nchw` or `nhwc` if modules of this type always have channels there, None otherwise.

    Only LayerNorm itself has channels last: libraries derive norms of [B, C, h, w] from it.
    """
    if isinstance(module, CHANNELS_FIRST):
        return "nchw"
    return "nhwc" if type(module) is nn.LayerNorm else None


def _halved(grids: Iterable[Grid]) -> set[Grid]:
    """The grids, and all that come from them by halving, rounded down or up."""
    found, new = set(), set(grids)
    while new:
        found |= new
        new = {(rows // 2, columns // 2) for rows, columns in new if min(rows, columns) > 1} | {
            ((rows + 1) // 2, (columns + 1) // 2) for rows, columns in new
        }
        new -= found
    return found
