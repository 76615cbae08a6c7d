"""Every word of the sweep's report in Chinese and English; the page carries both and shows one."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    # head
    "title": ("配比扫描", "Mixture sweep"),
    "giant_gain": ("比特/字节，低于按词元数的配比（预测）", "bits per byte below the token shares, as predicted"),
    "giant_measured": ("比特/字节，低于按词元数的配比（实测）", "bits per byte below the token shares, as measured"),
    "giant_bits": ("加权比特/字节（实测）", "weighted bits per byte, measured"),
    "giant_none": ("没有试验完成", "no trial finished"),
    "why_law": (
        "由{law}选出：{n} 个试验各由其余的拟合来预测，名次相关为 {rank}（90 % 区间 {low} 至 {high}），足以据此选择。",
        "Chosen by the {law}: each trial predicted from the others, {n} in all, the order is right to a rank "
        "correlation of {rank} (90 % interval {low} to {high}), which is good enough to choose by.",
    ),
    "why_gain": (
        "按这条定律，所选配比比按词元数的配比低 {gain} 比特/字节（90 % 区间 {low} 至 {high}）。",
        "By that law the mixture is {gain} bits per byte below the token shares (90 % interval {low} to {high}).",
    ),
    "why_no_gain": (
        "区间含有“没有好处”：按词元数的配比可能同样好。",
        "The interval reaches down to no gain at all: the token shares may be as good.",
    ),
    "why_not_good": (
        "没有定律足以据此选择：较好的{law}名次相关为 {rank}（90 % 区间 {low} 至 {high}），须达 {least} 且区间高于 0。",
        "No law is good enough to choose by: the better one, the {law}, has a rank correlation of {rank} (90 % "
        "interval {low} to {high}); {least} and an interval above 0 are asked for.",
    ),
    "why_too_few": ("{n} 个试验不够拟合并检验一条定律。", "{n} trials are too few to fit a law to and test it."),
    "why_best_trial": (
        "因此取实测最好的试验 {number}；它的领先可能只是运气。",
        "So the best that was measured is taken, trial {number}; its lead may be luck.",
    ),
    "why_token_shares": (
        "没有试验胜过按词元数的配比，因此取它。",
        "No trial did better than the token shares, so these are taken.",
    ),
    "why_nothing": (
        "没有试验完成（{n} 个发散），什么也不知道：这是按词元数的配比。",
        "No trial finished ({n} diverged), so nothing is known: these are the token shares.",
    ),
    "regression": ("对数线性定律", "log-linear law"),
    "exponential": ("指数混合定律", "exponential law"),
    "tile_trials": ("试验", "trials"),
    "diverged_n": ("其中 {n} 个发散", "{n} of them diverged"),
    "tile_rank": ("名次相关（留一）", "rank correlation, left out"),
    "to": ("{low} 至 {high}", "{low} to {high}"),
    "tile_error": ("留一误差", "left-out error"),
    "bits_byte": ("比特/字节", "bits per byte"),
    "tile_tokens": ("每个试验的词元", "tokens of each trial"),
    "parameters_n": ("{n} 参数", "{n} parameters"),
    "tile_time": ("训练用时", "trained for"),
    "time_each": ("每个试验 {time}", "{time} a trial"),
    # navigation
    "nav_choice": ("配比", "Mixture"),
    "nav_laws": ("定律", "Laws"),
    "nav_trials": ("试验", "Trials"),
    "nav_sources": ("出处", "Sources"),
    # choice
    "choice": ("选出的配比", "The mixture"),
    "choice_note": (
        "淡色带是配方和轮数上限允许的范围，深色带是定律分辨不出高下的配比，菱形是选出的，竖线是按词元数的。",
        "The pale band is what bounds and epochs allow, the dark one the mixtures that the law cannot tell from the "
        "chosen one, the diamond is the choice, the line the token shares.",
    ),
    "choice_note_plain": (
        "淡色带是配方和轮数上限允许的范围，菱形是选出的，竖线是按词元数的。",
        "The pale band is what bounds and epochs allow, the diamond is the choice, the line the token shares.",
    ),
    "region_share": (
        "允许的配比中有 {share} 与所选的分不出高下。",
        "{share} of the mixtures within bounds cannot be told from it.",
    ),
    "edge": (
        "{groups} 停在边界上：界内的最好未必是最好，放宽边界再扫描可以知道。",
        "{groups} stand at a bound: what is best within it need not be best; a sweep with wider bounds would tell.",
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
        "Each dot is a trial: across, what the law says that was fitted to the others; up, the weighted bits per byte "
        "that were measured. The nearer to the diagonal the better; choosing needs only the order.",
    ),
    "no_laws": ("试验太少，没有拟合。", "Too few trials: none was fitted."),
    "rank_of": ("名次相关 {rank}，误差 {error}", "rank correlation {rank}, error {error}"),
    "along": ("实测：沿每一组的份额", "Measured, along the share of each group"),
    "along_note": (
        "同样的试验按每一组的份额排开；菱形是选出的配比（预测值）。",
        "The same trials by the share of each group; the diamond is the choice, as predicted.",
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
        "按实测从好到坏；0 号是按词元数的配比。",
        "Best first, as measured; number 0 has the token shares.",
    ),
    "shares": ("份额", "Shares"),
    "objective": ("加权", "Weighted"),
    "left_out": ("留一预测", "Predicted, left out"),
    "seconds": ("用时", "Time"),
    "diverged": ("发散", "diverged"),
    # sources
    "sources": ("出处", "Sources"),
    "use_it": ("用它训练", "Train with it"),
    "data_hash": ("词元分片", "Token shards"),
    "folder": ("文件夹", "Folder"),
    "decisions": ("试验所依据的一切", "All that the trials depend on"),
}
