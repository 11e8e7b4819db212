"""Find the layer of a network whose output is the last map before the logits."""

from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast.probes.formulas import gradient_map
from sal_fast.probes.layout import Layout
from sal_fast.probes.rehearsal import Output, Rehearsal

# Modules that give no map of their own: they pass it on, or change its size.
PASSING = (nn.Identity, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample)


class Place(NamedTuple):
    """Where a network's maps are, and what follows them.

    layer: the dotted name of the module whose output is the last map before the logits. to_maps: rearranges
    that output into [B, C, h, w]. shape: (C, h, w) of the maps, for images of the size that was given.
    head: the dotted name of the `nn.Linear` whose output is the logits, or None.

    closed_form: True if the input of the head is the mean of the maps over all positions, in eval mode. Then
    CAM is `W[c] . F`, W being the weight of the head. closed_form_in_training: the same in training mode. It
    is False with dropout between the mean and the head, and if the network cannot run in training mode.
    """

    layer: str
    to_maps: Layout
    shape: tuple[int, int, int]
    head: str | None
    closed_form: bool
    closed_form_in_training: bool


def find(model: nn.Module, images: Tensor) -> Place:
    """The place of a network's maps, from a rehearsal: a pass in eval mode on two images.

    The rehearsal takes the first of the images, and a random image. It records what every module returns. The
    place is the output that is finished last of those which

    1. are a map: [B, C, h, w], [B, h, w, C] or tokens [B, T, C], with several channels and positions. Class,
       distillation and register tokens are left out: before the first attention they are the same for both
       images. The grid of the other tokens, and the order of four axes, come from the outputs of the
       convolutions, whose channels are first; without convolutions, from the shape of the images;
    2. reach the logits: the gradient at the positions of the map is not zero;
    3. give, by `sum_k G_k F_k` with `G_k = sum_ij d logit / d F_k`, a map that is not flat, and another one
       for the second of the two classes with the highest logits.

    So a transformer with averaged tokens gives its last norm. If its class token alone reaches the logits, it
    gives the first norm of the last block. What holds no features of places is left out: the inside of
    attention, and linear projections (queries, keys, values, hidden layers) other than to one score a class.

    `closed_form` is checked by numbers, to 1e-5 of the largest input of the head (8 units in the last place,
    if that is more), in passes with random biases, weights of norms and running statistics. The mean of the
    maps and the input of the head are functions of the same maps. What stands between and changes values (a
    norm, an activation, another pool) changes them in some of the hundreds of channels of two images, since
    no parameter of it is left at a value where it would happen to change nothing.

    The model keeps its mode, buffers, `.grad` and hooks.

    Args:
        model: takes `images`, returns logits [B, K], or what `explain` takes for them.
        images: [B, ...]. Their size matters, and the first is looked at. An empty batch is allowed.

    Raises:
        ValueError: no output is such a map; the message tells what was seen.
        TypeError, ValueError: the model returns no logits.
    """
    rehearsal, output, layout = locate(model, images)
    head, shape = rehearsal.head, layout(output.value).shape

    closed, in_training = _is_closed(rehearsal, output.name, layout, head), False
    if closed:
        shaken = _rehearse(model, images, shaken=True)
        closed = _is_closed(shaken, output.name, layout, head)
    if closed:
        # A network may not run in training mode on such images: auxiliary heads need larger ones.
        with suppress(RuntimeError, ValueError):
            shaken = _rehearse(model, images, training=True, shaken=True)
            in_training = _is_closed(shaken, output.name, layout, head)
    return Place(output.name, layout, (shape[1], shape[2], shape[3]), head, closed, in_training)


def locate(model: nn.Module, images: Tensor) -> tuple[Rehearsal, Output, Layout]:
    """The rehearsal, and the output in it that `find` takes."""
    rehearsal = _rehearse(model, images)
    clues, reasons = rehearsal.clues(), Counter[str]()
    for output in reversed(rehearsal.outputs):
        layout = clues.layout(output.value.shape, output.kind)
        reason = _fault(rehearsal, output, layout)
        if layout is not None and reason is None:
            return rehearsal, output, layout
        reasons[str(reason)] += 1
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    raise ValueError(
        f"explain: no layer of this {type(model).__name__} was found by itself. Expected a module that "
        "returns [B, C, h, w], [B, h, w, C] or tokens [B, T, C], from which a class-dependent map can be "
        f"made. Of its {len(rehearsal.outputs)} outputs {counted}. Pass layer= and to_maps="
    )


def arrangement(model: nn.Module, images: Tensor, layer: str) -> Layout | None:
    """How the output of a layer becomes maps; None if its output is no single tensor of the batch.

    Raises ValueError if nothing tells which axes are rows, columns and channels.
    """
    rehearsal = _rehearse(model, images)
    output = next((one for one in rehearsal.outputs if one.name == layer), None)
    if output is None or output.value.ndim not in (3, 4):
        return None
    layout = rehearsal.clues().layout(output.value.shape, output.kind)
    if layout is None:
        raise ValueError(
            "explain: expected a layer whose output [B, C, h, w], [B, h, w, C] or [B, T, C] can be "
            f"arranged, got {list(output.value.shape)} of {layer!r} for two images, whose axes nothing tells "
            "apart; pass to_maps, which rearranges the output into [B, C, h, w]"
        )
    return layout


def _rehearse(model: nn.Module, images: Tensor, training: bool = False, shaken: bool = False) -> Rehearsal:
    with torch.inference_mode(False):
        return Rehearsal(model, _two(images), training, shaken)


def _two(images: Tensor) -> Tensor:
    """The first image, and random pixels with its mean and deviation."""
    images, generator = images[:1].detach(), torch.Generator().manual_seed(0)
    shape = (2, *images.shape[1:])
    if not images.is_floating_point():
        noise = torch.randint(256, shape, generator=generator).to(images)
    elif len(images) and float(images.std()) > 0:
        noise = torch.randn(shape, generator=generator).to(images) * images.std() + images.mean()
    else:
        noise = torch.randn(shape, generator=generator).to(images)
    return torch.cat([images, noise])[:2]


def _fault(rehearsal: Rehearsal, output: Output, layout: Layout | None) -> str | None:
    """Why an output is not the place of the maps, None if it is."""
    logits = rehearsal.logits
    if layout is None or isinstance(output.module, PASSING) or len(output.value) != len(logits):
        return "are no maps"
    if isinstance(output.module, nn.Linear) and output.module.out_features != logits.shape[1]:
        return "are linear projections"
    _, channels, rows, columns = layout(output.value).shape
    if channels == 1 or rows * columns == 1:
        return "have one channel or one position"
    if output.overwritten:
        return "were written over"
    ranked = logits.detach().topk(min(2, logits.shape[1])).indices
    maps = []
    for classes in ranked.T:
        gradient = _gradient(logits, classes, output.value)
        if gradient is None or not bool(layout(gradient).any()):
            return "do not reach the logits at the positions of a map"
        maps.append(_scaled(layout(output.value.detach()), layout(gradient)))
    if not bool(maps[0].any()):
        return "give a flat map"
    if len(maps) == 2 and not bool((maps[0] - maps[1]).abs().max() > 1e-3):
        return "give the same map for two classes"
    return None


def _gradient(logits: Tensor, classes: Tensor, value: Tensor) -> Tensor | None:
    """d logit / d value of one class per image, None where the logits do not depend on it."""
    if not logits.requires_grad:
        return None
    picked = torch.zeros_like(logits).scatter_(1, classes[:, None], 1)
    return torch.autograd.grad(logits, value, picked, retain_graph=True, allow_unused=True)[0]


def _scaled(features: Tensor, gradient: Tensor) -> Tensor:
    """The maps `sum_k G_k F_k`, min-max normalised; zeros where they are flat or not finite."""
    maps = gradient_map(features.float(), gradient.float(), "cam")
    maps = torch.where(maps.isfinite().flatten(1).all(1)[:, None, None], maps, 0)
    return ops.minmax_normalize(maps)


def _is_closed(rehearsal: Rehearsal, layer: str, layout: Layout, head: str | None) -> bool:
    """True if the input of the head is the mean of the layer's maps, in both images."""
    outputs = [output for output in rehearsal.outputs if output.name == layer]
    if head is None or head not in rehearsal.linears or len(outputs) != 1:
        return False
    given, _ = rehearsal.linears[head]
    mean = layout(outputs[0].value.detach()).mean((2, 3))
    if given.shape != mean.shape:
        return False
    tolerance = max(1e-5, 8 * torch.finfo(given.dtype).eps) * float(given.abs().max())
    return bool((given - mean).abs().max() <= tolerance)
