"""Networks that torchvision and timm name: where their maps are, their weights, and a step of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sal_fast import models
from sal_fast._util.words import MEAN, STD
from sal_fast.errors import InputError
from sal_fast.models.libraries import Watched, named
from sal_fast.train import Recipe, Step

SIX = ("densenet121", "efficientnet_b0", "convnext_tiny", "mobilenet_v3_small", "vit_b_16", "swin_t")
SMALL = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "vit_tiny_patch16_224", "convnext_atto.d2_in1k")
RECIPE = Recipe(
    epochs=1, batch_size=4, lr=0.01, lr_step=9, augment="none", probe="cam", map_size=9,
    saliency_loss="ssim_l1", seed=0,
)  # fmt: skip


def batch(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, size, size, generator=draws)
    masks = torch.zeros(4, size, size, dtype=torch.bool)
    masks[:, : size // 2, size // 4 :] = True
    return images, torch.tensor([0, 1, 2, 0]), masks, torch.tensor([True, True, True, False])


def built(name: str, size: int, **options: object) -> models.Classifier:
    if "." in name or name.startswith("vit_tiny"):
        pytest.importorskip("timm")
    model = models.build(models.network(name).at(size), 3, seed=1, **options)  # type: ignore[arg-type]
    with torch.no_grad():  # some libraries begin with a head of zeros, through which no gradient goes
        torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    return model


def as_the_network_sees(model: models.Classifier, images: Tensor) -> Tensor:
    (mean, std), pixels = model.backbone.normalisation, images.movedim(1, -1)
    pixels = pixels * torch.tensor(STD) + torch.tensor(MEAN)  # 0 to 1
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 1)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_networks_own(name: str) -> None:
    model, (images, *_) = built(name, 64).eval(), batch(64)
    with torch.no_grad():
        logits, features = model(images)
        torch.testing.assert_close(
            logits, model.net(as_the_network_sees(model, images)), rtol=1e-4, atol=1e-5
        )
        seen = model.look(images)
    torch.testing.assert_close(seen.logits, logits, rtol=1e-4, atol=1e-5)
    assert seen.cam.shape == (4, *features.shape[2:])
    assert models.feature_size(model, 64) == features.shape[2:]


@pytest.mark.parametrize("name", SMALL)
def test_maps_are_the_change_of_the_logit(name: str) -> None:
    """CAM by its definition: `sum_k G_k F_k`, where G_k is the derivative by a rise of channel k."""
    model, (images, labels, *_) = built(name, 64).eval(), batch(64)
    seen = model.look(images, labels)
    place = model._place
    assert place is not None
    kept: list[Tensor] = []

    def keep(module: object, given: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    handle = model.net.get_submodule(place.layer).register_forward_hook(keep)
    logits = model.net(as_the_network_sees(model, images))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), kept[0])
    weights = place.to_maps(gradient).sum((2, 3), keepdim=True)
    expected = (weights * place.to_maps(kept[0].detach())).sum(1)
    assert float(expected.std()) > 0
    torch.testing.assert_close(seen.cam, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", SMALL[:3])
def test_a_step_reaches_every_weight(name: str) -> None:
    model = built(name, 64)
    model.train()
    before = {key: value.clone() for key, value in model.net.named_parameters()}
    loss = Step(model, alpha=0.5, recipe=RECIPE)(*batch(64))
    assert bool(loss.isfinite())
    assert all(not torch.equal(value, before[key]) for key, value in model.net.named_parameters())


@pytest.mark.full
@pytest.mark.parametrize("name", SIX)
@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"compiled": True}], ids=str)
def test_torchvisions_networks_take_a_step(name: str, options: dict[str, object]) -> None:
    size = 224 if name == "vit_b_16" else 96
    model = built(name, size, **options)
    model.train()
    assert bool(Step(model, alpha=0.5, recipe=RECIPE)(*batch(size)).isfinite())
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_names_of_both_libraries() -> None:
    pytest.importorskip("timm")
    assert named("convnext_tiny").library == "torchvision"
    assert named("convnext_tiny.fb_in1k").library == "timm"
    assert models.network("resnext50_32x4d").strides == models.network("resnet50").strides
    assert models.network("vit_small_patch14_dinov2.lvd142m").weights().keys() >= {"DEFAULT"}
    with pytest.raises(InputError, match="unknown network 'convnext_tini'; did you mean 'convnext_tiny'"):
        models.network("convnext_tini")


def test_a_class_token_is_left_out() -> None:
    pytest.importorskip("timm")
    model = models.build(models.network("vit_tiny_patch16_224").at(64), 3)
    features = model.features(batch(64)[0])
    assert features.shape == (4, 192, 4, 4)
    torch.testing.assert_close(model.embedding(batch(64)[0]), features.mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("squeezenet1_1", 64, "no linear layer that makes its logits"),
        ("levit_128s", 224, "its logits are not the output of one linear layer"),
    ],
)
def test_what_cannot_be_trained_is_refused(name: str, size: int, said: str) -> None:
    if name != "squeezenet1_1":
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=said):
        models.build(models.network(name).at(size), 3).features(torch.zeros(1, 3, size, size))


def test_a_folder_of_timm(tmp_path: Path) -> None:
    """A network that somebody saved: its own weights are `DEFAULT`, and its normalisation is its own."""
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "resnet10t", num_classes=3, pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    )
    timm.models.save_for_hf(net, tmp_path / "mine")
    model = models.build(str(tmp_path / "mine"), 3, weights="DEFAULT").eval()
    assert isinstance(model.backbone, Watched)
    assert model.backbone.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = batch(64)[0]
    with torch.no_grad():
        expected = net.eval()(as_the_network_sees(model, images))
        torch.testing.assert_close(model(images)[0], expected, rtol=1e-4, atol=1e-5)
