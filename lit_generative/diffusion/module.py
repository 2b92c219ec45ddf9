"""The denoising diffusion probabilistic model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_generative.calls import NetworkCall
from lit_generative.checks import check_count, check_image_shape
from lit_generative.contracts import ImageData
from lit_generative.data import image_data
from lit_generative.description import describe
from lit_generative.diffusion.augment import ConditionalAugment
from lit_generative.diffusion.couplings import Coupling
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.guidance import Guidance
from lit_generative.diffusion.image_edits import EditsImages
from lit_generative.diffusion.latents import Latents
from lit_generative.diffusion.likelihood import VariationalBound
from lit_generative.diffusion.predictions import NoisePrediction, Prediction
from lit_generative.diffusion.samplers import DDIM, Sampler
from lit_generative.diffusion.schedules import LEAST_ALPHA, LinearBetaSchedule, Schedule, per_image
from lit_generative.diffusion.thresholding import StaticThresholding
from lit_generative.diffusion.times import TimeSampler, UniformTimes
from lit_generative.diffusion.variance import LearnedVariance
from lit_generative.diffusion.weights import Weight
from lit_generative.eight_bit import bits_per_dim
from lit_generative.nn.conditions import Condition
from lit_generative.sampling import check_images, inference, sampling_mode

__all__ = ["DDPM"]


class DDPM(EditsImages):
    """Denoising diffusion (Ho et al. 2020): a network that undoes a little noise, many times.

    Noise is added to an image, x_t = alpha_t x_0 + sigma_t eps. The network learns to tell it from the image, on the
    mean of w(t) |eps - eps_hat|^2 over all times; by default their algorithm 1 and eq. 14. Time t runs from 0, the
    image, to 1, noise alone.

    To change it, override one hook: :meth:`sample_time`, :meth:`perturb`, :meth:`predict`, :meth:`denoise` or
    :meth:`loss_weight`. Sampler and guidance of a trained model may be exchanged at any time.

    Args:
        network: Maps noisy images (B, C, H, W), times (B,) in (0, 1] and labels (B,), of which ``num_classes`` is
            "none", to the prediction (B, C, H, W); (B, 2C, H, W) with a learned variance. It is called with
            ``forward(x_t, t, y)``, where ``y`` is what the condition says, and None for a model without one.
        image_shape: (C, H, W).
        schedule: alpha_t and sigma_t. None: Ho et al.'s, of linear betas.
        prediction: What the network puts out. None: the noise.
        weight: How much the noise's squared error counts at each noise level. None: the squared error of what the
            network puts out counts the same at all; for the noise, that is the simple loss.
        times: Which times are trained at. None: uniform.
        variance: How the variance of the reverse process is learned (hybrid loss). None: it is not.
        sampler: How images are made. None: 50 steps of DDIM, with estimates clipped to [-1, 1].
        guidance: How sampling goes beyond the network's estimate. None: it does not.
        coupling: Which noise an image is mixed with. None: any. With another the ODE still leads from noise to images,
            but the noise is not independent of them, so that there are no samplers that draw noise, and no bound.
        augment: Changes training images and tells the network so, whose ``augmentations`` must be 9. None: they stay.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.
        condition: What else the model is told of each image, such as a smaller one; the network takes the same.
            ``num_classes`` is short for one of classes. None: nothing. Labels ``y`` of the methods are what it says.
        latents: The latents of a trained autoencoder, which are noised in place of images (Rombach et al. 2022); the
            network is then one of their shape. None: images are.
    """

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
        guidance: Guidance | None = None,
        coupling: Coupling | None = None,
        augment: ConditionalAugment | None = None,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        condition: Condition | None = None,
        latents: Latents | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler, condition)
        check_image_shape(image_shape)
        self.network = network
        self.image_shape = tuple(image_shape)  # type: ignore[assignment]
        self.latents = latents
        self.schedule = schedule or LinearBetaSchedule()
        self.prediction = prediction or NoisePrediction()
        self.weight = weight
        self.times = times or UniformTimes()
        self.variance = variance
        self.sampler = sampler or DDIM(thresholding=None if latents else StaticThresholding())
        self.guidance = guidance
        self.coupling = coupling
        self.prediction.check(self.schedule)
        if coupling is not None:
            coupling.check(self.sampler)
        self.augment = augment
        if augment is not None:
            augment.check(self.condition)
        if guidance is not None:
            guidance.check_condition(self.condition)
            guidance.prepare(network, self.num_classes)
            guidance.check(self.schedule, self.prediction, self.state_shape)
        if latents is not None:
            latents.check(self)

    def network_calls(self, x: Tensor, y: Tensor | None = None) -> list[NetworkCall]:
        """Return how the network is called, unless :meth:`predict` is another one."""
        if type(self).predict is not DDPM.predict:
            return []
        x = x.new_zeros(len(x), *self.state_shape)
        channels = x.shape[1] if self.variance is None else 2 * x.shape[1]
        y = self._told(y)
        arguments = {"x_t": x, "t": torch.full((len(x),), 0.5, device=x.device), "y": y}
        if self.augment is not None:
            arguments["augmentation"] = x.new_zeros(len(x), self.augment.numbers)
        meaning = f"the prediction, (B, {'C' if self.variance is None else '2C'}, H, W)"
        return [NetworkCall("network", self.network, arguments, (len(x), channels, *x.shape[2:]), meaning)]

    # ---------------------------------------------------------------- learning

    def on_fit_start(self) -> None:
        """Let the augmentation know how many images there are."""
        super().on_fit_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.augment is not None and isinstance(data, ImageData):
            self.augment.settle(data.num_images("train"))
        if self.latents is not None:
            self._prepare_latents(self.latents)

    def _prepare_latents(self, latents: Latents) -> None:
        """Let the latents learn their scale from the training images, and keep what they are of them."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None and not latents.is_fitted:
            raise ValueError("latents need a data module: trainer.fit(model, datamodule=ImageDataModule(...))")
        keeps = self.augment is None
        limit = max(latents.cache if keeps else 0, 0 if latents.is_fitted else latents.num_images)
        if data is None or not limit:
            return
        as_trained = self.trainer.precision_plugin.convert_input
        with inference(self):
            batches = image_data(data).loader("train", limit=limit)
            on_device = ({name: value.to(self.device) for name, value in batch.items()} for batch in batches)
            latents.prepare((self.unpack(as_trained(batch)) for batch in on_device), keeps=keeps)

    def plan(self) -> dict[str, str]:
        """Say how images are augmented, for the plan before a training."""
        return {} if self.augment is None else {"augmented": self.augment.plan()}

    def sample_time(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``n`` times in (0, 1] to train at and how much the loss at each counts, both (n,)."""
        return self.times(n, self.device)

    def perturb(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha_t x + sigma_t noise (Ho et al. 2020 eq. 4), (B, C, H, W), at times ``t`` (B,).

        The network still has to find ``noise``; for noise of another kind override :meth:`losses_at`.
        """
        alpha, sigma = self._levels(t, x)
        return alpha * x + sigma * noise

    def predict(
        self, x_t: Tensor, t: Tensor, y: Tensor | None = None, augmentation: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Ask the network.

        Args:
            x_t: Noisy images (B, C, H, W).
            t: Their times (B,) in (0, 1].
            y: Labels (B,), of which ``num_classes`` means "none"; None for a model without classes.
            augmentation: What was done to the images, (B, 9), in training with an ``augment``; None: nothing.

        Returns:
            The estimate of the prediction's target, and the v of a learned variance or None, (B, C, H, W).
        """
        told = [] if augmentation is None else [augmentation]
        output = self.network(x_t * self.prediction.input_scale(*self._levels(t, x_t)), t, y, *told).float()
        return (output, None) if self.variance is None else self.variance.split(output)

    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        """Return the estimate of x_0, and v if the variance is learned; arguments as those of :meth:`predict`."""
        output, v = self.predict(x_t, t, y)
        return Estimate(self.prediction.to_x0(output, x_t, *self._levels(t, x_t)), v)

    def loss_weight(self, t: Tensor) -> Tensor:
        """Return how much the noise's mean squared error counts at times ``t`` (B,), (B,)."""
        if self.weight is None:
            return 1 / self._error_scale(*self.schedule(t))
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
        augmentation = None
        if self.augment is not None and self.training:
            x, augmentation = self.augment(x, self.images_seen)
        x = x if self.latents is None else self.latents.draw(x, y)
        (t, importance), noise = self.sample_time(len(x)), torch.randn_like(x)
        noise = noise if self.coupling is None else self.coupling(x, noise, y)
        y = self._told(y)
        if y is not None and self.guidance is not None and self.training:
            y = self.guidance.training_labels(y, self._none)
        told = {} if augmentation is None else {"augmentation": augmentation}
        losses = self.losses_at(t, x, noise, y, **told)
        if self.training:
            self.times.observe(t, losses["loss"].detach())
        return losses | {"loss": importance * losses["loss"]}

    def losses_at(
        self, t: Tensor, x: Tensor, noise: Tensor, y: Tensor | None = None, augmentation: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of images, or latents, ``x`` (B, C, H, W) at given times (B,) and noise (:meth:`losses`).

        ``augmentation`` (B, 9) says what was done to the images; None: nothing.
        """
        x_t = self.perturb(x, t, noise)
        alpha, sigma = self._levels(t, x)
        output, v = self.predict(x_t, t, y, *([] if augmentation is None else [augmentation]))
        error = (self.prediction.target(x, noise, alpha, sigma) - output).square()
        noise_mse = (self._error_scale(alpha, sigma) * error).flatten(1).mean(1)
        losses = {"loss": self.loss_weight(t) * noise_mse, "noise_mse": noise_mse}
        if self.variance is not None and v is not None:
            x0 = self.prediction.to_x0(output.detach(), x_t, alpha, sigma)
            bound_term = self.variance.bound_term(x, x0, v, t, self.schedule)
            bound = bits_per_dim(bound_term * self.variance.num_steps, x[0].numel())
            losses["loss"] = losses["loss"] + self.variance.weight * bound
            losses["bound_term"] = bound_term
        return losses

    @torch.no_grad()
    def loss_by_noise(self, x: Tensor, y: Tensor | None = None, num_levels: int = 20) -> dict[str, Tensor]:
        """Return the noise's mean squared error on images ``x`` at evenly spaced times, always with the same noise.

        Returns:
            ``t``, ``log_snr`` and ``noise_mse``, all (num_levels,).
        """
        check_count("num_levels", num_levels)
        x, y = x.to(self.device), None if y is None else y.to(self.device)
        with inference(self, torch.Generator(self.device).manual_seed(0)):
            x = self.states_of(x, y)
            noise, y = torch.randn_like(x), self._told(y)
            times = (torch.arange(num_levels, device=x.device) + 0.5) / num_levels
            errors = [self.losses_at(t.expand(len(x)), x, noise, y)["noise_mse"].mean() for t in times]
        return {"t": times, "log_snr": self.schedule.log_snr(times), "noise_mse": torch.stack(errors)}

    def _error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the prediction's factor; where alpha is 0 the noise's error is, too, but not the weighted one."""
        return self.prediction.error_scale(alpha.clamp(min=LEAST_ALPHA), sigma)

    def _levels(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return per_image(alpha, x), per_image(sigma, x)

    @property
    def _none(self) -> Any:
        return 0 if self.condition is None else self.condition.none

    def _told(self, y: Tensor | None) -> Tensor | None:
        """Return what the network is told of ``y``; training may make it noisy."""
        return y if y is None or self.condition is None else self.condition.told(y, self.training)

    # ---------------------------------------------------------------- sampling

    def denoiser(self, y: Tensor | None = None, *, is_guided: bool = True) -> Denoiser:
        """Return what a sampler asks: :meth:`denoise` for labels ``y`` (B,), guided if the model is."""
        y = self._told(y)
        own, guidance = partial(self.denoise, y=y), self.active_guidance
        if guidance is None or not is_guided:
            return own
        network, labels = guidance.worse(self.network, y, self._none)
        return guidance.wrap(own, partial(self._denoise_by, network, y=labels))

    def _denoise_by(self, network: nn.Module, x_t: Tensor, t: Tensor, y: Tensor | None) -> Estimate:
        """As :meth:`denoise`, with its hooks, by another network."""
        own, self.network = self.network, network
        try:
            return self.denoise(x_t, t, y)
        finally:
            self.network = own

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Return new images (n, C, H, W) in [-1, 1], made from noise by the sampler.

        Args:
            n: How many.
            y: Labels (n,) of a conditional model, here as in all that follows.
            generator: The source of all randomness, here as in all that follows; None: torch's global one.
        """
        return self.images_of(self.sampler.sample(self.denoiser(y), self._noise(n, self.sampler), self.schedule), y)

    # ---------------------------------------------------------------- what is known of sampling

    @property
    def active_guidance(self) -> Guidance | None:
        """The guidance, if samples are guided at present: by a former state of the network, not before that is kept."""
        return self.guidance if self.guidance is not None and self.guidance.is_active else None

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler with all its options, the guidance, and evaluations of the network for each image."""
        guidance = self.active_guidance
        stamp = {} if guidance is None else guidance.stamp
        return super().sampling | {"sampler": describe(self.sampler)} | stamp

    @property
    def network_evaluations(self) -> int:  # type: ignore[override]
        """How often the network, or the guide, is evaluated for an image."""
        return self._evaluations_by(self.sampler)

    @contextmanager
    def at_most(self, evaluations: int | None) -> Iterator[None]:
        """Let it take at most so many network evaluations a sample in the context.

        The sampler is exchanged for one of the most steps that keep within the limit. None is no limit.

        Raises:
            ValueError: If even one step takes more, or the sampler cannot be made with other steps.
        """
        own = self.sampler
        try:
            if evaluations is not None and self.network_evaluations > evaluations:
                self.sampler = self._within(evaluations)
            yield
        finally:
            self.sampler = own

    def _within(self, evaluations: int) -> Sampler:
        try:
            least = self._evaluations_by(self.sampler.with_steps(1))
        except ValueError as error:
            hint = "give the model a sampler that can, or leave evaluations out"
            raise ValueError(f"evaluations={evaluations}: {error}; {hint}") from error
        if least > evaluations:
            raise ValueError(f"evaluations={evaluations}: one step of this model takes {least}; give at least {least}")
        fewer = map(self.sampler.with_steps, range(min(evaluations, self.sampler.steps), 0, -1))
        return next(sampler for sampler in fewer if self._evaluations_by(sampler) <= evaluations)

    def _evaluations_by(self, sampler: Sampler) -> int:
        guidance = self.active_guidance
        more = 0 if guidance is None else guidance.evaluations(sampler.evaluated_at(self.schedule))
        return sampler.evaluations + more

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        ``bound`` is a sample of the terms of a :class:`~lit_generative.diffusion.likelihood.VariationalBound` of the
        optimal variance, or the learned one; it is that of independent noise, so that a model with a coupling has none.
        ``flow`` is that of the sampler as an ODE (:class:`~lit_generative.diffusion.flow_likelihood.FlowLikelihood`).
        With ``latents`` the two are of the latents' prior, and what a draw of them costs otherwise is added.
        Each takes about so many ``evaluations`` of the network for an image, and neither is guided. Points of the plane
        have no levels, and so none of the two.
        """
        check_count("evaluations", evaluations)
        check_images(self, x=x)
        if self.image_shape[1:] == (1, 1):
            return {}
        if self.latents is not None:
            return self._likelihoods_of_latents(self.latents, x, y, evaluations, generator)
        denoise = self.denoiser(y, is_guided=False)
        num_steps = 1000 if self.variance is None else self.variance.num_steps
        bound = VariationalBound(num_steps, min(max(evaluations, 2), num_steps), StaticThresholding(), v=None)
        flow = FlowLikelihood(max(evaluations // 2, 1))
        found = {}
        if self.coupling is None:
            found["bound"] = bound.terms(denoise, x, self.schedule, generator=generator).total
        return found | {"flow": -flow.log_prob(denoise, x, self.schedule, generator=generator)}

    def _likelihoods_of_latents(
        self, latents: Latents, x: Tensor, y: Tensor | None, evaluations: int, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Return E_q[-log P(x|z)] + E_q[log q(z|x)] + E_q[-log p(z)], by one draw, for each estimate of the last term.

        It is the bound of a VAE whose prior is the diffusion model (Vahdat et al. 2021, eq. 3).
        """
        with inference(self, generator):
            q = latents.posterior(x, y)
            raw = q.sample()
            z = latents.standardised(raw)
            rest = latents.nll_beside_prior(x, raw, q, y)
        if rest is None:
            return {}
        denoise, found = self.denoiser(y, is_guided=False), {}
        if self.coupling is None:
            prior = VariationalBound(evaluations=min(max(evaluations, 2), 1000), v=None, is_density=True)
            found["bound"] = rest + prior.terms(denoise, z, self.schedule, generator=generator).total
        flow = FlowLikelihood(max(evaluations // 2, 1), dequantise=False)
        return found | {"flow": rest - flow.log_prob(denoise, z, self.schedule, generator=generator)}

    # ---------------------------------------------------------------- guidance that follows the training

    def on_train_start(self) -> None:
        """Refuse such guidance where the training's length is not known."""
        super().on_train_start()
        if self.guidance is not None and self.guidance.follows_training:
            self._share_of_training()

    def on_validation_epoch_end(self) -> None:
        """Show it the network, which has the weights that validation uses."""
        super().on_validation_epoch_end()
        is_training = self.trainer.state.fn == "fit" and not self.trainer.sanity_checking
        if is_training and self.guidance is not None and self.guidance.follows_training:
            self.guidance.observe(self.network, self._share_of_training(), self.images_seen)

    def _share_of_training(self) -> float:
        if (share := self.share_of_training) is None:
            name = type(self.guidance).__name__
            raise ValueError(
                f"guidance={name}: it follows the training, whose length is not known; give max_steps, max_epochs, "
                "minutes or images"
            )
        return share
