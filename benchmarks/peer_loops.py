"""The usual training loops that benchmarks/peers.py compares with, each as its documentation has it.

All take training images (N, C, H, W) in [-1, 1], a learning rate and seconds, and return what draws n images.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.pictures import save_png

Draw = Callable[[int], Tensor]
SAMPLING_STEPS = 50


def batches(images: Tensor, size: int, seconds: float) -> Iterator[Tensor]:
    """Yield shuffled batches, epoch by epoch, until the time is over."""
    end = time.perf_counter() + seconds
    while True:
        for index in torch.randperm(len(images)).split(size):
            if time.perf_counter() >= end:
                return
            if len(index) > 1:  # batch normalisation
                yield images[index]


def levels(images: Tensor) -> int:
    """Return how often images can be halved until 4 pixels are left."""
    return max(2, min(images.shape[2:]).bit_length() - 3)


# ---------------------------------------------------------------- diffusion


def train_diffusers(images: Tensor, rate: float, seconds: float) -> Draw:
    """Denoising diffusion as in diffusers' guide to unconditional training and its example train_unconditional.

    Batches of 16, AdamW with betas 0.95 and 0.999, 500 steps of warm-up, the noise's squared error, gradients clipped
    to the norm 1, and an average of weights of inverse gamma 1 and power 3/4. Its cosine goes to the end of a number of
    steps, which is not known of minutes: the rate stays.
    """
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    channels, side = images.shape[1], images.shape[2]
    depth = min(6, side.bit_length() - 2)
    network = UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512)[:depth],
        down_block_types=("DownBlock2D",) * (depth - 2) + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * (depth - 2),
    )
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(network.parameters(), rate, betas=(0.95, 0.999), weight_decay=1e-6)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 500, total_iters=500)
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    for x in batches(images, 16, seconds):
        noise, t = torch.randn_like(x), torch.randint(1000, (len(x),))
        loss = F.mse_loss(network(noising.add_noise(x, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        average.step(network.parameters())
    average.copy_to(network.parameters())
    pipeline = DDIMPipeline(network, DDIMScheduler.from_config(noising.config))
    pipeline.set_progress_bar_config(disable=True)

    def draw(n: int) -> Tensor:
        drawn = pipeline(batch_size=n, num_inference_steps=SAMPLING_STEPS, output_type="np").images
        return torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1

    return draw


def train_ddp(images: Tensor, rate: float, seconds: float) -> Draw:
    """denoising-diffusion-pytorch's Trainer with its README's network, batches of 32 and an average of 0.995."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    class TimedTrainer(Trainer):
        """Ends after some time instead of a number of steps."""

        end = float("inf")

        @property
        def train_num_steps(self) -> int:
            return 10**9 if time.perf_counter() < self.end else 0

        @train_num_steps.setter
        def train_num_steps(self, value: int) -> None:
            pass

    network = Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=images.shape[1])
    side = images.shape[2]
    diffusion = GaussianDiffusion(network, image_size=side, timesteps=1000, sampling_timesteps=SAMPLING_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            save_png(image, Path(folder) / "images" / f"{i}.png")
        trainer: Any = TimedTrainer(
            diffusion,
            f"{folder}/images",
            train_batch_size=32,
            train_lr=rate,
            ema_decay=0.995,
            augment_horizontal_flip=False,  # as the others
            calculate_fid=False,
            save_and_sample_every=10**9,
            results_folder=f"{folder}/results",
        )
        trainer.end = time.perf_counter() + seconds
        trainer.train()
    trained = trainer.ema.ema_model.eval()
    return lambda n: trained.sample(batch_size=n).detach() * 2 - 1


# ---------------------------------------------------------------- GAN


def train_dcgan(images: Tensor, rate: float, seconds: float) -> Draw:
    """A DCGAN in the sizes of PyTorch's example: 64 features, 100 latents, binary cross entropy, Adam."""
    channels, depth = images.shape[1], levels(images)
    generator, discriminator = dcgan_generator(channels, depth), dcgan_discriminator(channels, depth)
    optimizers = [torch.optim.Adam(n.parameters(), rate, betas=(0.5, 0.999)) for n in (discriminator, generator)]
    for x in batches(images, 64, seconds):
        fake = generator(torch.randn(len(x), 100, 1, 1))
        ones, zeros = torch.ones(len(x)), torch.zeros(len(x))
        judge = partial(_judged, discriminator)
        _step(optimizers[0], judge(x, ones) + judge(fake.detach(), zeros))
        _step(optimizers[1], judge(fake, ones))
    return partial(_from_latents, generator.eval(), (100, 1, 1))


def dcgan_generator(channels: int, depth: int) -> nn.Sequential:
    """Transposed convolutions from 1 x 1 to 4 x 4 and on, with batch normalisation and ReLU; tanh at the end."""
    widths = [64 * 2**level for level in reversed(range(depth))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, widths[0], 4, 1, 0, bias=False)]
    for coarse, fine in pairwise(widths):
        layers += [nn.BatchNorm2d(coarse), nn.ReLU(True), nn.ConvTranspose2d(coarse, fine, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(True), nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers).apply(_draw_dcgan)


def dcgan_discriminator(channels: int, depth: int) -> nn.Sequential:
    """Convolutions of stride 2 down to 4 x 4, with batch normalisation and leaky ReLU, then one to a logit."""
    widths = [64 * 2**level for level in range(depth)]
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for fine, coarse in pairwise(widths):
        layers += [nn.Conv2d(fine, coarse, 4, 2, 1, bias=False), nn.BatchNorm2d(coarse), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0), nn.Flatten(0)).apply(_draw_dcgan)


def _draw_dcgan(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _judged(discriminator: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(discriminator(x), target)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# ---------------------------------------------------------------- VAE


def train_plain_vae(images: Tensor, rate: float, seconds: float) -> Draw:
    """A VAE of strided convolutions as in countless notebooks: squared error plus the KL, 128 latents, Adam."""
    channels, depth = images.shape[1], levels(images)
    widths = [32 * 2**level for level in range(depth)]
    shape = (widths[-1], images.shape[2] >> depth, images.shape[3] >> depth)
    size = shape[0] * shape[1] * shape[2]
    down: list[nn.Module] = []
    for i, o in pairwise([channels, *widths]):
        down += [nn.Conv2d(i, o, 4, 2, 1), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, 256))
    up: list[nn.Module] = [nn.Linear(128, size), nn.Unflatten(1, shape)]
    for i, o in pairwise(reversed(widths)):
        up += [nn.ConvTranspose2d(i, o, 4, 2, 1), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
    decoder = nn.Sequential(*up, nn.ConvTranspose2d(widths[0], channels, 4, 2, 1), nn.Tanh())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], rate)
    for x in batches(images, 64, seconds):
        mean, log_variance = encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        error = (decoder(z) - x).square().sum() / len(x)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2 / len(x)
        _step(optimizer, error + kl)
    return partial(_from_latents, decoder.eval(), (128,))


@torch.no_grad()
def _from_latents(network: nn.Module, shape: tuple[int, ...], n: int) -> Tensor:
    return network(torch.randn(n, *shape))
