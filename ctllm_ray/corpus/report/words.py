"""All texts of the report page in Chinese and English; the page contains both and shows one."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    # head
    "title": ("语料报告", "Corpus report"),
    "kept_share": ("留下", "kept"),
    "lead": (
        "读入 {n} 篇文档，留下 {kept} 篇；每一篇离开的，都记着是哪条规则、测得多少、界限在哪。",
        "{n} documents were read and {kept} were kept. For each dropped one, the rule, its "
        "value and the threshold are recorded.",
    ),
    "documents_in": ("读入文档", "documents in"),
    "documents_kept": ("留下文档", "documents kept"),
    "documents_dropped": ("丢弃文档", "documents dropped"),
    "chars_kept": ("留下字数", "characters kept"),
    "bytes_kept": ("留下字节（UTF-8）", "bytes kept (UTF-8)"),
    "wall": ("用时", "wall time"),
    "speed": ("吞吐", "throughput"),
    "workers": ("平均并行进程", "busy workers on average"),
    "docs_per_s": ("篇/秒", "docs/s"),
    "chars_each": ("平均每篇 {n} 字", "{n} per document on average"),
    "of_in": ("占读入的 {share}", "{share} of the input"),
    "runs_n": ("共 {n} 次运行，合计", "{n} runs, summed"),
    "run_once": ("一次运行", "one run"),
    "per_worker": ("每个进程 {n} MB/s", "{n} MB/s per worker"),
    # navigation
    "nav_funnel": ("漏斗", "Funnel"),
    "nav_rules": ("规则", "Rules"),
    "nav_shapes": ("分布", "Distributions"),
    "nav_where": ("来处", "Origins"),
    "nav_copies": ("副本", "Copies"),
    "nav_examples": ("例子", "Examples"),
    "nav_benchmarks": ("评测集", "Evaluation sets"),
    "nav_cuts": ("剪切", "Cuts"),
    "nav_runs": ("出处", "Provenance"),
    # funnel
    "funnel": ("漏斗：每一步之后还剩多少", "Funnel: what is left after each step"),
    "funnel_note": (
        "规则按行动的顺序排列，文档记在它第一条不合格的规则名下，所以各步可以依次相减。点开一行看其中每条规则。",
        "In the order in which rules act. A document is charged to the first rule that it "
        "fails, so the steps can be subtracted. Open a row for its rules.",
    ),
    "step": ("步骤", "Step"),
    "left": ("剩余", "Left"),
    "dropped": ("丢弃", "Dropped"),
    "came_in": ("读入", "In"),
    "stayed": ("留下", "Kept"),
    "of_left": ("丢弃到达这一步的 {share}", "drops {share} of its input"),
    "idle_rules": ("这一族还有 {n} 条规则没有丢弃任何文档：", "{n} more rules here dropped nothing: "),
    "river_alt": (
        "读入的文档流经各族规则，每族带走一部分",
        "Documents flow past the rules; each family removes some",
    ),
    # rules
    "rules": ("规则：界限、丢弃与独自丢弃", "Rules: thresholds, drops, and unique drops"),
    "rules_note": (
        "“记账丢弃”按先后顺序只记第一条；“不合格”不论先后；“独有”是只违反这一条的文档：去掉这条规则，"
        "回来的正是它们（后面的阶段仍会再看一遍）。对所有存有分数的文档逐一核算，不抽样。",
        "“Charged” counts the first failed rule only, in order. “Fails” ignores the order. "
        "“Alone” counts documents that break only this rule: without it, exactly these "
        "would come back, for later stages to judge. Computed for every document with "
        "scores, without sampling.",
    ),
    "rule": ("规则", "Rule"),
    "bound": ("界限", "Bound"),
    "charged": ("记账丢弃", "Charged"),
    "share": ("占读入", "Share"),
    "failed": ("不合格", "Fails"),
    "alone": ("独有", "Alone"),
    "measured": ("有分数", "Measured"),
    "only": ("只用于 {genres}", "only {genres}"),
    "unless": ("不用于 {genres}", "spares {genres}"),
    "no_rules": ("这份配方没有判断规则。", "This recipe has no rules with thresholds."),
    # histograms
    "shapes": ("分布：界限切在哪里", "Distributions: where each threshold cuts"),
    "shapes_note": (
        "纵轴为平方根刻度；两端各 0.5 % 的极端值收进 ‹ 与 › 两根柱。底色标出不合格的一侧。",
        "Heights are on a square-root scale. The outer 0.5 % at each end is collected in "
        "the bars ‹ and ›. The tinted side fails.",
    ),
    "all_documents": ("全部 {n} 篇文档。", "All {n} documents."),
    "sample_note": (
        "按 id 的哈希抽取 {n} 篇文档作图，任何一次运行抽到的都相同。",
        "A sample of {n} documents, chosen by a hash of the id, so every run chooses the same ones.",
    ),
    "fate_kept": ("留下", "kept"),
    "fate_charged": ("被这条规则丢弃", "dropped by this rule"),
    "fate_other": ("被别的规则丢弃", "dropped by another rule"),
    "quantiles": ("分位 5/50/95 %：{low} · {mid} · {high}", "quantiles 5/50/95 %: {low} · {mid} · {high}"),
    "n_documents": ("{n} 篇", "{n} docs"),
    "log_axis": ("对数横轴", "log axis"),
    "only_measured": ("只测量、不判断的分数（{n}）", "Scores without thresholds ({n})"),
    "no_scores": ("没有文档带有这个分数。", "No document has this score."),
    "rarely": ("很少动用的规则（各丢弃不到 {share}）", "Rules that rarely act (under {share} each)"),
    # breakdowns
    "where": ("来处：谁被丢弃了", "Origins: which documents were dropped"),
    "by_genre": ("按体裁", "By genre"),
    "by_host": ("按站点（丢弃最多的 {n} 个）", "By host (the {n} with the most drops)"),
    "by_source": ("按来源", "By source"),
    "by_script": ("按繁简", "By script"),
    "by_label": ("按标签 {name}", "By label {name}"),
    "value": ("名称", "Name"),
    "documents": ("文档", "Documents"),
    "keep_rate": ("留下率", "Keep rate"),
    "reasons": ("主要原因", "Main reasons"),
    "unknown": ("（未知）", "(unknown)"),
    "no_host": ("（无网址）", "(no URL)"),
    "alarm": ("留下率低于 {share}", "keep rate under {share}"),
    "alarm_head": (
        "有 {n} 种体裁被规则丢掉了 {share} 以上：界限可能不适合它们。",
        "Rules drop more than {share} of {n} genres: the thresholds may not suit them.",
    ),
    "more_rows": ("另有 {n} 项，共 {documents} 篇文档。", "{n} more, {documents} documents in total."),
    "inexact": (
        "名称太多，罕见的已略去，计数为下限。",
        "Too many names: rare ones were dropped, so counts are lower limits.",
    ),
    "simplified": ("简体", "Simplified"),
    "traditional": ("繁体", "Traditional"),
    "mixed": ("繁简混杂", "mixed"),
    # copies
    "copies": ("副本：谁重复了谁", "Duplicates: which pages repeat others"),
    "copies_note": (
        "互为副本的页面是一簇，每簇留下一篇。各处计数相加，正是这一步丢弃的篇数。",
        "Pages that are duplicates of each other form a cluster, and one page of each "
        "survives. The counts sum to what the pass dropped.",
    ),
    "clusters": ("簇", "Clusters"),
    "cluster_pages": ("各簇页面", "Pages in clusters"),
    "pages": ("页面", "Pages"),
    "largest": ("最大的一簇", "Largest cluster"),
    "n_pages": ("{n} 篇", "{n} pages"),
    "of_read": ("占这一步读入的 {share}", "{share} of the input of the pass"),
    "no_copies": ("这一步没有找到副本。", "This pass found no duplicates."),
    "cluster_size": ("每簇篇数", "Pages per cluster"),
    "stay_and_go": ("留下与丢弃", "Kept and dropped"),
    "between_hosts": ("站点之间的副本", "Duplicates between hosts"),
    "same_host": ("同一站点之内", "within one host"),
    "other_host": ("两个站点之间", "between two hosts"),
    "earlier": ("重复了更早的版本", "of an earlier version"),
    "hosts_note": (
        "没有网址的页面以来源的名字代替站点。",
        "If a page has no URL, the name of its source counts as host.",
    ),
    "survivor_host": ("留下的页面在", "Surviving page"),
    "loser_host": ("丢弃的页面在", "Dropped pages"),
    "more_pairs": ("另有 {n} 对站点，共 {pages} 篇。", "{n} more pairs of hosts, {pages} pages in total."),
    "top_clusters": ("最大的 {n} 簇", "The {n} largest clusters"),
    "top_clusters_note": (
        "从第一处不同前不远起：留下的一篇，与丢弃的当中和它最不相似的一篇；只有一边才有的字加了底色。"
        "正文是这一步读到的；它读的分片若已删去，就是现存的，后面的步骤可能剪去几行。",
        "From shortly before the first difference: the surviving page, and the least "
        "similar dropped page. Text that only one side has is marked. The texts are those "
        "that the pass read. If its input shards were deleted, the remaining texts are "
        "shown, which later passes may have cut.",
    ),
    "similarity": ("相似度 {n}", "similarity {n}"),
    "stays": ("留下", "stayed"),
    "goes": ("丢弃", "went"),
    "same_text": ("两篇文字相同", "equal texts"),
    "no_text_left": ("（正文已不在任何分片里）", "(no shard has its text any more)"),
    "earlier_version": ("（在更早的版本里）", "(in an earlier version)"),
    "n_chars": ("{n} 字", "{n} characters"),
    # examples
    "examples": ("例子：被丢弃的是什么样的页面", "Examples: what dropped pages look like"),
    "examples_note": (
        "每条规则取 id 哈希最小的至多十篇；一篇的全部测量可用 <code>ctllm why</code> 查看。"
        "网页原文一律按纯文本显示，控制字符写成码位。",
        "Up to ten per rule, those with the smallest hash of the id; <code>ctllm "
        "why</code> shows all measures of a page. Page text is shown as plain text, "
        "control characters as code points.",
    ),
    "shown_of": ("{shown} / {n} 篇", "{shown} of {n}"),
    "no_text": ("（正文未保存：data.rejected_text_share）", "(text was not kept: data.rejected_text_share)"),
    "left_out": ("略去 {n} 字", "{n} characters left out"),
    "empty_text": ("（空白）", "(empty)"),
    "against": ("界限", "bound"),
    "no_examples": ("没有被丢弃的文档。", "No document was dropped."),
    # cuts
    "cuts": ("剪切：从文档中剪掉的行", "Cuts: lines removed from documents"),
    "cuts_note": ("按出现次数排列的行，截到 {n} 字。", "The most frequent lines, cut to {n} characters."),
    "lines_n": ("{n} 行 · {chars} 字", "{n} lines · {chars} characters"),
    "times": ("次数", "Times"),
    "line": ("行", "Line"),
    # evaluation sets
    "benchmarks": ("评测集：语料里见过哪些题", "Evaluation sets: which items the corpus contained"),
    "benchmarks_note": (
        "“找到”的题在某一页里的重合度达到界限，并已从语料里去掉；“沾到”的题只有一部分见于语料，不够数，页面照旧。"
        "太短或与别题雷同的题无从查找。每题的重合度与页面在 <code>seen.parquet</code>。",
        "An item is found if a page contains enough of it to count; it was then removed "
        "from the corpus. An item is touched if pages contain less of it; these pages are "
        "unchanged. Items that are too short, or too similar to others, cannot be "
        "searched. <code>seen.parquet</code> has the overlap and the page of each item.",
    ),
    "benchmark": ("评测集", "Set"),
    "items": ("题目", "Items"),
    "items_found": ("找到", "Found"),
    "items_touched": ("沾到", "Touched"),
    "items_lost": ("无从查找", "Cannot be found"),
    "pages_hit": ("命中页面", "Pages hit"),
    "pages_cut": ("剪去题目", "Cut"),
    # provenance
    "provenance": ("出处：这份数据如何得来", "Provenance: how this was made"),
    "fingerprint": ("指纹", "Fingerprint"),
    "versions": ("版本", "Versions"),
    "inputs": ("输入", "Inputs"),
    "shards": ("分片", "Shards"),
    "files_n": ("{n} 个文件 · {size}", "{n} files · {size}"),
    "more_files": ("…… 另有 {n} 个文件", "… and {n} more files"),
    "recipe": ("配方（全部选项都已填好）", "Recipe (every option filled in)"),
    "runs": ("运行", "Runs"),
    "started": ("开始", "Started"),
    "splits": ("分块（新做 / 沿用）", "Splits (done / reused)"),
    "no_runs": ("没有 RUNS.jsonl，不知道用时。", "There is no RUNS.jsonl, so times are unknown."),
    "all_counts": ("全部计数（MANIFEST.json）", "All counts (MANIFEST.json)"),
    "law": ("读入 = 留下 + 各类丢弃 + 跳过之和", "in = kept + all rejects + all skipped"),
    "lossy": ("读不全的文件", "Files that lost something"),
    "lossy_note": (
        "每个文件：已读字节 + 丢失字节 = 文件字节。缺失的记录从未出现；≈ 表示按丢失的字节估计。",
        "Of every file: bytes read + bytes lost = bytes of the file. Missing records never came; ≈ is an "
        "estimate from the bytes lost.",
    ),
    "file": ("文件", "File"),
    "bytes": ("字节", "Bytes"),
    "bytes_lost": ("丢失字节", "Bytes lost"),
    "records": ("见到的记录", "Records seen"),
    "missing": ("缺失的记录", "Records missing"),
    "why": ("原因", "Why"),
    # families of rules
    "family.error": ("读取错误", "unreadable"),
    "family.extract": ("正文抽取", "extraction"),
    "family.normalize": ("规范化", "normalization"),
    "family.lines": ("行级清洗", "line cleaning"),
    "family.line": ("行", "lines"),
    "family.document": ("篇章", "document"),
    "family.repetition": ("重复", "repetition"),
    "family.script": ("文字", "script"),
    "family.url": ("网址", "URL"),
    "family.lexicon": ("词表", "lexicon"),
    "family.language": ("语种", "language"),
    "family.genre": ("体裁", "genre"),
    "family.characters": ("字符", "characters"),
    "family.mojibake": ("乱码", "mojibake"),
    "family.charset": ("编码", "charset"),
    "family.words": ("词", "words"),
    "family.exact": ("完全重复", "exact copies"),
    "family.near": ("近似重复", "near copies"),
    "family.boilerplate": ("站点模板", "boilerplate"),
    "family.decontaminate": ("评测题目", "evaluation items"),
    "family.contact": ("联系方式", "contact"),
}
