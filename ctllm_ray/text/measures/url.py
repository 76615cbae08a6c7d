"""Measures of a document's URL: its category in a blocklist, and the HTTP status of the response.

CT-LLM's filter compares the page's url with the `urls` files of every UT1 folder, the white list included,
and drops records without a url (docs/reference/ct-llm.md). Here domains are read as well as urls, the recipe names
the categories, white lists win, and a document without url is in no category.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctllm_ray.text.blocklist import load


def blocklist(
    url: str,
    *,
    folder: str,
    categories: Sequence[str],
    allow: Sequence[str] = ("liste_blanche",),
    allow_urls: Sequence[str] = (),
) -> str:
    """The blocklist category of the URL: the first of `categories` that holds it; "" if none does.

    `folder` holds one folder per category. Whatever a category of `allow` holds, and every domain or url of
    `allow_urls`, is in no category. Raises `RecipeError` for a category that the folder lacks.
    """
    return load(folder, tuple(categories), tuple(allow), tuple(allow_urls)).category(url)


def http_status(http_status: float) -> float:
    """The HTTP status of the page's response, such as 200. Only archives know it; other documents have none."""
    return http_status
