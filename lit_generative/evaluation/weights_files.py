"""Published files of weights: where they are looked for, how they are known, and how they are fetched."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch

from lit_generative.files import file_digest, make_folder

__all__ = ["CLIP", "DINOV2", "INCEPTION", "PublishedWeights", "download"]


@dataclass(frozen=True)
class PublishedWeights:
    """A file on its publisher's server.

    Attributes:
        names: What the file is called in torch hub's cache; the first is what it is called there when fetched.
        url: Where it is fetched from.
        sha256: The first digits, or all 64, of its SHA-256, hexadecimal; "" if its publisher gives none.
    """

    names: tuple[str, ...]
    url: str
    sha256: str

    @property
    def places(self) -> list[Path]:
        """Where it is looked for."""
        return [Path(torch.hub.get_dir()) / "checkpoints" / name for name in self.names]

    def find(self, extractor: str, path: str = "") -> Path:
        """Return where the file is.

        Args:
            extractor: Whose weights they are, for messages.
            path: The place that the user gave; "": the cache.

        Raises:
            FileNotFoundError: If there is no file; the message says what would do.
        """
        candidates = [Path(path)] if path else self.places
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        fetch = (
            f"let `lit-generative evaluate … --extractor {extractor} --download` fetch it, or " if self.sha256 else ""
        )
        raise FileNotFoundError(
            f"extractor {extractor} needs its weights, and {candidates[0]} does not exist. Put the file of {self.url} "
            f"there, {fetch}name its place with extractor={extractor}:FILE, or take the extractor imagenet or random, "
            "or one of your own by `lit-generative extractor`; nothing is downloaded unless you ask for it"
        )

    def check(self, path: Path) -> None:
        """Refuse a file that is not the published one.

        Raises:
            ValueError: If its SHA-256 is another one.
        """
        found = file_digest(path)
        if not found.startswith(self.sha256):
            raise ValueError(f"{path} is not the file of {self.url}: its SHA-256 is {found}, not {self.sha256}")


INCEPTION = PublishedWeights(
    # torch-fidelity's and pytorch-fid's names for the same file
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
)


def _clip(name: str, file: str, sha256: str) -> PublishedWeights:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}.pt"
    return PublishedWeights((f"clip-{name}-{sha256}.pt", f"{file}.pt"), url, sha256)


CLIP = {  # by torch-fidelity's names, without their "clip-"
    "vit-l-14-336px": _clip(
        "vit-l-14-336px", "ViT-L-14-336px", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
    "vit-l-14": _clip("vit-l-14", "ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "vit-b-16": _clip("vit-b-16", "ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "vit-b-32": _clip("vit-b-32", "ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
}


def _dinov2(letter: str) -> PublishedWeights:
    name = f"dinov2_vit{letter}14"
    url = f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"
    return PublishedWeights((f"{name}_pretrain.pth",), url, "")


DINOV2 = {f"vit-{letter}-14": _dinov2(letter) for letter in "lbsg"}


def download(extractor: str, weights: PublishedWeights) -> Path:
    """Fetch a file of weights into torch hub's cache, unless it is there; one that is not the published one is dropped.

    Raises:
        OSError: If it cannot be fetched or written.
        ValueError: If its publisher gives no hash to check it by, or the hash of what came is another one.
    """
    for path in weights.places:
        if path.is_file():
            weights.check(path)
            return path
    if not weights.sha256:
        raise ValueError(
            f"download: the publisher of extractor {extractor} gives no hash to check {weights.url} by; fetch the file "
            f"yourself, and put it at {weights.places[0]}"
        )
    target = weights.places[0]
    make_folder(target.parent, "download")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        path = Path(folder) / target.name
        try:
            torch.hub.download_url_to_file(weights.url, str(path))
        except (URLError, OSError) as error:
            raise OSError(f"download: {weights.url} cannot be fetched: {error}") from None
        weights.check(path)
        os.replace(path, target)
    return target
