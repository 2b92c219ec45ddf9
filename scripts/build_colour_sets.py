"""Build folders of colour pictures for development from packages with clear licences; nothing of it ships.

Usage: python scripts/build_colour_sets.py FOLDER [--packages FOLDER_OF_DOWNLOADED_PACKAGES]

- ``emoji-32``, ``emoji-64``: the npm package emoji-datasource-twitter, whose drawings (Twemoji) are under CC BY 4.0:
  each of the about 1,870 distinct ones once, without variants of the skin's colour, on white, in a folder for each
  category.
- ``photographs-32``, ``photographs-64``: tiles of photographs in the PyPI package scikit-image, which are in the public
  domain or under CC0 (its ``skimage/data/_fetchers.py`` says of each who made it), in a folder for each photograph.

Each set comes as ``all`` and in two parts: ``tune``, to choose settings on, and ``report``, to report numbers of. The
part is decided by the SHA-256 of a picture's name, of which the even ones are in ``tune``: the same at every size.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

EMOJI = "emoji-datasource-twitter@16.0.0"
PHOTOGRAPHS = "scikit-image==0.26.0"
FREE = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
MOST_TILES = 300  # of one photograph
SIZES = (32, 64)

Named = tuple[str, str, Image.Image]  # class, name, picture


def emoji(package: Path) -> Iterator[Named]:
    """Yield the distinct drawings, 64 x 64, on white."""
    seen = set()
    with tarfile.open(package) as archive:
        files = {member.name: member for member in archive if member.isfile()}

        def read(name: str) -> bytes:
            return archive.extractfile(files[name]).read()  # type: ignore[union-attr]

        for entry in sorted(json.loads(read("package/emoji.json")), key=lambda entry: entry["unified"]):
            name = f"package/img/twitter/64/{entry['image']}"
            if not entry["has_img_twitter"] or name not in files:
                continue
            drawing = Image.open(io.BytesIO(read(name))).convert("RGBA")
            drawing = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
            if (pixels := drawing.tobytes()) not in seen:
                seen.add(pixels)
                kind = entry["category"].lower().replace(" & ", "-").replace(" ", "-")
                yield kind, Path(entry["image"]).stem, drawing


def tiles(package: Path, size: int) -> Iterator[Named]:
    """Yield tiles of the photographs that do not overlap, evenly taken where there are more than ``MOST_TILES``."""
    with zipfile.ZipFile(package) as archive:
        for name in FREE:
            picture = Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
            width, height = picture.size
            corners = [(x, y) for y in range(0, height - size + 1, size) for x in range(0, width - size + 1, size)]
            for i in range(min(MOST_TILES, len(corners))):
                x, y = corners[i * len(corners) // min(MOST_TILES, len(corners))]
                yield Path(name).stem, f"{Path(name).stem}-{x:04d}-{y:04d}", picture.crop((x, y, x + size, y + size))


def write(pictures: Iterator[Named], folder: Path, size: int) -> None:
    """Write a set: everything, and its two parts."""
    count = 0
    for kind, name, picture in pictures:
        part = "report" if hashlib.sha256(name.encode()).digest()[0] % 2 else "tune"
        picture = picture.resize((size, size), Image.Resampling.LANCZOS) if picture.size != (size, size) else picture
        for parent in (folder / "all" / kind, folder / part / kind):
            parent.mkdir(parents=True, exist_ok=True)
            picture.save(parent / f"{name}.png")
        count += 1
    print(f"{folder}: {count:,} pictures")


def download(folder: Path) -> None:
    """Fetch the two packages by their names, unless they are there."""
    if not list(folder.glob("emoji-datasource-twitter-*.tgz")):
        subprocess.run(["npm", "pack", "--silent", EMOJI], cwd=folder, check=True)
    if not list(folder.glob("scikit_image-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", PHOTOGRAPHS]
        subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the sets go")
    parser.add_argument("--packages", type=Path, help="where the packages are, or are downloaded to; FOLDER/packages")
    given = parser.parse_args()
    packages = given.packages or given.folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    download(packages)
    (drawings,) = packages.glob("emoji-datasource-twitter-*.tgz")
    (photographs,) = packages.glob("scikit_image-*.whl")
    for size in SIZES:
        write(emoji(drawings), given.folder / f"emoji-{size}", size)
        write(tiles(photographs, size), given.folder / f"photographs-{size}", size)


if __name__ == "__main__":
    main()
