"""The denoising diffusion probabilistic model."""

import copy
from functools import partial
from math import log
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_generative.description import describe
from lit_generative.diffusion.generation import DenoisingModel
from lit_generative.diffusion.guidance import Guided
from lit_generative.diffusion.predictions import NoisePrediction, Prediction
from lit_generative.diffusion.runs import Denoise, Predict
from lit_generative.diffusion.samplers import DDIM, Sampler
from lit_generative.diffusion.schedules import LinearBetaSchedule, Schedule, per_image
from lit_generative.diffusion.thresholding import StaticThresholding
from lit_generative.diffusion.times import TimeSampler, UniformTimes
from lit_generative.diffusion.variance import LearnedVariance
from lit_generative.diffusion.weights import Weight
from lit_generative.sampling import inference

__all__ = ["DDPM"]


class DDPM(DenoisingModel):
    """Denoising diffusion (Ho et al. 2020): a network that undoes a little noise, many times.

    Noise is added to an image, x_t = alpha_t x_0 + sigma_t eps, and the network learns to tell it from the image, on
    the mean of w(t) |eps - eps_hat|^2 over all times; by default their algorithm 1 and eq. 14. Time t runs from 0, the
    image, to 1, noise alone.

    To change it, override one hook: :meth:`sample_time`, :meth:`perturb`, :meth:`predict`, :meth:`denoise` or
    :meth:`loss_weight`.

    Args:
        network: Maps noisy images (B, C, H, W), times (B,) in (0, 1] and labels (B,), where the label ``num_classes``
            is "none", to the prediction (B, C, H, W); (B, 2C, H, W) with a learned variance.
        image_shape: (C, H, W).
        schedule: alpha_t and sigma_t. None: Ho et al.'s, of linear betas.
        prediction: What the network puts out. None: the noise.
        weight: How much the noise's squared error counts at each noise level. None: the squared error of what the
            network puts out counts the same at all; for the noise, that is the simple loss.
        times: Which times are trained at. None: uniform.
        variance: How the variance of the reverse process is learned (hybrid loss). None: it is not.
        sampler: How images are made. None: 50 steps of DDIM, with estimates clipped to [-1, 1].
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        label_dropout: The share of training labels replaced by "none"; guidance needs some (Ho & Salimans 2022: 0.1).
        guidance: How far sampling goes beyond the network's estimate, away from a worse one: from that without a label
            (classifier-free guidance), or with ``guide_at`` from its own former state's (autoguidance). 1 is none.
        guide_at: Training images after which the network's state (its average, with EMA) is kept, at the next
            validation, as the worse network to guide by (Karras et al. 2024). None: it is not.
        guidance_interval: Guide only at times in (low, high]. None: at all times.
        compile_network: Compile the network with torch.compile, which takes a minute at first. Checkpoints are the
            same with and without.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.

    Raises:
        ValueError: If ``label_dropout`` is not in [0, 1) or there are no classes, or if there is guidance and nothing
            to guide by, neither label dropout nor ``guide_at``.
    """

    guide_kept_at: Tensor
    family = "DDPM"
    loss_units: ClassVar[dict[str, str]] = {"bound_term": "nats", "noise_mse": "per pixel"}

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int, int],
        schedule: Schedule | None = None,
        prediction: Prediction | None = None,
        weight: Weight | None = None,
        times: TimeSampler | None = None,
        variance: LearnedVariance | None = None,
        sampler: Sampler | None = None,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide_at: int | None = None,
        compile_network: bool = False,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler)
        _check_guidance(num_classes, label_dropout, guidance, guide_at)
        self.network = network
        self.image_shape = tuple(image_shape)
        self.schedule = schedule or LinearBetaSchedule()
        self.prediction = prediction or NoisePrediction()
        self.weight = weight
        self.times = times or UniformTimes()
        self.variance = variance
        self.num_steps = 1000 if variance is None else variance.num_steps
        self.sampler = sampler or DDIM(limit=StaticThresholding())
        self.label_dropout = label_dropout
        self.guidance, self.guidance_interval = guidance, guidance_interval
        Guided(self.denoise, self.denoise, guidance, guidance_interval)  # which checks the two, before training
        self.guide_at = guide_at
        self.guide = None if guide_at is None else copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("guide_kept_at", torch.zeros((), dtype=torch.long))  # images seen; 0: not yet
        self.compile_network = compile_network

    # ---------------------------------------------------------------- learning

    def sample_time(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``n`` times in (0, 1] to train at and how much the loss at each counts, both (n,)."""
        return self.times(n, self.device)

    def perturb(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x + sigma_t noise (Ho et al. 2020 eq. 4), (B, C, H, W), at times ``t`` (B,).

        The network still has to find ``noise``; for noise of another kind override :meth:`losses_at`.
        """
        alpha, sigma = self._levels(t, x)
        return alpha * x + sigma * noise

    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Ask the network.

        Args:
            x_t: Noisy images (B, C, H, W).
            t: Their times (B,) in (0, 1].
            y: Labels (B,), of which ``num_classes`` means "none"; None for a model without classes.

        Returns:
            The estimate of the prediction's target, and the fraction v of a learned variance or None, (B, C, H, W).
        """
        return self._ask(self.network, x_t, t, y)

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the estimate of x_0, (B, C, H, W); arguments as those of :meth:`predict`."""
        output, _ = self.predict(x_t, t, y)
        return self.prediction.to_x0(output, x_t, *self._levels(t, x_t))

    def loss_weight(self, t: Tensor) -> Tensor:
        """Return how much the noise's mean squared error counts at times ``t`` (B,), (B,)."""
        if self.weight is None:
            return 1 / self.prediction.error_scale(*self.schedule(t))
        return self.weight(self.schedule.log_snr(t))

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``loss``, the weighted squared error, and ``noise_mse``, that of the noise, (B,).

        Both are means over the dimensions, as in the papers, so that their learning rates and clips can be used. With
        a learned variance the loss has a second part: ``bound_term``, (B,), in nats (Nichol & Dhariwal 2021 eq. 16).
        """
        if x.shape[1:] != self.image_shape:
            raise ValueError(
                f"image_shape={self.image_shape}, but the images have {tuple(x.shape[1:])}: make them equal"
            )
        t, importance = self.sample_time(len(x))
        losses = self.losses_at(t, x, torch.randn_like(x), self._drop(y))
        if self.training:
            self.times.observe(t, losses["loss"].detach())
        return losses | {"loss": importance * losses["loss"]}

    def losses_at(self, t: Tensor, x: Tensor, noise: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return the losses of images ``x`` (B, C, H, W) with given times (B,) and noise, as :meth:`losses` does."""
        x_t = self.perturb(x, t, noise)
        alpha, sigma = self._levels(t, x)
        output, v = self.predict(x_t, t, y)
        error = (self.prediction.target(x, noise, alpha, sigma) - output).square()
        noise_mse = (self.prediction.error_scale(alpha, sigma) * error).flatten(1).mean(1)
        losses = {"loss": self.loss_weight(t) * noise_mse, "noise_mse": noise_mse}
        if self.variance is not None and v is not None:
            x0 = self.prediction.to_x0(output.detach(), x_t, alpha, sigma)
            bound_term = self.variance.bound_term(x, x_t, x0, v, t, self.schedule)
            bits_per_dim = bound_term * self.variance.num_steps / (log(2) * x[0].numel())
            losses["loss"] = losses["loss"] + self.variance.weight * bits_per_dim
            losses["bound_term"] = bound_term
        return losses

    @torch.no_grad()
    def loss_by_noise(self, x: Tensor, y: Tensor | None = None, num_levels: int = 20) -> dict[str, Tensor]:
        """Return the noise's mean squared error on images ``x`` at evenly spaced times, always with the same noise.

        Returns:
            ``t``, ``log_snr`` and ``noise_mse``, all (num_levels,).
        """
        if num_levels < 1:
            raise ValueError(f"num_levels={num_levels}: there must be at least 1")
        x, y = x.to(self.device), None if y is None else y.to(self.device)
        with inference(self, torch.Generator(self.device).manual_seed(0)):
            noise = torch.randn_like(x)
            times = (torch.arange(num_levels, device=x.device) + 0.5) / num_levels
            errors = [self.losses_at(t.expand(len(x)), x, noise, y)["noise_mse"].mean() for t in times]
        return {"t": times, "log_snr": self.schedule.log_snr(times), "noise_mse": torch.stack(errors)}

    # ---------------------------------------------------------------- sampling

    @property
    def is_guided(self) -> bool:
        """Whether samples are guided: with ``guide_at`` not before the guide is kept."""
        return self.guidance != 1 and (self.guide is None or bool(self.guide_kept_at))

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler with all its options, the guidance, and evaluations of the network for each image."""
        stamp = super().sampling | {"sampler": describe(self.sampler)}
        if self.is_guided:
            guide = "no label" if self.guide is None else f"itself after {int(self.guide_kept_at):,} images"
            stamp |= {"guidance": self.guidance, "guidance_interval": self.guidance_interval, "guide": guide}
        return stamp

    @property
    def network_evaluations(self) -> int:  # type: ignore[override]
        """How often the network, or the guide, is evaluated for an image."""
        calls = []

        def count(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(t)
            return x_t, x_t

        denoise = self._guide_by(count, count) if self.is_guided else count
        self.sampler.sample(denoise, torch.zeros(1, 1, 1, 1), self.schedule, generator=torch.Generator())
        return len(calls)

    def denoiser(self, y: Tensor | None = None, *, is_guided: bool = True) -> Denoise | Predict:
        """Return what a sampler asks: :meth:`denoise`, guided; with a learned variance, :meth:`predict` and its v."""
        estimate = self.denoise if self.variance is None else self._denoise_with_variance
        denoise: Denoise | Predict = partial(estimate, y=y)
        if not (is_guided and self.is_guided):
            return denoise
        if self.guide is not None:
            return self._guide_by(denoise, partial(self._denoise_by_guide, y=y))
        assert y is not None  # a model without classes is guided by itself
        return self._guide_by(denoise, partial(self.denoise, y=self._no_class(y)))

    def _guide_by(self, denoise: Denoise | Predict, worse: Denoise | Predict) -> Denoise | Predict:
        return Guided(denoise, worse, self.guidance, self.guidance_interval)

    def _denoise_by_guide(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert self.guide is not None
        output, _ = self._ask(self.guide, x_t, t, y)
        return self.prediction.to_x0(output, x_t, *self._levels(t, x_t))

    def _denoise_with_variance(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        output, v = self.predict(x_t, t, y)
        return self.prediction.to_x0(output, x_t, *self._levels(t, x_t)), v

    # ---------------------------------------------------------------- details

    def setup(self, stage: str) -> None:
        """Compile the network for training, in place: its weights keep their names."""
        if stage == "fit" and self.compile_network:
            self.network.compile()

    def on_validation_epoch_end(self) -> None:
        """Keep the guide, if it is time; the network has the weights that validation uses."""
        super().on_validation_epoch_end()
        is_training = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        is_due = self.guide_at is not None and not self.guide_kept_at and self.images_seen >= self.guide_at
        if is_training and is_due and self.guide is not None:
            self.guide.load_state_dict(self.network.state_dict())
            self.guide_kept_at.fill_(self.images_seen)

    def _ask(self, network: nn.Module, x_t: Tensor, t: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        output = network(x_t * self.prediction.input_scale(*self._levels(t, x_t)), t, y).float()
        return (output, None) if self.variance is None else self.variance.split(output)

    def _levels(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return per_image(alpha, x), per_image(sigma, x)

    def _no_class(self, y: Tensor) -> Tensor:
        return torch.full_like(y, self.num_classes or 0)

    def _drop(self, y: Tensor | None) -> Tensor | None:
        if y is None or not self.training or not self.label_dropout:
            return y
        return y.where(torch.rand(len(y), device=y.device) >= self.label_dropout, self._no_class(y))


def _check_guidance(num_classes: int | None, label_dropout: float, guidance: float, guide_at: int | None) -> None:
    if not 0 <= label_dropout < 1:
        raise ValueError(f"label_dropout={label_dropout}: a share of labels must be in [0, 1), for instance 0.1")
    if num_classes is None and label_dropout:
        raise ValueError(f"label_dropout={label_dropout}: the model has no labels; set num_classes")
    if guidance < 0:
        raise ValueError(f"guidance={guidance}: it cannot be negative; 1 is none, 1.5 to 8 are usual")
    if guide_at is not None and (guide_at < 1 or guidance == 1):
        raise ValueError(f"guide_at={guide_at}, guidance={guidance}: guide_at is a number of images, with guidance=2")
    if guidance != 1 and guide_at is None and not label_dropout:
        raise ValueError(
            f"guidance={guidance} needs a worse estimate to guide by: num_classes with label_dropout=0.1, or guide_at"
        )
