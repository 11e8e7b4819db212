"""Networks cut into features and a linear head, which training, testing and scoring share."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sal_fast import ops, probes
from sal_fast._util.words import MEAN, STD, CamClass, Precision
from sal_fast.errors import InputError
from sal_fast.models import weights as weight_files
from sal_fast.models.backbone import FEATURES, Backbone, Rgb, Spec
from sal_fast.models.libraries import network
from sal_fast.probes import Place
from sal_fast.probes.watch import ToMaps, Watch

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
        self._compiled = torch.compile(self._seen, mode="reduce-overhead") if compiled else None
        self.given: tuple[Rgb, Rgb] = MEAN, STD  # how the images that it is given are normalised
        self._tap: Tap | None = None  # of a network that is not cut, from its first images on
        self._place: Place | None = None

    @property
    def head(self) -> nn.Linear:
        """The layer from pooled features to logits."""
        head = self.net.get_submodule(self.backbone.head_name(self.net))
        assert isinstance(head, nn.Linear)
        return head

    def features(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W], normalised as ImageNet's -> features [B, C, h, w].

        They are the input of the global average pool, or of what the network has in its place.
        """
        return self._run(images)[0]

    def embedding(self, images: Tensor) -> Tensor:
        """The input of the head [B, D], float32 at least, of images [B, 3, H, W]."""
        return self._run(images)[1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and features [B, C, h, w]."""
        features, embedding = self._run(images)
        if self.backbone.cut:
            return self.head(embedding), features
        head = self.head  # a call of the module would be watched
        return nn.functional.linear(embedding, head.weight, head.bias), features

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features and the input of the head."""
        self._located(images)
        images = self._normalised(images)
        if images.is_cuda:  # tensor cores read it so
            images = images.contiguous(memory_format=torch.channels_last)
        # A bound method kept in an attribute would make a circle: the memory of every model would wait for
        # the garbage collector.
        run = self._seen if self._compiled is None else self._compiled
        if resolved(self.precision, images.device) == "float32":
            features, embedding = run(images)
        else:
            with torch.autocast(images.device.type, torch.bfloat16):
                features, embedding = run(images)
        return features, pooled(features) if embedding is None else _at_least_float32(embedding)

    def _located(self, images: Tensor) -> Place | None:
        """Where the features of a network that is not cut are. The first call finds it, and watches it."""
        if not self.backbone.cut and self._place is None:
            self._place = self.backbone.place(self.net, tuple(images.shape[1:]), images.device)
            self._tap = Tap(self.net, self._place)
        return self._place

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The features, and the input of the head; None if that is the mean of the features."""
        if self._tap is None:
            return self.backbone.features(self.net, images), None
        self.net(images)
        return self._tap.take()

    def _normalised(self, images: Tensor) -> Tensor:
        """Images as the network wants them, from images that are normalised as `given` says."""
        wanted = self.backbone.normalisation
        if wanted == self.given:
            return images
        mean, std = (images.new_tensor(values)[:, None, None] for values in wanted)
        mine, spread = (images.new_tensor(values)[:, None, None] for values in self.given)
        return images * (spread / std) + (mine - mean) / std

    def look(self, images: Tensor, target: Tensor | None = None, *, probe: ops.Probe = "cam") -> Look:
        """Logits, and the map of one class per image, from one forward pass.

        Where the head's input is the mean of the features, their maps come from `ops.cam_head`, without a
        backward pass. For another layer that is named, with output F, the probe `cam` is `W[c] . F`, as in
        CYBORG, which needs as many channels as the head has inputs. Everywhere else autograd goes from the
        logits back to the layer (`sal_fast.probes.explain`). All are differentiable.

        Args:
            target: int64 [B], the classes of the maps. None: the predicted ones, the lowest class on a tie.
                With int64 [B, T] each image gets T maps: `cam` is [B, T, h, w], and `classes` [B, T].
        """
        if target is not None and target.ndim == 2:
            return self._several(images, target, probe)
        head, layer = self.head, self.cam_layer
        if layer == FEATURES and self._is_closed(images):
            seen = ops.cam_head(self.features(images), head.weight, head.bias, target, probe=probe)
            return Look(seen.logits, seen.cam, seen.classes)
        if layer == FEATURES or probe != "cam":
            return self._explained(images, target, probe)
        logits, maps = self.watched(layer, images)
        classes = logits.detach().argmax(1) if target is None else target
        return Look(logits, ops.cam(maps, head.weight, classes), classes)

    def _several(self, images: Tensor, target: Tensor, probe: ops.Probe) -> Look:
        """Maps of several classes of each image; in the closed form from one forward pass for all."""
        if self.cam_layer == FEATURES and self._is_closed(images):
            logits, features = self(images)
            return Look(logits, ops.cam(features, self.head.weight, target, probe=probe), target)
        looks = [self.look(images, classes, probe=probe) for classes in target.unbind(1)]
        return Look(looks[0].logits, torch.stack([one.cam for one in looks], dim=1), target)

    def _is_closed(self, images: Tensor) -> bool:
        """True if the head's input is the mean of the features."""
        place = self._located(images)
        if place is None:
            return True
        return place.closed_form_in_training if self.training else place.closed_form

    def _explained(self, images: Tensor, target: Tensor | None, probe: ops.Probe) -> Look:
        """Maps by autograd from the logits back to the layer. The network is not compiled in this pass."""
        place = self._located(images)
        if place is not None and self.cam_layer == FEATURES:
            layer = self.net.get_submodule(place.layer)
            to_maps: ToMaps = place.to_maps
        else:
            layer = self.net.get_submodule(self.cam_layer)
            to_maps = partial(self.backbone.maps, layer)
        seen = probes.explain(_Logits(self), images, target, layer=layer, probe=probe, to_maps=to_maps)
        return Look(seen.logits, seen.maps, seen.classes)

    def watched(self, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K], and the maps [B, C, h, w] that a module of `net` gives in the same pass.

        Raises TypeError or ValueError if the module gives no maps, or if it does not run exactly once.
        """
        module = self.net.get_submodule(layer)
        watch = Watch(module, partial(self.backbone.maps, module), len(images), differentiate=False)
        with watch.hooks(self.net):
            logits, _ = self(images)
        return logits, watch.to_maps(watch.output)


class Tap:
    """Keeps the features of a network and the input of its head, in each of its forward passes."""

    def __init__(self, net: nn.Module, place: Place) -> None:
        self._to_maps = place.to_maps
        self._features: Tensor | None = None
        self._embedding: Tensor | None = None
        assert place.head is not None
        net.get_submodule(place.layer).register_forward_hook(self._on_layer)
        net.get_submodule(place.head).register_forward_pre_hook(self._on_head)

    def take(self) -> tuple[Tensor, Tensor]:
        """The features [B, C, h, w] and the input of the head [B, D] of the last pass."""
        assert self._features is not None
        assert self._embedding is not None
        found = self._to_maps(self._features), self._embedding
        self._features = self._embedding = None
        return found

    def _on_layer(self, module: nn.Module, given: object, output: Tensor) -> None:
        self._features = output

    def _on_head(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._embedding = given[0]


class _Logits(nn.Module):
    """A classifier that returns its logits alone."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)[0]
        return logits


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


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
        arch: a name that torchvision or timm knows (`resnet18`), `file.py:function`,
            `package.module:function`, or a callable; see `sal_fast.models.backbone`. A transformer of timm
            has to know the size of its images: `network(name).at(64)` is for 64 pixels, a name for 224.
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
    image = model.backbone.example(image_size, model.head.weight.device)
    training = model.training
    model.eval()
    try:
        if layer == FEATURES:
            maps = model.features(image)
        else:
            _, maps = model.watched(layer, image)
    except (TypeError, ValueError) as error:
        raise InputError(f"--cam-layer {layer}: {str(error).removeprefix('explain: ')}") from error
    finally:
        model.train(training)
    if (
        layer == FEATURES
        and model.backbone.cut
        and (maps.ndim != 4 or maps.shape[1] != model.head.in_features)
    ):
        raise InputError(
            f"network {model.backbone.name}: expected features [B, {model.head.in_features}, h, w], as its "
            f"head takes them, got {list(maps.shape)}"
        )
    return maps.shape[1], maps.shape[2], maps.shape[3]


def feature_size(model: Classifier, image_size: int) -> tuple[int, int]:
    """(h, w) of the CAM of a square image."""
    return map_shape(model, image_size)[1:]
