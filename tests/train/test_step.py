"""One step, and several models of a round: what they do not depend on."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from sal_fast import data, models, train
from sal_fast._util import memory
from sal_fast.data import decode, store
from sal_fast.distributed import ALONE, Ranks
from sal_fast.errors import InputError
from sal_fast.train import Job, Step, loop
from sal_fast.train.evaluate import in_halves
from sal_fast.train.parallel import Sharded, pieces
from sal_fast.train.step import Loss

CPU = torch.device("cpu")
SMALL = f"{Path(__file__).parents[1] / 'helpers' / 'small_network.py'}:Small"
RECIPE = train.Recipe(
    epochs=2,
    batch_size=8,
    lr=0.01,
    lr_step=12,
    augment="none",
    probe="cam",
    map_size=None,
    saliency_loss="ssim_l1",
    seed=0,
)


def network(drops: bool = False, **options: Any) -> models.Classifier:
    """A small network, with dropout inside if asked for."""
    model = models.build(SMALL, 3, seed=0, **options)
    if drops:
        model.net.layer4 = nn.Sequential(model.net.layer4, nn.Dropout(0.5))
    return model


def resnet(**options: Any) -> models.Classifier:
    return models.build("resnet18", 3, output_stride=8, seed=0, **options)


def fit(samples: store.Store, jobs: list[Job], recipe: train.Recipe = RECIPE) -> list[train.Fitted]:
    rows = samples.rows("train")
    maps, has_map = samples.masks[rows], samples.has_mask[rows]
    return train.Training(jobs, samples, rows, maps, has_map, recipe, round_index=0).fit()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def batch(samples: store.Store, count: int = 18) -> tuple[Any, ...]:
    rows = samples.rows("train")[:count]
    (images,) = samples.views([rows])
    return images, samples.labels[rows], samples.masks.batch(rows), samples.has_mask[rows]


@pytest.mark.parametrize("drops", [False, True])
def test_a_model_does_not_depend_on_what_is_trained_beside_it(samples: store.Store, drops: bool) -> None:
    together = [Job(network(drops), alpha, "both") for alpha in (0.9, 0.1)]
    found = fit(samples, together)
    for job, fitted in zip(together, found, strict=True):
        alone = Job(network(drops), job.alpha, "alone")
        assert fit(samples, [alone]) == [fitted]
        assert same(alone.model, job.model)
    assert not same(together[0].model, together[1].model)


def test_a_step_leaves_the_callers_random_numbers_alone(samples: store.Store) -> None:
    step = Step(network(drops=True).train(), alpha=0.5, recipe=RECIPE, noise=3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    step(*batch(samples))
    assert torch.equal(torch.rand(3), expected)


def short_of_memory(most: int, features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def limited(images: Tensor) -> Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return features(images)

    return limited


def test_a_batch_that_does_not_fit_goes_in_parts(
    samples: store.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = network()
    monkeypatch.setattr(model, "_run", short_of_memory(3, model._run))
    job = Job(model, 0.9, "accuracy model")
    (fitted,) = fit(samples, [job])
    assert fitted.parts == 4
    said = [record.getMessage() for record in caplog.records if record.name == "sal_fast.train.loop"]
    assert said[-1] == (
        "round 1: too little memory on cpu for batches of 8; they go through the accuracy model in 4 parts"
    )
    monkeypatch.undo()
    again = Job(network(), 0.9, "accuracy model")
    rows = samples.rows("train")
    work = train.Training([again], samples, rows, samples.masks[rows], samples.has_mask[rows], RECIPE, 0)
    assert work._train(4) == [fitted]  # nothing is left of the attempts that failed
    assert same(again.model, model)


def test_what_does_not_fit_at_all_is_said(samples: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(model, "_run", short_of_memory(0, model._run))
    with pytest.raises(InputError, match=r"too little memory to train the teacher on \d+ images at a time"):
        fit(samples, [Job(model, 0.9, "teacher")])


def test_parts_add_up_to_the_batchs_gradient(samples: store.Store) -> None:
    """With fixed statistics the parts are the batch."""
    given = batch(samples)
    moved = []
    for parts in (1, 4):
        model = network().double().eval()
        step = Step(model, alpha=0.5, recipe=RECIPE, parts=parts)
        loss = step(given[0].double(), *given[1:])
        moved.append([loss, *model.parameters()])
    for one, four in zip(*moved, strict=True):
        torch.testing.assert_close(one, four, rtol=1e-9, atol=1e-12)


def test_parts_are_added_up_in_memory_of_their_own(samples: store.Store) -> None:
    """The gradients of a compiled network lie in a CUDA graph's memory, which the next part writes over."""
    step = Step(network(), alpha=0.5, recipe=RECIPE, parts=2)
    weight = step.model.head.weight
    made: list[int] = []
    weight.register_hook(lambda gradient: made.append(gradient.data_ptr()))
    step(*batch(samples))
    assert weight.grad is not None
    assert len(made) == 2
    assert weight.grad.data_ptr() not in made


class FakeStream:
    """Stands for a CUDA stream, and notes what waits for what."""

    def __init__(self, device: torch.device, waits: list[tuple[object, object]]) -> None:
        self.device, self.waits = device, waits

    def wait_stream(self, other: object) -> None:
        self.waits.append((self, other))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[object, object]]]:
    """CUDA streams that exist without a GPU; the value is what waited for what."""
    waits: list[tuple[object, object]] = []
    default = FakeStream(torch.device("cuda"), waits)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(device, waits))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: default)
    loop._streams.cache_clear()
    yield waits
    loop._streams.cache_clear()


def training(samples: store.Store, *, ranks: Ranks = ALONE, **recipe: Any) -> train.Training:
    """Two models that are trained on a GPU that need not be there."""
    rows = samples.rows("train")
    jobs = [Job(network(), alpha, "test") for alpha in (0.5, 0.1)]
    on_gpu = copy.copy(samples)
    object.__setattr__(on_gpu, "labels", SimpleNamespace(device=torch.device("cuda")))
    own = replace(RECIPE, **recipe)
    return train.Training(jobs, on_gpu, rows, samples.masks[rows], samples.has_mask[rows], own, 0, ranks)


def test_every_epoch_uses_the_same_streams(samples: store.Store, streams: list[object]) -> None:
    """Memory that torch caches belongs to one stream: new ones would each keep the models' activations."""
    first, again = (training(samples)._side_streams for _ in range(2))
    assert len(first) == 2
    assert None not in first
    assert list(first) == list(again)


def test_replicas_share_one_stream(samples: store.Store, streams: list[object]) -> None:
    """DistributedDataParallel adds gradients up on the default stream."""
    two = Ranks(0, 2)
    assert None not in training(samples, ranks=two)._side_streams
    assert training(samples, ranks=two, data_parallel=True)._side_streams == [None, None]


def test_streams_are_waited_for_after_an_error(streams: list[tuple[object, object]]) -> None:
    """The models' states are written over then, which a stream may still be changing."""
    one = torch.cuda.Stream(torch.device("cuda"))

    def fails() -> None:
        with loop._side_by_side([one]):
            streams.clear()
            raise torch.OutOfMemoryError("too little")

    with pytest.raises(torch.OutOfMemoryError):
        fails()
    assert streams == [(torch.cuda.current_stream(torch.device("cuda")), one)]


def test_a_new_network_runs_what_was_compiled_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round trains new networks; compiling takes longer than a round."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode: real(function, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    seen = []
    for _ in range(3):
        resnet(compiled=True)(torch.rand(2, 3, 32, 32))[0].sum().backward()
        seen.append(counters["stats"]["unique_graphs"])
    assert seen[0] > 0
    assert seen == seen[:1] * 3


def test_halves_where_memory_runs_out() -> None:
    rows = torch.arange(11.0)
    assert torch.equal(in_halves(short_of_memory(2, lambda x: 2 * x), rows), 2 * rows)
    with pytest.raises(torch.OutOfMemoryError):
        in_halves(short_of_memory(0, lambda x: x), rows)


def test_images_that_do_not_fit_are_streamed(
    samples: store.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(store, "Resident", full)
    opened = data.open_store(samples.table, store.StoreOptions(32, 32, decode.choose("torch", CPU)))
    assert isinstance(opened.images, store.Streamed)
    assert opened.fingerprint == samples.fingerprint
    assert "too little memory left for all images: they are streamed" in caplog.text


def test_features_that_do_not_fit_are_mapped(samples: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = network(), torch.arange(30)
    logits, expected = train.score(model, samples, rows)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    mapped = train.score(model, samples, rows, dtype=torch.float16)
    assert torch.equal(mapped[0], logits)
    assert expected is not None
    assert mapped[1] is not None
    assert torch.equal(mapped[1], expected.half())
    assert train.score(model, samples, rows, features=False)[1] is None


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 13, 20])
def test_pieces(count: int) -> None:
    parts = pieces(count, 6)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert len(sizes) == min(6, max(1, count // 2))
    assert count == 1 or min(sizes) >= 2


@pytest.mark.parametrize(
    ("layer", "probe"), [("features", "cam"), ("layer4.0", "cam"), ("layer3", "gradcam++")]
)
def test_sharded_gradient_and_statistics(samples: store.Store, layer: str, probe: Any) -> None:
    """Each shard by itself, then the weighted sum, in float64."""
    recipe = replace(RECIPE, probe=probe)
    given = batch(samples, 17)
    given = (given[0].double(), *given[1:])
    model = network(cam_layer=layer).double().train()
    before = copy.deepcopy(model.state_dict())
    loss = Sharded(Loss(model, 0.5, recipe), ALONE, 6)(given)
    total, gradients, statistics = 0.0, [], []
    for part in pieces(17, 6):
        one = network(cam_layer=layer).double().train()
        one.load_state_dict(before)
        share = (part.stop - part.start) / 17
        own = Loss(one, 0.5, recipe)(*(values[part] for values in given))
        own.backward()
        total += share * own.detach()
        gradients.append([share * value.grad for value in one.parameters()])  # type: ignore[operator]
        statistics.append(
            {name: share * value for name, value in one.state_dict().items() if "running" in name}
        )
    torch.testing.assert_close(loss, total)
    for value, *parts in zip(model.parameters(), *gradients, strict=True):
        torch.testing.assert_close(value.grad, sum(parts), rtol=1e-9, atol=1e-12)
    for name, value in model.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, sum(part[name] for part in statistics), rtol=1e-9, atol=1e-12)
        elif "num_batches" in name:
            assert value == 1
    assert [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)] == [0.1] * 4


def test_bfloat16_trains_and_keeps_float32_weights(samples: store.Store) -> None:
    exact, half = resnet(), resnet(precision="bfloat16")
    (image, *_) = batch(samples)
    assert half.features(image).dtype == torch.bfloat16
    with torch.no_grad():
        assert half(image)[0].dtype == torch.float32
        found, expected = (models.pooled(model.features(image)) for model in (half, exact))
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05
    start = exact.head.weight.detach().clone()
    for model in (half, exact):
        Step(model.train(), alpha=0.5, recipe=RECIPE)(*batch(samples))
    assert all(value.dtype == torch.float32 for value in half.parameters())
    moved, other = (model.head.weight.detach() - start for model in (exact, half))
    assert 0 < float((other - moved).norm() / moved.norm()) < 0.5  # it is 0.11
    scores = train.evaluate(half, samples, samples.rows("test"), "cam")
    assert scores.cams.dtype == torch.float32


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_compiled_is_the_same_network(samples: store.Store) -> None:
    plain, compiled = resnet(), resnet(compiled=True)
    given = batch(samples, 8)
    losses = [Step(model.train(), alpha=0.5, recipe=RECIPE)(*given) for model in (plain, compiled)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.head.weight, compiled.head.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_side_by_side_on_a_gpu(samples: store.Store, precision: Any) -> None:
    """Two streams, channels_last, autocast: what each model alone would come to, up to a GPU's rounding."""
    cuda = torch.device("cuda")
    there = store.build(samples.table, store.StoreOptions(32, 32, decode.choose("pillow", CPU)))
    there = replace(
        there,
        images=store.Resident(samples.images.pixels.to(cuda)),  # type: ignore[attr-defined]
        masks=samples.masks.to(cuda),
        has_mask=samples.has_mask.to(cuda),
        labels=samples.labels.to(cuda),
    )
    recipe = replace(RECIPE, epochs=1)
    together = [Job(resnet(precision=precision).to(cuda), alpha, "both") for alpha in (0.9, 0.1)]
    fit(there, together, recipe)
    for job in together:
        alone = Job(resnet(precision=precision).to(cuda), job.alpha, "alone")
        fit(there, [alone], recipe)
        torch.testing.assert_close(alone.model.head.weight, job.model.head.weight, rtol=1e-2, atol=1e-3)
    on_cpu = Job(resnet(), 0.9, "cpu")
    fit(samples, [on_cpu], recipe)
    rough = 1e-3 if precision == "float32" else 2e-2
    torch.testing.assert_close(
        together[0].model.head.weight.cpu(), on_cpu.model.head.weight, rtol=rough, atol=rough
    )


def test_a_model_and_its_step_are_freed_at_once() -> None:
    """Without the garbage collector, which may not come for many trainings: their memory would add up."""
    model = models.build("resnet18", 2, output_stride=8)
    step = Step(model.train(), alpha=0.5, recipe=RECIPE)
    step(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]), torch.rand(2, 32, 32), torch.ones(2).bool())
    step.end_epoch()
    held = [weakref.ref(thing) for thing in (model, step, step.optimizer, model.head.weight)]
    gc.collect()
    gc.disable()
    try:
        del model, step
        assert [thing() is None for thing in held] == [True] * 4
    finally:
        gc.enable()
