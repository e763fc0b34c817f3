"""Hooks of mkdocs and griffe.

Links in the pages hold on the site as they do in the repository.

Files outside docs/ that a page links to (SECURITY.md, LICENSE, an example) become part of the site,
under their path in the repository; README.md stands for the site's own first page.

Docstrings may title an example `Example:`; griffe knows the section as `Examples:`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: The target of a relative link, without its anchor.
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)#\s]+)")
#: Fenced blocks, in which nothing is a link.
_FENCE = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files outside docs/ that pages link to, and those that these link to."""
    pages = [file for file in files if file.is_documentation_page()]
    while pages:
        page = pages.pop()
        text = _FENCE.sub("", page.content_string)
        for link in _LINK.findall(text):
            path = _in_repository(link, page)
            target = _on_site(path)
            if target == path and target not in files.src_uris and (ROOT / path).is_file():
                added = File.generated(config, path, abs_src_path=str(ROOT / path))
                files.append(added)
                if added.is_documentation_page():
                    pages.append(added)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between files of the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def turn(link: re.Match[str]) -> str:
        path = _in_repository(link[1], page.file)
        return posixpath.relpath(_on_site(path), folder or ".")

    return _LINK.sub(turn, markdown)


def _in_repository(link: str, page: File) -> str:
    """The path in the repository that a link on a page names."""
    outside = page.generated_by is not None
    here = page.src_uri if outside else f"docs/{page.src_uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), link))


def _on_site(path: str) -> str:
    """The site's path of a file of the repository."""
    if path == "README.md":
        return "index.md"
    if path == "docs":
        return "index.md"
    return path.removeprefix("docs/")


class ExampleSections(griffe.Extension):
    """Reads `Example:` in a docstring as a section with code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
