"""Where a network looked: CAM, Grad-CAM, Grad-CAM++ and HiResCAM of any module, at any of its layers."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops
from sal_fast.probes.formulas import gradient_map
from sal_fast.probes.watch import ToMaps, Watch

__all__ = ["Explanation", "explain"]


class Explanation(NamedTuple):
    """logits [B, K] as the model gave them; maps [B, h, w]; classes int64 [B], the ones the maps explain."""

    logits: Tensor
    maps: Tensor
    classes: Tensor


def explain(
    model: nn.Module,
    layer: nn.Module | str,
    images: Tensor,
    target: Tensor | None = None,
    *,
    probe: ops.Probe = "gradcam",
    to_maps: Callable[[Tensor], Tensor] | None = None,
) -> Explanation:
    """One map per image: how much each place of a layer's output speaks for a class, in one forward pass.

    With F the output [B, C, h, w], g = d logit / d F, and S_k = sum_ij F_k:

    ========= =============================================================== ==========
    probe     map                                                             arXiv
    ========= =============================================================== ==========
    cam       `sum_k W[c,k] F_k`, closed form only                            1512.04150
    gradcam   `relu(sum_k mean_ij(g_k) F_k)`                                  1610.02391
    gradcam++ `relu(sum_k a_k F_k)`, `a_k = sum_ij relu(g_k) / (2 + S_k g_k)` 1710.11063
    hirescam  `sum_k g_k F_k`                                                 2011.08891
    ========= =============================================================== ==========

    Grad-CAM++'s weight is its Eq. 19, `g^2 / (2 g^2 + S g^3) relu(g)`, with g^2 cancelled; denominators are
    kept 1e-3 from zero. HiResCAM has no ReLU, as in `sal_fast.ops.cam`.

    Where only `nn.AdaptiveAvgPool2d(1)`, views and one `nn.Linear` follow the layer, g = W / (hw): the map is
    that of `sal_fast.ops.cam`, without a backward pass. The forward pass itself shows that this is so, by the
    memory that is handed on. Elsewhere autograd goes from the logits back to the layer, and no further.

    The model keeps its mode, `.grad`, `requires_grad` and hooks; its forward may change its buffers. Call
    `model.eval()` before if dropout and batch statistics are not wanted: in training mode images that share
    batch statistics share gradients.

    Args:
        model: takes `images`, returns logits [B, K].
        layer: one of its modules, or that module's dotted name. It must run once in a forward pass.
        images: [B, ...].
        target: int64 [B], a class 0..K-1 for each image; None for the predicted classes.
        probe: see above.
        to_maps: rearranges the layer's output into [B, C, h, w]. It is applied to the gradient as well, so
            it may select and permute, not compute. ViT: `lambda t: t[:, 1:].mT.unflatten(2, (14, 14))`.

    Returns:
        Raw maps (see `sal_fast.ops.minmax_normalize`) at the layer's resolution, float32 (float64 of a
        float64 layer), on the model's device. With grad enabled they are differentiable in parameters and
        images that require grad, through g as well, as far as torch has second derivatives (fused attention
        has none). Under `torch.no_grad()` or `torch.inference_mode()` no graph is kept.

    Raises:
        TypeError, ValueError: an argument or an output that is not as above; `cam` without the closed form;
            logits that do not depend on the layer. A class out of range raises on the CPU only; on a GPU its
            map is NaN.
    """
    module = _checked(model, layer, images, target, probe)
    if torch.is_inference_mode_enabled():  # its tensors cannot be differentiated
        with torch.inference_mode(False), torch.no_grad():
            return _explained(model, module, images.clone(), target, probe, to_maps)
    return _explained(model, module, images, target, probe, to_maps)


def _explained(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    target: Tensor | None,
    probe: ops.Probe,
    to_maps: ToMaps | None,
) -> Explanation:
    watch = Watch(layer, to_maps, len(images), differentiate=probe != "cam")
    with watch.hooks(model), _eager():
        logits = _checked_logits(model(images), images)
    output = watch.output
    differentiable = torch.is_grad_enabled() and (
        output.requires_grad or any(parameter.requires_grad for parameter in model.parameters())
    )
    if target is None:
        target = logits.detach().argmax(1)
    known = (target >= 0) & (target < logits.shape[1])
    if target.device.type == "cpu" and not bool(known.all()):
        found = f"{int(target.min())}..{int(target.max())}"
        raise ValueError(f"explain: target must lie in 0..{logits.shape[1] - 1}, got {found}")
    safe = target.clamp(0, logits.shape[1] - 1)  # on a GPU a bad index would end the process's context

    precision = torch.promote_types(output.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        features = watch.to_maps(output).to(precision)
        linear = watch.linear(logits)
        if linear is not None:
            maps = ops.cam(features, linear.weight.to(precision), safe, probe=probe)
        elif probe == "cam":
            name = next(repr(name) for name, module in model.named_modules() if module is layer)
            raise ValueError(
                "explain: probe 'cam' needs a layer that only nn.AdaptiveAvgPool2d(1) and one nn.Linear "
                f"follow, got {name}; take another layer, or 'hirescam', the same map up to a scale where "
                "both exist"
            )
        else:
            gradient = _gradient(logits, safe, watch.source, differentiable)
            maps = gradient_map(features, watch.to_maps(gradient).to(precision), probe)
    if target.device.type != "cpu":
        maps = maps.masked_fill(~known[:, None, None], float("nan"))
    return Explanation(logits if differentiable else logits.detach(), maps, target)


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


def _eager() -> AbstractContextManager[None]:
    """A compiled model runs uncompiled for once: compiled code does not call the hooks."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _checked(
    model: nn.Module, layer: nn.Module | str, images: Tensor, target: Tensor | None, probe: ops.Probe
) -> nn.Module:
    """The layer, when all arguments are as `explain` says; TypeError or ValueError otherwise."""
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
    if isinstance(layer, str):
        try:
            return model.get_submodule(layer)
        except AttributeError as error:
            raise ValueError(f"explain: expected the name of a module of the model, got {layer!r}") from error
    if not isinstance(layer, nn.Module):
        raise TypeError(f"explain: layer must be a module or its name, got {type(layer).__name__}")
    if all(module is not layer for module in model.modules()):
        raise ValueError(f"explain: expected a module of the model, got another {type(layer).__name__}")
    return layer


def _checked_logits(logits: object, images: Tensor) -> Tensor:
    if not isinstance(logits, Tensor):
        raise TypeError(f"explain: expected a model that returns logits [B, K], got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        raise ValueError(
            f"explain: expected a model that returns floating logits [{len(images)}, K], got {logits.dtype} "
            f"{list(logits.shape)}"
        )
    return logits
