"""How much of images there is at each spatial frequency: blur and noise, seen without any classifier's features."""

import torch
from torch import Tensor

__all__ = ["power_spectrum", "radial_mean", "radial_spectrum", "sharpness"]

_SMALLEST = 4  # pixels: below, there is no upper half of the frequencies
_BLOCK = 256  # images transformed at a time: 50 MB of 3 x 64 x 64 pixels


def power_spectrum(images: Tensor) -> Tensor:
    r"""Mean power of images at each frequency, of which the deviations from the mean of an image are counted.

    .. math:: P(k) = \frac{\langle |\mathcal{F}[w (x - \bar x)](k)|^2 \rangle}{\sum w^2}, \quad
        \bar x = \frac{\sum w x}{\sum w}

    The discrete transform joins opposite borders of an image, and the step between them has a spectrum that falls more
    slowly than that of any smooth image: without the window w, a blur that takes away 99.7% of the high frequencies of
    1/f noise seems to leave 8% of them. So w is Hann's, the product of sin^2 along both axes, whose tails fall off by
    18 dB an octave (Harris 1978). White noise has P = its variance at all frequencies but the lowest.

    Args:
        images: (N, C, H, W) of any range.

    Returns:
        (H, W), float64, in squared units of the images and the order of ``torch.fft.fft2``. Their sum is H W times the
        mean of w^2 (x - mean)^2 over that of w^2 (Parseval).

    Raises:
        ValueError: If there are no images, or one side is shorter than 4 pixels.
    """
    height, width = images.shape[-2:]
    if len(images) == 0 or min(height, width) < _SMALLEST:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; a spectrum needs at least one image of at least "
            f"{_SMALLEST}x{_SMALLEST} pixels"
        )
    window = torch.outer(_hann(height), _hann(width)).to(images.device)
    total = torch.zeros(height, width, dtype=torch.double, device=images.device)
    for block in images.split(_BLOCK):
        x = block.double()
        mean = (window * x).sum(dim=(-2, -1), keepdim=True) / window.sum()
        total += torch.fft.fft2(window * (x - mean)).abs().square().sum(dim=(0, 1))
    return total / (images.shape[0] * images.shape[1] * window.square().sum())


def _hann(n: int) -> Tensor:
    """One period of sin^2 that begins half a sample inside, so that it is symmetric and no pixel is left out; (n,)."""
    return torch.sin(torch.pi * (torch.arange(n, dtype=torch.double) + 0.5) / n).square()


def radial_mean(power: Tensor) -> Tensor:
    """Average over the rings of equal frequency (Durall et al. 2020, "Watch your up-convolution", Equation 3).

    Args:
        power: (H, W) in the order of ``torch.fft.fft2``.

    Returns:
        (min(H, W) // 2 + 1,): at k cycles across the shorter side, from k = 0 to the Nyquist frequency. Frequencies
        beyond it are on diagonals only and are left out, for their rings are not whole.
    """
    height, width = power.shape
    side = min(height, width)
    vertical, horizontal = torch.fft.fftfreq(height, dtype=torch.double), torch.fft.fftfreq(width, dtype=torch.double)
    ring = (side * torch.hypot(vertical[:, None], horizontal)).round().long().flatten().to(power.device)
    rings = int(ring.max()) + 1
    totals = power.new_zeros(rings).index_add(0, ring, power.flatten())
    return (totals / ring.bincount(minlength=rings))[: side // 2 + 1]


def radial_spectrum(images: Tensor) -> Tensor:
    """Return :func:`radial_mean` of :func:`power_spectrum` of images (N, C, H, W)."""
    return radial_mean(power_spectrum(images))


def sharpness(fake_spectrum: Tensor, real_spectrum: Tensor) -> float:
    """Return the power of the upper half of the frequencies over the real one's: 1 is as sharp, 0 has no detail left.

    It is 2 where there is twice as much detail, or noise. A ring of k cycles counts k times, as it has about 2 pi k
    frequencies; the upper half is above half of the Nyquist frequency.

    Args:
        fake_spectrum: Radial spectrum (K,) of generated images.
        real_spectrum: The same of real images of this size, (K,).

    Raises:
        ValueError: If the spectra are of different sizes.
    """
    if fake_spectrum.shape != real_spectrum.shape:
        raise ValueError(
            f"fake_spectrum has {len(fake_spectrum)} frequencies, real_spectrum {len(real_spectrum)}; "
            "compare images of one size"
        )
    k = torch.arange(len(real_spectrum), dtype=torch.double, device=real_spectrum.device)
    upper = k > k[-1] / 2
    fake, real = ((k * spectrum)[upper].sum() for spectrum in (fake_spectrum, real_spectrum))
    return float(fake / real)
