"""The report: its numbers, a page without other files, names that contain code, and incomplete studies."""

from __future__ import annotations

import copy
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from urllib.parse import unquote

import pytest
from fabricated_study import CLASSES, fabricate, write_images
from PIL import Image

from sn2fpn.data import DatasetCatalog, MetadataCatalog, class_names, register_custom
from sn2fpn.study.report.writing import write_report

_T_2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom


class _Page(HTMLParser):
    """A parsed page: its elements, the texts of its table rows, and its whole text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data.strip()

    @property
    def plots(self) -> int:
        return sum(attributes.get("class") == "plot" for _, attributes in self.elements)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("page") / "pair", {"fpn": 0.25, "sni": 0.02})


@pytest.fixture(scope="module")
def page(study: Path) -> _Page:
    return _Page(write_report(study).read_text(encoding="utf-8"))


def _aps(study: Path, variant: str) -> list[float]:
    results = [json.loads((study / "cells" / variant / f"seed{s}" / "result.json").read_text()) for s in (1, 2, 3)]
    return [next(iter(r["results"].values()))["bbox"]["AP"] for r in results]


def test_means_intervals_and_differences(study: Path, page: _Page) -> None:
    fpn, sni = _aps(study, "fpn"), _aps(study, "sni")
    for name, values in (("fpn", fpn), ("sni", sni)):
        text = f"{mean(values):.1f} ± {_T_2 * stdev(values) / math.sqrt(3):.1f}"
        assert any(row[:3] == [name, "3", text] for row in page.rows), text
        assert f"| {name} | 3 | " in (study / "report" / "report.md").read_text(encoding="utf-8")
    differences = [a - b for a, b in zip(sni, fpn)]
    half = _T_2 * stdev(differences) / math.sqrt(3)
    ends = mean(differences) - half, mean(differences) + half
    digits = 2 if min(map(abs, ends)) < 0.05 else 1
    low, high = (f"{v:.{digits}f}".replace("-", "−") for v in ends)
    assert f"sni has {mean(differences):.2f} points of AP more than fpn, which " in page.text
    warning = "The times are not reliable, because other processes used 1.5 of 4 cores while they were measured."
    assert (
        page.text.index(warning) < page.text.index("AP against parameters") < page.text.index("Parameters and GFLOPs")
    )
    assert "Points of AP50 lost by kind of error" in page.text and page.plots >= 8
    missed = next(i for i, title in enumerate(next(row for row in page.rows if "missed" in row)) if title == "missed")
    lost = next(row for row in page.rows if row[0] == "sni" and len(row) == missed + 3 and "(" in row[missed])
    assert re.fullmatch(r"\d+\.\d \([+−]?\d+\.\d\)", lost[missed])
    assert f"The 95 % interval is {low} … {high} over 3 seeds and " in page.text
    assert "over resampled test images." in page.text


def test_the_page_stands_alone(study: Path, page: _Page) -> None:
    html = (study / "report" / "report.html").read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {key}={value}>"
        assert not [key for key in attributes if key.startswith("on")], tag
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/)", html)
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for tag, a in page.elements if tag == "a"}
    assert targets and {t[1:] for t in targets} <= set(ids)
    assert page.plots >= 6 and page.count("img") == 4 * 3 + 2 * 2  # samples with the truth and two variants, contrasts
    for tag, attributes in page.elements:
        assert tag != "img" or attributes["alt"]
    assert page.count("script") == 1 and "aria-sort" in html  # the page's own script sorts tables


def test_files_of_the_report(study: Path, page: _Page) -> None:
    text = (study / "report" / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 7 and all((study / "report" / link).is_file() for link in links)
    again = (study / "report" / "report.html").read_bytes()
    assert write_report(study).read_bytes() == again  # the same data give the same page


@pytest.mark.usefixtures("plain_charts")
@pytest.mark.parametrize("output", [None, "some/where", "."])
def test_drawings_of_features_are_found_from_the_reports_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    folder = fabricate(tmp_path / "drawn", {"fpn": 0.2}, seeds=(1,))
    (folder / "features").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "features/a street.png")
    monkeypatch.chdir(tmp_path)
    report = write_report("drawn", output).parent
    links = re.findall(r"\]\(([^)]+)\)", (report / "report.md").read_text(encoding="utf-8"))
    assert sum(link.endswith("features/a%20street.png") for link in links) == 1
    assert all((report / unquote(link)).is_file() for link in links)


def test_a_headline_with_the_name_of_a_class_may_have_any_characters(tmp_path: Path) -> None:
    name = r"""\d"><i>'"""
    folder = fabricate(tmp_path / "class", {"fpn": 0.1, "sni": 0.2}, seeds=(1,), metrics=[f"bbox/AP-{name}"])
    for path in folder.glob("cells/*/*/result.json"):
        path.write_text(path.read_text().replace(f"AP-{CLASSES[0]}", f"AP-{json.dumps(name)[1:-1]}"))
    page = _Page(write_report(folder, pictures=False).read_text(encoding="utf-8"))
    assert f"AP-{name} against parameters" in page.text and page.count("i") == 0
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert all(re.fullmatch(r"[\w.-]+", found) for found in ids) and len(ids) == len(set(ids))
    assert {attributes["for"] for tag, attributes in page.elements if tag == "label"} <= set(ids)


def test_names_cannot_harm(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'|`$x_1$"
    folder = fabricate(tmp_path / "evil", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2))
    for path in folder.glob("cells/*/*/*.json"):
        if path.name in ("cell.json", "result.json"):
            text = path.read_text().replace(f"AP-{CLASSES[0]}", f"AP-{json.dumps(evil)[1:-1]}")
            path.write_text(text.replace('"bench"', json.dumps(evil)))
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.count("script") == 1 and any(row[:1] == [evil] for row in page.rows)
    assert "<script" not in (folder / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("plain_charts")
def test_a_single_cell(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "single", {"fpn": 0.1, "sni": 0.1}, seeds=(7,), without=["sni/seed7"])
    for name in ("costs.json", "speed.json"):
        (folder / name).unlink()
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "sni/seed7: waiting — never started" in re.sub(r"\s+", " ", page.text)
    assert "there is nothing to compare yet" in page.text and "no intervals" in page.text
    assert any(row[:2] == ["sni", "0 of 1"] and set(row[2:]) == {"–"} for row in page.rows)
    assert "Accuracy against cost" not in page.text


@pytest.mark.usefixtures("plain_charts")
def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "oneseed", {"fpn": 0.3, "sni": 0.01}, seeds=(1,))
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "one seed does not show how much AP varies from training to training" in page.text
    assert page.count("strong") == 0 and "±" not in " ".join(map(" ".join, page.rows))


@pytest.mark.usefixtures("plain_charts")
def test_no_cell_and_missing_data(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "none", {"fpn": 0.1}, seeds=(1,), without=["fpn/seed1"])
    assert "No cell has finished yet" in _Page(write_report(folder).read_text(encoding="utf-8")).text
    folder = fabricate(tmp_path / "nodata", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2))
    (folder / "cells" / "sni" / "seed1" / "inference").rename(folder / "gone")
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "There are no pictures" in page.text and "coco_instances_results.json" in page.text
    assert "Test images could not be resampled where" in page.text and "over resampled" not in page.text


@pytest.mark.usefixtures("plain_charts")
def test_predictions_of_a_later_seed_may_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fabricate(tmp_path / "gap", {"fpn": 0.25, "sni": 0.02}, seeds=(1, 2))
    (missing,) = folder.glob("cells/sni/seed2/inference/*/coco_instances_results.json")
    missing.unlink()
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "Sample predictions" in page.text and "Where two variants differ most" not in page.text
    assert f"no pictures of where sni and fpn differ most: {missing}: file of predictions does not exist" in caplog.text


@pytest.mark.usefixtures("plain_charts")
def test_masks_and_voc(tmp_path: Path) -> None:
    folder = fabricate(
        tmp_path / "masks", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2), masks=True, metrics=["segm/AP", "bbox/AP"]
    )
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert any(row[:4] == ["variant", "seeds", "mask AP", "box AP"] for row in page.rows)
    folder = fabricate(
        tmp_path / "voc", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2), voc=True, metrics=["bbox/AP50", "bbox/AP", "bbox/APs"]
    )
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert any(row[:4] == ["variant", "seeds", "AP50", "AP"] for row in page.rows)
    assert "The results do not have these metrics: APs." in page.text and "Object sizes" not in page.text


@pytest.mark.usefixtures("plain_charts")
@pytest.mark.parametrize("masks", [False, True])
def test_masks_of_a_function_may_have_any_form(tmp_path: Path, masks: bool) -> None:
    """A set that a Python function returns may have flat polygons and uncompressed run lengths, and need no areas."""
    entry = write_images(tmp_path / "images")
    register_custom([entry])
    records = copy.deepcopy(DatasetCatalog.get(entry["NAME"]))
    for record in records:
        for annotation in record["annotations"]:
            annotation.pop("area", None)
            annotation["segmentation"] = annotation["segmentation"][0]
        runs = {"size": [60, 80], "counts": [130, 20, 40, 20, 4590]}
        record["annotations"][0] |= {"segmentation": runs, "bbox": [2, 10, 2, 20]}
    DatasetCatalog.register(f"function {masks}", lambda: records)
    MetadataCatalog.get(f"function {masks}").set(thing_classes=class_names(entry["NAME"]))
    folder = fabricate(
        tmp_path / "any", {"fpn": 0.1, "sni": 0.1}, seeds=(1, 2), masks=masks, test_set=f"function {masks}"
    )
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "Object sizes" in page.text and (folder / "report/figures/samples.jpg").is_file()


@pytest.mark.usefixtures("plain_charts")
def test_a_report_without_pictures_removes_those_of_the_one_before(tmp_path: Path) -> None:
    """Photographs may have licences that do not let a report be passed on."""
    folder = fabricate(tmp_path / "licensed", {"fpn": 0.25, "sni": 0.02}, seeds=(1, 2))
    write_report(folder)
    assert {file.name for file in folder.glob("report/figures/*.jpg")} == {"samples.jpg", "sni_and_fpn.jpg"}
    (own := folder / "report/figures/cats_and_dogs.jpg").write_text("of the user")
    write_report(folder, pictures=False)
    assert list((folder / "report").rglob("*.jpg")) == [own]


@pytest.mark.usefixtures("plain_charts")
def test_the_report_on_somebody_elses_study_runs_none_of_their_code(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "theirs", {"fpn": 0.25, "sni": 0.02})
    mark = tmp_path / "executed"
    (folder / "theirs.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    (folder / "theirs.py").chmod(0o666)
    with (folder / "study.yaml").open("a") as file:
        file.write("IMPORTS: [theirs.py]\n")
    page = _Page(write_report(folder).read_text(encoding="utf-8"))
    assert "IMPORTS would run" in page.text and "--trust" in page.text and not mark.exists()
    assert "IMPORTS would run" not in _Page(write_report(folder, trust=True).read_text(encoding="utf-8")).text
    assert mark.exists()
