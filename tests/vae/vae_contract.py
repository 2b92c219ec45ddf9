"""What every kind of VAE is tested for: gradients, draws, and a model that is rebuilt from its description."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.checkpoints import pack, unpack


def on_levels(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return gray images (B, 1, H, W) as some of ``shape``, tinted if in colour, on the 256 levels."""
    tint = torch.tensor([1.0, 0.8, 0.6])[: shape[0], None, None]
    x = F.interpolate(images, shape[1:], mode="bilinear", antialias=True).clamp(-1, 1)
    return ((x + 1) * tint * 127.5).round() / 127.5 - 1


def rebuilt(model: Any) -> Any:
    """Return a model built from the description of another, with its weights."""
    checkpoint: dict[str, Any] = {}
    pack(checkpoint, model)
    again = unpack(checkpoint, type(model), {}, "the test's checkpoint")
    again.load_state_dict(model.state_dict())
    return again


def draw(model: Any, n: int, y: Tensor | None = None, seed: int = 3) -> Tensor:
    return model.sample(n, y, generator=torch.Generator().manual_seed(seed))


def assert_gradients_reach_every_parameter(model: Any, loss: Tensor) -> None:
    loss.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def assert_draws_images(model: Any, x: Tensor, y: Tensor | None) -> None:
    """Assert that samples, which a generator decides and which leave no trace, and reconstructions are images."""
    model.train()
    before = torch.get_rng_state()
    first, again, other = (draw(model, len(x), y, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for images in (first, model.reconstruct(x, y)):
        assert (images.shape, images.dtype) == (x.shape, torch.float32)
        assert not images.requires_grad
        assert -1 <= images.min() < images.max() <= 1
