"""Files that nobody trusts: nothing in them runs, is imported or is opened, and damage is noticed."""

import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_fidelity  # noqa: F401  imported, as in any process that evaluates

from lit_generative import VAE, GenerativeModule, ImageDataModule
from lit_generative.checkpoints import data_of, read_checkpoint

INCEPTION = "torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3"
CODE = "from pathlib import Path\nPath('ran').touch()\nclass Evil:\n    pass\n"


class Touches:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path("ran").touch, ()  # type: ignore[return-value]


@pytest.fixture
def checkpoint(
    make_vae: Callable[..., VAE], make_trainer: Callable[..., Any], data: ImageDataModule, tmp_path: Path
) -> Path:
    trainer = make_trainer(max_steps=1)
    trainer.fit(make_vae(), data)
    trainer.save_checkpoint(tmp_path / "sound.ckpt")
    return tmp_path / "sound.ckpt"


@pytest.fixture
def hostile(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], Path]:
    """Return a function that writes a checkpoint whose contents a given function has changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        contents = torch.load(checkpoint, weights_only=True)
        change(contents)
        torch.save(contents, tmp_path / "hostile.ckpt")
        return tmp_path / "hostile.ckpt"

    return write


def named(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


@pytest.mark.parametrize(
    "part",
    [
        named(INCEPTION, name="x", features_list=["64"], feature_extractor_weights_path="weights.pth"),
        named("torch.nn.parallel.DistributedDataParallel", module=None),
        named("torchmetrics.Metric"),
        named("pathlib.PosixPath"),
        named("lightning.pytorch.Trainer"),
        named("lit_generative.evaluation.extractors.InceptionExtractor", weights="weights.pth"),
        named("lit_generative.loggers.WandbLogger"),
        named("evil_module.Evil"),
        {"partial": "os.system", "keywords": {"command": "touch ran"}},
        {"import_path": "subprocess.Popen"},
        [named("torch.nn.Linear", in_features=1, out_features=named(INCEPTION))],
    ],
    ids=lambda value: str(value)[-40:],
)
@pytest.mark.parametrize("place", ["encoder", "optimizer"])
def test_a_checkpoint_builds_nothing_but_what_is_made_for_it(
    hostile: Callable, tmp_path: Path, part: Any, place: str
) -> None:
    torch.save(Touches(), tmp_path / "weights.pth")
    path = hostile(lambda c: c["lit_generative"]["model"]["init_args"].update({place: part}))
    with pytest.raises((ValueError, ImportError), match=r"is not called from a file|is not imported"):
        GenerativeModule.load_from_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        named("evil_module.Evil"),
        named(INCEPTION),
        named("lit_generative.data.module.ImageDataModule", binarise="evil_module.Evil"),
        named("lit_generative.data.module.ImageDataModule", binarise=named("evil_module.Evil")),
        named("lit_generative.data.module.ImageDataModule", batch_size=["evil_module.Evil"]),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_the_data_that_a_checkpoint_names_go_through_the_same_gate(hostile: Callable, data: Any) -> None:
    path = hostile(lambda c: c["lit_generative"].update(data=data))
    with pytest.raises((ValueError, ImportError), match=r"are refused|is not imported"):
        data_of(read_checkpoint(path))
    assert "evil_module" not in sys.modules


def test_sound_data_pass_the_gate(checkpoint: Path, data: ImageDataModule) -> None:
    found = data_of(read_checkpoint(checkpoint))
    assert found is not None
    assert found["class_path"].endswith("ImageDataModule")


def test_a_flipped_bit_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    sound, rng = checkpoint.read_bytes(), random.Random(0)
    expected = read_checkpoint(checkpoint)["state_dict"]
    noticed = 0
    for _ in range(200):
        place = rng.randrange(len(sound))
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        try:
            found = read_checkpoint(tmp_path / "damaged.ckpt")["state_dict"]
        except ValueError:
            noticed += 1
        else:  # in the padding between two members
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert noticed > 150


def test_a_compressed_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(checkpoint) as sound, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w") as bomb:
        for member in sound.infolist():
            bomb.writestr(member.filename, sound.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is refused"):
        read_checkpoint(tmp_path / "bomb.ckpt")
