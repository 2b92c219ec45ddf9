"""``edit`` fills holes and touches nothing else, at any size and of any kind of file; nonsense is a sentence."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from running import run

from lit_generative import DDPM, GenerativeModule, ImageDataModule
from lit_generative.diffusion import DDIM, CosineSchedule, VelocityPrediction
from lit_generative.editing.edit import remade
from lit_generative.editing.files import PictureFile
from lit_generative.editing.frames import Frame, softened
from lit_generative.nn import Condition, LowResolutionCondition, UNet

SHAPE = (3, 28, 28)


def save(path: Path, num_classes: int | None = None, condition: Condition | None = None, channels: int = 3) -> Path:
    """Write the checkpoint of a small model of random weights."""
    torch.manual_seed(0)
    shape, told = (channels, 28, 28), {"num_classes": num_classes, "condition": condition}
    network = UNet(shape, (8,), 1, (), None, 8, patch=4, **told)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model = DDPM(network, shape, CosineSchedule(), VelocityPrediction(), sampler=DDIM(6), **told)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=0
    )
    trainer.strategy.connect(model)
    model.trainer = trainer
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    save(folder / "colour.ckpt")
    save(folder / "gray.ckpt", channels=1)
    save(folder / "classes.ckpt", num_classes=3)
    save(folder / "low.ckpt", condition=LowResolutionCondition(4))
    return folder


@pytest.fixture(scope="module")
def garment() -> Image.Image:
    """A tinted picture of 28x28 pixels."""
    image = next(iter(ImageDataModule(subset=10, batch_size=1).loader("test")))["image"][0, 0]
    gray = Image.fromarray(((image + 1) * 127.5).round().byte().numpy())
    return ImageOps.colorize(gray, "navy", "orange")


def hole(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rgb": lambda image: image,
    "gray": lambda image: image.convert("L"),
    "palette": lambda image: image.quantize(8),
    "alpha": lambda image: image.convert("RGBA"),
    "gray with alpha": lambda image: image.convert("LA"),
    "bits": lambda image: image.convert("1"),
}


@pytest.mark.parametrize("model", ["colour", "gray"])
@pytest.mark.parametrize("kind", KINDS)
def test_outside_of_the_hole_nothing_is_touched(
    kind: str, model: str, models: Path, garment: Image.Image, tmp_path: Path
) -> None:
    size, box = (75, 50), (40, 10, 60, 30)
    image = KINDS[kind](garment.resize(size))
    image.save(tmp_path / "in.png")
    hole(size, box).save(tmp_path / "mask.png")
    arguments = ["--mask", str(tmp_path / "mask.png"), "--output", str(tmp_path / "out.png")]
    outcome = run("edit", str(models / f"{model}.ckpt"), str(tmp_path / "in.png"), *arguments)
    assert outcome.status == 0, outcome.err
    result = Image.open(tmp_path / "out.png")
    mode = {"palette": "RGB", "bits": "L"}.get(kind, image.mode)
    assert (result.size, result.mode) == (size, "RGBA" if mode == "LA" and result.mode == "RGBA" else mode)
    before, after = (np.asarray(picture.convert("RGBA")).astype(int) for picture in (image, result))
    outside = np.asarray(hole(size, box)) == 0
    assert np.abs(before - after)[outside].max() <= 1
    assert np.abs(before - after)[~outside].mean() > 5


def test_a_picture_on_its_side_is_edited_upright(models: Path, garment: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    garment.resize((64, 40)).save(tmp_path / "in.png", exif=exif)
    outcome = run(
        *("edit", str(models / "colour.ckpt"), str(tmp_path / "in.png"), "--start", "0.1"),
        *("--output", str(tmp_path / "out.png")),
    )
    assert outcome.status == 0, outcome.err
    assert Image.open(tmp_path / "out.png").size == (40, 64)


@pytest.mark.parametrize("size", [(28, 28), (13, 40), (90, 31), (7, 7)])
def test_variants_have_the_size_of_the_picture_and_the_seed_decides_them(
    size: tuple[int, int], models: Path, garment: Image.Image, tmp_path: Path
) -> None:
    garment.resize(size).save(tmp_path / "in.png")

    def edit(name: str, *options: str) -> None:
        arguments = ["--start", "0.5", "--output", str(tmp_path / name), "--num_samples", "2", *options]
        outcome = run("edit", str(models / "classes.ckpt"), str(tmp_path / "in.png"), "--labels", "2", *arguments)
        assert outcome.status == 0, outcome.err

    for name, seed in {"a.png": "0", "b.png": "0", "c.png": "1"}.items():
        edit(name, "--seed", seed)
    pixels = {path.stem: np.asarray(Image.open(path)) for path in tmp_path.glob("?_?.png")}
    assert all(values.shape == (size[1], size[0], 3) for values in pixels.values())
    assert (pixels["a_0"] == pixels["b_0"]).all()
    assert (pixels["a_0"] != pixels["a_1"]).any()
    assert (pixels["a_0"] != pixels["c_0"]).any()


@pytest.mark.parametrize("size", [(7, 7), (5, 3), (20, 11)])
def test_upscaling_makes_any_picture_larger_by_the_factor(
    size: tuple[int, int], models: Path, garment: Image.Image, tmp_path: Path
) -> None:
    for mode in ("RGB", "L", "RGBA"):
        garment.resize(size).convert(mode).save(tmp_path / f"{mode}.png")
        output = str(tmp_path / f"{mode}_out.png")
        outcome = run("edit", str(models / "low.ckpt"), str(tmp_path / f"{mode}.png"), "--upscale", "--output", output)
        assert outcome.status == 0, outcome.err
        result = Image.open(output)
        assert (result.size, result.mode) == ((4 * size[0], 4 * size[1]), mode)


def test_a_frame_goes_there_and_back() -> None:
    smooth = torch.linspace(-1, 1, 60)[None, :, None] * torch.linspace(-1, 1, 90)[None, None, :]
    for hole_at in (None, (5, 5), (50, 80)):
        is_hole = None if hole_at is None else torch.zeros(1, 60, 90, dtype=torch.bool)
        if is_hole is not None and hole_at is not None:
            is_hole[:, hole_at[0], hole_at[1]] = True
        frame = Frame.around((60, 90), (28, 28), is_hole)
        back = frame.put_back(frame.cut(smooth), smooth)
        assert back.shape == smooth.shape
        assert (back - smooth).abs().max() < 0.05
        if is_hole is not None:
            assert frame.cut_hole(is_hole).any()
            assert (frame.height, frame.width) == (60, 60)


def test_a_softened_hole_stays_within_it() -> None:
    is_hole = torch.zeros(1, 30, 30, dtype=torch.bool)
    is_hole[:, 8:22, 8:22] = True
    weight = softened(is_hole, 3)
    assert weight[~is_hole].eq(0).all()
    assert weight[:, 12:18, 12:18].eq(1).all()
    assert 0 <= weight[0, 15, 8] < weight[0, 15, 9] <= 1


def test_little_noise_changes_little(models: Path, garment: Image.Image, tmp_path: Path) -> None:
    garment.save(tmp_path / "in.png")
    picture, model = (
        PictureFile.read(tmp_path / "in.png"),
        GenerativeModule.load_from_checkpoint(models / "colour.ckpt"),
    )
    changes = [
        (remade(model, picture, start, generator=torch.Generator().manual_seed(0)).colours - picture.colours)
        .abs()
        .mean()
        for start in (0.02, 0.5)
    ]
    assert changes[0] < changes[1]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("colour", [], "give one of --mask FILE"),
        ("colour", ["--start", "0.5", "--upscale"], "--start and --upscale are given"),
        ("colour", ["--start", "0"], "start=0.0: it must be in (0, 1)"),
        ("colour", ["--start", "1"], "start=1.0: it must be in (0, 1)"),
        ("colour", ["--mask", "empty.png"], "is empty"),
        ("colour", ["--mask", "full.png"], "white everywhere"),
        ("colour", ["--mask", "small.png"], "has 10 x 10 pixels, but in.png has 28 x 28"),
        ("colour", ["--mask", "text.png"], "mask text.png cannot be read as an image"),
        ("colour", ["--mask", "nowhere.png"], "mask nowhere.png: there is no such file"),
        ("colour", ["--upscale"], "holds no model of super-resolution"),
        ("low", ["--start", "0.5"], "take --upscale"),
        ("classes", ["--start", "0.5"], "say which, by --labels with 0 to 2"),
        ("classes", ["--start", "0.5", "--labels", "7"], "labels=7: there is no such class"),
        ("colour", ["--start", "0.5", "--labels", "1"], "the model is unconditional"),
        ("colour", ["--start", "0.5", "--num_samples", "0"], "num_samples=0"),
        ("colour", ["--start", "0.5", "--output", "in.png"], "in.png is there already"),
        ("colour", ["--start", "0.5", "--output", "out.doc"], "its ending says what is written"),
        ("vae", ["--start", "0.5"], "holds a VAE, which edits no pictures"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(
    model: str,
    options: list[str],
    message: str,
    models: Path,
    fitted: tuple[object, Path],
    garment: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    garment.save("in.png")
    hole((28, 28), (-5, -5, -5, -5)).save("empty.png")
    hole((28, 28), (0, 0, 28, 28)).save("full.png")
    hole((10, 10), (0, 0, 5, 5)).save("small.png")
    Path("text.png").write_text("no picture")
    before = Path("in.png").read_bytes()
    checkpoint = fitted[1] / "checkpoints" / "last.ckpt" if model == "vae" else models / f"{model}.ckpt"
    output = [] if "--output" in options else ["--output", "out.png"]
    outcome = run("edit", str(checkpoint), "in.png", *options, *output)
    assert outcome.status == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("out.png").exists()
    assert Path("in.png").read_bytes() == before
