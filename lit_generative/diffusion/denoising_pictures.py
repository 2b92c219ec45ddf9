"""Pictures of a diffusion model while it trains: how noise becomes images, and how well it knows each noise level."""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lit_generative.callbacks.samples import log_picture, run_folder
from lit_generative.core import GenerativeModule
from lit_generative.gan.health import fixed_images
from lit_generative.pictures import evenly_spaced, film, save_png

__all__ = ["DenoisingPictures"]

Curve = dict[str, list[float]]


class DenoisingPictures(L.Callback):
    """Draws the way from noise to samples, and the loss by noise level, after every validation and at the end.

    Both are PNG files named by the images seen, in the run's folders ``denoising`` and ``loss_by_noise``, and go to
    every logger that takes images. They are drawn with the weights that validation uses, and with the same noise each
    time, so that progress can be watched. A dry run (``fast_dev_run``) draws nothing.

    - The way: an image a row, of one class each as in :class:`SampleGrid`, and a moment a column, from pure noise to
      the sample. An earlier column whose root mean square r exceeds 1, as that of images does not, is divided by r, so
      that noise of any scale can be seen. Points of the plane become a scatter picture a column.
    - The loss: the squared error of the noise per dimension against log-SNR, on validation images. Earlier epochs'
      curves, those of before a resume too, are in grey.

    The model must have the following, both in evaluation mode and without an effect on the random state, as in
    :class:`~lit_generative.diffusion.DDPM`:

    - ``trajectory(n, y, *, generator)``: x_t (n, C, H, W) at first and after each step, the last one being, clamped to
      [-1, 1], what ``sample(n, y, generator=generator)`` returns;
    - ``loss_by_noise(x, y, num_levels) -> {"log_snr", "noise_mse"}``, both (num_levels,), with fixed noise.

    Args:
        every_n_epochs: Epochs between pictures.
        num_images: Samples whose way is shown; points need more, 2,000 for instance.
        num_frames: Moments of the way, evenly spaced among the sampler's steps; all, if there are no more.
        num_levels: Noise levels that the loss is measured at.
        num_held_out: Validation images that it is measured on, shared by the processes.
        seed: The seed of the samples' noise.

    Raises:
        ValueError: If a number is too small, the model lacks a method, or there is no data module.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        num_images: int = 8,
        num_frames: int = 10,
        num_levels: int = 20,
        num_held_out: int = 64,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("every_n_epochs", every_n_epochs, 1),
            ("num_images", num_images, 1),
            ("num_frames", num_frames, 2),
            ("num_levels", num_levels, 2),
            ("num_held_out", num_held_out, 2),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"Denoising: {name}={value} is too small; it is at least {least}")
        self.every_n_epochs = every_n_epochs
        self.num_images, self.num_frames = num_images, num_frames
        self.num_levels, self.num_held_out = num_levels, num_held_out
        self.seed = seed
        self.curves: dict[int, Curve] = {}  # by the images seen
        self._drawn_at = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check model and data, and begin a new record (that of a resumed run is read after this)."""
        if stage != "fit":
            return
        if missing := [name for name in ("trajectory", "loss_by_noise") if not hasattr(pl_module, name)]:
            raise ValueError(
                f"Denoising needs a model with trajectory and loss_by_noise, such as DDPM; "
                f"{type(pl_module).__name__} has no {' and no '.join(missing)}"
            )
        if trainer.datamodule is None:  # type: ignore[attr-defined]
            raise ValueError("Denoising needs a data module: trainer.fit(model, datamodule=ImageDataModule(...))")
        self.curves, self._drawn_at = {}, -1

    def on_train_start(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Take the validation images."""
        share = max(2, -(-self.num_held_out // trainer.world_size))
        with isolate_rng():
            images = fixed_images(trainer, "val", share, pl_module.device)
        self._held_out = trainer.precision_plugin.convert_input(images)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw, with the weights that validation uses."""
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_training and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw the last pictures, unless the last validation did."""
        if pl_module.images_seen != self._drawn_at:
            self.draw(trainer, pl_module)

    def draw(self, trainer: L.Trainer, model: GenerativeModule) -> None:
        """Write both pictures and log them; every process draws, so that none waits, and the first one writes."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._drawn_at = model.images_seen
        y = torch.arange(self.num_images) % model.num_classes if model.num_classes else None
        generator = torch.Generator().manual_seed(self.seed)
        states = model.trajectory(self.num_images, y, generator=generator)  # type: ignore[operator]
        frames = evenly_spaced(states, self.num_frames)
        self.curves[model.images_seen] = self._measure(trainer, model)
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        for name, image in {"denoising": film(frames), "loss_by_noise": plot(self.curves)}.items():
            path = folder / name / f"images_{model.images_seen:010d}.png"
            save_png(image, path)
            log_picture(trainer, name, image, path, model.images_seen)

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"curves": dict(self.curves)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's curves."""
        self.curves = dict(state_dict["curves"])

    def _measure(self, trainer: L.Trainer, model: GenerativeModule) -> Curve:
        x, y = model.unpack(self._held_out)
        found = model.loss_by_noise(x, y, self.num_levels)  # type: ignore[operator]
        mse = trainer.strategy.reduce(found["noise_mse"].float(), reduce_op="mean")  # of all processes' images
        return {"log_snr": found["log_snr"].tolist(), "noise_mse": mse.tolist()}  # type: ignore[union-attr]


def plot(curves: dict[int, Curve]) -> Tensor:
    """Plot the noise's squared error by log-SNR, the last curve over the earlier ones: (3, H, W) in [-1, 1]."""
    figure = Figure(figsize=(4.8, 3.6), dpi=100, layout="constrained")  # not pyplot's, which would keep it
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    *earlier, (images_seen, latest) = curves.items()
    for _, curve in earlier:
        axes.semilogy(curve["log_snr"], curve["noise_mse"], color="0.8", linewidth=1)
    axes.semilogy(latest["log_snr"], latest["noise_mse"], color="tab:blue", marker=".")
    axes.set_title(f"validation, after {images_seen:,} training images", fontsize="medium")
    axes.set_xlabel("log-SNR (left: noise, right: image)")
    axes.set_ylabel("squared error of the noise, per dimension")
    axes.grid(alpha=0.3)
    canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))  # (H, W, 4)
    return pixels[..., :3].permute(2, 0, 1) / 127.5 - 1
