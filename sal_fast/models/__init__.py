"""Networks cut into features and a linear head, which training, testing and scoring share."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops, probes
from sal_fast._util.words import CamClass, Precision
from sal_fast.errors import InputError
from sal_fast.models import weights as weight_files
from sal_fast.models.backbone import FEATURES, Backbone, Spec, network
from sal_fast.probes.watch import Watch

__all__ = [
    "FEATURES", "Backbone", "CamClass", "Classifier", "Look", "build", "feature_size", "map_shape", "network",
    "pooled", "resolved",
]  # fmt: skip


class Look(NamedTuple):
    """The result of looking at images: logits [B, K], and the CAMs of classes.

    cam [B, h, w] is float32, or float64 for a float64 network; classes, int64 [B], are those of the CAMs.
    """

    logits: Tensor
    cam: Tensor
    classes: Tensor


class Classifier(nn.Module):
    """Features, their global average, and a linear head, over a network `net` of a library or a plug-in.

    `net` keeps its own names of weights, so its state dict loads in that library and the other way round.

    Args:
        net: a module that `backbone` made.
        precision: the precision of the network's products. With `bfloat16`, which is autocast, the weights
            stay float32, the features become bfloat16 and the logits stay float32. `auto` is bfloat16 on a
            GPU that has it, else float32.
        compiled: run the network through torch.compile, on a GPU as CUDA graphs.
        cam_layer: the layer that CAMs are made of: `features`, the dotted name of a module of `net`, or an
            alias of the backbone.

    Raises InputError for a layer that the network does not have, or that `compiled` closes.
    """

    def __init__(
        self,
        net: nn.Module,
        backbone: Backbone,
        *,
        precision: Precision = "float32",
        compiled: bool = False,
        cam_layer: str = FEATURES,
    ) -> None:
        super().__init__()
        self.net, self.backbone, self.precision, self.compiled = net, backbone, precision, compiled
        self.cam_layer = backbone.layer(net, cam_layer)
        if compiled and self.cam_layer != FEATURES:
            raise InputError(
                f"--cam-layer {cam_layer} looks into the network, which --compile closes; leave one out"
            )
        self._compiled = torch.compile(self._features, mode="reduce-overhead") if compiled else None

    @property
    def head(self) -> nn.Linear:
        """The layer from pooled features to logits."""
        head = self.net.get_submodule(self.backbone.head)
        assert isinstance(head, nn.Linear)
        return head

    def features(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features [B, C, h, w], the input of the global average pool."""
        if images.is_cuda:  # tensor cores read it so
            images = images.contiguous(memory_format=torch.channels_last)
        if resolved(self.precision, images.device) == "float32":
            return self._run(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        # A bound method kept in an attribute would make a circle: the memory of every model would wait for
        # the garbage collector.
        return self._features(images) if self._compiled is None else self._compiled(images)

    def _features(self, images: Tensor) -> Tensor:
        return self.backbone.features(self.net, images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and features [B, C, h, w]."""
        features = self.features(images)
        return self.head(pooled(features)), features

    def look(self, images: Tensor, target: Tensor | None = None, *, probe: ops.Probe = "cam") -> Look:
        """Logits, and the map of one class per image, from one forward pass.

        Maps of the features come from `ops.cam_head`, without a backward pass. For another layer with output
        F the probe `cam` is `W[c] . F`, as in CYBORG, which needs as many channels as the head has inputs.
        The other probes go by autograd from the logits back to the layer (`sal_fast.probes.explain`). All
        are differentiable.

        Args:
            target: int64 [B], the classes of the maps. None: the predicted ones, the lowest class on a tie.
        """
        head = self.head
        if self.cam_layer == FEATURES:
            seen = ops.cam_head(self.features(images), head.weight, head.bias, target, probe=probe)
            return Look(seen.logits, seen.cam, seen.classes)
        if probe != "cam":
            layer = self.net.get_submodule(self.cam_layer)
            to_maps = partial(self.backbone.maps, layer)
            explained = probes.explain(
                _Logits(self), images, target, layer=layer, probe=probe, to_maps=to_maps
            )
            return Look(explained.logits, explained.maps, explained.classes)
        logits, maps = self.watched(self.cam_layer, images)
        classes = logits.detach().argmax(1) if target is None else target
        return Look(logits, ops.cam(maps, head.weight, classes), classes)

    def watched(self, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K], and the maps [B, C, h, w] that a module of `net` gives in the same pass.

        Raises TypeError or ValueError if the module gives no maps, or if it does not run exactly once.
        """
        module = self.net.get_submodule(layer)
        watch = Watch(module, partial(self.backbone.maps, module), len(images), differentiate=False)
        with watch.hooks(self.net):
            logits, _ = self(images)
        return logits, watch.to_maps(watch.output)


class _Logits(nn.Module):
    """A classifier that returns its logits alone."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)[0]
        return logits


def pooled(features: Tensor) -> Tensor:
    """The global average of features [B, C, h, w]: [B, C], float32 at least."""
    half = features.dtype in (torch.float16, torch.bfloat16)
    return features.mean((-2, -1), dtype=torch.float32 if half else None)


def resolved(precision: Precision, device: torch.device) -> Precision:
    """The precision that `auto` stands for: bfloat16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def build(
    arch: Spec,
    classes: int,
    *,
    weights: str = "none",
    output_stride: int = 32,
    seed: int = 0,
    precision: Precision = "float32",
    compiled: bool = False,
    cam_layer: str = FEATURES,
) -> Classifier:
    """A network with `classes` outputs, the same for the same seed.

    Args:
        arch: a name (`resnet18`), `file.py:function`, `package.module:function`, or a callable; see
            `sal_fast.models.backbone`.
        weights: `none` (random), a weights name of the network's library (`IMAGENET1K_V2` of torchvision,
            `tf_in1k` of timm) or `DEFAULT`, which is downloaded once, or a .safetensors, .pth, .pt,
            .ckpt or .bin file. A head of another size stays random.
        output_stride: pixels per feature, for small images. Other values than 32 are for ResNets.
        precision, compiled, cam_layer: see `Classifier`.

    Raises InputError for a network that cannot be loaded or made, weights that do not fit, and strides and
    layers that the network does not have.
    """
    backbone = network(arch)
    backbone.check_installed()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone(classes)
    model = Classifier(net, backbone, precision=precision, compiled=compiled, cam_layer=cam_layer)
    if output_stride != 32:
        backbone.set_output_stride(net, output_stride)
    if weights != "none":
        weight_files.load_into(net, backbone, weights)
    return model


@torch.no_grad()
def map_shape(model: Classifier, image_size: int, layer: str | None = None) -> tuple[int, int, int]:
    """(C, h, w) of the maps that `layer` gives for a square image. None: the layer that CAMs are made of.

    Raises InputError if the layer's output is no map, or if the features do not fit the head.
    """
    layer = layer or model.cam_layer
    image = torch.zeros(1, 3, image_size, image_size, device=model.head.weight.device)
    training = model.training
    model.eval()
    try:
        if layer == FEATURES:
            maps = model._features(image)
        else:
            _, maps = model.watched(layer, image)
    except (TypeError, ValueError) as error:
        raise InputError(f"--cam-layer {layer}: {str(error).removeprefix('explain: ')}") from error
    finally:
        model.train(training)
    if layer == FEATURES and (maps.ndim != 4 or maps.shape[1] != model.head.in_features):
        raise InputError(
            f"network {model.backbone.name}: expected features [B, {model.head.in_features}, h, w], as its "
            f"head takes them, got {list(maps.shape)}"
        )
    return maps.shape[1], maps.shape[2], maps.shape[3]


def feature_size(model: Classifier, image_size: int) -> tuple[int, int]:
    """(h, w) of the CAM of a square image."""
    return map_shape(model, image_size)[1:]
