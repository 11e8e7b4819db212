"""One forward pass that shows what every module of a model returns, and leaves the model as it was."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sal_fast.probes.layout import Clues, Kind, kind_by_type
from sal_fast.probes.watch import checked_logits, eager, one_pass


@dataclass(frozen=True)
class Output:
    """What a module returned: a tensor to differentiate by, and whether its type tells the axes."""

    name: str
    module: nn.Module
    value: Tensor
    version: int
    kind: Kind | None

    @property
    def overwritten(self) -> bool:
        """True if something wrote into the tensor's memory later."""
        return self.value._version != self.version


class Rehearsal:
    """Runs a model once, with autograd, and keeps the modules' outputs in the order in which they finish.

    The model keeps its mode, buffers, parameters, `.grad` and hooks, and the global random numbers stay as
    they were. Weights that are all zero, as some libraries initialise heads and the norms of residual
    branches, are random here: through zeros no layer would reach the logits. With `shaken`, all biases,
    weights of norms, running statistics and other buffers are random, so that a norm changes what it gets.

    Attributes:
        outputs: floating tensors that modules with one run returned. Modules whose class or name has `att` in
            it count as attention, and what is inside of them is left out.
        logits: [B, K].
        linears: for each `nn.Linear` that ran on [B, C], its input and output.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, training: bool = False, shaken: bool = False
    ) -> None:
        self.outputs: list[Output] = []
        self.linears: dict[str, tuple[Tensor, Tensor]] = {}
        self._images = images
        self._runs = Counter[str]()
        self._handed: dict[int, tuple[Tensor, int, Output]] = {}  # by id; holding the tensor keeps its id
        devices = [images.device] if images.is_cuda else []
        with one_pass, ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            torch.manual_seed(0)
            stack.enter_context(_mode(model, training))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(eager())
            for name, module in model.named_modules():
                hook = module.register_forward_hook(self._hook(name))
                stack.callback(hook.remove)
            result = torch.func.functional_call(model, _stand_ins(model, shaken), (images,))
        self.logits = checked_logits(result, len(images))
        self._handed.clear()
        inner = _inside_attention(model)
        self.outputs = [
            output for output in self.outputs if self._runs[output.name] == 1 and output.name not in inner
        ]

    def _hook(self, name: str) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: tuple[object, ...], output: object) -> Tensor | None:
            self._runs[name] += 1
            if not isinstance(output, Tensor) or not output.is_floating_point() or output.is_inference():
                return None
            given = args[0] if len(args) == 1 else None
            if isinstance(module, nn.Linear) and isinstance(given, Tensor) and output.ndim == 2:
                # A subclass, a patched forward or another hook may make something else.
                plain = nn.functional.linear(given, module.weight, module.bias)
                if torch.allclose(plain, output):
                    self.linears[name] = (given.detach(), output.detach())
            return self._keep(name, module, args, output)

        return hook

    def _keep(self, name: str, module: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor | None:
        """Record an output, and hand on a copy, so that modules that work in place leave `value` alone."""
        kind = kind_by_type(module)
        before = self._known(output)
        if before is not None:  # a container returns what its last module did
            self.outputs.append(Output(name, module, before.value, before.version, kind or before.kind))
            self._handed[id(output)] = (output, output._version, self.outputs[-1])
            return None
        torch.set_grad_enabled(True)  # also in a part of the model that runs under no_grad
        value = output if output.requires_grad else output.detach().requires_grad_()
        given = args[0] if args else None
        _, _, written_over = self._handed.get(id(given), (None, 0, None))
        source = written_over if given is output else self._known(given)  # where it works in place
        if kind is None and source is not None and source.value.shape == output.shape and _acts_alone(module):
            kind = source.kind
        self.outputs.append(Output(name, module, value, value._version, kind))
        handed = value.clone()
        self._handed[id(handed)] = (handed, handed._version, self.outputs[-1])
        return handed

    def _known(self, tensor: object) -> Output | None:
        """The record of the output that this tensor is, if nothing wrote into it since."""
        handed, version, output = self._handed.get(id(tensor), (None, 0, None))
        return output if handed is not None and handed._version == version else None

    @property
    def head(self) -> str | None:
        """The name of the `nn.Linear` whose output is the logits."""
        names = [
            name
            for name, (_, output) in self.linears.items()
            if self._runs[name] == 1
            and output.shape == self.logits.shape
            and torch.equal(output, self.logits.detach())
        ]
        return names[-1] if names else None

    def clues(self) -> Clues:
        """What this pass tells about the layouts of outputs."""
        convolved = [output.value.shape for output in self.outputs if isinstance(output.module, nn.Conv2d)]
        extra: dict[int, int] = {}
        for output in self.outputs:
            value = output.value.detach()
            if value.ndim == 3 and len(value) == 2:
                extra[value.shape[1]] = max(extra.get(value.shape[1], 0), _same_at_first(value))
        head, size = self.head, self._images.shape
        return Clues(
            image=(size[2], size[3]) if len(size) == 4 else None,
            grids=[(shape[2], shape[3]) for shape in convolved if len(shape) == 4],
            extra=extra,
            head_inputs=None if head is None else self.linears[head][0].shape[-1],
        )


def _same_at_first(tokens: Tensor) -> int:
    """The number of first tokens that two images have in common; 0 if they have others in common too."""
    same = (tokens[0] == tokens[1]).all(1).tolist()
    first = same.index(False) if False in same else 0
    return 0 if any(same[first:]) else first


def _acts_alone(module: nn.Module) -> bool:
    """True for activations, dropout and the like, which treat every element alone or keep the axes."""
    return not any(True for _ in module.children()) and not any(True for _ in module.parameters())


def _inside_attention(model: nn.Module) -> set[str]:
    """The names of the modules that lie in another one which is attention."""
    attention = [
        f"{name}."
        for name, module in model.named_modules()
        if name and ("att" in type(module).__name__.lower() or "att" in name.rpartition(".")[2].lower())
    ]
    return {name for name, _ in model.named_modules() if name.startswith(tuple(attention))}


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode of all modules, without `train()`, which some networks use to convert themselves."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _stand_ins(model: nn.Module, shaken: bool) -> dict[str, Tensor]:
    """The tensors that a rehearsal runs with instead of the model's own; `Rehearsal` tells which."""
    tensors = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    own = {name: weight.detach() for name, weight in model.named_parameters() if weight.is_floating_point()}
    for name, weight in own.items():
        if not name.endswith("bias") and not bool(weight.any()):
            matrix = weight.ndim > 1
            tensors[name] = 0.02 * torch.randn_like(weight) if matrix else 0.5 + torch.rand_like(weight)
    if shaken:
        vectors = {
            name: weight for name, weight in own.items() if weight.numel() == max(weight.shape, default=1)
        }
        for name, value in (vectors | tensors).items():
            if value.is_floating_point():
                tensors[name] = value * (0.5 + torch.rand_like(value)) + 0.1 * torch.rand_like(value)
    return tensors
