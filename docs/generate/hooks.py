"""What MkDocs calls while it builds the site: pages made from the code, links that leave docs/, two languages.

Names of events and their arguments are MkDocs's: https://www.mkdocs.org/user-guide/plugins/#events
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import api
import tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
#: Pages of the site that stand elsewhere in the repository.
FROM_OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "cluster/README.md": "cluster-files.md",
}
API = "reference/python"
CHINESE = "zh/"
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
BREAK = re.compile(
    r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u9fff\uff00-\uffef])"
)  # a browser makes it a space
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with a page for each package."""
    pages: list[Any] = [f"{API}/index.md", *({package: f"{API}/{package}.md"} for package in api.packages())]
    reference = next(section["Reference"] for section in config.nav or [] if "Reference" in section)
    next(entry for entry in reference if isinstance(entry, dict) and "Python API" in entry)["Python API"] = (
        pages
    )
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/, those that stand elsewhere, and the Python API."""
    for source, page in FROM_OUTSIDE.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, f"{API}/index.md", content=api.index()))
    for package in api.packages():
        files.append(File.generated(config, f"{API}/{package}.md", content=api.page(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with tables from the code, and with links to files outside of docs/ led into the site."""
    name = page.file.src_uri
    if name.startswith(CHINESE):
        markdown = outside_fences(markdown, lambda text: BREAK.sub("", text))
    if name.startswith("reference/") and not name.startswith(API):
        markdown = tables.filled(name, markdown)
    return outside_fences(markdown, lambda text: LINK.sub(lambda link: _inside(name, link), text))


def outside_fences(markdown: str, change: Any) -> str:
    """The text with `change` made to all that stands in no fenced block."""
    parts, end = [], 0
    for fence in FENCES.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _inside(page: str, link: re.Match[str]) -> str:
    """The link as the site needs it: a file without a page becomes its name."""
    text, target, anchor = link.groups(default="")
    if not target or "://" in target or target.startswith("mailto:"):
        return link[0]
    source = next((source for source, name in FROM_OUTSIDE.items() if name == page), f"docs/{page}")
    file = normpath(PurePosixPath(source).parent / target)
    if file.startswith("docs/"):
        there = file.removeprefix("docs/")
    elif file in FROM_OUTSIDE:
        there = FROM_OUTSIDE[file]
    elif (REPOSITORY / file).exists():
        return text if text.startswith("`") else f"{text} (`{file}`)"
    else:
        return link[0]  # MkDocs says that it leads nowhere
    return f"[{text}]({relpath(there, PurePosixPath(page).parent)}{anchor})"


def on_page_context(
    context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation
) -> dict[str, Any]:
    """The words of the theme, the navigation and the other language's page, by the language of the page."""
    chinese = page.file.src_uri.startswith(CHINESE)
    config.theme["language"] = "zh" if chinese else "en"
    twin = page.file.src_uri.removeprefix(CHINESE) if chinese else CHINESE + page.file.src_uri
    pages = {p.file.src_uri: p for p in nav.pages}
    other = pages.get(twin) or pages["index.md" if chinese else f"{CHINESE}index.md"]
    english, foreign = (other, page) if chinese else (page, other)
    config.extra["alternate"] = [
        {"name": "English", "link": english.url, "lang": "en"},
        {"name": "简体中文", "link": foreign.url, "lang": "zh"},
    ]
    for side in ("previous_page", "next_page"):
        neighbour = getattr(page, side)
        if neighbour and neighbour.file.src_uri.startswith(CHINESE) != chinese:
            setattr(page, side, None)
    context["nav"] = _of_language(nav, chinese)
    return context


def _of_language(nav: Navigation, chinese: bool) -> Navigation:
    section = next(item for item in nav.items if isinstance(item, Section) and item.title == "中文")
    items = section.children if chinese else [item for item in nav.items if item is not section]
    part = Navigation(list(items), nav.pages)
    if chinese:
        part.homepage = next(p for p in nav.pages if p.file.src_uri == f"{CHINESE}index.md")
    return part
