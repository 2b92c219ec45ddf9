import pytest
from stand_ins import CountingData, NoisyCopies, images_and_labels


@pytest.fixture(scope="session")
def data():
    return CountingData(subset=600)


@pytest.fixture(scope="session")
def train_images(data):
    return images_and_labels(data, "train", 600)


@pytest.fixture(scope="session")
def real_images(data):
    return images_and_labels(data, "test", 500)


@pytest.fixture
def model(train_images):
    return NoisyCopies(*train_images)
