"""The usual code in eager torch and numpy, which ours is compared with. It needs torch and numpy alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sal_fast import ops

SIGMA = 1.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
C1, C2 = 0.01**2, 0.03**2


def with_gradient(function: Callable[..., Any], inputs: int = 1) -> Callable[..., Any]:
    """Return a function of forward and backward: the gradients of the results' sum to the first arguments."""

    def forward_and_backward(*args: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in args[:inputs]]
        results = function(*leaves, *args[inputs:])
        results = results if isinstance(results, tuple) else (results,)
        return torch.autograd.grad(results, leaves, [torch.ones_like(x) for x in results])

    return forward_and_backward


def distances(count: int, size: int, uniform: Callable[..., Tensor]) -> Tensor:
    """Return each pixel's distance to a random centre over a random radius, [count, size, size].

    Values below 1 are a disc of 7 to 28 % of the image, like the masks that people draw.
    """
    down, across, far = uniform(3, count, 1, 1)
    at = (torch.arange(size, device=far.device) + 0.5) / size
    squared = (at[:, None] - 0.3 - 0.4 * down) ** 2 + (at - 0.3 - 0.4 * across) ** 2
    return squared.sqrt() / (0.15 + 0.15 * far)


# --- saliency --------------------------------------------------------------------------------------------


def cam(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the map by an einsum."""
    return torch.einsum("bchw,bc->bhw", features.float(), weight[target])


def cam_head(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits by pooling and the linear layer, and the map by an einsum."""
    logits = F.linear(features.float().mean((2, 3)), weight, bias)
    return logits, cam(features, weight, target)


def normalised(maps: Tensor) -> Tensor:
    """Return each map [..., h, w] scaled to [0, 1]; a flat map gives NaN."""
    maps = maps.float()
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def at_one_size(cam: Tensor, target: Tensor, map_size: int | None) -> tuple[Tensor, Tensor]:
    """Return both maps at one size, [B, 1, S, S] in [0, 1]."""
    x, y = cam.float()[:, None], target.float()[:, None]
    if map_size is not None:
        x = F.interpolate(x, (map_size, map_size), mode="bilinear")
    if y.shape != x.shape:
        y = F.adaptive_avg_pool2d(y, (x.shape[2], x.shape[3]))
    return normalised(x), normalised(y)


_KERNELS: dict[tuple[int, torch.device], Tensor] = {}  # not functools.cache: torch.compile looks past it


def gaussian(window: int, device: torch.device) -> Tensor:
    """Return the window's weights, [1, 1, window, window]; they are made once."""
    if (window, device) not in _KERNELS:
        offsets = torch.arange(window, dtype=torch.float32, device=device) - window // 2
        taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
        _KERNELS[window, device] = torch.outer(taps / taps.sum(), taps / taps.sum())[None, None]
    return _KERNELS[window, device]


def ssim_map(x: Tensor, y: Tensor, window: int = 11) -> Tensor:
    """Return the SSIM at each position, by five convolutions with a two-dimensional Gaussian."""
    channels = x.shape[1]
    kernel = gaussian(window, x.device).expand(channels, 1, window, window).to(x.dtype)
    mx, my, xx, yy, xy = (F.conv2d(image, kernel, groups=channels) for image in (x, y, x * x, y * y, x * y))
    return ((2 * mx * my + C1) * (2 * (xy - mx * my) + C2)) / (
        (mx * mx + my * my + C1) * (xx - mx * mx + yy - my * my + C2)
    )


def ssim(x: Tensor, y: Tensor, window: int = 11) -> Tensor:
    """Return the mean SSIM of all pairs."""
    return ssim_map(x, y, window).mean()


def ssim_of_bytes(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean SSIM of images of bytes, which become floats first."""
    return ssim(x / 255, y / 255)


def saliency_loss(
    cam: Tensor, target: Tensor, map_size: int | None = None, ssim: Callable[..., Tensor] = ssim
) -> Tensor:
    """Return 1 - SSIM + L1 of the normalised maps."""
    x, y = at_one_size(cam, target, map_size)
    window = min(7 if map_size is None else 11, (min(x.shape[2:]) - 1) // 2 * 2 + 1)
    return 1 - ssim(x, y, window) + (x - y).abs().mean()


def cyborg_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    masks: Tensor,
    alpha: float,
    map_size: int | None = None,
) -> Tensor:
    """Return the loss of Eq. 1 from the features."""
    logits, maps = cam_head(features, weight, bias, labels)
    return alpha * F.cross_entropy(logits, labels) + (1 - alpha) * saliency_loss(maps, masks, map_size)


def topn_dice(cam: Tensor, mask: Tensor) -> Tensor:
    """Interpolate, topk and scatter image by image, since N differs."""
    result = []
    for i in range(len(cam)):
        large = F.interpolate(cam[i : i + 1].float()[:, None], mask.shape[1:], mode="bilinear").flatten()
        human = mask[i].flatten()
        n = int(human.sum())
        top = torch.zeros_like(human).scatter_(0, large.topk(n).indices, True)
        result.append((top & human).sum() / n)
    return torch.stack(result)


def topn_dice_by_sort(cam: Tensor, mask: Tensor) -> Tensor:
    """Interpolate and sort a whole batch."""
    size, human = (mask.shape[1], mask.shape[2]), mask.flatten(1)
    large, n = F.interpolate(cam.float()[:, None], size, mode="bilinear").flatten(1), human.sum(1)
    order = large.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(large.shape[1], device=cam.device) < n[:, None]
    return (human.gather(1, order) & first).sum(1) / n


# --- batches ---------------------------------------------------------------------------------------------


def grid_of(box: Tensor, frame: int) -> Tensor:
    """Return the places of boxes (left, top, right, bottom in 0..1) for grid_sample."""
    left, top, right, bottom = box.unbind(1)
    zero = torch.zeros_like(left)
    theta = [right - left, zero, right + left - 1, zero, bottom - top, bottom + top - 1]
    return F.affine_grid(torch.stack(theta, 1).view(-1, 2, 3), [len(box), 3, frame, frame], False)


def crop_images(images: Tensor, rows: Tensor, *box: Tensor, frame: int, dtype: torch.dtype) -> Tensor:
    """Index, convert, call grid_sample and normalise; the arithmetic is float64 if `dtype` is."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    pixels = images.index_select(0, rows).movedim(3, 1).to(exact) / 255
    if box:
        grid = grid_of(box[0].to(exact), frame)
        pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    mean, std = (torch.tensor(v, dtype=exact, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return ((pixels - mean) / std).to(dtype, memory_format=torch.contiguous_format)


def crop_masks(words: Tensor, rows: Tensor, box: Tensor, frame: int) -> Tensor:
    """Unpack the masks and call grid_sample, in the type of the boxes."""
    masks = ops.BitMask(words, frame)[rows].unpack()[:, None].to(box.dtype)
    grid = grid_of(box, frame)
    return F.grid_sample(masks, grid, "nearest", "border", align_corners=False)[:, 0].bool()


# --- selection -------------------------------------------------------------------------------------------


def uncertainty(logits: Tensor, kind: str) -> Tensor:
    """Compute it from a matrix of probabilities."""
    if kind == "entropy":
        log_p = logits.log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)
    p = logits.softmax(1)
    if kind == "least-confidence":
        return 1 - p.max(1).values
    top = p.topk(2, dim=1).values
    return 1 - (top[:, 0] - top[:, 1])


def lean_uncertainty(logits: Tensor, kind: str) -> Tensor:
    """Compute it without a matrix of probabilities, but for entropy."""
    if kind == "entropy":
        return torch.special.entr(logits.softmax(1)).sum(1)
    if kind == "least-confidence":
        return 1 - (logits.amax(1) - logits.logsumexp(1)).exp()
    p = (logits.topk(2, dim=1).values - logits.logsumexp(1, keepdim=True)).exp()
    return 1 - (p[:, 0] - p[:, 1])


def most_uncertain(logits: Tensor, k: int, kind: str) -> Tensor:
    """Return the positions of the k most uncertain rows."""
    return uncertainty(logits, kind).argsort(descending=True)[:k]


def kcenter(features: Tensor, centers: Tensor, k: int, products: bool = True) -> Tensor:
    """Pick one row a pass with torch.cdist, as dal-toolbox does.

    Args:
        features: the pool [N, d].
        centers: the rows [M, d] that are chosen already.
        k: how many rows to pick.
        products: whether the distances to a pick may come from a product of matrices.
    """
    mode = "use_mm_for_euclid_dist_if_necessary" if products else "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(features, centers).amin(1)
    picks = []
    for _ in range(k):
        picks.append(nearest.argmax())
        column = torch.cdist(features, features[picks[-1], None], compute_mode=mode)
        nearest = torch.minimum(nearest, column[:, 0])
    return torch.stack(picks)


def badge(probs: Tensor, features: Tensor, k: int) -> Tensor:
    """Sample by D^2 from |q|^2 |e|^2 and (q.q')(e.e') in numpy, two matrix-vector products a pick."""
    p, e = probs.cpu().numpy(), features.cpu().numpy()
    q = p.copy()
    q[np.arange(len(p)), p.argmax(1)] -= 1
    norms = (q**2).sum(1) * (e**2).sum(1)
    draws = np.random.default_rng(0)
    picks = [int(norms.argmax())]
    distances = np.full(len(p), np.inf)
    for _ in range(1, k):
        last = picks[-1]
        squared = norms + norms[last] - 2 * (q @ q[last]) * (e @ e[last])
        distances = np.minimum(distances, np.maximum(squared, 0))
        distances[picks] = 0
        chances = distances.astype(np.float64)
        picks.append(int(draws.choice(len(p), p=chances / chances.sum())))
    return torch.tensor(picks)


def badge_gradients(logits: Tensor, features: Tensor, k: int) -> Tensor:
    """Sample by D^2 on the gradients themselves, [N, K d], as the published code keeps them."""
    q = logits.softmax(1)
    q[torch.arange(len(q), device=q.device), q.argmax(1)] -= 1
    gradients = (q[:, :, None] * features[:, None, :]).flatten(1)
    picks = [gradients.square().sum(1).argmax()]
    distances = torch.full((len(q),), torch.inf, device=q.device)
    draws = torch.Generator(q.device).manual_seed(0)
    for _ in range(1, k):
        distances = torch.minimum(
            distances, torch.cdist(gradients, gradients[picks[-1], None])[:, 0].square()
        )
        distances[torch.stack(picks)] = 0
        picks.append(torch.multinomial(distances, 1, generator=draws)[0])
    return torch.stack(picks)
