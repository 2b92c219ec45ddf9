import base64
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from comparisons import STORED, comparison, full_run, run, write
from PIL import Image

from lit_generative.report.results import Comparison

VOID = {"meta", "img", "source"}
EVIL = "<script>alert('x')</script> & <b>x</b>"
NO_TORCH = """
import sys
from pathlib import Path

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, NoTorch())
from lit_generative.report.write import write_report
write_report(Path(sys.argv[1]))
"""


class Page(HTMLParser):
    """Checks that elements are nested as they should be, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data.replace("\u00a0", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    vae = [full_run("vae/fashion", 6.0 + i / 10, warnings=["Too few samples."], seed=i) for i in range(3)]
    gan = [full_run(EVIL, 2.0 + i / 10, family="GAN", likelihood={}, seed=i) for i in range(3)]
    found = comparison(*vae, *gan)
    found.pictures = {"samples": "pictures/real-samples.png"}
    write(found, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_stored_results_are_rendered_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    shutil.copytree(STORED, folder)
    subprocess.run([sys.executable, "-c", NO_TORCH, str(folder)], check=True)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "Comparison of vae/mlp, tiny-gan" in page.text
    assert [cell["scope"] for cell in page.all("th")].count("row") == 5 * 2 + 2  # real images are in two tables
    images = [str(a["src"]).partition(";")[0] for a in page.all("img")]
    assert images == ["data:image/svg+xml"] * 4 + ["data:image/png"] * 6
    for name in ("real-samples", "vae/mlp-0-nearest", "tiny-gan-0-samples"):
        stored = base64.b64encode((STORED / "pictures" / f"{name}.png").read_bytes()).decode()
        assert any(str(a["src"]).endswith(stored) for a in page.all("img"))
    assert "![Samples](plots/samples.png)" in (folder / "report.md").read_text(encoding="utf-8")


def test_the_report_needs_nothing_from_elsewhere(page: Page, folder: Path) -> None:
    sources = [a["src"] for a in page.all("img")] + [a["srcset"] for a in page.all("source")]
    assert all(source and source.startswith("data:image/") for source in sources)
    assert not page.all("script")
    assert not page.all("link")
    style = re.search(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_every_plot_and_picture_is_in_it(page: Page, folder: Path) -> None:
    images = [base64.b64decode(str(a["src"]).partition(",")[2]) for a in page.all("img")]
    for name in ("trilemma", "sampling_time", "training_time", "spectra"):
        assert (folder / "plots" / f"{name}.svg").read_bytes() in images
    grids = [Image.open(io.BytesIO(image)) for image in images if image.startswith(b"\x89PNG")]
    assert len(grids) == 3 + 2  # samples of two models and real ones; nearest images of the two
    assert all(a["alt"] for a in page.all("img"))
    plots = ("trilemma", "sampling_time", "training_time", "spectra", "samples", "nearest")
    names = {f"{name}.{kind}" for name in plots for kind in ("png", "svg")}
    assert {path.name for path in (folder / "plots").iterdir()} == names


def test_names_are_shown_as_they_are_and_never_run(page: Page, folder: Path) -> None:
    assert EVIL in page.text
    assert not {"script", "b"} & {tag for tag, _ in page.found}
    assert "<script" not in (folder / "report.html").read_text()
    assert "<script" not in (folder / "report.md").read_text().replace("\\<script", "")


def test_what_belongs_beside_the_numbers_is_there(page: Page) -> None:
    stamp = ("a machine with 2 cores", "2026-11-23", "compare a b", "image_size 28 × 28", "seed 0")
    words = ("vae/fashion: Too few samples.", "one-sided t tests", "real images (the floor)", "not defined")
    for text in (*stamp, *words):
        assert text in page.text, text


def test_the_best_number_and_no_other_is_bold(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall("<strong>(.*?)</strong>", text) == ["2.10 ± 0.10"]


def test_the_markdown_report_has_the_same_table_and_links_to_plots(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| vae/fashion | 3 seeds | 6.10 ± 0.10: 5.85 to 6.35 |" in text
    assert "**2.10 ± 0.10**: 1.85 to 2.35" in text
    links = re.findall(r"\]\((plots/[^)]*)\)", text)
    assert len(links) == 2 * 6
    assert all((folder / link).is_file() for link in links)
    assert "bound), bits/dim" in text


def test_the_numbers_are_there_as_data(folder: Path) -> None:
    found = Comparison.load(folder / "results.json")
    assert found.runs[0] == full_run("vae/fashion", 6.0, warnings=["Too few samples."], seed=0)
    assert found.floor == comparison().floor


def test_what_is_missing_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "spectra.png").touch()
    (tmp_path / "plots" / "samples.svg").touch()
    write(comparison(run("a", float("nan")), run("b", float("inf"))), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.all("img")
    for text in ("Quality against sampling time: left out", "Samples: left out", "Power spectra: left out"):
        assert text in page.text
        assert text in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "plots").iterdir())  # none of the earlier report's is left to mislead
    assert page.text.count("not finite") >= 2
    assert str(Comparison.load(tmp_path / "results.json")) == str(
        comparison(run("a", float("nan")), run("b", float("inf")))
    )


def test_a_comparison_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comparison has no runs; measure at least one model"):
        write(comparison(), tmp_path / "report")
    assert not (tmp_path / "report" / "report.html").exists()
