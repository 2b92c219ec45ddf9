"""A run that stops in the middle of an epoch goes on with exactly the batches that it had not seen."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_generative.data import ImageDataModule


class Watch(L.LightningModule):
    """Remembers what it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append(batch["image"].sum((1, 2, 3)).tolist())
        return self.weight**2

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def watch(make_trainer, data, ckpt_path=None, **options):
    model = Watch()
    trainer = make_trainer(**options)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model.seen, trainer


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 10])  # an epoch has 5 batches
@pytest.mark.parametrize("kind", ["memory", "workers"])
def test_resumed_in_the_middle_of_an_epoch(make_trainer, folder, tmp_path, stop, kind):
    def data():
        options = {"memory": {}, "workers": {"in_memory": False, "num_workers": 1}}[kind]
        return ImageDataModule(str(folder), batch_size=4, val_fraction=0.15, random_flip=True, **options)

    whole, _ = watch(make_trainer, data(), max_steps=13)
    first, trainer = watch(make_trainer, data(), max_steps=stop)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    second, _ = watch(make_trainer, data(), tmp_path / "stopped.ckpt", max_steps=13)
    assert first + second == whole


def test_resumed_from_a_checkpoint_of_an_epoch_or_a_step(make_trainer, folder, tmp_path):
    def data():
        return ImageDataModule(str(folder), batch_size=4, val_fraction=0.15)

    for name, when in {"epoch": {"every_n_epochs": 1}, "step": {"every_n_train_steps": 3}}.items():
        keep = ModelCheckpoint(tmp_path / name, "{step}", save_top_k=-1, **when)
        whole, _ = watch(make_trainer, data(), max_epochs=3, enable_checkpointing=True, callbacks=[keep])
        assert len(whole) == 15
        for file in (tmp_path / name).glob("*.ckpt"):
            step = int(file.stem.partition("=")[2])
            resumed, _ = watch(make_trainer, data(), file, max_epochs=3)
            assert resumed == whole[step:], file.name
