"""An exam with four choices, in CMMLU's columns: elementary questions written by hand, and random sums.

`exam.txt` holds a question and its four choices on a line, the right one first; where it goes is
drawn by the words of the question, so the same file is made anywhere. The first questions of a
subject are the examples (`dev`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ctllm_ray.sample import FOLDER

LETTERS = "ABCD"
EXAMPLES = 3  # of each subject
SUMS = 27


def rows() -> Iterator[dict[str, str]]:
    """Every question: `id`, `subject`, `split`, `question`, `A` to `D` and `answer`."""
    for subject, questions in _subjects().items():
        for number, (question, *choices) in enumerate(questions):
            order = random.Random(question).sample(range(4), 4)
            placed = {letter: choices[place] for letter, place in zip(LETTERS, order, strict=True)}
            split = "dev" if number < EXAMPLES else "test"
            facts = {"id": f"{subject}:{number}", "subject": subject, "split": split, "question": question}
            yield facts | placed | {"answer": LETTERS[order.index(0)]}


def _subjects() -> dict[str, list[list[str]]]:
    subjects: dict[str, list[list[str]]] = {}
    for line in (FOLDER / "exam.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("=== "):
            subjects[line.removeprefix("=== ")] = questions = []
        else:
            questions.append(line.split("|"))
    return subjects | {"elementary_mathematics": [_sum(number) for number in range(SUMS)]}


def _sum(number: int) -> list[str]:
    """A question about two numbers, its answer, and three nearby wrong answers."""
    draw = random.Random(f"sum {number}")
    one, two = draw.randint(11, 60), draw.randint(2, 40)
    total = one + two if number % 2 else one - two
    wrong = draw.sample([total + step for step in (-10, -3, -2, -1, 1, 2, 3, 10)], 3)
    return [f"{one} {'加' if number % 2 else '减'} {two} 等于多少？", str(total), *map(str, wrong)]
