"""Pictures of a diffusion model while it trains: how noise becomes images, and how well it knows each noise level."""

from typing import Any

import lightning as L
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lit_generative.callbacks.pictures import PictureCallback
from lit_generative.callbacks.run import conditions_of, fixed_images, run_data
from lit_generative.checks import check_count
from lit_generative.contracts import MeasuresNoiseLevels, Trajectories
from lit_generative.core import GenerativeModule
from lit_generative.pictures import evenly_spaced, film

__all__ = ["DenoisingPictures"]

Curve = dict[str, list[float]]


class DenoisingPictures(PictureCallback):
    """Draws the way from noise to samples, and the loss by noise level, after every validation and at the end.

    Both are in the run's folders ``denoising`` and ``loss_by_noise``, and go to every logger that takes images. The
    noise is the same each time, so that progress can be watched.

    - The way: an image a row, of one class each as in :class:`SampleGrid`, and a moment a column, from pure noise to
      the sample. An earlier column whose root mean square r exceeds 1, as that of images does not, is divided by r, so
      that noise of any scale can be seen. Points of the plane become a scatter picture a column.
    - The loss: the squared error of the noise per dimension against log-SNR, on validation images. Earlier epochs'
      curves, those of before a resume too, are in grey.

    The model must have :class:`~lit_generative.contracts.Trajectories` and
    :class:`~lit_generative.contracts.MeasuresNoiseLevels`, as :class:`~lit_generative.diffusion.DDPM` does, both
    without an effect on the random state.

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
        super().__init__(every_n_epochs, seed)
        check_count("num_images", num_images)
        for name, value in {"num_frames": num_frames, "num_levels": num_levels, "num_held_out": num_held_out}.items():
            check_count(name, value, at_least=2)
        self.num_images, self.num_frames = num_images, num_frames
        self.num_levels, self.num_held_out = num_levels, num_held_out
        self.curves: dict[int, Curve] = {}  # by the images seen

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check model and data, and begin a new record (that of a resumed run is read after this)."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        needed = {"trajectory": Trajectories, "loss_by_noise": MeasuresNoiseLevels}
        if missing := [name for name, protocol in needed.items() if not isinstance(pl_module, protocol)]:
            raise ValueError(
                f"DenoisingPictures needs a model with {' and '.join(needed)}, such as DDPM; "
                f"{type(pl_module).__name__} has no {' and no '.join(missing)}"
            )
        run_data(trainer, self)
        self.curves = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Take the validation images."""
        share = max(2, -(-self.num_held_out // trainer.world_size))
        self._held_out = fixed_images(trainer, self, "val", share, pl_module.device)

    def draw(self, trainer: L.Trainer, model: GenerativeModule) -> dict[str, Tensor]:
        """Return both pictures."""
        assert isinstance(model, Trajectories)
        y, _ = conditions_of(trainer, self, model, self.num_images)
        states = model.trajectory(self.num_images, y, generator=torch.Generator().manual_seed(self.seed))
        frames = evenly_spaced(states, self.num_frames)
        self.curves[model.images_seen] = self._measure(trainer, model)
        return {"denoising": film(frames), "loss_by_noise": plot(self.curves)}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"curves": dict(self.curves)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's curves."""
        self.curves = dict(state_dict["curves"])

    def _measure(self, trainer: L.Trainer, model: GenerativeModule) -> Curve:
        assert isinstance(model, MeasuresNoiseLevels)
        found = model.loss_by_noise(*model.unpack(self._held_out), self.num_levels)
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
