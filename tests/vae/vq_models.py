"""A small VQ-VAE for the tests."""

from typing import Any

import torch

from lit_generative.nn import CodeTransformer, SpatialDecoder, SpatialEncoder
from lit_generative.vae import VQVAE, Codebook, DiscretizedLogisticLikelihood


def build(
    num_classes: int | None = None,
    shape: tuple[int, int, int] = (1, 28, 28),
    cls: type[VQVAE] = VQVAE,
    **options: Any,
) -> VQVAE:
    """Make a small model whose weights are all away from where they start, some of which is zero."""
    torch.manual_seed(0)
    classes: dict[str, Any] = {"num_classes": num_classes}
    book = {"decay": 0.9} | options.pop("codebook", {})
    model = cls(
        SpatialEncoder(shape, 4, widths=(8, 12), **classes),
        SpatialDecoder(shape, 4, widths=(8, 12), **classes),
        options.pop("likelihood", None) or DiscretizedLogisticLikelihood(),
        Codebook(16, 4, **book),
        CodeTransformer(16, 16, 1, 2, **classes),
        **(classes | options),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model
