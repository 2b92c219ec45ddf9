"""What the tests of the evaluation need instead of a trained model."""

import torch
from torch import nn

from lit_generative.core import GenerativeModule
from lit_generative.data import ImageDataModule
from lit_generative.sampling import sampling_mode


class CountingData(ImageDataModule):
    """The embedded Fashion-MNIST, noting which splits are read."""

    def loader(self, split, **options):
        vars(self).setdefault("loads", []).append(split)
        return super().loader(split, **options)


def images_and_labels(data, split, count):
    batches = list(data.loader(split, limit=count))
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


class NoisyCopies(GenerativeModule):
    """A model that samples noisy copies of given images, so that it can be made as good or as bad as a test needs."""

    sampler_name = "copies"

    def __init__(self, images, labels, noise=0.1, num_classes=None):
        super().__init__(num_classes=num_classes)
        self.register_buffer("images", images)
        self.register_buffer("labels", labels)
        self.noise = noise
        self.batch_norm = nn.BatchNorm2d(1)
        self.drawn = []

    @sampling_mode
    def sample(self, n, y=None, *, generator=None):
        self.drawn.append(y)
        index = torch.randint(len(self.images), (n,), generator=generator, device=self.device)
        noise = torch.randn(n, *self.images.shape[1:], generator=generator, device=self.device)
        return self.images[index] + self.noise * noise
