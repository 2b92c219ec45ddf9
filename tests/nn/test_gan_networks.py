"""Networks of the adversarial models: what a game, a penalty and a checkpoint ask of them."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.gan.penalties import R1
from lit_generative.nn import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ResidualDiscriminator,
    ResidualGenerator,
)
from lit_generative.nn.conditions import condition_of
from lit_generative.nn.heads import ProjectionHead
from lit_generative.nn.residual import FixupBlock
from lit_generative.nn.sizes import default_widths

Network = tuple[Any, dict[str, Any]]
LATENT = 8
GENERATORS: dict[str, Network] = {
    "mlp": (MLPGenerator, {"hidden": (16,)}),
    "dcgan": (DCGANGenerator, {"widths": (8, 12), "hidden": (16,)}),
    "residual": (ResidualGenerator, {"widths": (8, 12), "hidden": (16,)}),
}
DISCRIMINATORS: dict[str, Network] = {
    "mlp": (MLPDiscriminator, {"hidden": (16,)}),
    "dcgan": (DCGANDiscriminator, {"widths": (8, 12), "batch_norm": False}),
    "residual": (ResidualDiscriminator, {"widths": (8, 12)}),
    "spectral": (DCGANDiscriminator, {"widths": (8, 12), "batch_norm": False, "spectral_norm": True}),
}
NETWORKS = GENERATORS | {f"{name}-discriminator": network for name, network in DISCRIMINATORS.items()}
precisions = pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])


def of(networks: dict[str, Network]) -> Any:
    return pytest.mark.parametrize("network", networks.values(), ids=networks)


def build(network: Network, shape: tuple[int, int, int] = (1, 28, 28), **options: Any) -> nn.Module:
    cls, own = network
    latent = {"latent_dim": LATENT} if "Generator" in cls.__name__ else {}
    torch.manual_seed(0)
    return cls(shape, **latent, **own, **options)


def autocast(enabled: bool) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def given_to(model: nn.Module, images: Tensor) -> Tensor:
    return torch.randn(len(images), LATENT) if "Generator" in type(model).__name__ else images


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))["image"]


# -------------------------------------------------------------------- sizes, ranges and types


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(n, n) for n in (8, 10, 18, 28, 30, 64, 128)] + [(16, 28), (13, 9)], ids=str)
@pytest.mark.parametrize("name", GENERATORS)
def test_images_of_any_size_are_made_and_judged(
    name: str, size: tuple[int, int], channels: int, clothes: Tensor
) -> None:
    shape = (channels, *size)
    generator, discriminator = build(GENERATORS[name], shape), build(DISCRIMINATORS[name], shape)
    real = F.interpolate(clothes, size, mode="bilinear", antialias=True).expand(-1, channels, -1, -1)
    with torch.no_grad(), autocast(True):
        fake = generator(torch.randn(len(real), LATENT))
        logits = torch.stack([discriminator(real), discriminator(fake)])
    assert (fake.shape, fake.dtype) == (real.shape, torch.float32)
    assert fake.abs().max() <= 1
    assert (fake.std(0) > 0).all()  # every pixel depends on z
    assert (logits.shape, logits.dtype) == ((2, len(real)), torch.float32)
    assert logits.unique().numel() == logits.numel()


@pytest.mark.parametrize("size", [(28, 28), (7, 11), (13, 9), (5, 30)], ids=str)
@of(DISCRIMINATORS)
def test_every_pixel_counts(network: Network, size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size, requires_grad=True)
    build(network, (3, *size))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.all()


@of({**DISCRIMINATORS, "batch_norm": (DCGANDiscriminator, {"widths": (8, 12)})})
def test_a_logit_is_that_of_one_image_unless_batches_are_normalised(network: Network, clothes: Tensor) -> None:
    x = clothes.clone().requires_grad_()
    build(network)(x)[0].backward()
    assert x.grad is not None
    assert x.grad[0].any()
    assert x.grad[1:].any() == network[1].get("batch_norm", network[0] is DCGANDiscriminator)


# -------------------------------------------------------------------- gradients


def play(generator: nn.Module, discriminator: nn.Module, real: Tensor, y: Tensor, bf16: bool) -> Tensor:
    """Leave the gradients of the discriminator's loss with R1, and of the generator's, and return R1's value."""
    torch.manual_seed(1)
    with autocast(bf16):
        fake = generator(torch.randn(len(real), LATENT), y)
        penalty = R1(1.0)(discriminator, real, fake, y).mean()
        loss = F.softplus(discriminator(fake.detach(), y)) + F.softplus(-discriminator(real, y))
        (loss.mean() + penalty).backward()
        wanted = F.softplus(-discriminator(fake, y)).mean()
    gradients = torch.autograd.grad(wanted, list(generator.parameters()))
    for parameter, gradient in zip(generator.parameters(), gradients, strict=True):
        parameter.grad = gradient
    return penalty.detach()


@precisions
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_parameter_learns_and_all_gradients_are_finite(name: str, bf16: bool, clothes: Tensor) -> None:
    generator = build(GENERATORS[{"spectral": "dcgan"}.get(name, name)], num_classes=3)
    discriminator, y = build(DISCRIMINATORS[name], num_classes=3), torch.arange(6) % 3
    parameters = [*generator.named_parameters(), *discriminator.named_parameters()]
    play(generator, discriminator, clothes, y, bf16)
    torch.optim.Adam([p for _, p in parameters], lr=1e-3).step()  # residual branches end in zeros before it
    for _, parameter in parameters:
        parameter.grad = None
    play(generator, discriminator, clothes, y, bf16)
    for parameter_name, parameter in parameters:
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@of(DISCRIMINATORS)
def test_the_penalty_alone_reaches_every_weight(network: Network, clothes: Tensor) -> None:
    discriminator = build(network, num_classes=3)
    for block in discriminator.modules():
        if isinstance(block, FixupBlock):
            nn.init.kaiming_normal_(block.last.weight)
    R1(1.0)(discriminator, clothes, clothes, torch.arange(6) % 3).sum().backward()
    weights = {name: p for name, p in discriminator.named_parameters() if p.ndim > 1}  # logits are linear in biases
    assert {name for name, p in weights.items() if p.grad is None or not p.grad.any()} == set()


@of(DISCRIMINATORS)
def test_the_penalty_is_about_the_same_in_bf16(network: Network, clothes: Tensor) -> None:
    discriminator = build(network).eval()
    exact = R1(1.0)(discriminator, clothes, clothes)
    with autocast(True):
        rough = R1(1.0)(discriminator, clothes, clothes)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0)


# -------------------------------------------------------------------- the scale of signals


def test_a_residual_block_is_the_identity_at_first() -> None:
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(FixupBlock(6, 4)(x), x)


def test_a_first_step_changes_as_much_through_few_blocks_as_through_many() -> None:
    def change(num_blocks: int) -> float:
        torch.manual_seed(0)
        blocks, x = nn.Sequential(*[FixupBlock(16, num_blocks) for _ in range(num_blocks)]), torch.randn(4, 16, 6, 6)
        (blocks(x) * torch.randn(x.shape)).sum().backward()
        torch.optim.SGD(blocks.parameters(), lr=1e-4).step()
        return (blocks(x) - x).std().item()

    assert change(32) == pytest.approx(change(2), rel=0.5)


@of(
    {
        "dcgan": (DCGANDiscriminator, {"widths": [32] * 5, "batch_norm": False}),
        "residual": (ResidualDiscriminator, {"widths": [32] * 5, "blocks": 4}),
    }
)
def test_what_a_discriminator_sees_neither_dies_out_nor_blows_up(network: Network, clothes: Tensor) -> None:
    discriminator, x = build(network, (1, 128, 128)), F.interpolate(clothes, (128, 128), mode="bilinear")
    found: list[float] = []
    for layer in discriminator.levels:  # type: ignore[union-attr]
        if isinstance(layer, nn.Conv2d | FixupBlock):
            layer.register_forward_hook(lambda layer, given, out: found.append(out.square().mean().sqrt().item()))
    assert discriminator(x).std() > 0.02
    assert max(found) / min(found) < 2.5


@pytest.mark.parametrize("hidden", [(), (64, 64)])
@pytest.mark.parametrize("widths", [[32], [32] * 5])
@pytest.mark.parametrize("cls", [DCGANGenerator, ResidualGenerator])
def test_latents_show_in_the_first_images(cls: Any, widths: list[int], hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images = cls((3, 64, 64), 16, widths=widths, hidden=hidden)(torch.randn(16, 16))
    assert 0.1 < images.std(0).mean() < 0.9


# -------------------------------------------------------------------- spectral normalisation


def test_spectral_normalisation_bounds_every_weight(clothes: Tensor) -> None:
    discriminator = build(DISCRIMINATORS["spectral"], num_classes=3)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(5)
        for _ in range(30):
            discriminator(clothes, torch.arange(6) % 3)
    discriminator.eval()  # or looking at a weight iterates once more
    layers: list[Any] = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 4  # two convolutions, the linear layer and the classes
    for layer in layers:
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, abs=0.02)


def test_scaling_a_normalised_weight_changes_nothing(clothes: Tensor) -> None:
    discriminator = build(DISCRIMINATORS["spectral"]).eval()
    before = discriminator(clothes)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            parameter.mul_(3 if "original" in name else 1)
    torch.testing.assert_close(discriminator(clothes), before)


# -------------------------------------------------------------------- classes


@pytest.mark.parametrize("num_classes", [None, 3])
def test_the_head_is_a_projection(num_classes: int | None) -> None:
    head = ProjectionHead(40, condition_of(num_classes, None))
    phi, y = torch.randn(5, 40), torch.tensor([0, 1, 2, 1, 0])
    expected = (phi.double() @ head.linear.weight.double().T).squeeze(1) + head.linear.bias.double()
    if head.embedding is not None:
        expected = expected + (F.one_hot(y).double() @ head.embedding.weight.double() * phi.double()).sum(1)
        assert not torch.equal(head(phi, y), head(phi, (y + 1) % 3))
    for bf16 in (False, True):  # a logit of 100 would be off by 0.25 in bf16
        with autocast(bf16):
            torch.testing.assert_close(head(phi, y).double(), expected, rtol=1e-5, atol=1e-5)


@of(GENERATORS)
def test_classes_show_once_their_vectors_have_moved(network: Network) -> None:
    generator, z = build(network, num_classes=3).eval(), torch.randn(2, LATENT)
    images = [generator(z, torch.full((2,), label)) for label in range(2)]
    assert torch.equal(*images)
    for module in generator.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    images = [generator(z, torch.full((2,), label)) for label in range(2)]
    assert (images[0] - images[1]).abs().mean() > 1e-2


@of(NETWORKS)
def test_a_conditional_network_asks_for_labels(network: Network, clothes: Tensor) -> None:
    model = build(network, num_classes=3)
    with pytest.raises(ValueError, match=r"y=None: a class-conditional network .* needs a label per image"):
        model(given_to(model, clothes))


# -------------------------------------------------------------------- copies, and errors


@of(NETWORKS)
def test_a_network_is_rebuilt_copied_and_averaged(network: Network, clothes: Tensor) -> None:
    model, y = build(network, num_classes=3), torch.arange(6) % 3
    given = given_to(model, clothes)
    model(given, y)  # moves what buffers there are
    rebuilt = rebuild(describe(model))
    assert type(rebuilt) is type(model)
    assert describe(rebuilt) == describe(model)
    copied, averaged = copy.deepcopy(model), copy.deepcopy(model)
    rebuilt.load_state_dict(model.state_dict())
    with torch.no_grad():
        for mine, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
            mine.zero_().copy_(parameter)
    out = model.eval()(given, y)
    for other in (rebuilt, copied, averaged):
        assert torch.equal(other.eval()(given, y), out)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(model(given, y), out)  # nothing is shared


@pytest.mark.parametrize("size", [8, 28, 128])
@pytest.mark.parametrize("cls", [DCGANGenerator, ResidualGenerator, DCGANDiscriminator, ResidualDiscriminator])
def test_levels_by_default(cls: Any, size: int) -> None:
    is_generator = cls in (DCGANGenerator, ResidualGenerator)
    levels = {8: (1, 1), 28: (2, 3), 128: (4, 5)}[size][0 if is_generator else 1]
    options = {"latent_dim": 2} if is_generator else {}
    with torch.device("meta"):
        default = cls((1, size, size), **options).state_dict()
        expected = cls((1, size, size), widths=[64, 128, 256, 512, 512][:levels], **options).state_dict()
    assert {name: value.shape for name, value in default.items()} == {n: v.shape for n, v in expected.items()}


@of({name: network for name, network in NETWORKS.items() if "mlp" not in name})
def test_a_convolutional_network_needs_a_level(network: Network) -> None:
    with pytest.raises(ValueError, match=r"widths=\(\): .* at least one level"):
        build((network[0], {**network[1], "widths": ()}))


def test_an_image_cannot_be_halved_more_often_than_it_has_pixels() -> None:
    with pytest.raises(ValueError, match=r"widths=\(8, 8, 8, 8\): 28 x 10 pixels cannot be halved 4 times"):
        DCGANDiscriminator((1, 28, 10), widths=(8, 8, 8, 8))


@pytest.mark.parametrize(("cls", "coarsest"), [(ResidualGenerator, 8), (ResidualDiscriminator, 4)])
def test_networks_sized_by_the_image_are_those_of_their_widths(cls: type[nn.Module], coarsest: int) -> None:
    widths = default_widths(40, 28, coarsest, base=16)
    by_size, by_widths = (
        build((cls, options), (3, 40, 28)) for options in ({"base_width": 16}, {"widths": tuple(widths)})
    )
    expected = {name: p.shape for name, p in by_widths.named_parameters()}
    assert {name: p.shape for name, p in by_size.named_parameters()} == expected
