"""Greedy k-center in blocks: the picks of one at a time, some hundred of them for one pass over the pool.

Every row has an upper bound of its squared distance to the nearest centre. Distances only fall, so a bound
stays a bound when centres are added. A block takes the rows of the largest bounds and computes their
distances in float64, as sums of squared differences. It picks among them as long as the farthest beats every
bound outside, because no row outside can then win. Bounds come from products in float32, with the rounding
error added. The distance to a centre is computed wherever the error leaves open whether it is the nearest. So
rounding costs time, but changes no pick.
"""

import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sal_fast.ops import _rows
from sal_fast.ops._rows import Progress, Rows, Share

BLOCK = 256  # The candidates of a block, and the most centres in one product.
FEW = 32  # After a block of fewer picks a pass follows, if there are picks that the bounds do not know of.
LOOSE = 16  # If a candidate needs more distances, or a block gives no pick, float32 bounds are given up.


def kcenter(features: Rows, k: int, centers: Rows | None, progress: Progress | None, share: Share) -> Tensor:
    """See `sal_fast.ops.kcenter`. Here k <= N."""
    pool = _Pool(features, centers, share)
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=features.device)
    picks: list[int] = []
    new = 0  # picks that the bounds do not know of yet
    if centers is None:
        picks.append(int(pool.norms.argmax()))
        pool.cover(pool.centers_and(picks))
        pool.upper[picks] = -torch.inf
    else:
        pool.cover(_in_blocks(centers, max(BLOCK, len(features) // 40)))
    while len(picks) < k:
        found = pool.block(picks, k - len(picks))
        picks += found
        new += len(found)
        if len(picks) < k and len(found) < FEW and new:
            pool.cover(_taken(features, picks[-new:]))
            new = 0
        elif pool.loose and pool.dtype != torch.float64:
            pool.to_float64(picks)
            new = 0
        elif not found:
            pool.settle(picks)
        if progress is not None:
            progress(len(picks), k)
    return torch.tensor(picks, dtype=torch.int64, device=features.device)


def memory(features: Tensor, k: int, device: torch.device) -> int:
    """Bytes that are needed beside the inputs: for the rows, for a block in a pass, for the candidates."""
    count, width = features.shape
    block = max(
        _rows.block_rows(device, 4 * (width + BLOCK)) * (3 * width + 2 * BLOCK) * 4,
        _rows.block_rows(device, 8 * width) * width * 24,
    )
    group = 8 * max(BLOCK, count // 40) * width
    return 24 * count + 16 * k + block + 32 * BLOCK * width + group + 16 * _rows.PARTS * width


def _taken(features: Rows, picks: list[int]) -> Iterator[Tensor]:
    for start in range(0, len(picks), BLOCK):
        yield features.take(torch.tensor(picks[start : start + BLOCK]))


def _in_blocks(rows: Rows, size: int) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        yield rows.block(slice(start, start + size))


class _Pool:
    """The pool, with two float64 numbers for each row.

    `upper` is an upper bound of the squared distance to the nearest centre (-inf once a row is picked),
    `norms` the squared norm. The ranks share the passes, and all do everything else alike.
    """

    def __init__(self, features: Rows, centers: Rows | None, share: Share) -> None:
        self.features, self.centers, self.device = features, centers, features.device
        self.share = share
        count = len(features)
        self.upper = torch.full((count,), torch.inf, dtype=torch.float64, device=self.device)
        self.norms = torch.empty(count, dtype=torch.float64, device=self.device)
        total, largest = self._survey("features", features, self.norms if centers is None else None)
        dtypes = [features.values.dtype]
        if centers is not None:
            largest = max(largest, self._survey("centers", centers, None)[1])
            dtypes.append(centers.values.dtype)
        self.mean = total / max(count, 1)
        self._work_in(_rows.working_dtype(largest, *dtypes))
        self.loose, self.settled = False, 4 * BLOCK

    def _survey(self, name: str, rows: Rows, norms: Tensor | None) -> tuple[Tensor, float]:
        """The sum of the rows and the largest magnitude. Squared norms go into `norms`, if it is given."""
        size = _rows.block_rows(self.device, 8 * rows.width)
        parts = self.share.parts(len(rows), size)
        totals = torch.zeros(parts, rows.width, dtype=torch.float64, device=self.device)
        largest = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, at in self.share.walk(len(rows), size):
            block = rows.block(at)
            totals[part] += block[-at.start % size :].sum(0, dtype=torch.float64)  # without the overlap
            largest = torch.maximum(largest, _rows.magnitude(block))
            if norms is not None:
                norms[at] = block.double().square().sum(1)
        self.share.total(totals)
        self.share.most(largest)
        _rows.check_values("kcenter", name, float(largest))
        if norms is not None:
            self.share.whole(norms, size)
        return totals.sum(0), float(largest)

    def _work_in(self, dtype: torch.dtype) -> None:
        self.dtype, width = dtype, self.features.width
        # Relative to the sum of two squared norms, which is at least twice the product of the norms.
        self.error = _rows.product_error(width, dtype)
        self.vanishing = 4 * width * torch.finfo(dtype).tiny
        self.shift = self.mean.to(dtype)
        self.centred_norms = False  # True once `norms` belongs to the centred rows

    def cover(self, groups: Iterable[Tensor]) -> None:
        """Lower the bounds of the whole pool by groups of new centres, with one pass for each group."""
        for group in groups:
            centers = [self._centred(part) for part in group.split(BLOCK)]
            scaled = [(norms * (1 + self.error)).to(self.dtype) for _, norms in centers]
            row_bytes = 4 * (self.features.width + min(len(group), BLOCK))
            size = _rows.block_rows(self.device, row_bytes)
            for _, at in self.share.walk(len(self.features), size):
                rows = self.features.block(at).to(self.dtype) - self.shift
                if not self.centred_norms:
                    self.norms[at] = _norms(rows)
                low = [
                    torch.addmm(norm, rows, center.T, alpha=-2).amin(1)
                    for (center, _), norm in zip(centers, scaled, strict=True)
                ]
                nearest = functools.reduce(torch.minimum, low).double()
                bound = nearest.add_(self.norms[at], alpha=1 + self.error).add_(self.vanishing)
                self.upper[at] = torch.minimum(self.upper[at], bound)
            if not self.centred_norms:
                self.share.whole(self.norms, size)
                self.centred_norms = True
        self.share.least(self.upper)

    def block(self, picks: list[int], most: int) -> list[int]:
        """The next picks, as far as the farthest candidates decide them: perhaps none, but better bounds."""
        index, outside, first_outside = _largest(self.upper, BLOCK)
        rows = self.features.take(index)
        distance, computed = self._nearest(index, rows, picks)
        rows = rows.double()
        differences = torch.empty_like(rows)
        numbers = index.tolist()
        found: list[int] = []
        while len(found) < most:
            at = int(distance.argmax())  # the first of equals, and `index` ascends
            farthest = float(distance[at])
            beaten = farthest < outside or (farthest == outside and numbers[at] > first_outside)
            if beaten or farthest == -torch.inf:
                break
            found.append(numbers[at])
            distance = torch.minimum(distance, _squares(torch.sub(rows, rows[at], out=differences)))
            distance[at] = -torch.inf
        self.upper[index] = distance
        self.loose = not found or computed > LOOSE * len(index)
        if found:
            self.settled = 4 * BLOCK
        return found

    def to_float64(self, picks: list[int]) -> None:
        """Compute all bounds anew in float64, where those in float32 decide little."""
        self._work_in(torch.float64)
        self.cover(self.centers_and(picks))

    def settle(self, picks: list[int]) -> None:
        """Compute the distances themselves where float64 bounds decide nothing, for more rows each time."""
        for part in _largest(self.upper, self.settled)[0].split(BLOCK):
            self.upper[part] = self._nearest(part, self.features.take(part), picks)[0]
        self.settled *= 4

    def centers_and(self, picks: list[int]) -> Iterator[Tensor]:
        """The rows of the given centres and of these picks, at most BLOCK at a time."""
        if self.centers is not None:
            yield from _in_blocks(self.centers, BLOCK)
        yield from _taken(self.features, picks)

    def _centred(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.to(self.dtype) - self.shift
        return rows, _norms(rows)

    def _nearest(self, index: Tensor, rows: Tensor, picks: list[int]) -> tuple[Tensor, int]:
        """Squared distances of candidates to their nearest centres, and how many distances that took."""
        upper, norms = self.upper[index], self.norms[index]
        covered = upper <= 0  # then no other centre is nearer
        result = torch.full_like(upper, torch.inf).masked_fill_(covered, 0.0)
        centred = rows.to(self.dtype) - self.shift
        # A centre may be the nearest if the lower bound of its distance is within the upper bound.
        limit = upper - norms * (1 - self.error) + self.vanishing
        limit[covered] = -torch.inf
        computed = 0
        for group in self.centers_and(picks):
            center, norm = self._centred(group)
            least = torch.addmm((norm * (1 - self.error)).to(self.dtype), centred, center.T, alpha=-2)
            candidate, near = (least <= limit[:, None]).nonzero(as_tuple=True)
            computed += len(candidate)
            for start in range(0, len(candidate), len(index)):
                # Always equally many, because a sum's last bit may depend on the shape that it is part of.
                pairs = torch.arange(start, start + len(index), device=self.device)
                pairs.clamp_(max=len(candidate) - 1)
                which = candidate[pairs]
                between = _squares(rows[which].double().sub_(group[near[pairs]]))
                result.scatter_reduce_(0, which, between, "amin")
        return result, computed


def _largest(values: Tensor, count: int) -> tuple[Tensor, float, int]:
    """The positions, ascending, of the `count` largest values; then value and position of the next largest.

    Among equal values the lowest positions are taken. Values of -inf are left out.
    """
    if len(values) <= count:
        return (values > -torch.inf).nonzero()[:, 0], -torch.inf, len(values)
    least = float(values.topk(count + 1).values[-1])
    above = (values > least).nonzero()[:, 0]
    if least == -torch.inf:
        return above, least, len(values)
    equal = (values == least).nonzero()[:, 0]
    split = count - len(above)
    return torch.cat([above, equal[:split]]).sort().values, least, int(equal[split])


def _squares(differences: Tensor) -> Tensor:
    return differences.square_().sum(1)


def _norms(rows: Tensor) -> Tensor:
    """Squared norms, with sums in float64."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square_()
