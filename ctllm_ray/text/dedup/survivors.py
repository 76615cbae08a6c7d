"""Chooses which duplicate survives: the first under an explicit order, never the one that was crawled first.

The order (`ORDER`): a complete page over a partial one, the script it was written in over a conversion, the
higher score, the page with less around its text (adverts, controls of a site, links, contacts, damaged characters),
the longer, the earlier crawl, the smallest id. An id is an address, so ties end there and the
choice is the same on every machine and in every partition. A missing value loses to any other.

From pairs to survivors there are two ways. `of_components` keeps one page of each component: the fewest pages
stay, and a page may go for one that it is not like, at the end of a chain of others. `of_neighbours` goes
through the pages in their order, and a page leaves only for one that stays and that it is directly like:
nothing is lost to chains, and the similarity in the ledger is always that of the page and its survivor. Where
all that a page is paired with has left, it is compared with those for which they left: in a crowd, two copies
of one page need not have met. All this needs the pairs of a component in one place.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba.extending import register_jitable

from ctllm_ray.text.kernels.compiled import compiled
from ctllm_ray.text.kernels.runs import starts_of

#: A column, and which of its values is preferred.
Preference = tuple[str, Literal["ascending", "descending"]]

#: Takes pairs of rows not compared yet (int64), returns which are duplicates (bool).
Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]

ORDER: tuple[Preference, ...] = (
    ("complete", "descending"),
    ("original_script", "descending"),
    ("score", "descending"),
    ("clutter", "ascending"),
    ("chars", "descending"),
    ("date", "ascending"),
    ("id", "ascending"),
)

#: A page ends with a mark that ends a sentence, perhaps inside quotes or brackets; else it was cut, or is a
#: list.
WHOLE = r"[。！？!?…；;｡.][”’」』）)》〉】\"'\]\s]*$"


#: What is no part of a text: calls of adverts, controls and notices of a site, links and contacts, damage.
CLUTTER = (
    r"关注[^。\n]{0,12}公众号|扫一扫|扫码|扫描二维码|长按识别|加群|进群|加微信|微信同号|点击[^。\n]{0,6}(?:链接|下载|领取|查看|阅读|进入)"
    r"|下载[^。\n]{0,4}(?:客户端|APP|app)|领取[^。\n]{0,4}(?:福利|红包|优惠)|优惠券|限时(?:抢购|优惠|特惠)|更多精彩"
    r"|上一篇|下一篇|责任编辑|版权所有|免责声明|ICP备|打印本页|关闭窗口|加入收藏|设为首页|返回首页|分享到|阅读全文"
    r"|您(?:现在|当前)?的?(?:当前)?位置|首页\s*[>＞»]|相关阅读|推荐阅读|猜你喜欢|Copyright|本文来自网友"
    r"|https?://|www\.|(?:QQ|qq|微信|电话|手机|热线)号?[：:]?\s?[A-Za-z0-9_-]{6,}|1[3-9]\d{9}"
    r"|\x{FFFD}|锟斤拷|烫烫烫|ï¿½"
)


def clutter(texts: pa.Array) -> pa.Array:
    """How often each text (a string array) holds something that is no part of it: int32."""
    return pc.count_substring_regex(texts, CLUTTER)


def ranks(table: pa.Table, order: tuple[Preference, ...] = ORDER) -> np.ndarray:
    """int64[rows]: the rank of each row in the order; 0 is the best."""
    ranked = pc.sort_indices(table, sort_keys=list(order)).to_numpy()
    places = np.empty(len(ranked), np.int64)
    places[ranked] = np.arange(len(ranked))
    return places


def of_components(components: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """int64[rows]: the survivor of each row: the best row of its component (int64)."""
    order = np.lexsort((ranks, components))
    starts = starts_of(components[order])
    stays = np.empty(len(order), np.int64)
    stays[order] = np.repeat(order[starts], np.diff(starts, append=len(order)))
    return stays


def of_neighbours(
    left: np.ndarray, right: np.ndarray, ranks: np.ndarray, alike: Alike, settled: np.ndarray | None = None
) -> np.ndarray:
    """int64[rows]: the survivor of each row: itself, or the best surviving row among its pairs.

    Where none of these stays, it is the best of those that they left for, as far as the row
    is `alike`. `settled` are rows whose survivor is known (int64[rows], -1 where it is not);
    they must be the best of all.
    """
    known = np.full(len(ranks), -1) if settled is None else settled
    stays = np.where(known >= 0, known, np.arange(len(ranks)))
    left, right = np.where(
        ranks[left] < ranks[right], (left, right), (right, left)
    )  # the better one, the other one
    undecided = (known[right] < 0) & (left != right)
    order = np.lexsort((ranks[left[undecided]], ranks[right[undecided]]))
    better, rows = left[undecided][order], right[undecided][order]
    starts = starts_of(rows)
    ends, rows = np.append(starts[1:], len(rows)), rows[starts]
    decided, copies = np.ones(len(ranks), bool), np.empty(0, np.int64)
    decided[rows] = False
    requested = np.zeros(len(ranks), bool)
    while len(rows):
        codes = np.unique(
            _of_neighbours(rows, starts, ends, better, ranks, stays, decided, requested, copies)
        )
        copies = codes[alike(*np.divmod(codes, len(ranks)))] if len(codes) else codes
        open_ = ~decided[rows]
        rows, starts, ends = rows[open_], starts[open_], ends[open_]
    return stays


def complete(texts: pa.Array) -> pa.Array:
    """True for each text (a string array) that ends like a complete page, not like a truncated one."""
    return pc.match_substring_regex(texts, WHOLE)


@compiled
def _of_neighbours(rows, starts, ends, better, ranks, stays, decided, requested, copies):
    """Decides rows in order as far as possible. Returns the pairs that must be compared for the rest.

    `better[starts[i]:ends[i]]` are the better neighbours of a row, the best first. Pairs are codes: the
    better row times the number of rows, and the other one. `copies` (sorted) are the copies among the pairs
    returned last.
    """
    codes = np.empty(len(better), np.int64)
    count = 0
    for i in range(len(rows)):
        row, others = rows[i], better[starts[i] : ends[i]]
        if not _beside(row, others, stays, decided):
            continue
        if stays[row] == row and not requested[row]:
            requested[row] = True
            for other in others:
                codes[count] = stays[other] * len(ranks) + row
                count += 1
            continue
        if stays[row] == row:
            for other in others:
                best = stays[other]
                if _holds(copies, best * len(ranks) + row) and (
                    stays[row] == row or ranks[best] < ranks[stays[row]]
                ):
                    stays[row] = best
        decided[row] = True
    return codes[:count]


@register_jitable
def _beside(row, others, stays, decided):
    """Assigns a row to its best surviving neighbour. False if a better neighbour is still undecided."""
    for other in others:
        if not decided[other]:
            return False
        if stays[other] == other:
            stays[row] = other
            return True
    return True


@register_jitable
def _holds(codes, code):
    place = np.searchsorted(codes, code)
    return place < len(codes) and codes[place] == code
