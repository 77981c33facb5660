"""The zip of a report: whole, the same bytes every time, with links that work where it is unpacked."""

from __future__ import annotations

import os
import re
import zipfile

from studykit.report import bundle


def report(folder):
    folder.mkdir(parents=True)
    (folder / "index.html").write_text('<a href="01-data.html">data</a><a href="#top">top</a>')
    (folder / "01-data.html").write_text('<a href="index.html">all</a><a href="01-data.ipynb">notebook</a>')
    (folder / "01-data.ipynb").write_text("{}")
    (folder / "01-data.html.part").write_text("torn")
    return folder


def test_links_work_where_it_is_unpacked(tmp_path):
    packed = bundle.pack(report(tmp_path / "reports/small"))
    assert packed == tmp_path / "reports/small.zip"
    zipfile.ZipFile(packed).extractall(tmp_path / "elsewhere")
    files = sorted(f.name for f in (tmp_path / "elsewhere/small").iterdir())
    assert files == ["01-data.html", "01-data.ipynb", "index.html"]
    for page in (tmp_path / "elsewhere/small").glob("*.html"):
        for link in re.findall(r'href="([^"#]+)"', page.read_text()):
            assert (page.parent / link).is_file(), link


def test_the_same_report_makes_the_same_bytes(tmp_path):
    one, other = report(tmp_path / "a/small"), report(tmp_path / "b/small")
    os.utime(other / "index.html", (0, 0))
    os.chmod(other / "01-data.ipynb", 0o600)
    assert bundle.pack(one).read_bytes() == bundle.pack(other).read_bytes() == bundle.pack(one).read_bytes()
