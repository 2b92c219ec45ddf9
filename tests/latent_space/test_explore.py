"""What is found in latent spaces: the right images in the right places, and numbers whose values are known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import Tensor, nn

from lit_generative import DDPM, VAE, GenerativeModule, ImageDataModule
from lit_generative.data import GaussianRing
from lit_generative.diffusion import DDIM
from lit_generative.gan import GAN
from lit_generative.latent_space.explore import explore
from lit_generative.latent_space.map import PosteriorMeans, latent_map
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.nn import MLPGenerator
from lit_generative.vae import GaussianLikelihood

REQUEST = LatentRequest(num_images=3, steps=4, max_images=200)
SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    """Decoded once."""
    return ImageDataModule(subset=200, batch_size=50)


def cell(image: Tensor, row: int, column: int) -> Tensor:
    """Cut one image (1, 28, 28) out of a grid."""
    return image[:, 30 * row : 30 * row + 28, 30 * column : 30 * column + 28]


class BoxEncoder(nn.Module):
    """Three latents: one that does not vary, the brightness of a lower row, and, of most variance, of the first row."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> torch.distributions.Distribution:
        above, below = x.mean((1, 3))[:, [0, 20]].T
        mean = torch.stack([torch.ones(len(x)), 0.5 * below, 3 * above], dim=1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, 0.1), 1)


class FlatDecoder(nn.Module):
    """An image whose brightness is the last latent's."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.gain * z[:, -1:] / 3).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def box_vae() -> VAE:
    return VAE(BoxEncoder(), FlatDecoder(), GaussianLikelihood(), latent_dim=3).eval()


def test_a_vaes_pictures_hold_what_they_say(data: ImageDataModule) -> None:
    space = explore(box_vae(), data, REQUEST)
    assert set(space.pictures) == {
        *("reconstructions", "traversals", "interpolations_linear", "interpolations_spherical", "manifold")
    }
    images = {batch["image"][i].numpy().tobytes() for batch in data.loader("test", limit=500) for i in range(50)}
    pairs = space.pictures["interpolations_linear"]
    for row in range(3):
        shown = cell(space.pictures["reconstructions"], 0, row)
        assert shown.numpy().tobytes() in images
        torch.testing.assert_close(cell(space.pictures["reconstructions"], 1, row), shown[:, 0].mean().expand(SHAPE))
        torch.testing.assert_close(cell(pairs, row, 0), shown)
        assert cell(pairs, row, 5).numpy().tobytes() in images
        means = torch.stack([cell(pairs, row, column).mean() for column in range(1, 5)])
        torch.testing.assert_close(means[:3].diff(), means[1:].diff())  # of means[1:], the last is as far


def test_the_most_active_latents_come_first(data: ImageDataModule) -> None:
    pictures = explore(box_vae(), data, REQUEST).pictures
    rows = torch.stack(
        [torch.stack([cell(pictures["traversals"], row, i).mean() for i in range(4)]) for row in range(3)]
    )
    torch.testing.assert_close(rows[0], torch.linspace(-1, 1, 4))
    assert (rows[1:] == rows[1:, :1]).all()  # the decoder does not care
    grid = torch.stack([cell(pictures["manifold"], 0, column).mean() for column in range(16)])
    assert (grid.diff() > 0).all()


def test_a_vaes_numbers(data: ImageDataModule) -> None:
    space = explore(box_vae(), data, REQUEST)
    assert space.numbers["active units"] == "2 of 3"
    words = space.numbers["linear probe's accuracy on 200 test images"]
    assert float(words.split()[0]) > 0.25
    assert words.endswith("(chance: 0.100)")


def test_the_table_has_the_split_that_was_asked_for(data: ImageDataModule) -> None:
    model = box_vae()
    for split in ("val", "train"):
        latents = explore(model, data, LatentRequest(num_images=1, steps=2, split=split, max_images=40)).latents
        assert latents is not None
        batches = list(data.loader(split, limit=40))
        expected = model.posterior_means(torch.cat([batch["image"] for batch in batches]))
        torch.testing.assert_close(latents.z, expected)
        assert latents.labels is not None
        assert latents.labels.tolist() == torch.cat([batch["label"] for batch in batches]).tolist()
        assert latents.split == split


def test_labels_choose_the_images_and_the_seed_which_of_them(data: ImageDataModule) -> None:
    by_bytes = {
        image.numpy().tobytes(): int(label)
        for batch in data.loader("test", limit=500)
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }

    def shown(**options: object) -> list[bytes]:
        request = LatentRequest(**({"num_images": 4, "steps": 2, "max_images": 20} | options))
        picture = explore(box_vae(), data, request).pictures["reconstructions"]
        return [cell(picture, 0, i).numpy().tobytes() for i in range(4)]

    assert [by_bytes[image] for image in shown(labels=[7, 2])] == [7, 2, 7, 2]
    assert [by_bytes[image] for image in shown()] == [0, 1, 2, 3]
    assert len(set(shown(labels=[7]))) == 4
    assert shown() == shown()
    assert shown() != shown(seed=1)
    with pytest.raises(ValueError, match="labels=12: there is no such class, give indices or names of: 0 t-shirt"):
        shown(labels=[12, 3])


def test_a_conditional_vae_joins_images_of_one_class(make_vae: Callable[..., VAE], data: ImageDataModule) -> None:
    by_bytes = {
        image.numpy().tobytes(): int(label)
        for batch in data.loader("test", limit=500)
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }
    pictures = explore(make_vae(num_classes=10).eval(), data, REQUEST).pictures
    for row in range(3):
        ends = [cell(pictures["interpolations_linear"], row, column).numpy().tobytes() for column in (0, 5)]
        assert [by_bytes[end] for end in ends] == [row, row]
        assert ends[0] != ends[1]


def test_without_images_a_gan_can_be_looked_at_and_a_vae_cannot(make_gan: Callable[..., GAN]) -> None:
    gan = make_gan().eval()
    expected = gan.interpolate_samples(3, 4, generator=torch.Generator().manual_seed(0))
    shown = explore(gan, None, REQUEST).pictures["interpolations"]
    for row in range(3):
        for column in range(4):
            torch.testing.assert_close(cell(shown, row, column), expected[column, row])
    with pytest.raises(ValueError, match="data=None, but real images are to be shown: give data"):
        explore(box_vae(), None, REQUEST)


def test_labels_of_an_unconditional_gan_are_refused(make_gan: Callable[..., GAN]) -> None:
    with pytest.raises(ValueError, match=r"labels=\[1\]: the model is unconditional, leave them out"):
        explore(make_gan().eval(), None, LatentRequest(labels=[1]))


def test_points_of_the_plane_are_one_scatter_picture(make_gan: Callable[..., GAN]) -> None:
    gan = make_gan(generator=MLPGenerator((2, 1, 1), 8, hidden=(32,))).eval()
    assert explore(gan, GaussianRing(), REQUEST).pictures["interpolations"].shape == (1, 256, 256)


class Still(nn.Module):
    """A network that takes all for noise, so that the images are 0 but for what is noise of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * x


def test_a_diffusion_models_pictures(data: ImageDataModule) -> None:
    model = DDPM(Still(), SHAPE, sampler=DDIM(6)).eval()
    space = explore(model, data, REQUEST)
    assert set(space.pictures) == {
        *("denoising", "interpolations_of_noise", "interpolations_of_images", "encoded_and_decoded")
    }
    way = model.trajectory(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cell(space.pictures["denoising"], 2, 3), way[-1][2].clamp(-1, 1))
    x_0, x_T, back = (cell(space.pictures["encoded_and_decoded"], row, 0) for row in range(3))
    torch.testing.assert_close(cell(space.pictures["interpolations_of_images"], 0, 0), x_0)
    torch.testing.assert_close(cell(space.pictures["interpolations_of_images"], 0, 1), back)
    assert torch.cosine_similarity(x_T.flatten(), x_0.flatten(), 0) > 0.9  # such a model only scales
    (error,) = space.numbers.values()
    measured = torch.stack([cell(space.pictures["encoded_and_decoded"], 0, i) for i in range(3)])
    decoded = torch.stack([cell(space.pictures["encoded_and_decoded"], 2, i) for i in range(3)])
    assert float(error) == pytest.approx((decoded - measured).square().mean().sqrt().item(), rel=0.1)


class Users(GenerativeModule):
    """A user's own model, which meets two protocols."""

    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.full((n, *SHAPE), 0.5)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return -x

    def interpolate(self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None) -> Tensor:
        return torch.stack([x_0.lerp(x_1, s) for s in torch.linspace(0, 1, steps).tolist()])


class UsersFlow(Users):
    """One that makes images of noise, too, in steps."""

    def trajectory(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> list[Tensor]:
        return [torch.randn(n, *SHAPE, generator=generator), self.sample(n)]

    def interpolate_samples(
        self, n: int, steps: int = 8, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.zeros(steps, n, *SHAPE)


def test_a_users_model_is_drawn_by_the_protocols_that_it_meets(data: ImageDataModule) -> None:
    pictures = explore(Users(), data, REQUEST).pictures
    assert set(pictures) == {"samples", "reconstructions", "interpolations_of_images"}
    assert (cell(pictures["samples"], 0, 1) == 0.5).all()
    assert (cell(pictures["reconstructions"], 1, 2) == -cell(pictures["reconstructions"], 0, 2)).all()
    flow = explore(UsersFlow(), data, REQUEST).pictures
    images = {"reconstructions", "interpolations_of_images"}
    assert set(flow) == images | {"denoising", "interpolations_of_noise"}


# ---------------------------------------------------------------- the map


def plotted(latents: PosteriorMeans, names: list[str] | None) -> tuple[np.ndarray, object]:
    (axes,) = latent_map(latents, names).axes
    return np.concatenate([collection.get_offsets() for collection in axes.collections]), axes


def test_two_latents_are_plotted_as_they_are() -> None:
    z, labels = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    points, axes = plotted(PosteriorMeans(z, labels, "test"), ["a", "b", "c"])
    expected = torch.cat([z[labels == k] for k in range(3)])
    np.testing.assert_allclose(points, expected.numpy(), rtol=1e-6)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]
    colors = {to_rgb(collection.get_facecolor()[0]) for collection in axes.collections}
    assert len(colors) == 3
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_0$", "$z_1$")


def test_more_latents_are_plotted_by_their_principal_components() -> None:
    generator = torch.Generator().manual_seed(0)
    axes_of_data, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    scores = torch.randn(4000, 6, generator=generator) * torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.5])
    before = torch.random.get_rng_state()
    points, axes = plotted(PosteriorMeans(scores @ axes_of_data.T + 5, None, "test"), None)
    centred = scores - scores.mean(0)
    for i in (0, 1):
        assert abs(np.corrcoef(points[:, i], centred[:, i].numpy())[0, 1]) > 0.99
    assert axes.get_xlabel() == "principal component 1 (58% of the variance)"  # 9 of 15.5
    assert axes.get_ylabel() == "principal component 2 (26% of the variance)"
    assert axes.get_legend() is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_latent_lies_on_a_line() -> None:
    points, _ = plotted(PosteriorMeans(torch.arange(5.0)[:, None], None, "test"), None)
    assert points.tolist() == [[i, 0] for i in range(5)]
