"""All texts of the sweep's report in Chinese and English; the page contains both and shows one."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    # head
    "title": ("配比扫描", "Mixture sweep"),
    "verdict_law": (
        "用这个配比：比按词元数的低 {gain} 比特/字节（预测），至少低 {least}",
        "Train with this mixture: predicted {gain} bits per byte below the token shares, lower limit {least}",
    ),
    "verdict_best_trial": (
        "用实测最好的配比 {number}：比按词元数的低 {gain} 比特/字节，至少低 {least}",
        "Train with the best measured mixture, {number}: {gain} bits per byte below the "
        "token shares, lower limit {least}",
    ),
    "verdict_token_shares": (
        "没有可据以选择的：仍用按词元数的配比",
        "No basis for a choice: keep the token shares",
    ),
    "reason_none_finished": (
        "{runs} 次训练无一完成，什么也不知道。",
        "No trial finished: all {runs} diverged.",
    ),
    "reason_no_baseline": (
        "按词元数的配比发散了，其余 {n} 个无从比较。",
        "The token shares diverged, so the other {n} mixtures have no baseline.",
    ),
    "reason_no_replicates": (
        "每个配比只训练了一次，分不出噪声；设 sweep.replicates=2 或更多再运行一次，已完成的会保留。",
        "No mixture ran twice, so the noise is unknown. Set sweep.replicates=2 or more and "
        "run it again; finished runs are kept.",
    ),
    "reason_too_few": (
        "{n} 个配比不够拟合并检验一条定律，实测的领先也不超出噪声。",
        "{n} mixtures are too few to fit and test a law, and no measured lead exceeds the noise.",
    ),
    "reason_no_order": (
        "没有定律能排对没见过的配比，实测的领先也不超出噪声；更多配比、更多次数或更长的训练可能有用。",
        "No law orders unseen mixtures well, and no measured lead exceeds the noise. More "
        "mixtures, more replicates, or more tokens per trial may help.",
    ),
    "reason_noise": (
        "定律排对了次序，但把结果随意分给各配比，看上去也常这样好。",
        "A law predicts the order, but randomly shuffled results look as good too often.",
    ),
    "reason_no_gain": (
        "定律可信，但最好的配比也可能毫无好处。",
        "A law can be trusted, but its best mixture may gain nothing.",
    ),
    "why_rank": (
        "{n} 个配比各由其余的拟合来预测，{law}的名次相关为 {rank}（90 % 区间 {low} 至 {high}）；"
        "须达 {least} 且区间高于 0。",
        "Each of {n} mixtures is predicted from the others: the {law} has a rank "
        "correlation of {rank} (90 % interval {low} to {high}). Required are {least} and "
        "an interval above 0.",
    ),
    "why_p": (
        "随意分配的结果里有 {p} 看上去同样好（最多 {most}）。",
        "{p} of random shuffles of the results look as good (at most {most} is allowed).",
    ),
    "why_noise": (
        "换一个种子，同一配比差 {noise} 比特/字节（标准差，{n} 个自由度）。",
        "Another seed changes a mixture's result by {noise} bits per byte (standard "
        "deviation, {n} degrees of freedom).",
    ),
    "tile_trials": ("试验", "trials"),
    "diverged_n": ("其中 {n} 个发散", "{n} of them diverged"),
    "tile_rank": ("名次相关（留一）", "rank correlation, left out"),
    "to": ("{low} 至 {high}", "{low} to {high}"),
    "tile_error": ("留一误差", "left-out error"),
    "bits_byte": ("比特/字节", "bits per byte"),
    "tile_tokens": ("每个试验的词元", "tokens of each trial"),
    "parameters_n": ("{n} 参数", "{n} parameters"),
    "tile_time": ("训练用时", "trained for"),
    "time_each": ("每个试验 {time}", "{time} per trial"),
    # navigation
    "nav_choice": ("配比", "Mixture"),
    "nav_laws": ("定律", "Laws"),
    "nav_trials": ("试验", "Trials"),
    "nav_sources": ("出处", "Sources"),
    # choice
    "choice": ("选出的配比", "The mixture"),
    "choice_note": (
        "淡色带是配方和轮数上限允许的范围，深色带是定律分辨不出高下的配比，菱形是选出的，竖线是按词元数的。",
        "The pale band shows what bounds and epochs allow, the dark one the mixtures that "
        "the law cannot tell from the choice. The diamond is the choice, the line the "
        "token shares.",
    ),
    "choice_note_plain": (
        "淡色带是配方和轮数上限允许的范围，菱形是选出的，竖线是按词元数的。",
        "The pale band shows what bounds and epochs allow. The diamond is the choice, the "
        "line the token shares.",
    ),
    "region_share": (
        "试过的配比之间，有 {share} 与所选的分不出高下。",
        "{share} of the mixtures between tried ones are as good as the choice.",
    ),
    "edge": (
        "{groups} 停在试过的最边上：更远处也许更好，放宽边界再扫描可以知道。",
        "{groups} are at the edge of the tried range. Mixtures beyond may be better; a "
        "sweep with wider bounds would show it.",
    ),
    "group": ("组", "Group"),
    "token_share": ("按词元数", "Token shares"),
    "chosen": ("选出", "Chosen"),
    "as_good": ("同样好", "As good"),
    "allowed": ("允许", "Allowed"),
    "by_epochs": ("受轮数所限", "by its epochs"),
    # laws
    "laws": ("定律预测得对不对", "Do the laws predict?"),
    "laws_note": (
        "每个点是一个试验：横轴是用其余试验拟合的定律所作的预测，纵轴是实测的加权比特/字节。点越贴近对角线越好；选择只看名次。",
        "Each dot is a trial. Across: the prediction of the law fitted to the others. Up: "
        "the measured weighted bits per byte. Closer to the diagonal is better; choosing "
        "needs only the order.",
    ),
    "no_laws": ("试验太少，没有拟合。", "Too few trials to fit a law."),
    "rank_of": ("名次相关 {rank}，误差 {error}", "rank correlation {rank}, error {error}"),
    "along": ("实测：沿每一组的份额", "Measured results over the share of each group"),
    "along_note": (
        "同样的试验按每一组的份额排开；菱形是选出的配比（预测值）。",
        "The same trials over the share of each group. The diamond is the predicted choice.",
    ),
    "domains": ("各留出集", "By held-out group"),
    "domain": ("留出集", "Held out"),
    "weight": ("权重", "Weight"),
    "measured_range": ("实测范围", "Measured"),
    "at_tokens": ("按词元数（预测）", "At the token shares, predicted"),
    "at_chosen": ("选出的（预测）", "At the choice, predicted"),
    # trials
    "trials": ("试验", "Trials"),
    "trials_note": (
        "按实测均值从好到坏，下面的小字是各次训练；0 号是按词元数的配比。",
        "Best first, by the mean of a mixture's runs, which are listed below it. Number 0 "
        "has the token shares.",
    ),
    "shares": ("份额", "Shares"),
    "objective": ("加权", "Weighted"),
    "left_out": ("留一预测", "Predicted without it"),
    "seconds": ("用时", "Time"),
    "diverged": ("发散", "diverged"),
    # sources
    "sources": ("出处", "Sources"),
    "use_it": ("用它训练", "Train with it"),
    "data_hash": ("词元分片", "Token shards"),
    "folder": ("文件夹", "Folder"),
    "decisions": ("试验所依据的一切", "Everything the trials depend on"),
}
