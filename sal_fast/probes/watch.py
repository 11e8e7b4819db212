"""Watch one forward pass: a layer's output, and whether only a pool and a linear layer follow it."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ToMaps = Callable[[Tensor], Tensor]

# It is held for each pass of ours. A rehearsal exchanges the model's weights while it runs, and seeds torch.
one_pass = threading.RLock()


def eager() -> AbstractContextManager[None]:
    """A compiled model runs uncompiled for once: compiled code does not call the hooks."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def checked_logits(result: object, images: int) -> Tensor:
    """The logits [B, K] in what a model returned: a tensor, `.logits`, the entry "logits", or the first item.

    Raises TypeError or ValueError if there are none, or if they are not floating logits of so many images.
    """
    logits = result
    if isinstance(result, Mapping) and "logits" in result:
        logits = result["logits"]
    elif hasattr(result, "logits"):
        logits = result.logits
    elif isinstance(result, (tuple, list)) and result:
        logits = result[0]
    if not isinstance(logits, Tensor):
        raise TypeError(
            "explain: expected a model that returns logits [B, K], an object with .logits, a dict with "
            f'"logits", or a tuple or list that begins with them, got {type(result).__name__}'
        )
    if logits.ndim != 2 or len(logits) != images or not logits.is_floating_point():
        raise ValueError(
            f"explain: expected a model that returns floating logits [B, K], got {logits.dtype} "
            f"{list(logits.shape)} for {images} images"
        )
    return logits


class _Mark:
    """A tensor's memory and version. Holding the tensor keeps anything else from taking its address."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version

    def is_data_of(self, other: Tensor) -> bool:
        """The same elements in the same order and memory, not written to since."""
        mine = self.tensor
        return (
            mine.data_ptr() == other.data_ptr()
            and mine.dtype == other.dtype
            and mine.shape == other.shape
            and all(
                size == 1 or a == b
                for size, a, b in zip(mine.shape, mine.stride(), other.stride(), strict=True)
            )
            and self.version == mine._version == other._version
        )


class Watch:
    """Watches `layer` in one forward pass of a model.

    The modules behind it get a copy of its output, so that one that works in place (`ReLU(inplace=True)`)
    leaves `output` alone. With `differentiate`, autograd records all that follows, even under no_grad. If the
    gradient mode is on, attention behind the layer runs in plain products: fused kernels have no second
    derivatives.
    """

    def __init__(self, layer: nn.Module, to_maps: ToMaps | None, batch: int, differentiate: bool) -> None:
        self._layer, self._to_maps, self._batch = layer, to_maps, batch
        self._differentiate, self._thread = differentiate, threading.get_ident()
        self._output: _Mark | None = None
        self._source: Tensor | None = None
        self._maps: _Mark | None = None
        self._pooled: _Mark | None = None
        self._logits: _Mark | None = None
        self._linear: nn.Linear | None = None

    @contextmanager
    def hooks(self, model: nn.Module) -> Iterator[None]:
        """Hold the hooks for a block. After it they are gone, and the grad mode is the former one."""
        with ExitStack() as stack:
            self._stack, self._keeps_graph = stack, torch.is_grad_enabled()
            stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))
            stack.enter_context(self._layer.register_forward_hook(self._here(self._on_layer)))
            for module in model.modules():
                # A subclass or a patched forward may compute something else. Our hooks run before others, so
                # that a change by those shows as another tensor, or another version.
                if "forward" in vars(module):
                    continue
                hook: Callable[..., Tensor | None] | None = None
                if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1), [1, 1]):
                    hook = self._on_pool
                elif type(module) is nn.Linear:
                    hook = self._on_linear
                if hook is not None:
                    stack.enter_context(module.register_forward_hook(self._here(hook), prepend=True))
            yield

    def _here(self, hook: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
        """The hook, for the passes of this thread alone: others may use the model meanwhile."""
        return lambda *call: hook(*call) if threading.get_ident() == self._thread else None

    def _on_layer(self, layer: nn.Module, args: object, output: object) -> Tensor:
        if self._output is not None:
            raise ValueError(
                "explain: expected a layer that runs once in a forward pass, got one that runs again: "
                f"{type(layer).__name__}"
            )
        if not isinstance(output, Tensor) or not output.is_floating_point():
            got = output.dtype if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"explain: expected a layer that returns a floating tensor, got {got}")
        if output.is_inference():
            raise ValueError("explain: expected a layer of normal tensors, got one in inference mode")
        self._output = _Mark(output)
        self._source = output
        if self._differentiate:
            if self._keeps_graph:
                self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            torch.set_grad_enabled(True)
            if not output.requires_grad:
                self._source = output.detach().requires_grad_()
        handed_on = self._source.clone()
        self._maps = _Mark(self.to_maps(handed_on.detach()))
        return handed_on

    def _on_pool(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self._maps is not None and len(args) == 1 and self._maps.is_data_of(args[0]):
            self._pooled = _Mark(output.detach().flatten(1))

    def _on_linear(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self._pooled is not None and len(args) == 1 and self._pooled.is_data_of(args[0]):
            assert isinstance(module, nn.Linear)
            self._linear, self._logits = module, _Mark(output)

    def to_maps(self, output: Tensor) -> Tensor:
        """The layer's output, or its gradient, as [B, C, h, w]; ValueError if it is not of that kind."""
        maps = output if self._to_maps is None else self._to_maps(output)
        if maps.ndim != 4 or len(maps) != self._batch:
            hint = (
                "; pass to_maps, which rearranges its output (ViT tokens: "
                "lambda t: t[:, 1:].mT.unflatten(2, (rows, columns)))"
            )
            raise ValueError(
                f"explain: expected a layer whose maps are [{self._batch}, C, h, w], got {list(maps.shape)}"
                + (hint if self._to_maps is None else "")
            )
        return maps

    @property
    def output(self) -> Tensor:
        """The layer's output; ValueError if the layer did not run, or if its output was written over."""
        if self._output is None:
            raise ValueError("explain: expected a layer that runs in the forward pass, got one that did not")
        if self._output.version != self._output.tensor._version:
            raise ValueError(
                "explain: the layer's output was written over by way of another tensor over its memory (the "
                "layer's input?); take the layer before or after it"
            )
        return self._output.tensor

    @property
    def source(self) -> Tensor:
        """The tensor to differentiate by: the layer's output itself, or a leaf over its memory."""
        assert self._source is not None
        return self._source

    def linear(self, logits: Tensor) -> nn.Linear | None:
        """The head, if the logits are linear(global average pool(to_maps(output))) and nothing else."""
        mark = self._logits
        exact = mark is not None and mark.tensor is logits and mark.version == logits._version
        return self._linear if exact else None
