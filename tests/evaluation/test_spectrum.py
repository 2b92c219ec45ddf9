"""Spectra with known values, and what a sharpness is worth."""

import math

import pytest
import torch
import torch.nn.functional as F

from lit_generative.evaluation.spectrum import power_spectrum, radial_spectrum, sharpness


def wave(across, down, size=32):
    position = torch.arange(size) / size
    return torch.cos(2 * math.pi * (across * position + down * position[:, None]) + 0.7)[None, None]


def frequencies(size):
    f = torch.fft.fftfreq(size, dtype=torch.double)
    return torch.hypot(f[:, None], f)


def test_white_noise_has_its_variance_at_every_frequency():
    torch.manual_seed(0)
    found = radial_spectrum(0.3 * torch.randn(800, 2, 32, 32))
    assert found[2:].sub(0.09).abs().max() < 0.004
    assert len(found) == 17


@pytest.mark.parametrize(("across", "down", "ring"), [(5, 0, 5), (0, 9, 9), (3, 4, 5), (6, 8, 10), (16, 0, 16)])
def test_a_wave_is_at_its_frequency(across, down, ring):
    found = radial_spectrum(wave(across, down))
    assert found.argmax() == ring
    beyond = torch.cat([found[: max(ring - 2, 0)], found[ring + 3 :]])
    assert beyond.max() < 1e-4 * found.max()


def test_the_powers_sum_to_the_mean_square_that_the_window_sees():
    torch.manual_seed(0)
    x = torch.rand(7, 3, 20, 28).double()
    window = torch.sin(math.pi * (torch.arange(20) + 0.5) / 20).square()[:, None]
    window = window * torch.sin(math.pi * (torch.arange(28) + 0.5) / 28).square()
    mean = (window * x).sum(dim=(2, 3), keepdim=True) / window.sum()
    expected = (window * (x - mean)).square().mean() / window.square().mean()
    assert power_spectrum(x).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_brightness_is_no_frequency_and_size_none_either():
    x = torch.rand(5, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(radial_spectrum(x + 3), radial_spectrum(x), rtol=1e-4, atol=1e-9)
    assert radial_spectrum(torch.full((2, 1, 8, 8), 0.7)).max() < 1e-12
    many = torch.cat([x] * 120)  # more than are transformed at once
    torch.testing.assert_close(radial_spectrum(many), radial_spectrum(x))


def test_a_frequency_means_the_same_along_both_sides_of_an_image():
    tall = wave(4, 0, 64)[..., :32]  # 2 cycles across 32 pixels, none along 64
    assert radial_spectrum(tall).argmax() == radial_spectrum(tall.mT).argmax() == 2
    assert len(radial_spectrum(tall)) == 17


def test_the_loss_of_detail_is_measured_truly_where_borders_do_not_fit_together():
    """Crops of 1/f noise, as photographs are; without a window 0.13 would be found, and not 0.05."""
    torch.manual_seed(0)
    f = frequencies(128)
    blur = torch.exp(-2 * (math.pi * 0.8 * f).square())
    noise = torch.fft.fft2(torch.randn(100, 1, 128, 128).double()) / f.where(f > 0, torch.inf)
    sharp, blurred = (torch.fft.ifft2(noise * part).real[..., :32, :32] for part in (torch.ones(()), blur))
    k = torch.arange(9, 17).double() / 32
    expected = (torch.exp(-4 * (math.pi * 0.8 * k).square()) / k).sum() / (1 / k).sum()
    found = sharpness(radial_spectrum(blurred), radial_spectrum(sharp))
    assert found == pytest.approx(expected.item(), rel=0.15)


def test_blur_lowers_and_noise_raises_the_sharpness_of_real_images(data, train_images, real_images):
    real = radial_spectrum(real_images[0])
    train = train_images[0]
    assert sharpness(radial_spectrum(train), real) == pytest.approx(1, abs=0.1)
    blurred = F.avg_pool2d(F.pad(train, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    assert sharpness(radial_spectrum(blurred), real) < 0.1
    noisy = train + 0.2 * torch.randn(train.shape, generator=torch.Generator().manual_seed(0))
    assert sharpness(radial_spectrum(noisy), real) > 1.2


def test_sharpness_is_a_ratio_of_powers():
    real = torch.ones(17).double()
    assert sharpness(0.25 * real, real) == pytest.approx(0.25)
    lower = real.clone()
    lower[:9] = 100  # up to half of the Nyquist frequency
    assert sharpness(lower, real) == pytest.approx(1)
    last = real.clone()
    last[16] = 2
    assert sharpness(last, real) == pytest.approx(1 + 16 / sum(range(9, 17)))


def test_what_has_no_spectrum_is_an_error(real_images):
    with pytest.raises(ValueError, match=r"images has shape \(5, 2, 1, 1\); a spectrum needs .* 4x4 pixels"):
        radial_spectrum(torch.zeros(5, 2, 1, 1))
    with pytest.raises(ValueError, match=r"images has shape \(0, 1, 28, 28\); a spectrum needs at least one image"):
        radial_spectrum(torch.zeros(0, 1, 28, 28))
    with pytest.raises(ValueError, match="fake_spectrum has 17 frequencies, real_spectrum 15; compare images of one"):
        sharpness(torch.ones(17), torch.ones(15))
