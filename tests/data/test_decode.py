"""Images of every kind become the pixels that they show."""

import io

import numpy as np
import pytest
from PIL import Image

from lit_generative.data.decode import Decoder
from lit_generative.data.reading import ImageReadError
from lit_generative.data.surveys import survey

GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def row(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def decode(encoded, channels=3, size=(16, 16), **options):
    return Decoder(channels, size, resize=False, **options)(encoded, "picture")


def test_sixteen_bits_are_scaled_not_clipped():
    values = GRADIENT.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        assert (decode(row(Image.fromarray(values), kind), channels=1)[0] == GRADIENT).all()


def test_sixteen_bits_round_to_the_nearest():
    image = Image.fromarray(np.full((16, 16), 1000, np.uint16))
    assert (decode(row(image), channels=1) == round(1000 / 257)).all()


def test_gray_stays_gray_in_three_channels():
    pixels = decode(row(Image.fromarray(GRADIENT)))
    assert pixels.shape == (3, 16, 16)
    assert (pixels == GRADIENT).all()


def test_one_bit_becomes_black_and_white():
    assert set(decode(row(Image.fromarray(GRADIENT).convert("1")), channels=1).flat) == {0, 255}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_background(mode, channels):
    image = Image.merge("RGBA", [Image.fromarray(GRADIENT)] * 3 + [Image.new("L", (16, 16), 0)]).convert(mode)
    assert (decode(row(image), channels, background="#404040") == 64).all()


def test_half_transparency_mixes():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    assert decode(row(image), background="white")[:, 0, 0].tolist() == [255, 127, 127]


def test_palette_with_a_transparent_colour_is_flattened():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    assert decode(row(image))[:, 0, 0].tolist() == [200, 10, 20]
    assert decode(row(image, transparency=1), background="blue")[:, 0, 0].tolist() == [0, 0, 255]


def test_transparent_colour_of_rgb_is_flattened():
    image = Image.new("RGB", (16, 16), (1, 2, 3))
    assert decode(row(image, transparency=(1, 2, 3)))[:, 0, 0].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(row(image, "TIFF"))[:, 0, 0].tolist()
    assert red > 200
    assert green < 60
    assert blue < 60


def test_camera_orientation_is_applied():
    image = Image.fromarray(GRADIENT[:8])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    encoded = row(image, "PNG", exif=exif)
    assert survey([(encoded, "picture")], False).sizes == {(16, 8)}
    assert (decode(encoded, 1, (16, 8))[0] == np.rot90(GRADIENT[:8], -1)).all()


def test_resizing_averages_instead_of_picking():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    pixels = Decoder(1, (8, 8), resize=True)(row(stripes), "stripes")
    assert abs(pixels.astype(int) - 127).max() < 20  # nearest or unfiltered bilinear give 0 or 255


def test_the_centre_is_cut_out():
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 255
    assert (Decoder(1, (16, 16), resize=True)(row(Image.fromarray(wide)), "wide") == 255).all()


def test_32_bit_values_are_refused():
    with pytest.raises(ImageReadError, match="32-bit"):
        decode(row(Image.fromarray(np.zeros((16, 16), np.float32)), "TIFF"), channels=1)


def test_truncated_and_alien_content_is_named():
    encoded = row(Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)))
    for content in (encoded["bytes"][:120], b"<html>not found</html>", b""):
        with pytest.raises(ImageReadError, match=r"cat\.png cannot be read"):
            decode({"bytes": content, "path": "cat.png"}, channels=1)


def test_colour_is_seen_in_headers():
    gray_palette, red_palette = Image.new("P", (4, 4)), Image.new("P", (4, 4))
    gray_palette.putpalette([7, 7, 7, 9, 9, 9])
    red_palette.putpalette([7, 7, 7, 9, 0, 0])
    red_palette.putpixel((0, 0), 1)
    gray = [gray_palette, Image.new("L", (4, 4)), Image.new("LA", (4, 4)), Image.fromarray(np.zeros((4, 4), np.uint16))]
    for image in gray:
        assert not survey([(row(image), "")], False).colour
    for image in [red_palette, Image.new("RGB", (4, 4)), Image.new("RGBA", (4, 4))]:
        assert survey([(row(image), "")], False).colour


def test_unexpected_colour_is_an_error_not_a_loss():
    with pytest.raises(ValueError, match="channels: 3"):
        decode(row(Image.new("RGB", (16, 16))), channels=1, accept_colour=False)
