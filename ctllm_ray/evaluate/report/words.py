"""All texts of the evaluation report in Chinese and English; the page contains both and shows one."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "title": ("评测报告", "Evaluation report"),
    "giant": ("道题，{benchmarks} 个测试", "items scored in {benchmarks} benchmarks"),
    "lead_whole": ("所有题目都计了分。", "Every item was scored."),
    "lead_lost": (
        "{n} 道题没有计分，原因见下表。",
        "{n} items were not scored; the tables give the reasons.",
    ),
    "lead_chance": (
        "有随机基线的 {of} 个测试里，{n} 个的区间整个在随机猜测之上。",
        "Of {of} benchmarks with a chance level, {n} are above chance with their whole interval.",
    ),
    "nav_scores": ("分数", "Scores"),
    "nav_parts": ("分项", "Parts"),
    "nav_answers": ("答卷", "Answers"),
    "nav_settings": ("设定", "Settings"),
    "scores": ("分数", "Scores"),
    "scores_note": (
        "竖线是分数，色带是 95 % 区间（正确率用 Wilson 区间，评分与比特用自助法），点线是随机猜测。"
        "绿色：整个区间在随机之上。题目视作从同类题目里随机抽取。",
        "The tick is the score, the band its 95 % interval (Wilson's for shares of right "
        "answers, the bootstrap for marks and bits), the dotted line is chance. Green: the "
        "whole interval is above chance. Items count as a random sample of their kind.",
    ),
    "benchmark": ("测试", "Benchmark"),
    "score": ("得分", "Score"),
    "interval": ("95 % 区间", "95 % interval"),
    "chance": ("随机", "Chance"),
    "items": ("题数", "Items"),
    "too_long": ("{n} 题超出上下文", "{n} too long for the context"),
    "unparsable": (
        "{n} 题评委没有给出分数，再运行一次会重问",
        "{n} not judged: the judge gave no mark; the next run asks again",
    ),
    "no_label": ("{n} 题没有标注", "{n} without a label"),
    "bad": ("{n} 题的数据有误", "{n} with invalid rows"),
    "shown": ("{n} 题本身是示例", "{n} that are among the examples"),
    "lm_eval": ("lm-eval 的 exact_match：{value}", "lm-eval's exact_match {value}"),
    "note_copies": (
        "{n} 题与前面的题相同，重复计分：",
        "{n} items repeat earlier ones and count again:",
    ),
    "note_among_examples": (
        "{n} 题也在示例里，连同答案：",
        "{n} items are among their own examples, with the answers:",
    ),
    "note_own_subject": (
        "{n} 个科目不在 lm-eval 里，用同样的提示词：",
        "{n} subjects that lm-eval does not have, with the same prompts:",
    ),
    "seen": ("语料见过 {n} 题，除去后 {value}", "{n} seen in the corpus, without them {value}"),
    "too_long_one": ("超出上下文", "too long"),
    "unparsable_one": ("未评分", "not judged"),
    "no_label_one": ("没有标注", "no label"),
    "bad_one": ("数据有误", "not right"),
    "shown_one": ("是示例", "an example"),
    "parts": ("分项", "Parts"),
    "parts_note": (
        "C-Eval 与 CMMLU 公布的是各科平均；上表按题计。题少的分项区间很宽，不要比较它们的名次。",
        "C-Eval and CMMLU publish the mean over subjects; the table above weights all "
        "items equally. Parts with few items have wide intervals: do not rank by them.",
    ),
    "parts_mean": ("{n} 项，各项平均 {value}", "{n} parts, mean over parts {value}"),
    "no_parts": ("没有分项。", "No benchmark has parts."),
    "answers": ("答卷", "Answers"),
    "answers_note": (
        "每个测试的前 {n} 题。选择题的答案是选项编号，从 0 起。全部题目在 items.parquet。",
        "The first {n} items of each. Answers to choices are numbers, from 0. All items "
        "are in items.parquet.",
    ),
    "item": ("题目", "Item"),
    "target": ("标准答案", "Right answer"),
    "answer": ("模型的答案", "The model's"),
    "settings": ("设定", "Settings"),
    "settings_note": (
        "分数取决于下面这些；指纹相同的两次评测应当得到相同的分数。",
        "Scores depend on all of this. Two evaluations with the same fingerprint should "
        "have the same scores.",
    ),
    "weights": ("权重 SHA-256", "Weights, SHA-256"),
    "tokenizer": ("分词器 SHA-256", "Tokenizer, SHA-256"),
    "file": ("题目文件 SHA-256", "Items, SHA-256"),
    "judge": ("评委与提示词 SHA-256", "Judge, and SHA-256 of its prompt"),
    "form": ("问法", "Form"),
    "form_chat": ("用它自己的对话模板提问", "prompts use the chat template"),
    "form_completion": ("按基座模型续写提问", "prompts are plain text for a base model"),
    "fingerprint": ("指纹", "Fingerprint"),
    "whole_settings": ("全部设定", "All of it"),
}
