"""What a network is told: a condition that is not given counts for nothing, one that is changes the estimate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative import DDPM, GAN, VAE, ImageDataModule
from lit_generative.diffusion import DDIM, ClassifierFree, CosineSchedule, VelocityPrediction
from lit_generative.gan import RelativisticLoss
from lit_generative.nn import (
    AttributeCondition,
    ClassCondition,
    Condition,
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    DiT,
    GrayCondition,
    LowResolutionCondition,
    MaskedCondition,
    UNet,
    VectorCondition,
)
from lit_generative.vae import GaussianLikelihood

GRAY, COLOUR = (1, 28, 28), (3, 28, 28)
VECTORS = {
    "classes": (ClassCondition(5), torch.tensor([0, 4])),
    "attributes": (AttributeCondition({"colour": 3, "hat": 2}), torch.tensor([[0, 1], [2, 0]])),
    "vector": (
        VectorCondition(["age", "height"], mean=[40, 170], scale=[20, 10]),
        torch.tensor([[30.0, 160], [60, 180]]),
    ),
}
IMAGES = {"low": LowResolutionCondition(4), "gray": GrayCondition(), "hole": MaskedCondition()}


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Two tinted pictures (2, 3, 28, 28)."""
    images = next(iter(ImageDataModule(subset=10, batch_size=2).loader("test")))["image"]
    return torch.cat([images, -images, images.abs() * 2 - 1], dim=1)


def network(kind: str, shape: tuple[int, int, int], condition: Condition | None, **options: Any) -> nn.Module:
    """Return a small network whose last layer is not zero, as if it were trained."""
    torch.manual_seed(0)
    made: nn.Module = (
        UNet(shape, (8, 16), 1, (), None, 8, patch=2, condition=condition, **options)
        if kind == "unet"
        else DiT(shape, 4, 16, 1, 2, condition=condition, **options)
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def estimate(model: DDPM, x: Tensor, y: Tensor | None) -> Tensor:
    with torch.no_grad():
        return model.eval().denoise(x, torch.full((len(x),), 0.6), y).x0


@pytest.mark.parametrize("kind", ["unet", "dit"])
@pytest.mark.parametrize("name", [*VECTORS, *IMAGES])
def test_a_condition_changes_the_estimate_and_a_dropped_one_is_the_unconditional(
    kind: str, name: str, pictures: Tensor
) -> None:
    condition = IMAGES.get(name) or VECTORS[name][0]
    model = DDPM(network(kind, COLOUR, condition), COLOUR, CosineSchedule(), VelocityPrediction(), condition=condition)
    y = VECTORS[name][1] if name in VECTORS else condition.told(condition.of({"image": pictures}))
    none = torch.full_like(y, condition.none)
    given, without = estimate(model, pictures, y), estimate(model, pictures, none)
    assert (given - without).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    half = torch.stack([y[0], none[1]])
    mixed = estimate(model, pictures, half)
    assert torch.allclose(mixed[0], given[0], atol=1e-5)
    assert torch.allclose(mixed[1], without[1], atol=1e-5)
    assert without.isfinite().all()


@pytest.mark.parametrize("name", [*VECTORS, *IMAGES])
def test_guidance_leaves_out_as_many_conditions_as_it_is_asked_to(name: str, pictures: Tensor) -> None:
    condition = IMAGES.get(name) or VECTORS[name][0]
    y = VECTORS[name][1] if name in VECTORS else condition.of({"image": pictures})
    many = y[torch.zeros(2000, dtype=torch.long)]
    torch.manual_seed(0)
    left = ClassifierFree(2.0, label_dropout=0.3).training_labels(many, condition.none)
    is_none = left.isnan() if left.is_floating_point() else left == condition.none
    whole = is_none.reshape(len(many), -1)
    assert torch.equal(whole.all(dim=1), whole.any(dim=1))  # all of a condition or nothing of it
    assert whole.all(dim=1).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_num_classes_and_a_condition_of_classes_are_the_same_bit_for_bit(pictures: Tensor) -> None:
    def losses(**options: Any) -> Tensor:
        torch.manual_seed(1)
        model = DDPM(UNet(COLOUR, (8, 16), 1, (), None, 8, patch=2, **options), COLOUR, **options)
        return model.losses(pictures, torch.tensor([1, 3]))["loss"]

    assert torch.equal(losses(num_classes=5), losses(condition=ClassCondition(5)))


def test_the_small_image_is_noisy_and_the_network_knows_how_much(pictures: Tensor) -> None:
    condition = LowResolutionCondition(4, noise=0.6, sampling_noise=0.1)
    y = condition.of({"image": pictures}).expand(64, -1, -1, -1) if len(pictures) == 1 else condition.make(pictures)
    y = y.repeat(50, 1, 1, 1)
    training, sampling = condition.told(y, is_training=True), condition.told(y)
    s = training[:, -1, 0, 0]
    assert 0 <= s.min() < 0.1 < 0.5 < s.max() <= 0.6
    assert sampling[:, -1].eq(0.1).all()
    error = (training[:, :-1] - (1 - s**2).sqrt()[:, None, None, None] * y).flatten(1).std(dim=1)
    assert torch.allclose(error, s, rtol=0.1, atol=1e-3)


def test_the_small_image_has_256_levels_and_the_mean_of_the_large_one(pictures: Tensor) -> None:
    small = LowResolutionCondition(4).small(pictures)
    assert small.shape == (2, 3, 7, 7)
    assert torch.allclose((small + 1) * 127.5, ((small + 1) * 127.5).round(), atol=1e-4)
    assert torch.allclose(small.mean(dim=(2, 3)), pictures.mean(dim=(2, 3)), atol=0.05)


def test_a_hole_hides_what_is_in_it(pictures: Tensor) -> None:
    condition = MaskedCondition()
    known = torch.rand(2, 1, 28, 28) > 0.5
    other = torch.where(known, pictures, 1 - pictures)
    assert torch.equal(condition.given(pictures, known), condition.given(other, known))
    shares = condition.make(pictures.repeat(100, 1, 1, 1))[:, -1].mean(dim=(1, 2))
    assert 1 - 0.75**2 - 0.05 <= shares.min() < shares.max() <= 1 - 0.25**2 + 0.05


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_other_families_learn_what_they_are_told(family: str, name: str, pictures: Tensor) -> None:
    condition, y = VECTORS[name]
    torch.manual_seed(0)
    if family == "vae":
        parts = [make(COLOUR, 4, widths=(8,), hidden=(16,), condition=condition) for make in (ConvEncoder, ConvDecoder)]
        model: Any = VAE(*parts, GaussianLikelihood(), 4, condition=condition)
    else:
        generator = DCGANGenerator(COLOUR, 4, widths=(8, 8), condition=condition)
        discriminator = DCGANDiscriminator(COLOUR, widths=(8, 8), condition=condition)
        model = GAN(generator, discriminator, RelativisticLoss(), 4, condition=condition)
    model.losses(pictures, y)["loss"].mean().backward()
    learned = [p.grad for n, p in model.named_parameters() if "classes" in n or "others" in n or "embedding" in n]
    assert any(g is not None and g.abs().max() > 0 for g in learned)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    own, swapped = model.sample(2, y, generator=seeds[0]), model.sample(2, y.flip(0), generator=seeds[1])
    assert not torch.allclose(own, swapped, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttributeCondition({}), r"attributes=\{\}: give numbers of values by name"),
        (lambda: AttributeCondition({"hat": 1}), r"attributes\['hat'\]=1: it must be at least 2"),
        (lambda: VectorCondition("age"), r"columns='age': give a list of names"),
        (lambda: VectorCondition(["age"], scale=[0]), r"scale=\[0\]: what numbers are divided by must be positive"),
        (lambda: LowResolutionCondition(1), r"factor=1: it must be at least 2"),
        (lambda: LowResolutionCondition(2, noise=0.1, sampling_noise=0.2), r"sampling_noise=0\.2: it must be in"),
        (lambda: UNet(GRAY, (8,), 1, (), None, 8, num_classes=3, condition=ClassCondition(4)), "num_classes=3 beside"),
        (lambda: UNet(GRAY, (8,), 1, (), None, 8, condition="gray"), "condition='gray': it must be an object"),
        (lambda: GrayCondition().make(torch.zeros(1, 1, 4, 4)), "colours need 3"),
        (lambda: AttributeCondition({"hat": 2}).of({"image": torch.zeros(1, 1, 4, 4)}), "a batch has no 'hat'"),
        (lambda: AttributeCondition({"hat": 2}).check(torch.tensor([[2]]), 1), "hat has values 2 to 2"),
        (lambda: VectorCondition(["age"]).check(torch.tensor([[float("inf")]]), 1), "y has infinite values"),
        (lambda: VectorCondition(["age"]).check(None, 1), r"y is None: give floats \(1, 1\), numbers of age"),
        (lambda: GAN(nn.Identity(), nn.Identity(), RelativisticLoss(), 4, condition=GrayCondition()), "take a DDPM"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sampling_without_what_the_model_is_told_is_refused(pictures: Tensor) -> None:
    condition = LowResolutionCondition(4)
    model = DDPM(network("unet", COLOUR, condition), COLOUR, condition=condition, sampler=DDIM(2))
    with pytest.raises(ValueError, match="y is None: give low-resolution images"):
        model.sample(2)
    with pytest.raises(ValueError, match=r"of the images' size \(28, 28\)"):
        model.sample(2, torch.zeros(2, 3, 7, 7))


def test_a_model_of_images_comes_back_from_its_checkpoint_and_resumes(
    pictures: Tensor, make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    def make() -> DDPM:
        condition = LowResolutionCondition(4)
        own = network("unet", GRAY, condition)
        return DDPM(own, GRAY, condition=condition, guidance=ClassifierFree(2.0), sampler=DDIM(2))

    def run(model: DDPM, steps: int, ckpt_path: Path | None = None) -> Path:
        torch.manual_seed(17 if ckpt_path is None else 99)
        trainer = make_trainer(max_steps=steps, limit_val_batches=1)
        data = ImageDataModule(subset=60, batch_size=20)
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(path := tmp_path / f"{steps}_{ckpt_path is None}.ckpt")
        return path

    whole, half = run(make(), 4), run(make(), 2)
    resumed = run(make(), 4, half)
    ends = [torch.load(path, weights_only=True)["state_dict"] for path in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    loaded = DDPM.load_from_checkpoint(whole)
    assert isinstance(loaded.condition, LowResolutionCondition)
    assert loaded.condition.factor == 4
    y = loaded.condition.make(pictures[:, :1])
    images = loaded.sample(2, y, generator=torch.Generator().manual_seed(0))
    assert images.shape == (2, *GRAY)
