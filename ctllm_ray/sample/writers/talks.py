"""Conversations and preference pairs: a few hundred short ones, by hand and from small tables.

`talks/<language>.txt` holds hand-written ones after lines `=== title`: 令/S is a system turn, 问/Q a question,
答/A its answer, 差/X a worse answer to the last question, which makes the conversation a pair too. The others
come from the tables here: sums, opposites, measure words, categories, translations. Their worse answers
repeat themselves, repeat the question, are wrong, or are empty; `defect` names which.

The same files are made anywhere: every choice is seeded by the words that it is about.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ctllm_ray.sample import FOLDER

_ROLES = {"令": "system", "问": "user", "答": "assistant", "S": "system", "Q": "user", "A": "assistant"}
_WORSE = ("差", "X")
SUMS = 60  # of each language

OPPOSITES = (
    "大小 多少 高低 长短 前后 左右 上下 里外 来去 开关 冷热 新旧 快慢 早晚 轻重 远近 黑白 买卖 真假 好坏 "
    "胖瘦 深浅 "
    "粗细 软硬 干湿 天地 问答 男女 老少 古今 强弱 明暗 进退 收放 升降"
)
MEASURES = (
    "本书 张纸 支笔 条鱼 只鸡 匹马 头牛 辆车 把伞 件衣服 双筷子 座山 "
    "朵花 棵树 杯水 碗饭 块糖 间房 扇门 盏灯 首诗 封信 架飞机 艘船"
)
KINDS = {
    "水果": "苹果 香蕉 西瓜 葡萄 桃子 橘子 草莓 梨", "动物": "老虎 兔子 大象 猴子 狐狸 熊猫 山羊 青蛙",
    "颜色": "红色 黄色 蓝色 绿色 白色 黑色 紫色 灰色",
    "交通工具": "火车 飞机 轮船 汽车 自行车 地铁 卡车 摩托车",
    "乐器": "钢琴 二胡 笛子 古筝 小提琴 琵琶 吉他 鼓", "职业": "医生 老师 警察 司机 厨师 农民 护士 记者",
}  # fmt: skip
WORDS = {
    "水": "water", "火": "fire", "山": "mountain", "树": "tree", "花": "flower", "鸟": "bird", "鱼": "fish",
    "猫": "cat", "狗": "dog", "马": "horse", "牛": "cow", "书": "book", "笔": "pen", "门": "door",
    "窗": "window",
    "家": "home", "路": "road", "桥": "bridge", "船": "boat", "车": "car", "日": "day", "夜": "night",
    "雨": "rain",
    "雪": "snow", "风": "wind", "茶": "tea", "米": "rice", "肉": "meat", "盐": "salt", "糖": "sugar",
    "手": "hand",
    "眼": "eye", "心": "heart", "朋友": "friend", "学校": "school", "老师": "teacher", "城市": "city",
    "音乐": "music",
}  # fmt: skip
CONTRARY = (
    "big small, long short, hot cold, new old, fast slow, early late, near far, black white, good bad, open "
    "closed, "
    "full empty, hard soft, light heavy, happy sad, rich poor, young old, strong weak, wet dry, loud quiet, "
    "deep shallow"
)


@dataclass(frozen=True)
class Talk:
    """A conversation, and a worse last answer with the name of its defect; both empty if there is none."""

    turns: tuple[tuple[str, str], ...]  # (role, content)
    worse: str = ""
    defect: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as OpenAI's API has them."""
        return [{"role": role, "content": content} for role, content in self.turns]


def read_talks(language: str) -> list[Talk]:
    """The hand-written conversations of `chinese` or `english`."""
    text = (FOLDER / "talks" / f"{language}.txt").read_text(encoding="utf-8")
    return [_parse_talk(piece) for piece in ("\n" + text).split("\n=== ")[1:]]


def _parse_talk(piece: str) -> Talk:
    lines = [line for line in piece.splitlines()[1:] if line]
    marks = [(line[0], line[2:].strip()) for line in lines]
    worse = [text for mark, text in marks if mark in _WORSE]
    turns = tuple((_ROLES[mark], text) for mark, text in marks if mark in _ROLES)
    return Talk(turns, *([worse[0], "by hand"] if worse else []))


def drawn_chinese() -> list[Talk]:
    """Instructions from the tables, in Chinese."""
    return [_worsen(question, answer, wrong) for question, answer, wrong in _chinese()]


def _chinese() -> Iterator[tuple[str, str, str]]:
    """(question, answer, wrong answer)."""
    for number in range(SUMS):
        a, b = _numbers(f"sum {number}")
        yield f"{a} 加 {b} 等于几？", f"{a} 加 {b} 等于 {a + b}。", f"{a} 加 {b} 等于 {a + b + 3}。"
    for pair in OPPOSITES.split():
        for word, other in ((pair[0], pair[1]), (pair[1], pair[0])):
            yield (
                f"“{word}”的反义词是什么？",
                f"“{word}”的反义词是“{other}”。",
                f"“{word}”的反义词是“{word}”。",
            )
    for thing in MEASURES.split():
        yield f"填量词：一（）{thing[1:]}。", f"一{thing[0]}{thing[1:]}。", f"一个{thing[1:]}{thing[1:]}。"
    kinds = list(KINDS)
    for kind, things in KINDS.items():
        for thing in things.split():
            wrong = kinds[(kinds.index(kind) + 1) % len(kinds)]
            yield f"{thing}是水果、动物还是别的什么？", f"{thing}是{kind}。", f"{thing}是{wrong}。"
    for word, other in WORDS.items():
        yield f"“{word}”用英语怎么说？", f"“{word}”的英语是 {other}。", f"“{word}”的英语是 {word}。"


def drawn_english() -> list[Talk]:
    """Instructions from the tables, in English."""
    return [_worsen(question, answer, wrong) for question, answer, wrong in _english()]


def _english() -> Iterator[tuple[str, str, str]]:
    for number in range(SUMS):
        a, b = _numbers(f"english sum {number}")
        yield f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.", f"{a} plus {b} is {a + b + 3}."
    for pair in CONTRARY.split(", "):
        word, other = pair.split()
        yield f"What is the opposite of {word}?", f"The opposite of {word} is {other}.", f"It is {word}."
    for word, other in WORDS.items():
        yield f"What does {word} mean in English?", f"{word} means {other}.", f"{word} means {word}."


def _numbers(key: str) -> tuple[int, int]:
    chosen = random.Random(key)
    return chosen.randrange(0, 50), chosen.randrange(0, 50)


def _worsen(question: str, answer: str, wrong: str) -> Talk:
    """One exchange with a worse answer of a kind that the question chooses."""
    worse = {
        "repeats": " ".join([answer] * 3),
        "echoes": question,
        "wrong": wrong,
        "says nothing": random.Random(f"nothing {question}").choice(["不知道。", "随便。", "哦。", "I see."]),
    }
    defect = random.Random(f"defect {question}").choice(list(worse))
    return Talk((("user", question), ("assistant", answer)), worse[defect], defect)
