"""Measures of script: the share of Han, its variety, and what characters tell about period and language.

No word segmentation: single characters carry the evidence. 的 and 了 mark modern text, 之 and 也 classical text,
and a character that only one of the two scripts writes marks that script.
"""

from __future__ import annotations

import numpy as np

from ctllm_ray.text.kernels.characters import (
    CLASS_MASK,
    CLASSICAL,
    FUNCTION,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    LETTER,
    MODERN,
    RARE_HAN,
    SIMPLIFIED,
    TRADITIONAL,
)
from ctllm_ray.text.measures.document import _ratio, visible_count


def _bit(flag: int) -> int:
    return flag.bit_length() - 1


_FUNCTION, _CLASSICAL, _MODERN = _bit(FUNCTION), _bit(CLASSICAL), _bit(MODERN)
_SIMPLIFIED, _TRADITIONAL = _bit(SIMPLIFIED), _bit(TRADITIONAL)


def han_share(class_counts):
    """Han characters, all extensions, 〇 and 々 included,
    over characters that are neither space nor control."""
    return _ratio(class_counts[HAN] + class_counts[RARE_HAN], visible_count(class_counts))


def han_letter_share(class_counts):
    """Han characters over letters of any script: 1 for Chinese however many digits and marks it has."""
    han = class_counts[HAN] + class_counts[RARE_HAN]
    return _ratio(
        han, han + class_counts[KANA] + class_counts[HANGUL] + class_counts[LATIN] + class_counts[LETTER]
    )


def rare_han_share(class_counts):
    """Han characters outside level 1 of GB 2312 and Big5
    over Han characters: garbled text is full of them."""
    return _ratio(class_counts[RARE_HAN], class_counts[HAN] + class_counts[RARE_HAN])


def kana_share(class_counts):
    """Kana over kana and Han: Japanese has them, Chinese quotes them."""
    return _ratio(class_counts[KANA], class_counts[KANA] + class_counts[HAN] + class_counts[RARE_HAN])


def hangul_share(class_counts):
    """Hangul over characters that are neither space nor control."""
    return _ratio(class_counts[HANGUL], visible_count(class_counts))


def traditional_share(flag_counts):
    """Traditional-only over one-sided characters: 0 Simplified, 1 Traditional, NaN without evidence (pitfall
    10)."""
    total = flag_counts[_SIMPLIFIED] + flag_counts[_TRADITIONAL]
    return flag_counts[_TRADITIONAL] / total if total > 0 else np.nan


def function_word_share(flag_counts, class_counts):
    """Function characters (的 是 在 為 與 ...) of both scripts over Han characters."""
    return _ratio(flag_counts[_FUNCTION], class_counts[HAN] + class_counts[RARE_HAN])


def function_word_kinds(points, kinds):
    """Different function characters in the text: a count is safer than a share (pitfall 4)."""
    characters = np.zeros(256, np.uint32)
    result = 0
    for i in range(len(points)):
        if kinds[i] & FUNCTION:
            slot = np.int64(points[i]) & 255
            while characters[slot] != 0 and characters[slot] != points[i]:
                slot = (slot + 1) & 255
            if characters[slot] == 0:
                characters[slot] = points[i]
                result += 1
    return result


def classical_share(flag_counts, class_counts):
    """Classical particles and pronouns (之乎者也矣焉哉 ...) over Han characters."""
    return _ratio(flag_counts[_CLASSICAL], class_counts[HAN] + class_counts[RARE_HAN])


def modern_share(flag_counts, class_counts):
    """Marks of the modern vernacular (的 了 们 這 ...) over
    Han characters: near 0 in classical text and verse."""
    return _ratio(flag_counts[_MODERN], class_counts[HAN] + class_counts[RARE_HAN])


def run_mean_chars(kinds):
    """Mean length of runs of Han characters: keyword lists and menus have short ones."""
    runs = 0
    total = 0
    inside = False
    for i in range(len(kinds)):
        group = kinds[i] & CLASS_MASK
        han = group == HAN or group == RARE_HAN
        total += han
        runs += han and not inside
        inside = han
    return _ratio(total, runs)
