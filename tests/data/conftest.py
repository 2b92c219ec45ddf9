"""Real images for the data tests: pictures of the embedded set, as files."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_generative.data import ImageDataModule


@pytest.fixture(scope="session")
def fashion():
    """The embedded set."""
    return ImageDataModule()


@pytest.fixture(scope="session")
def pictures(fashion):
    """Thirty grayscale pictures as PIL images, with their labels."""
    batch = next(iter(fashion.loader("test", batch_size=30)))
    pixels = ((batch["image"] + 1) * 127.5).round().to(torch.uint8)[:, 0].numpy()
    return [Image.fromarray(image) for image in pixels], batch["label"].tolist()


@pytest.fixture
def folder(tmp_path: Path, pictures) -> Path:
    """A folder of 30 grayscale PNG files in the class subfolders ``even`` and ``odd``."""
    root = tmp_path / "clothes"
    for i, image in enumerate(pictures[0]):
        path = root / ("odd" if i % 2 else "even") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch) -> Path:
    """A cache of datasets' own, so that tests leave nothing in the user's."""
    import datasets

    # Shuffled streams pause for seconds at their end
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    cache = tmp_path / "hf-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(cache / "downloads"))
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", str(cache / "downloads" / "extracted"))
    return cache
