"""CHC-Bench: hard Chinese questions, marked from 1 to 10 (Du et al. 2024).

The published form: eight classes, one turn, the single-answer prompt of MT-bench (Zheng et al. 2023) in
Chinese. The published items have no reference answers and are not part of this package: the recipe names a
file. A class has 20 to 37 items, so look at the intervals.
"""

CLASSES = (
    "coding", "hard_case", "math", "science", "read_compre", "social", "roleplaying", "writting",
)  # fmt: skip # as published, spelling included
SYSTEM = "你是一个有用的助手。"
PROMPT = """\
[指令]
请你作为一名公正的裁判，评价一个人工智能助手对下面用户问题的回答的质量。评价应考虑回答的有用性、相关性、准确性、深度、\
创造性和详细程度等因素。请先给出简短的解释，并尽可能客观。给出解释之后，你必须严格按照以下格式给回答打 1 到 10 分：\
“[[分数]]”，例如：“评分：[[5]]”。

[问题]
{question}

[助手回答开始]
{answer}
[助手回答结束]"""
REMINDER = """\
上面的评价没有以规定的格式结束，或者分数不在 1 到 10 之间。请只写一行，给这个回答打 1 到 10 分，照抄其中的代码：
评分#{code}：[[分数]]"""
