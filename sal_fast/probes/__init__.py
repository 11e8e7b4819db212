"""Where a network looked: CAM, Grad-CAM, Grad-CAM++ and HiResCAM of any module, at any of its layers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast._util.suggest import nearest
from sal_fast.probes.find import Place, arrangement, find, locate
from sal_fast.probes.formulas import gradient_map
from sal_fast.probes.watch import ToMaps, Watch, checked_logits, eager, one_pass

__all__ = ["Explanation", "Place", "explain", "find"]


class Explanation(NamedTuple):
    """What `explain` returns.

    logits [B, K] as the model gave them; maps [B, h, w]; classes int64 [B], the ones the maps explain; layer,
    the dotted name of the module that the maps are of.
    """

    logits: Tensor
    maps: Tensor
    classes: Tensor
    layer: str


def explain(
    model: nn.Module,
    images: Tensor,
    target: Tensor | None = None,
    *,
    layer: nn.Module | str | None = None,
    probe: ops.Probe = "gradcam",
    to_maps: ToMaps | None = None,
) -> Explanation:
    """One map per image: how much each place of a layer's output speaks for a class, in one forward pass.

    With F the output [B, C, h, w], g = d logit / d F, and S_k = sum_ij F_k:

    ========= =============================================================== ==========
    probe     map                                                             arXiv
    ========= =============================================================== ==========
    cam       `sum_k G_k F_k`, `G_k = sum_ij g_k`                             1512.04150
    gradcam   `relu(sum_k mean_ij(g_k) F_k)`                                  1610.02391
    gradcam++ `relu(sum_k a_k F_k)`, `a_k = sum_ij relu(g_k) / (2 + S_k g_k)` 1710.11063
    hirescam  `sum_k g_k F_k`                                                 2011.08891
    ========= =============================================================== ==========

    CAM's weight G_k is how fast the logit rises when channel k rises everywhere. Behind a global average pool
    and one linear layer W it is `W[c,k]`, as in the paper; so defined, CAM exists for all networks.
    Grad-CAM++'s weight is its Eq. 19, `g^2 / (2 g^2 + S g^3) relu(g)`, with g^2 cancelled; denominators are
    kept 1e-3 from zero. HiResCAM has no ReLU, as in `sal_fast.ops.cam`.

    Where only `nn.AdaptiveAvgPool2d(1)`, views and one `nn.Linear` follow the layer, g = W / (hw): the map is
    that of `sal_fast.ops.cam`, without a backward pass. The forward pass itself shows that this is so, by the
    memory that is handed on. Elsewhere autograd goes from the logits back to the layer, and no further.

    The model keeps its mode, `.grad`, `requires_grad` and hooks; its forward may change its buffers. Call
    `model.eval()` before if dropout and batch statistics are not wanted: in training mode images that share
    batch statistics share gradients.

    Args:
        model: takes `images`, and returns logits [B, K], an object with `.logits`, a dict with "logits", or a
            tuple or list that begins with them.
        images: [B, ...].
        target: int64 [B], a class 0..K-1 for each image; None for the predicted classes.
        layer: one of its modules, or that module's dotted name. It must run once in a forward pass. None
            takes the layer that `find` finds.
        probe: see above.
        to_maps: rearranges the layer's output into [B, C, h, w]. It is applied to the gradient as well, so
            it may select and permute, not compute. None takes what `find` finds.

        If either is None, each call runs a rehearsal: one more pass with two images (see `find`). In a loop
        call `place = find(model, images)` once, then pass `layer=place.layer, to_maps=place.to_maps`.

    Returns:
        Raw maps (see `sal_fast.ops.minmax_normalize`) at the layer's resolution, float32 (float64 of a
        float64 layer), on the model's device. With grad enabled they are differentiable in parameters and
        images that require grad, through g as well: torch's attention behind the layer then runs in plain
        products, which have second derivatives. Under `torch.no_grad()` or `torch.inference_mode()` no graph
        is kept.

    Raises:
        TypeError, ValueError: an argument or an output that is not as above; a layer that is not found by
            itself; logits that do not depend on the layer, or not at the positions of the maps (behind a
            vision transformer's last norm if the class token alone reaches the logits); weights of zero
            between a found layer and the logits. A class out of range raises on the CPU only; on a GPU its
            map is NaN.
    """
    _check(images, target, probe)
    name = None if layer is None else _layer_name(model, layer)
    if name is None and to_maps is not None:
        raise ValueError("explain: to_maps belongs to a layer; pass layer= with it")
    if torch.is_inference_mode_enabled():  # its tensors cannot be differentiated
        with torch.inference_mode(False), torch.no_grad():
            return _explained(model, name, images.clone(), target, probe, to_maps)
    return _explained(model, name, images, target, probe, to_maps)


def _explained(
    model: nn.Module,
    layer: str | None,
    images: Tensor,
    target: Tensor | None,
    probe: ops.Probe,
    to_maps: ToMaps | None,
) -> Explanation:
    found = layer is None
    if layer is None:
        _, place, to_maps = locate(model, images)
        layer = place.name
    elif to_maps is None:
        to_maps = arrangement(model, images, layer)
    watch = Watch(model.get_submodule(layer), to_maps, len(images), differentiate=True)
    with one_pass, watch.hooks(model), eager():
        logits = checked_logits(model(images), len(images))
    output = watch.output
    differentiable = torch.is_grad_enabled() and (
        output.requires_grad or any(parameter.requires_grad for parameter in model.parameters())
    )
    if target is None:
        target = logits.detach().argmax(1)
    known = (target >= 0) & (target < logits.shape[1])
    if target.device.type == "cpu" and not bool(known.all()):
        span = f"{int(target.min())}..{int(target.max())}"
        raise ValueError(f"explain: target must lie in 0..{logits.shape[1] - 1}, got {span}")
    safe = target.clamp(0, logits.shape[1] - 1)  # on a GPU a bad index would end the process's context

    precision = torch.promote_types(output.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        features = watch.to_maps(output).to(precision)
        linear = watch.linear(logits)
        if linear is not None:
            gradient = linear.weight
            maps = ops.cam(features, gradient.to(precision), safe, probe=probe)
        else:
            whole = _gradient(logits, safe, watch.source, differentiable)
            gradient = watch.to_maps(whole)
            if gradient.numel() < whole.numel():
                _check_positions(model, layer, images, whole, gradient)
            maps = gradient_map(features, gradient.to(precision), probe)
    if found and len(images) and not bool(gradient.detach().any()):
        raise ValueError(
            f"explain: all derivatives of the logits by the output of {layer!r} are zero, so there is no "
            "map. Is the head still zero, as some libraries initialise it? Load or draw its weights first"
        )
    if target.device.type != "cpu":
        maps = maps.masked_fill(~known[:, None, None], float("nan"))
    return Explanation(logits if differentiable else logits.detach(), maps, target, layer)


def _gradient(logits: Tensor, target: Tensor, source: Tensor, differentiable: bool) -> Tensor:
    gradient = None
    if logits.requires_grad:
        picked = torch.zeros_like(logits).scatter_(1, target[:, None], 1)
        (gradient,) = torch.autograd.grad(
            logits, source, picked, create_graph=differentiable, allow_unused=True
        )
    if gradient is None:
        raise ValueError("explain: expected logits that depend on the layer's output, got logits that do not")
    return gradient


def _check_positions(model: nn.Module, layer: str, images: Tensor, whole: Tensor, gradient: Tensor) -> None:
    """Raise ValueError if the logits depend on the layer's output, but at no position of the maps."""
    if bool(gradient.detach().any()) or not bool(whole.detach().any()):
        return
    _, place, _ = locate(model, images)
    raise ValueError(
        f"explain: the logits depend on the output of {layer!r}, but not at the positions of the maps: "
        "behind it a class token alone reaches them, so the maps would be zeros. Take "
        f"layer={place.name!r}"
    )


def _check(images: Tensor, target: Tensor | None, probe: ops.Probe) -> None:
    if probe not in ops.PROBES:
        raise ValueError(f"explain: probe must be one of {', '.join(ops.PROBES)}, got {probe!r}")
    if target is not None:
        if not isinstance(target, Tensor) or target.dtype != torch.int64:
            got = target.dtype if isinstance(target, Tensor) else type(target).__name__
            raise TypeError(f"explain: target must be an int64 tensor, got {got}")
        if target.shape != images.shape[:1]:
            raise ValueError(f"explain: target must have shape [{len(images)}], got {list(target.shape)}")
        if target.device != images.device:
            found = f"images on {images.device}, target on {target.device}"
            raise ValueError(f"explain: expected tensors on one device, got {found}")


def _layer_name(model: nn.Module, layer: nn.Module | str) -> str:
    """The dotted name of a layer of the model; TypeError or ValueError if it is none."""
    names = {name: module for name, module in model.named_modules()}
    if isinstance(layer, str):
        if layer not in names:
            raise ValueError(
                f"explain: expected the name of a module of the model, got {layer!r}; the nearest is "
                f"{nearest(layer, names, cutoff=0)!r}"
            )
        return layer
    if not isinstance(layer, nn.Module):
        raise TypeError(f"explain: layer must be a module, its name or None, got {type(layer).__name__}")
    name = next((name for name, module in names.items() if module is layer), None)
    if name is None:
        raise ValueError(f"explain: expected a module of the model, got another {type(layer).__name__}")
    return name
