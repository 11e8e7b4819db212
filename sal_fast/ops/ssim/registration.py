"""The torch operators of SSIM: means of images with their gradients, which are made on the way, and maps."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sal_fast.ops import _launch
from sal_fast.ops.ssim import reference

# Of launch/ssim.h.
BORDER_CODES = {"valid": 0, "zero": 1, "reflect": 2}
_IMAGE_TYPES = _launch.DTYPES | {torch.uint8: 3, torch.uint16: 4, torch.float64: 5}
_MOST_WINDOW_ON_CUDA = 511

Results = tuple[Tensor, Tensor, Tensor]


class Options(NamedTuple):
    """The settings of a call, in the order of the operators' schemas."""

    window: int
    sigma: float
    border: str
    data_range: float
    structure: bool  # the factor of the structure alone, as the scales of MS-SSIM but the last take it
    exact: bool  # the results are float64


_SCHEMA = "int window, float sigma, str border, float data_range, bool structure, bool exact"


def _takes(x: Tensor, options: Options, gradients: bool) -> bool:
    if not _launch.has_core(x.device) or x.dtype not in _IMAGE_TYPES:
        return False
    if x.device.type == "cpu":
        return not (gradients and x.dtype == torch.float64)
    return options.window <= _MOST_WINDOW_ON_CUDA and not options.exact and x.dtype != torch.float64


def _strides(x: Tensor) -> dict[str, int]:
    image, channel, row, column = x.stride()
    return {"image": image, "channel": channel, "row": row, "column": column}


def _launch_ssim(x: Tensor, y: Tensor, options: Options, weights: Tensor | None, **outputs: Any) -> None:
    images, channels, height, width = x.shape
    if images:
        fields: dict[str, Any] = dict.fromkeys(("totals", "values", "map", "grad_x", "grad_y")) | outputs
        _launch.launch(
            "ssim", x.device, x=x, y=y, type=_IMAGE_TYPES[x.dtype], images=images, channels=channels,
            height=height, width=width, x_strides=_strides(x), y_strides=_strides(y), weights=weights,
            weights_strides=_strides(x if weights is None else weights), window=options.window,
            sigma=options.sigma, border=BORDER_CODES[options.border], data_range=options.data_range,
            structure=options.structure, exact=options.exact, **fields,
        )  # fmt: skip


def _result_type(exact: bool) -> torch.dtype:
    return torch.float64 if exact else torch.float32


def _map_by_reference(x: Tensor, y: Tensor, options: Options) -> Tensor:
    dtype = torch.float64 if options.exact else torch.float32
    return reference.ssim(
        x.to(dtype), y.to(dtype), options.window, options.sigma, options.border, options.data_range,
        options.structure,
    )  # fmt: skip


# Means ---------------------------------------------------------------------------------------------------


def _sums(weights: Tensor) -> Tensor:
    return weights.sum((1, 2, 3), dtype=torch.float64)


def _fill(results: Results, x: Tensor, y: Tensor, weights: Tensor | None, *rest: Any) -> None:
    values, grad_x, grad_y = results
    *options, with_grad_x, with_grad_y = rest
    _launch_ssim(
        x, y, Options(*options), weights, totals=None if weights is None else _sums(weights), values=values,
        grad_x=grad_x if with_grad_x else None, grad_y=grad_y if with_grad_y else None,
    )  # fmt: skip


def _empty(x: Tensor, y: Tensor, weights: Tensor | None, *rest: Any) -> Results:
    """Gradients are float32 whatever the images are: the mean's gradient may be too small for float16."""
    values = x.new_empty(x.shape[0], dtype=_result_type(rest[-3]))
    grad_x, grad_y = (x.new_empty(x.shape if wanted else (0,), dtype=torch.float32) for wanted in rest[-2:])
    return values, grad_x, grad_y


def _reference(x: Tensor, y: Tensor, weights: Tensor | None, *rest: Any) -> tuple[Tensor]:
    return (reference.weighted_mean(_map_by_reference(x, y, Options(*rest[:-2])), weights),)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[1:])


def _differentiate(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, *gradients = ctx.saved_tensors
    grads: list[Tensor | None] = [None, None]
    for i, gradient in enumerate(gradients):
        if gradient.ndim > 1:
            grad = (gradient * upstream[:, None, None, None]).to(x.dtype)
            grads[i] = _launch.first_derivative("ssim", grad, x, y)
    return *grads, *[None] * 9


_ssim = _launch.operator(
    f"ssim(Tensor x, Tensor y, Tensor? weights, {_SCHEMA}, bool with_grad_x, bool with_grad_y) "
    "-> (Tensor values, Tensor grad_x, Tensor grad_y)",
    _empty,
    _fill,
    _launch.Fallback(lambda x, y, weights, *rest: _takes(x, Options(*rest[:-2]), any(rest[-2:])), _reference),
    _launch.Derivative(_save, _differentiate, leaving=1),
)


def ssim(x: Tensor, y: Tensor, weights: Tensor | None, options: Options) -> Tensor:
    """The mean of each image, [B]. `weights`: float32 [B, C, down, across], of the window's positions."""
    recording = torch.is_grad_enabled()
    with_grads = recording and x.requires_grad, recording and y.requires_grad
    values: Tensor = _ssim(x, y, weights, *options, *with_grads)[0]
    return values


# Maps ----------------------------------------------------------------------------------------------------


def _map_shape(x: Tensor, options: Options) -> list[int]:
    less = options.window - 1 if options.border == "valid" else 0
    return [*x.shape[:2], x.shape[2] - less, x.shape[3] - less]


def _empty_map(x: Tensor, y: Tensor, *rest: Any) -> Tensor:
    options = Options(*rest)
    return x.new_empty(_map_shape(x, options), dtype=_result_type(options.exact))


def _fill_map(result: Tensor, x: Tensor, y: Tensor, *rest: Any) -> None:
    _launch_ssim(x, y, Options(*rest), None, map=result)


def _reference_map(x: Tensor, y: Tensor, *rest: Any) -> Tensor:
    return _map_by_reference(x, y, Options(*rest))


def _save_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _differentiate_map(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    grads = _gradients_of_map(x, y, upstream.float(), *ctx.options, *wanted)
    found = [
        _launch.first_derivative("ssim_map", grad.to(x.dtype), x, y) if want else None
        for grad, want in zip(grads, wanted, strict=True)
    ]
    return *found, *[None] * 6


def _empty_gradients(x: Tensor, y: Tensor, upstream: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    grad_x, grad_y = (x.new_empty(x.shape if wanted else (0,), dtype=torch.float32) for wanted in rest[-2:])
    return grad_x, grad_y


def _fill_gradients(
    results: tuple[Tensor, Tensor], x: Tensor, y: Tensor, upstream: Tensor, *rest: Any
) -> None:
    """The sum of the map times the upstream gradient has these gradients."""
    grad_x, grad_y = (grad if want else None for grad, want in zip(results, rest[-2:], strict=True))
    _launch_ssim(x, y, Options(*rest[:-2]), upstream, grad_x=grad_x, grad_y=grad_y)


_gradients_of_map = _launch.operator(
    f"ssim_map_backward(Tensor x, Tensor y, Tensor upstream, {_SCHEMA}, bool with_grad_x, bool with_grad_y) "
    "-> (Tensor grad_x, Tensor grad_y)",
    _empty_gradients,
    _fill_gradients,
)
_ssim_map = _launch.operator(
    f"ssim_map(Tensor x, Tensor y, {_SCHEMA}) -> Tensor",
    _empty_map,
    _fill_map,
    _launch.Fallback(
        lambda x, y, *rest: _takes(x, Options(*rest), x.requires_grad or y.requires_grad), _reference_map
    ),
    _launch.Derivative(_save_map, _differentiate_map),
)


def ssim_map(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The similarity at each position of the window, [B, C, down, across]."""
    result: Tensor = _ssim_map(x, y, *options)
    return result
