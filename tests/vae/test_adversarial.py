"""Autoencoders against a discriminator: the balance of two gradients, both steps, and that the bound stays one."""

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from known_models import MODELS, SHAPE, adversary
from resuming import assert_resumes
from torch import Tensor, nn

from lit_generative import VAE, ImageDataModule
from lit_generative.contracts import Autoencodes, Diagnosable
from lit_generative.evaluation import radial_spectrum, sharpness
from lit_generative.gan import GANHealth, LeastSquaresLoss, NonSaturatingLoss, RelativisticLoss
from lit_generative.nn import DCGANDiscriminator, MLPDecoder, MLPEncoder, PatchDiscriminator
from lit_generative.vae import VAEGAN, VQGAN, Adversary, GaussianLikelihood
from lit_generative.vae.adversary import balance, gradients, last_weight

MakeTrainer = Callable[..., L.Trainer]
KINDS = ("vaegan", "vqgan")


def images(n: int = 16) -> Tensor:
    return next(iter(ImageDataModule(subset=200).loader("train", batch_size=n)))["image"]


def build(num_classes: int | None = None, **options: Any) -> VAEGAN:
    torch.manual_seed(0)
    parts = {"encoder": MLPEncoder(SHAPE, 4, (32,), num_classes), "decoder": MLPDecoder(SHAPE, 4, (32,), num_classes)}
    game = Adversary(PatchDiscriminator(SHAPE, (8, 8)), **({"after_images": 0} | options))
    return VAEGAN(**parts, likelihood=GaussianLikelihood(), latent_dim=4, num_classes=num_classes, adversary=game)


def test_the_balance_makes_two_gradients_equally_long() -> None:
    network, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    out = network(x)
    large, small = 700 * out.square().sum(1), 0.01 * (out[:, 0] - 3).square()
    at = last_weight(network)
    assert at is network[2].weight
    ratio = balance(*gradients(large, small, at))
    found = [torch.autograd.grad(v.mean(), at, retain_graph=True)[0].norm() for v in (large, ratio * small)]
    torch.testing.assert_close(*found)
    assert not ratio.requires_grad


def test_a_gradient_that_vanishes_does_not_blow_the_balance_up() -> None:
    layer = nn.Linear(3, 2)
    out = layer(torch.randn(5, 3))
    assert balance(*gradients(out.sum(1), 0 * out.sum(1), layer.weight)) <= 1e6


@pytest.mark.parametrize("loss", [None, NonSaturatingLoss(), LeastSquaresLoss(), RelativisticLoss()])
@pytest.mark.parametrize("network", [PatchDiscriminator(SHAPE, (8, 8)), DCGANDiscriminator(SHAPE, (4, 8), False)])
def test_losses_are_one_an_image(network: nn.Module, loss: Any) -> None:
    game, x = Adversary(network, loss), images(6)
    fake = x.flip(3).requires_grad_()
    found = game.discriminator_losses(x, [fake], None, step=0)["discriminator_loss"]
    judged = game.generator_loss(x, [fake])
    assert found.shape == judged.shape == (6,)
    (gradient,) = torch.autograd.grad(judged.sum(), fake)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert not torch.autograd.grad(found.sum(), fake, allow_unused=True)[0]


def test_two_batches_of_images_count_equally() -> None:
    game, x = adversary(), images(6)
    one, other = x.flip(3), x.roll(3, 2)
    both = game.generator_loss(x, [one, other])
    torch.testing.assert_close(both, (game.generator_loss(x, [one]) + game.generator_loss(x, [other])) / 2)


@pytest.mark.parametrize("name", KINDS)
def test_both_networks_move_and_a_batch_is_one_step(name: str, make_trainer: MakeTrainer) -> None:
    model = MODELS[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer = make_trainer(max_steps=3)
    trainer.fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    assert trainer.global_step == 3
    assert model.images_seen == 75
    for part in ("encoder", "decoder", "adversary.discriminator"):
        own = {key: value for key, value in model.state_dict().items() if key.startswith(part)}
        unmoved = [key for key, value in own.items() if torch.equal(value, before[key])]
        assert set(unmoved) <= {"adversary.discriminator.head.bias"}  # which real and other images pull apart alike
    assert isinstance(model, Autoencodes)


def test_before_its_time_the_adversary_does_nothing(make_trainer: MakeTrainer) -> None:
    """As long as it is not in the game, the autoencoder is trained as a VAE is, to the last bit."""
    late = build(after_images=10_000)
    plain = VAE(late.encoder, late.decoder, late.likelihood, 4)
    start = {key: value.clone() for key, value in late.state_dict().items()}
    ends = []
    for model in (late, plain):
        model.load_state_dict({k: v.clone() for k, v in start.items() if k in model.state_dict()})
        torch.manual_seed(3)
        make_trainer(max_steps=4).fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
        ends.append({key: value.clone() for key, value in model.state_dict().items()})
    assert all(torch.equal(value, ends[0][key]) for key, value in ends[1].items())
    untouched = [key for key in start if key.startswith("adversary")]
    assert all(torch.equal(start[key], ends[0][key]) for key in untouched)


def test_the_bound_is_that_of_the_vae() -> None:
    model, x = build().eval(), images()
    plain = VAE(model.encoder, model.decoder, model.likelihood, 4).eval()
    found = []
    for each in (model, plain):
        torch.manual_seed(1)
        found.append(each.losses(x)["nelbo"])
    assert torch.equal(*found)


@pytest.mark.parametrize("is_balanced", [True, False])
def test_without_a_balance_the_weight_is_in_nats(is_balanced: bool) -> None:
    model, x = build(weight=3.0, is_balanced=is_balanced), images()
    losses, p = model.losses_and_decoded(x)
    judged = model.adversary.generator_loss(x, [p.mean])
    found = gradients(losses["nll"], judged, last_weight(model.decoder))
    expected = 3 * judged * (balance(*found) if is_balanced else 1)
    model._trainer = L.Trainer(logger=False, accelerator="cpu")
    torch.testing.assert_close(model._terms(losses["nll"], x, [p.mean], None)["adversarial_loss"], expected)


def test_samples_are_judged_too_where_they_should_be(make_trainer: MakeTrainer) -> None:
    model = build(num_classes=10, sees_samples=True)
    make_trainer(max_steps=2).fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    drawn = model.decoded_samples(4, torch.arange(4))
    assert drawn.requires_grad


def test_a_vqgan_refuses_to_draw_codes_in_each_step_before_it_is_trained() -> None:
    like = MODELS["vqgan"]()
    parts = {name: getattr(like, name) for name in ("encoder", "decoder", "likelihood", "codebook", "code_prior")}
    with pytest.raises(ValueError, match=r"adversary.sees_samples=True"):
        VQGAN(**parts, adversary=adversary(sees_samples=True))
    assert like.decoded_samples(2).shape == (2, *SHAPE)


def test_it_makes_details_that_are_missing(make_trainer: MakeTrainer) -> None:
    """From the same start, images get more power at high frequencies with an adversary than without."""
    x = images(100)
    real, sharp = radial_spectrum(x), []
    for weight in (1e-9, 4.0):
        model = build(weight=weight, optimizer=functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.5, 0.9)))
        model.make_optimizer = functools.partial(torch.optim.Adam, lr=3e-3)
        make_trainer(max_steps=120, limit_val_batches=0).fit(
            model, datamodule=ImageDataModule(subset=1000, batch_size=50)
        )
        sharp.append(sharpness(radial_spectrum(model.reconstruct(x)), real))
    assert sharp[1] > 1.3 * sharp[0]


@pytest.mark.parametrize("name", KINDS)
def test_it_can_be_watched(name: str, make_trainer: MakeTrainer) -> None:
    model = MODELS[name]()
    assert isinstance(model, Diagnosable)
    found = model.diagnose(images(8))
    assert {name: tuple(v.shape) for name, v in found.items()} == dict.fromkeys(
        ("real_logits", "fake_logits", "generator_gradient"), (8,)
    )
    assert (found["generator_gradient"] > 0).all()
    health = GANHealth(every_n_steps=1, num_samples=8)
    make_trainer(max_steps=3, callbacks=[health]).fit(model, datamodule=ImageDataModule(subset=100, batch_size=25))
    assert health.verdict


@pytest.mark.parametrize("name", KINDS)
def test_resumed_equals_unbroken_bit_for_bit(name: str, make_trainer: MakeTrainer) -> None:
    assert_resumes(MODELS[name], make_trainer, (4, 7))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: adversary(weight=0.0), "weight=0"),
        (lambda: adversary(features_weight=-1.0), "features_weight=-1"),
        (
            lambda: Adversary(DCGANDiscriminator(SHAPE, (4, 8)), features_weight=1.0),
            r"features_weight=1: DCGANDiscriminator has no features",
        ),
        (lambda: PatchDiscriminator((1, 3, 8), (8, 8)), r"widths=\[8, 8\]: 3 x 8 pixels cannot be halved"),
        (lambda: PatchDiscriminator(SHAPE, ()), "widths="),
    ],
)
def test_what_does_not_go_is_said_at_once(make: Callable[[], object], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        make()


@pytest.mark.parametrize("option", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_options_of_one_network_are_refused(option: dict[str, Any], make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        make_trainer(max_steps=1, **option).fit(build(), datamodule=ImageDataModule(subset=100, batch_size=25))
