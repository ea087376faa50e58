"""The site of docs/ as `make docs` builds it: links, anchors and generated pages."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("mkdocs")

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort


def _build(repository, target, **changes):
    config = load_config(
        str(repository / "mkdocs.yml"), site_dir=str(target), strict=True, **changes
    )
    build(config)
    return config


def test_every_page_is_there_and_every_link_leads_somewhere(repository, tmp_path):
    config = _build(repository, tmp_path / "site")
    built = {page.parent.name for page in (tmp_path / "site").rglob("index.html")}
    pages = {page.stem for page in (repository / "docs").glob("*.md")}
    assert pages | {"contributing", "changelog", "configuration"} <= built
    assert len(config.nav) == len({*config.nav}) == len(pages) + 4
    keys = (tmp_path / "site" / "configuration" / "index.html").read_text()
    assert "MODEL.QUERYPOSE.NUM_QUERIES" in keys
    # A class of the tests is shown whole.
    extending = (tmp_path / "site" / "extending" / "index.html").read_text()
    assert "OnePerson" in extending
    assert "fix_num_people" in extending.partition("OnePerson")[2]
    # The first page is the README, with links to pages in place of files.
    first = (tmp_path / "site" / "index.html").read_text()
    assert 'href="models/"' in first
    assert 'href="docs/' not in first


@pytest.mark.parametrize("link", ["missing.md", "data.md#no-such-heading", "../README.md#nothing"])
def test_a_link_that_leads_nowhere_is_an_error(link, repository, tmp_path):
    pages = shutil.copytree(repository / "docs", tmp_path / "docs")
    with (pages / "data.md").open("a") as page:
        page.write(f"\n[a link]({link})\n")
    with pytest.raises(Abort, match="strict mode"):
        _build(repository, tmp_path / "site", docs_dir=str(pages))
