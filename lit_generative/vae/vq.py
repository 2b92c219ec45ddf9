"""The vector-quantised variational autoencoder."""

from math import prod
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

from lit_generative.checks import check_range
from lit_generative.core import GenerativeModule
from lit_generative.sampling import check_labels, inference, sampling_mode
from lit_generative.vae.bounds import negative_bound
from lit_generative.vae.likelihoods import Likelihood
from lit_generative.vae.quantise import Codebook, perplexity

__all__ = ["VQVAE"]


class VQVAE(GenerativeModule):
    """The VAE of discrete latents of van den Oord et al. 2017: an image becomes a grid of codes, each one of K.

    The loss of an image is -log p(x|q) + beta |e - sg[q]|^2 - log p(c) (their eq. 3; the codebook follows e by moving
    averages), where features e of the encoder are replaced by the nearest codes c and their vectors q, and p(c) is a
    network that learns the codes at the same time. As the encoder is deterministic, -log p(x) <= nll + prior_nll.

    To change it, override one hook: :meth:`encode`, :meth:`decode`, :meth:`prior_nll` or :meth:`objective`.

    Args:
        encoder: Maps images (B, C, H, W) and labels to features (B, D, h, w), and says (h, w) as its ``grid``.
        decoder: Maps the codes' vectors (B, D, h, w) and labels to the likelihood's parameters (B, C, H, W).
        likelihood: Maps these to a distribution over images.
        codebook: The K vectors.
        code_prior: Maps codes (B, h, w) and labels to the logits (B, h, w, K) of each, given those before it;
            ``sample(n, grid, y, temperature)`` draws codes. :class:`~lit_generative.nn.CodeTransformer` is one.
        beta: The weight of the commitment of features to their codes.
        temperature: What the prior's logits are divided by in sampling: 1 draws from the model as it is, less is
            nearer to its modes.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.

    Raises:
        ValueError: If ``beta`` is negative, ``temperature`` is not positive, or codebook and prior have different
            numbers of codes or classes.
    """

    encoder: Any  # networks, of which more is asked than a call: the grid here
    code_prior: Any  # and to sample here
    family = "VAE"
    sampler_name: ClassVar[str] = "autoregressive prior, mean of the likelihood"
    loss_units = dict.fromkeys(("loss", "nelbo", "nll", "prior_nll"), "nats") | {
        "bits_per_dim": "bits/dim",
        "perplexity": "codes",
    }

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        codebook: Codebook,
        code_prior: nn.Module,
        beta: float = 0.25,
        temperature: float = 1.0,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler)
        check_range("beta", beta, at_least=0, hint="0.25 is usual")
        check_range("temperature", temperature, above=0, hint="1 draws from the model as it is")
        for name, expected in {"num_codes": codebook.num_codes, "num_classes": num_classes}.items():
            found = getattr(code_prior, name, expected)
            if found != expected:
                raise ValueError(f"code_prior has {name}={found}, but the model has {expected}: make them equal")
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.codebook = codebook
        self.code_prior = code_prior
        self.beta = beta
        self.temperature = temperature

    # ---------------------------------------------------------------- hooks

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the features e (B, D, h, w) of images."""
        return self.encoder(x, y)

    def decode(self, q: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|q, y), batch shape (B,), event shape (C, H, W)."""
        return self.likelihood(self.decoder(q, y))

    def prior_nll(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Return -log p(c|y) of ``codes`` (B, h, w), (B,), in nats, summed over the grid."""
        logits = self.code_prior(codes, y)  # (B, h, w, K)
        return F.cross_entropy(logits.movedim(3, 1), codes, reduction="none").flatten(1).sum(1)

    def objective(self, nll: Tensor, commitment: Tensor, prior_nll: Tensor) -> Tensor:
        """Return what is minimised, (B,).

        Args:
            nll: -log p(x|q), (B,), in nats.
            commitment: |e - sg[q]|^2, (B,), summed over features.
            prior_nll: -log p(c), (B,), in nats; its gradient reaches the prior alone.
        """
        return nll + self.beta * commitment + prior_nll

    # ---------------------------------------------------------------- learning

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, nll, commitment, prior_nll and their negative bound (nelbo), (B,), in nats but for commitment.

        ``perplexity`` is that of the batch's codes, for each image the same; ``bits_per_dim`` is given for a discrete
        likelihood. In training the codebook moves.
        """
        return self.losses_and_decoded(x, y)[0]

    def losses_and_decoded(self, x: Tensor, y: Tensor | None = None) -> tuple[dict[str, Tensor], Distribution]:
        """Return what :meth:`losses` does, and p(x|q)."""
        q, codes, commitment = self.codebook(self.encode(x, y))
        decoded = self.decode(q, y)
        nll = -decoded.log_prob(x)
        prior_nll = self.prior_nll(codes, y)
        losses = {"loss": self.objective(nll, commitment, prior_nll), "commitment": commitment}
        losses |= negative_bound(self.likelihood, x, nll, {"prior_nll": prior_nll})
        return losses | {"perplexity": perplexity(codes, self.codebook.num_codes).expand(len(x))}, decoded

    # ---------------------------------------------------------------- sampling

    @property
    def network_evaluations(self) -> int:  # type: ignore[override]
        """How often a network is evaluated for an image: the prior for each code, then the decoder."""
        return prod(self.encoder.grid) + 1

    @property
    def sampling(self) -> dict[str, Any]:
        """How :meth:`sample` works; the temperature counts."""
        return super().sampling | {"temperature": self.temperature}

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes from the prior and return the means of p(x|q), (n, C, H, W) in [-1, 1]."""
        codes = self.code_prior.sample(n, self.encoder.grid, y, self.temperature)
        return self.decode(self.codebook.lookup(codes), y).mean

    # ---------------------------------------------------------------- what images are to the model

    def codes(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the codes (B, h, w), int64 from 0 to K - 1, of images ``x`` (B, C, H, W) and labels (B,)."""
        y = check_labels(self, len(x), y)
        with inference(self):
            return self.codebook(self.encode(x.to(self.device), y)).codes

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|q), (B, C, H, W) in [-1, 1], for the codes of images ``x``."""
        q = self.codebook.lookup(self.codes(x, y))
        with inference(self):
            return self.decode(q, check_labels(self, len(x), y)).mean.float().clamp(-1, 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(D, h, w) of the features."""
        return (self.codebook.code_dim, *self.encoder.grid)

    def latent_posterior(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """Return the features e before they become codes, (B, D h w), as in VQ-reg. of Rombach et al. 2022.

        They are a function of the image: a normal without width, which has no density.
        """
        e = self.encode(x, y).flatten(1)
        return Independent(Normal(e, torch.zeros_like(e), validate_args=False), 1)

    def from_latents(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|q), (B, C, H, W), for the codes nearest to features (B, D, h, w)."""
        return self.decode(self.codebook(z).q, y).mean

    def reconstruction_nll(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> None:
        """Return None: latents that are a function of the image have no density, of which a bound could be made."""

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``bound``, -log P(x, c) >= -log P(x) of 8-bit images ``x`` and their codes c, (B,), in nats.

        Nothing is drawn: ``evaluations`` and ``generator`` make no difference. A likelihood that gives images no
        probability has none.
        """
        if not self.likelihood.has_mass:
            return {}
        codes = self.codes(x, y)
        with inference(self):
            p = self.decode(self.codebook.lookup(codes), y)
            return {"bound": self.prior_nll(codes, y) - self.likelihood.log_mass(p, x)}
