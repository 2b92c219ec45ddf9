"""Train a feature extractor of one's own on any labelled data; the embedded one was made by this function, too."""

import json
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import update_bn
from torchmetrics.classification import MulticlassAccuracy

from lit_generative.callbacks.progress import ImagesProgressBar
from lit_generative.checks import check_range
from lit_generative.data import ImageDataModule
from lit_generative.description import describe
from lit_generative.devices import device_named
from lit_generative.files import make_folder, replacing
from lit_generative.nn.classifier import Classifier

__all__ = ["train_extractor"]


class _Training(L.LightningModule):
    """Cross-entropy on images with light noise and blur, so that features react smoothly to both."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.images_seen = 0  # what the progress bar counts

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = _degrade(batch["image"]).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(self.network(x), batch["label"], label_smoothing=0.05)
        self.images_seen += len(x)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=0.02)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _degrade(x: Tensor) -> Tensor:
    """Blur half of the images (3x3, of random strength), then add noise of standard deviation 0 to 0.2 to each."""
    per_image = (len(x), 1, 1, 1)
    strength = (torch.rand(per_image, device=x.device) * 2 - 1).clamp(min=0)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)
    noise = torch.randn_like(x) * torch.rand(per_image, device=x.device) * 0.2
    return x.lerp(blurred, strength) + noise


def train_extractor(
    data: ImageDataModule,
    output: str,
    epochs: int = 10,
    seed: int = 0,
    class_names: list[str] | None = None,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    device: str = "auto",
) -> dict[str, Any]:
    """Train a small classifier whose features then measure generated images (``extractor: OUTPUT``).

    Args:
        data: Labelled images to train on, with its batch size; its test split gives the accuracy.
        output: File to write, ``.safetensors``. All that is needed to load it is in the file.
        epochs: Passes over the training images.
        seed: Seed of everything random.
        class_names: What to call the classes in reports, where the data has no names or other ones.
        precision: Number format to train in; ``bf16-mixed`` is faster where the hardware has it.
        device: Where to train, for instance cpu or cuda:1; auto: the GPU if there is one.

    Returns:
        What the file says of itself: ``accuracy`` (share of test images, 0 to 1), ``class_names``, ``data``, ``seed``.

    Raises:
        ValueError: If the data has no labels, if there are not as many ``class_names``, if ``epochs`` is below 1, or if
            ``output`` is there already, cannot be written or does not end in ``.safetensors``.
    """
    if not data.num_classes:
        raise ValueError(f"data {data.name!r} has no labels; an extractor is trained to tell classes apart")
    if Path(output).suffix != ".safetensors":
        raise ValueError(f"output is {output!r}; the name must end in .safetensors")
    if class_names is not None and len(class_names) != data.num_classes:
        raise ValueError(f"class_names has {len(class_names)} names, but the data has {data.num_classes} classes")
    check_range("epochs", epochs, at_least=1)
    if Path(output).exists():
        raise ValueError(f"output={output} is there already; give another one, nothing is overwritten")
    make_folder(Path(output).parent, "output")
    L.seed_everything(seed, verbose=False)
    on = device_named(device)
    training = _Training(Classifier(data.image_shape, data.num_classes))
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator=on.type,
        devices=[on.index or 0] if on.type == "cuda" else 1,
        precision=precision,
        callbacks=[ImagesProgressBar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(training, data.train_dataloader())
    network = training.network.to(memory_format=torch.contiguous_format)
    # Statistics of the clean images, in mixed batches, so that their features have mean 0 and standard deviation 1
    update_bn((batch["image"] for batch in data.train_dataloader()), network)
    about = {
        "accuracy": _accuracy(network.eval(), data),
        "class_names": class_names or data.class_names,
        "data": data.protocol("train"),
        "epochs": epochs,
        "seed": seed,
        "precision": precision,
        "torch": torch.__version__,
    }
    metadata = {key: json.dumps(value) for key, value in ({"network": describe(network)} | about).items()}
    try:
        with replacing(Path(output)) as scratch:
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, scratch, metadata)
    except SafetensorError as error:
        raise OSError(f"output={output} cannot be written: {error}") from None
    print(f"{output}: {about['accuracy']:.2%} of the test images are classified correctly")
    return about


@torch.no_grad()
def _accuracy(network: Classifier, data: ImageDataModule) -> float:
    accuracy = MulticlassAccuracy(network.head.out_features, average="micro")
    for batch in data.loader("test", batch_size=1000):
        accuracy.update(network(batch["image"]), batch["label"])
    return round(accuracy.compute().item(), 4)
