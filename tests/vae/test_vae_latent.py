"""The latent space of a VAE: means, paths, traversals, the plane; its health; priors of one's own."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from signatures import meets
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence

from lit_generative import VAE, ImageDataModule
from lit_generative.contracts import HasLatentSpace, Interpolates, Reconstructs
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import IWAE, VQVAE, GaussianLikelihood, LadderVAE, Prior
from lit_generative.vae.active_units import ActiveUnits

MakeVAE = Callable[..., VAE]


@pytest.fixture(scope="module")
def clothes() -> dict[str, Tensor]:
    return next(iter(ImageDataModule(subset=50).loader("test", batch_size=6)))


@pytest.fixture(params=[None, 10], ids=["plain", "labels"])
def case(
    request: pytest.FixtureRequest, make_vae: MakeVAE, clothes: dict[str, Tensor]
) -> tuple[VAE, Tensor, Tensor | None]:
    model = make_vae(num_classes=request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model, clothes["image"], clothes["label"] if request.param else None


def test_paths_run_from_one_reconstruction_to_the_other(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    x_1 = x.flip(0)
    for is_spherical in (False, True):
        path = model.interpolate(x, x_1, 5, y, is_spherical=is_spherical)
        assert path.shape == (5, 6, 1, 28, 28)
        torch.testing.assert_close(path[0], model.reconstruct(x, y))
        means = model.posterior_means(x, y), model.posterior_means(x_1, y)
        torch.testing.assert_close(path[-1], model.decode(means[1], y).mean.detach().clamp(-1, 1))
    straight = model.interpolate(x, x_1, 5, y)
    torch.testing.assert_close(straight[2], model.decode((means[0] + means[1]) / 2, y).mean.detach().clamp(-1, 1))
    assert not torch.allclose(straight[2], path[2], atol=1e-3)


def test_posterior_means_are_the_posteriors(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    means = model.posterior_means(x, y)
    torch.testing.assert_close(means, model.encode(x, y).mean.detach())
    assert not means.requires_grad


def test_a_traversal_moves_one_dimension_and_keeps_the_rest(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    x, y = x[:1], None if y is None else y[:1]
    rows = model.traverse(x, y, dimensions=[5, 2], extent=2.0, steps=3)
    assert rows.shape == (2, 3, 1, 28, 28)
    mean = model.posterior_means(x, y)
    for row, dimension in zip(rows, (5, 2), strict=True):
        for image, value in zip(row, (-2.0, 0.0, 2.0), strict=True):
            z = mean.clone()
            z[0, dimension] = value
            torch.testing.assert_close(image, model.decode(z, y).mean[0].detach().clamp(-1, 1))
    assert model.traverse(x, y).shape == (8, 8, 1, 28, 28)


def test_the_grid_is_at_the_quantiles_of_the_normal(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, _, y = case
    y = None if y is None else y[:1]
    grid = model.latent_grid(3, y, dimensions=(1, 4))
    assert grid.shape == (3, 3, 1, 28, 28)
    for (i, j), values in {(1, 1): (0.0, 0.0), (0, 2): (0.967422, -0.967422), (2, 1): (0.0, 0.967422)}.items():
        z = torch.zeros(1, 8)
        z[0, 1], z[0, 4] = values  # of probability 1/6, 1/2 and 5/6; the first grows to the right
        torch.testing.assert_close(grid[i, j], model.decode(z, y).mean[0].detach().clamp(-1, 1))


def test_looks_neither_train_nor_depend_on_how_much_is_decoded_at_once(
    case: tuple[VAE, Tensor, Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = case
    model.train()
    path = model.interpolate(x, x.flip(0), 4, y)
    monkeypatch.setattr("lit_generative.vae.module.IMAGES_AT_ONCE", 5)
    torch.testing.assert_close(model.interpolate(x, x.flip(0), 4, y), path)
    assert all(module.training for module in model.modules())
    assert path.min() >= -1
    assert path.max() <= 1


def test_what_cannot_be_shown_is_refused(make_vae: MakeVAE, clothes: dict[str, Tensor]) -> None:
    model, x = make_vae(), clothes["image"]
    with pytest.raises(ValueError, match=r"x_1 has shape \(2, 1, 28, 28\); it must be that of x_0"):
        model.interpolate(x, x[:2])
    with pytest.raises(ValueError, match="steps=1: it must be at least 2"):
        model.interpolate(x, x, 1)
    with pytest.raises(ValueError, match="x has 6 images: traverse moves the latents of one"):
        model.traverse(x)
    with pytest.raises(ValueError, match=r"dimensions=\[8\]: those of the latents are 0 to 7"):
        model.traverse(x[:1], dimensions=[8])
    with pytest.raises(ValueError, match=r"dimensions=\[0, -1\]: those of the latents are 0 to 7"):
        model.latent_grid(dimensions=(0, -1))
    with pytest.raises(ValueError, match="columns=0: it must be at least 1"):
        model.latent_grid(0)
    with pytest.raises(ValueError, match=r"y has shape None: a model of classes needs labels \(6,\)"):
        make_vae(num_classes=10).posterior_means(x)


def test_active_units_are_those_whose_mean_varies() -> None:
    torch.manual_seed(0)
    scales = torch.tensor([1.0, 0.2, 0.05, 0.0])  # variances 1, 0.04, 0.0025, 0
    metric = ActiveUnits(4)
    for _ in range(3):
        metric.update(3 + torch.randn(500, 4) * scales)
    assert metric.compute() == 2


def test_active_units_are_logged(make_vae: MakeVAE, make_trainer: Callable[..., Any], data: ImageDataModule) -> None:
    model, trainer = make_vae(), make_trainer(max_epochs=2, limit_train_batches=3)
    trainer.fit(model, datamodule=data)
    x = torch.cat([batch["image"] for batch in data.val_dataloader()])
    expected = (model.posterior_means(x).var(0) > 0.01).sum()
    assert trainer.callback_metrics["health/active_units"] == expected > 0


def test_collapse_is_told_once_and_not_too_early(
    make_vae: MakeVAE, make_trainer: Callable[..., Any], data: ImageDataModule
) -> None:
    model = make_vae()
    model.encoder.head.requires_grad_(False)
    model.encoder.head.linear.weight.zero_()
    trainer = make_trainer(max_epochs=1, limit_train_batches=1)
    with warnings.catch_warnings(record=True) as early:
        trainer.fit(model, datamodule=data)
    assert not any("posterior collapse" in str(w.message) for w in early)
    model.images_seen = 20_000
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(max_epochs=3, limit_train_batches=1).fit(model, datamodule=data)
    (message,) = (str(w.message) for w in caught if "posterior collapse" in str(w.message))
    assert message.startswith("posterior collapse: after 20,050 images no latent dimension")
    assert "WarmUpRegulariser or FreeBitsRegulariser" in message


@pytest.mark.parametrize("cls", [VAE, IWAE])
@pytest.mark.parametrize("protocol", [Reconstructs, Interpolates, HasLatentSpace])
def test_others_may_ask_for_reconstructions_paths_and_the_latent_space(
    make_vae: MakeVAE, cls: type, protocol: type
) -> None:
    assert isinstance(make_vae(cls), protocol)
    assert meets(cls, protocol)


@pytest.mark.parametrize("cls", [VQVAE, LadderVAE])
def test_without_a_latent_vector_there_are_reconstructions_alone(cls: type) -> None:
    assert meets(cls, Reconstructs)
    assert not any(hasattr(cls, name) for name in ("interpolate", "posterior_means"))


class Twins(Prior):
    """Two normals at -1 and 1, of which torch has no KL; asked with the encoder, as a VampPrior is."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.ones(2, latent_dim) * torch.tensor([[-1.0], [1.0]]))
        self.asked: list[Any] = []

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        self.asked.append(encode)
        return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(self.means, 0.5), 1))  # type: ignore[arg-type]


def test_a_prior_model_takes_the_normals_place(clothes: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    networks = [network((1, 28, 28), 4, hidden=(16,)) for network in (MLPEncoder, MLPDecoder)]
    prior = Twins(4)
    model, plain = VAE(*networks, GaussianLikelihood(), 4, prior_model=prior), VAE(*networks, GaussianLikelihood(), 4)
    x = clothes["image"]
    q = model.encode(x)
    z = q.rsample()
    torch.testing.assert_close(model.kl(q, model.prior(), z), q.log_prob(z) - model.prior().log_prob(z))
    torch.testing.assert_close(plain.kl(q, plain.prior(), z), kl_divergence(q, plain.prior()))
    assert prior.asked[0] == model.encode
    model.losses(x)["loss"].mean().backward()
    drawn: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, arguments: drawn.append(arguments[0]))
    model.sample(500, generator=torch.Generator().manual_seed(0))
    assert drawn[0].abs().mean() == pytest.approx(1.0, abs=0.1)
    assert model.likelihoods(x, evaluations=3)["bound"].isfinite().all()
