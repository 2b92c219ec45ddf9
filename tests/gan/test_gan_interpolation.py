from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_generative.gan import GAN


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Remembering(GAN):
    """Keeps the latents that it was asked about."""

    def sample_latent(self, n: int) -> Tensor:
        z = super().sample_latent(n)
        self.__dict__.setdefault("drawn", []).append(z)
        return z


def test_paths_begin_and_end_at_images_of_drawn_latents(make_gan: Callable[..., GAN]) -> None:
    gan = make_gan(Remembering).eval()
    images = gan.interpolate_samples(3, 5, generator=generator())
    assert images.shape == (5, 3, 1, 28, 28)
    for end, z in zip((images[0], images[-1]), gan.drawn, strict=True):
        torch.testing.assert_close(end, gan.generator(z, None))
    assert (images.diff(dim=0).flatten(2).norm(dim=2) > 0).all()


def test_the_middle_is_on_the_great_arc(make_gan: Callable[..., GAN]) -> None:
    gan = make_gan(Remembering).eval()
    middle = gan.interpolate_samples(1, 3, generator=generator())[1]
    z_0, z_1 = gan.drawn
    direction = z_0 / z_0.norm() + z_1 / z_1.norm()
    z = direction / direction.norm() * (z_0.norm() + z_1.norm()) / 2
    torch.testing.assert_close(middle, gan.generator(z, None))


def test_a_path_has_one_label(make_gan: Callable[..., GAN]) -> None:
    gan = make_gan(Remembering, num_classes=10).eval()
    for parameter in gan.parameters():  # classes make no difference at first
        torch.nn.init.normal_(parameter, std=0.3)
    images = gan.interpolate_samples(2, 4, torch.tensor([3, 7]), generator=generator())
    torch.testing.assert_close(images[-1], gan.generator(gan.drawn[1], torch.tensor([3, 7])))
    assert not torch.equal(images, gan.interpolate_samples(2, 4, torch.tensor([3, 8]), generator=generator()))
    with pytest.raises(ValueError, match=r"a model of classes needs labels \(2,\)"):
        gan.interpolate_samples(2, 4)


def test_the_seed_decides_and_training_mode_and_random_state_stay(make_gan: Callable[..., GAN]) -> None:
    gan, before = make_gan(convolutions=True).train(), torch.random.get_rng_state()
    statistics = {name: value.clone() for name, value in gan.named_buffers()}
    first, second, other = (gan.interpolate_samples(2, 3, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert gan.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, statistics[name]) for name, value in gan.named_buffers())
    assert not first.requires_grad
