"""The ops between features, class activation maps, human maps and the loss; and the probes."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sal_fast import ops
from sal_fast import probes as explanations
from sal_fast.bench import usual
from sal_fast.bench.suite import Case, OpSetup, Setup, Variant, against, benchmark, both_ways, close

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
BYTES = {"bool": 1, "packed": 1 / 8, "graded": 4}  # of a pixel of the human map
ALPHA = 0.5
PROBES: dict[ops.Probe, str] = {"gradcam++": "GradCAMPlusPlus", "gradcam": "GradCAM"}  # as grad-cam has them
PACKAGES = {
    "msssim": "pytorch_msssim",
    "frame_analytics": "frame_analytics",
    "grad_cam": "pytorch_grad_cam",
    "captum": "captum",
}


def installed(**variants: Variant) -> dict[str, Variant]:
    """Return those variants whose package is installed."""
    return {name: variant for name, variant in variants.items() if importlib.util.find_spec(PACKAGES[name])}


def msssim(x: Tensor, y: Tensor, window: int = 11) -> Tensor:
    """Return the mean SSIM by pytorch-msssim."""
    from pytorch_msssim import ssim

    return ssim(x, y, data_range=1.0, win_size=window)


def msssim_scales(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean multi-scale SSIM by pytorch-msssim."""
    from pytorch_msssim import ms_ssim

    return ms_ssim(x, y, data_range=1.0)


def frame_analytics(x: Tensor, y: Tensor, scales: bool = False, **options: Any) -> Tensor:
    """Return the mean SSIM, or that over several scales, by frame-analytics."""
    from frame_analytics import ms_ssim, ssim

    data_range = 1.0 if x.is_floating_point() else 255.0
    return (ms_ssim if scales else ssim)(x, y, data_range=data_range, **options)


def saliency_of(cam: Variant, loss: Variant, size: int | None) -> Variant:
    """Return a saliency loss as a function of features, weight, bias, labels and masks."""
    return lambda features, weight, bias, labels, masks: loss(
        cam(features, weight, labels), masks, map_size=size
    )


def resnet(depth: int) -> Any:
    """Return a ResNet with random weights, the same each time."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    return get_model(f"resnet{depth}", weights=None)


def maps(setup: OpSetup, seed: int, batch: int, side: int, frame: int) -> tuple[Tensor, Tensor]:
    """Return CAMs [batch, side, side], and distances [batch, frame, frame] below 1 in one blob each."""
    normal, uniform, _ = setup.draws(seed)
    return normal(batch, side, side), usual.distances(batch, frame, uniform)


@benchmark(rounds=15)
def cam_head(
    setup: OpSetup, batch: int = 64, channels: int = 2048, side: int = 7, classes: int = 1000
) -> Iterator[Case]:
    """Logits and class activation maps from features.

    The variant `logits` is the head without a map; `eager` computes the map by an einsum. The linear layer is
    float32, as under AMP.

    Args:
        batch: images.
        channels: channels of the features.
        side: rows and columns of the features.
        classes: outputs of the linear layer.
    """

    def inputs(seed: int, layout: str) -> tuple[Tensor, ...]:
        normal, _, below = setup.draws(seed)
        features = normal(batch, channels, side, side).relu().to(setup.kind)
        weight, bias = 0.1 * normal(classes, channels), 0.1 * normal(classes)
        return features.contiguous(memory_format=FORMATS[layout]), weight, bias, below(classes, (batch,))

    def logits(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (F.linear(features.float().mean((2, 3)), weight, bias),)

    moved = batch * channels * side**2 * setup.kind.itemsize
    moved += 4 * (classes * channels + batch * (classes + channels + side**2))
    variants = against(lambda *given: ops.cam_head(*given)[:2], usual.cam_head, logits=logits)
    for layout in FORMATS:
        case = Case(layout, variants, partial(inputs, layout=layout))
        # Backward reads the features for the weight's gradient, and writes their own.
        yield from both_ways(case, leaves=3, moved=(moved, 3 * moved), verify=((1e-4, 1e-5), (1e-2, 1e-4)))


@benchmark(rounds=15)
def minmax_normalize(setup: OpSetup, maps: int = 64, side: int = 224) -> Iterator[Case]:
    """Min-max normalisation of maps of 7 x 7 pixels, and of larger ones.

    The variant `eager` gives NaN for a flat map; ours does not.

    Args:
        maps: maps.
        side: pixels a side of the larger maps.
    """

    def inputs(seed: int, size: int) -> tuple[Tensor, ...]:
        return (setup.draws(seed)[0](maps, size, size).to(setup.kind),)

    variants = against(ops.minmax_normalize, usual.normalised)
    backward = max(1e-5, torch.finfo(setup.kind).eps)  # the gradient is of the maps' type
    for size in (7, side):
        case = Case(str(size), variants, partial(inputs, size=size))
        # The extremes need the whole map before a value is written; it stays in the cache.
        moved = maps * size**2 * (setup.kind.itemsize + 4)
        yield from both_ways(case, moved=(moved, 2 * moved), verify=((1e-5, 1e-6), (backward, backward)))


@benchmark(rounds=15)
def saliency_loss(setup: OpSetup, batch: int = 64, side: int = 7, frame: int = 224) -> Iterator[Case]:
    """The saliency loss, 1 - SSIM + L1, at the size of the human map and at that of the CAM.

    Human maps are masks of bytes, masks of bits, or graded. The variant `eager` has five convolutions with a
    Gaussian; `msssim` is pytorch-msssim, if it is installed.

    Args:
        batch: images.
        side: pixels a side of the CAMs.
        frame: pixels a side of the human maps.
    """

    def inputs(seed: int, target: str) -> tuple[Tensor, ...]:
        cam, far = maps(setup, seed, batch, side, frame)
        if target == "graded":
            return cam.to(setup.kind), torch.exp(-(far**2))
        return cam.to(setup.kind), ops.BitMask.pack(far < 1).words if target == "packed" else far < 1

    def packed(cam: Tensor, words: Tensor, map_size: int | None) -> Tensor:
        return ops.saliency_loss(cam, ops.BitMask(words, frame), map_size=map_size)

    peers = installed(msssim=partial(usual.saliency_loss, ssim=msssim))
    of_pixels = against(ops.saliency_loss, usual.saliency_loss, **peers)
    for map_size in (frame, None):
        for target, size in BYTES.items():
            functions = {"sal_fast": packed} if target == "packed" else of_pixels
            variants = {name: partial(function, map_size=map_size) for name, function in functions.items()}
            case = Case(f"{map_size or side}-{target}", variants, partial(inputs, target=target))
            moved = int(batch * frame**2 * size) + batch * side**2 * setup.kind.itemsize
            gradient = 4 * batch * side**2
            tolerances = ((1e-5, 1e-5), (1e-2, 1e-2))
            yield from both_ways(case, moved=(moved, moved + gradient), verify=tolerances)


@benchmark(rounds=15, least={"side": 176})
def ssim(
    setup: OpSetup, batch: int = 16, channels: int = 3, side: int = 256, depth: int = 32
) -> Iterator[Case]:
    """SSIM with a window of 11 pixels and border `valid`, with gradients to no, one or both images.

    The other cases are images of bytes, a result in float64, the map, multi-scale SSIM with five scales, and
    volumes of an eighth of the batch, one channel and half the side. The variant `eager` has five
    convolutions; `msssim` is pytorch-msssim, and `frame_analytics` frame-analytics, if they are installed.

    Args:
        batch: pairs of images.
        channels: channels of an image.
        side: pixels a side.
        depth: planes of a volume.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, uniform, _ = setup.draws(seed)
        x = F.interpolate(uniform(batch, channels, 8, 8), (side, side), mode="bicubic").clamp(0, 1)
        return x.to(setup.kind), (x + 0.1 * normal(x.shape)).clamp(0, 1).to(setup.kind)

    def of_bytes(seed: int) -> tuple[Tensor, ...]:
        x, y = inputs(seed)
        return (x * 255).round().byte(), (y * 255).round().byte()

    def volumes(seed: int) -> tuple[Tensor, ...]:
        size = max(1, batch // 8), 1, depth, side // 2, side // 2
        first, second = (setup.draws(2 * seed + i)[1](size) for i in (0, 1))
        return first, (first + second) / 2

    peers = installed(msssim=msssim, frame_analytics=frame_analytics)
    pixels, moved = batch * channels * side**2, batch * channels * side**2 * setup.kind.itemsize
    variants = against(ops.ssim, usual.ssim, **peers)
    yield Case("forward", variants, inputs, (1e-4, 1e-5), floor=2 * moved)
    for leaves, way in ((1, "x"), (2, "xy")):
        backward = {name: usual.with_gradient(function, leaves) for name, function in variants.items()}
        yield Case(f"forward-backward-{way}", backward, inputs, (1e-2, 1e-2), floor=(2 + leaves) * moved)
    yield from ssim_results(inputs, of_bytes, pixels, moved)

    several = installed(msssim=msssim_scales, frame_analytics=partial(frame_analytics, scales=True))
    scales = Case("ms_ssim", {"sal_fast": ops.ms_ssim, **several}, inputs)
    yield from both_ways(scales, moved=(2 * moved, 3 * moved), verify=((1e-4, 1e-5), (1e-2, 1e-2)))
    read = 4 * 2 * max(1, batch // 8) * depth * (side // 2) ** 2
    of_volumes = {"sal_fast": ops.ssim, **installed(msssim=msssim)}
    yield Case("volume", of_volumes, volumes, (1e-4, 1e-5), floor=read)


def ssim_results(
    inputs: Callable[[int], tuple[Tensor, ...]],
    of_bytes: Callable[[int], tuple[Tensor, ...]],
    pixels: int,
    moved: int,
) -> Iterator[Case]:
    """Yield the cases of SSIM forward alone: of bytes, in float64, and as a map."""

    def verify(x: Tensor, y: Tensor) -> None:
        close(ops.ssim(x, y), ops.ssim(x.double() / 255, y.double() / 255), 1e-6, 1e-6)

    peer = installed(frame_analytics=frame_analytics)
    whole = {"sal_fast": ops.ssim, "eager": usual.ssim_of_bytes, **peer}
    yield Case("uint8", whole, of_bytes, verify, floor=2 * pixels)
    exact: dict[str, Variant] = {"sal_fast": partial(ops.ssim, out_dtype=torch.float64), **peer}
    yield Case("float64", exact, inputs, (1e-9, 1e-9), floor=2 * moved)
    maps = installed(frame_analytics=partial(frame_analytics, return_map=True))
    everywhere: dict[str, Variant] = {"sal_fast": ops.ssim_map, "eager": usual.ssim_map, **maps}
    yield Case("map", everywhere, inputs, (1e-3, 1e-4), floor=2 * moved + 4 * pixels)


def losses(map_size: int | None) -> dict[str, Variant]:
    """Return Eq. 1 of features, weight, bias, labels and masks, ours and in eager torch."""

    def ours(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        head = ops.cam_head(features, weight, bias, labels)
        return ops.cyborg_loss(head.logits, head.cam, labels, masks, alpha=ALPHA, map_size=map_size)

    def cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(features.float().mean((2, 3)), weight, bias), rest[0])

    eager = partial(usual.cyborg_loss, alpha=ALPHA, map_size=map_size)
    return {"sal_fast": ours, "eager": eager, "cross_entropy": cross_entropy}


@benchmark(rounds=15)
def cyborg_loss(
    setup: OpSetup,
    batch: int = 64,
    channels: int = 2048,
    side: int = 7,
    classes: int = 1000,
    frame: int = 224,
) -> Iterator[Case]:
    """The loss of Eq. 1 forward and backward, at the size of the human map and at that of the CAM.

    The case `cam` is CAM and saliency loss, with the gradient to the features. `head` has the linear layer,
    the cross-entropy and the gradients to weight and bias as well.

    Args:
        batch: images.
        channels: channels of the features.
        side: rows and columns of the features.
        classes: outputs of the linear layer.
        frame: pixels a side of the human maps.
    """

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, _, below = setup.draws(seed)
        features = normal(batch, channels, side, side).relu()
        features = features.to(setup.kind, memory_format=torch.channels_last)
        weight, bias = 0.02 * normal(classes, channels), torch.zeros(classes, device=setup.place)
        return features, weight, bias, below(classes, (batch,)), maps(setup, seed, batch, side, frame)[1] < 1

    # The weight's gradient needs the features a second time: from the cache, if they fit.
    moved = 2 * batch * channels * side**2 * setup.kind.itemsize + batch * frame**2
    floors = {"cam": (1, moved), "head": (3, moved + 2 * 4 * classes * channels)}
    for size in (frame, None):
        cams = {
            "sal_fast": saliency_of(ops.cam, ops.saliency_loss, size),
            "eager": saliency_of(usual.cam, usual.saliency_loss, size),
        }
        for name, functions in (("cam", cams), ("head", losses(size))):
            leaves, floor = floors[name]
            variants = {key: usual.with_gradient(function, leaves) for key, function in functions.items()}
            yield Case(f"{name}-{size or side}", variants, inputs, (2e-2, 1e-2), floor=floor)


@benchmark(rounds=15)
def topn_dice(setup: OpSetup, batch: int = 64, side: int = 7, frame: int = 224) -> Iterator[Case]:
    """Dice of the top-N pixels of CAMs with human masks of bytes or bits, and of CAMs after a ReLU.

    The ReLU leaves a third of the pixels. The variant `topk` goes image by image, since N differs; `sort`
    sorts a batch.

    Args:
        batch: images.
        side: pixels a side of the CAMs.
        frame: pixels a side of the masks.
    """

    def inputs(seed: int, case: str) -> tuple[Tensor, ...]:
        cam, far = maps(setup, seed, batch, side, frame)
        cam = (cam - 0.43).relu() if case == "relu" else cam
        return cam.to(setup.kind), ops.BitMask.pack(far < 1).words if case == "packed" else far < 1

    def ours(cam: Tensor, stored: Tensor) -> ops.TopnDice:
        return ops.topn_dice(cam, stored if stored.dtype == torch.bool else ops.BitMask(stored, frame))

    def verify(cam: Tensor, stored: Tensor) -> None:
        got, expected = ours(cam, stored), ours(cam.double(), stored)
        assert torch.equal(got.n, expected.n)
        # float32 may exchange neighbours of the N-th pixel.
        assert int((got.hits - expected.hits).abs().max()) <= 2

    variants: dict[str, Variant] = {
        "sal_fast": lambda *given: ours(*given).dice,
        "topk": usual.topn_dice,
        "sort": usual.topn_dice_by_sort,
        "compile": torch.compile(usual.topn_dice_by_sort, dynamic=False),
    }
    for case in ("bool", "packed", "relu"):
        bits = case == "packed"
        functions = {"sal_fast": variants["sal_fast"]} if bits else variants
        # The mask's size is needed before a pixel is chosen; its second read finds it in the cache.
        row = 4 * -(-frame // 32) if bits else frame  # bytes
        moved = batch * (frame * row + side**2 * setup.kind.itemsize + 20)
        yield Case(case, functions, partial(inputs, case=case), verify, floor=moved)


@benchmark(rounds=15)
def probes(setup: Setup, batch: int = 16, depth: int = 50, image: int = 224) -> Iterator[Case]:
    """Maps of a ResNet end to end, against grad-cam and captum if they are installed.

    The variant `forward_alone` is the network without a map, the floor.

    Args:
        batch: images.
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        image: pixels a side.
    """
    model = resnet(depth).to(setup.place).eval()
    place = explanations.find(model, torch.zeros(0, 3, image, image, device=setup.place))
    layer = model.get_submodule(place.layer)

    def inputs(seed: int) -> tuple[Tensor, ...]:
        normal, _, below = setup.draws(seed)
        return normal(batch, 3, image, image), below(1000, (batch,))

    @torch.no_grad()
    def ours(images: Tensor, classes: Tensor, probe: ops.Probe) -> Tensor:
        return explanations.explain(
            model, images, classes, layer=layer, probe=probe, to_maps=place.to_maps
        ).maps

    def grad_cam(images: Tensor, classes: Tensor, probe: ops.Probe) -> object:
        """Grad-cam enlarges and normalises the maps too, in a small part of its time."""
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with getattr(pytorch_grad_cam, PROBES[probe])(model, [layer]) as explain:
            return explain(images, [ClassifierOutputTarget(int(c)) for c in classes])

    def captum(images: Tensor, classes: Tensor) -> object:
        from captum.attr import LayerGradCam

        return LayerGradCam(model, layer).attribute(images, classes, relu_attributions=True)

    @torch.no_grad()
    def forward_alone(images: Tensor, classes: Tensor) -> object:
        return model(images)

    def verify(images: Tensor, classes: Tensor, probe: ops.Probe) -> None:
        """Compare with autograd's maps, which a layer before the last one takes."""
        images, classes = images[:2], classes[:2]
        features = nn.Sequential(*list(model.children())[:-2])(images).detach().requires_grad_()
        logits = model.get_submodule("fc")(features.mean((2, 3)))
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
        expected = explanations.formulas.gradient_map(features, gradient, probe).detach()
        got, expected = (ops.minmax_normalize(maps) for maps in (ours(images, classes, probe), expected))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)

    for probe in PROBES:
        variants: dict[str, Variant] = {"sal_fast": partial(ours, probe=probe)}
        variants |= installed(grad_cam=partial(grad_cam, probe=probe))
        if probe == "gradcam":
            variants |= installed(captum=captum)
        variants["forward_alone"] = forward_alone
        moved = 4 * batch * 3 * image**2
        yield Case(f"resnet{depth}-{probe}", variants, inputs, partial(verify, probe=probe), floor=moved)
