"""What the site of MkDocs has beside the pages of this folder, and the order of its pages.

The README is its first page; CONTRIBUTING, CHANGELOG and LICENSE are there, too, since pages link
to them. The page of configuration keys is generated.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from querypose.tools.config_keys import reference

_REPOSITORY = Path(__file__).parent.parent
_PAGES_OF_REPOSITORY = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
}
# A class of a file, which the page shows: `<!-- source: tests/file.py Class -->`.
_SOURCE = re.compile(r"<!-- source: (\S+) (\w+) -->")
# Pages that are not named here follow in alphabetical order.
_FIRST = (
    "index.md",
    "demo.md",
    "training.md",
    "little_data.md",
    "skeletons.md",
    "data.md",
    "models.md",
    "cost.md",
    "own_trainer.md",
    "extending.md",
    "configuration.md",
)
_LAST = ("contributing.md", "changelog.md", "licenses.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from elsewhere, and puts all in order."""
    for source, name in _PAGES_OF_REPOSITORY.items():
        text = (_REPOSITORY / source).read_text()
        files.append(File.generated(config, name, content=_as_in_this_folder(text)))
    files.append(File.generated(config, "configuration.md", content=reference()))
    names = [file.src_uri for file in files.documentation_pages()]
    others = sorted({*names} - {*_FIRST, *_LAST})
    config.nav = [name for name in (*_FIRST, *others, *_LAST) if name in names]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Inserts sources, and points links to files of the first folder to their pages."""
    markdown = _SOURCE.sub(_class_of, markdown)
    for source, name in _PAGES_OF_REPOSITORY.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}")
    return markdown


def _class_of(match: re.Match[str]) -> str:
    """The source of a class as a block of code."""
    text = (_REPOSITORY / match[1]).read_text()
    (node,) = (node for node in ast.parse(text).body if getattr(node, "name", "") == match[2])
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return "\n".join(["```python", *lines, "```"])


def _as_in_this_folder(text: str) -> str:
    """Text of the repository's first folder, with the links that it has from here."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, name in _PAGES_OF_REPOSITORY.items():
        text = text.replace(f"]({source}", f"]({name}")
    return text
