"""All texts of the training report in Chinese and English; the page contains both and shows one."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    # head
    "title": ("训练报告", "Training report"),
    "giant": ("{unit}，末段平滑损失", "{unit}, smoothed loss at the end"),
    "lead": (
        "{updates} 次更新，{tokens} 个位置，用时 {time}。",
        "{updates} updates over {tokens} positions in {time}.",
    ),
    "lead_calm": ("一路平稳，没有中断。", "Nothing interrupted it."),
    "lead_events": ("途中：{events}。", "On the way: {events}."),
    "n_resumed": ("{n} 次续训", "resumed {n}×"),
    "n_resized": ("{n} 次改变规模", "resized {n}×"),
    "n_spike": ("{n} 次损失尖峰", "loss spikes {n}×"),
    "n_passed_over": ("{n} 个批次被跳过", "batches skipped {n}×"),
    "done": ("全程的 {share}", "{share} of the run"),
    "finished": ("已完成", "Finished"),
    "unfinished": ("未完成", "Not finished"),
    "tile_tokens": ("已训练位置", "positions trained"),
    "of_total": ("计划 {total}", "of {total} planned"),
    "tile_bits": ("留出集比特/字节", "held-out bits/byte"),
    "at_step": ("第 {step} 步", "at step {step}"),
    "tile_speed": ("每秒位置（中位）", "positions/s (median)"),
    "per_worker": ("每个进程 {n}", "{n} a worker"),
    "tile_mfu": ("MFU（中位）", "MFU (median)"),
    "mfu_peak": ("按 PaLM 口径", "PaLM's convention"),
    "tile_wait": ("等数据的时间", "time spent waiting for data"),
    "of_step": ("占步时", "of step time"),
    "tile_stall": ("存档停顿", "stall for checkpoints"),
    "n_saves": ("{n} 次，共 {time}", "{n} saves, {time} in all"),
    "tile_world": ("进程", "workers"),
    # navigation
    "nav_curves": ("曲线", "Curves"),
    "nav_events": ("事件", "Events"),
    "nav_data": ("数据", "Data"),
    "nav_lineage": ("来历", "Lineage"),
    "nav_settings": ("设定", "Settings"),
    # curves
    "curves": ("曲线", "Curves"),
    "curves_note": (
        "横轴是走过的位置数。指针或方向键移动读数线，各图同步。细线是每步的值，粗线是双侧指数平滑，"
        "半衰期为全程的 {share}；点多时每处画出最小与最大，尖峰不会被抹掉。",
        "Over positions consumed. Move the pointer or use the arrow keys: all charts show "
        "the same position. Thin lines are single steps; bold lines are an exponential "
        "average on both sides (half-life {share} of the run). If there are many steps, "
        "the minimum and maximum of each position are drawn, so no spike is lost.",
    ),
    "loss": ("损失", "Loss"),
    "grad_norm": ("梯度范数（裁剪前）", "Gradient norm before clipping"),
    "rate": ("学习率", "Learning rate"),
    "tokens_per_s": ("每秒位置数", "Positions per second"),
    "mfu": ("MFU", "MFU"),
    "wait": ("等数据占步时", "Share of step time waiting for data"),
    "bits": ("留出集：每字节比特", "Held out: bits per byte"),
    "margin": (
        "间距（β × 比参考更偏好优答的程度，nats）",
        "Margin: β × preference beyond the reference, nats",
    ),
    "accuracy": ("间距为正的偏好对占比", "Share of pairs with a margin above 0"),
    "chosen_logprob": ("优答对数概率（整句，nats）", "Log-probability of chosen answers, nats"),
    "rejected_logprob": ("劣答对数概率（整句，nats）", "Log-probability of rejected answers, nats"),
    "chosen_gain": ("优答比参考多出（nats）", "Chosen answers: difference to the reference, nats"),
    "rejected_gain": ("劣答比参考多出（nats）", "Rejected answers: difference to the reference, nats"),
    "chosen_tokens": ("优答长度（token）", "Length of chosen answers, tokens"),
    "rejected_tokens": ("劣答长度（token）", "Length of rejected answers, tokens"),
    "unit_target": ("nats / token", "nats per token"),
    "unit_answer": ("nats / 回答 token", "nats per token of answers"),
    "unit_pair": ("nats / 偏好对", "nats per pair"),
    "step": ("步", "step"),
    "phases": ("配比", "Mixture"),
    "warmup": ("预热", "warm-up"),
    "stable": ("稳定", "stable"),
    "decay": ("衰减", "decay"),
    # events
    "events": ("事件", "Events"),
    "events_note": (
        "按时间先后。尖峰一栏列出那个批次里的文档：可以用 <code>ctllm batch</code> 再看一遍。",
        "By time. A spike lists the documents of its batch; <code>ctllm batch</code> shows them again.",
    ),
    "no_events": ("没有事件。", "No events."),
    "when": ("时间 (UTC)", "Time (UTC)"),
    "what": ("事件", "Event"),
    "facts": ("详情", "Facts"),
    "documents_n": ("批次中的 {n} 篇文档", "{n} documents of the batch"),
    "event.started": ("开始", "Started"),
    "event.resumed": ("续训", "Resumed"),
    "event.resized": ("改变规模", "Resized"),
    "event.spike": ("损失尖峰", "Loss spike"),
    "event.skipped": ("跳过更新", "Update skipped"),
    "event.rewound": ("退回存档", "Rewound"),
    "event.checkpoint_passed_over": ("存档不可用，改用更早的", "Checkpoint skipped"),
    "event.stopped": ("停下", "Stopped"),
    "event.tracker_failed": ("曲线服务失败", "Tracker failed"),
    "event.finished": ("完成", "Finished"),
    "event.data_joined": ("新数据加入", "Data joined"),
    "event.specials_untaught": ("对话标记未曾训练", "Special tokens of turns untrained"),
    # data
    "data": ("数据：每一阶段实际用了什么", "Data used by each phase"),
    "data_note": (
        "由数据次序重新算出，直到最新存档；被跳过的批次也在内。“轮”是从本次训练开始到该阶段末，训练词元与该组全部之比。",
        "Counted again from the order of the data, up to the newest checkpoint, including "
        "skipped batches. Epochs are targets over all targets of the group, from this "
        "run's start to the phase's end.",
    ),
    "phase_to": ("第 {n} 阶段，至 {tokens}", "Phase {n}, to {tokens}"),
    "group": ("组", "Group"),
    "planned": ("计划", "Planned"),
    "realised": ("实际", "Realised"),
    "targets": ("训练词元", "Targets"),
    "padding": ("填充", "Padding"),
    "epochs": ("轮", "Epochs"),
    "has_tokens": ("该组共有", "Group has"),
    "no_account": ("无法重算：{reason}", "Cannot be counted: {reason}"),
    # lineage
    "lineage": ("来历：存档从何而来", "Lineage: origin of the checkpoints"),
    "newest": ("最新存档", "Newest checkpoint"),
    "recipe_fingerprint": ("配方指纹", "Recipe's fingerprint"),
    "data_fingerprint": ("数据指纹", "Data's fingerprint"),
    "parent": ("由此分支", "Branched from"),
    "made_by": ("代码与软件包", "Code and packages"),
    "made_with": ("训练方式", "Trained with"),
    "with_value": (
        "{world} 个进程 · {stepper} · ZeRO {zero} · 种子 {seed}",
        "{world} workers · {stepper} · ZeRO {zero} · seed {seed}",
    ),
    "no_checkpoint": ("还没有存档。", "No checkpoint yet."),
    "checkpoint": ("存档", "Checkpoint"),
    "positions": ("位置", "Positions"),
    "size": ("大小", "Size"),
    "stall": ("停顿", "Stall"),
    "workers": ("进程", "Workers"),
    "shards": ("词元分片", "Token shards"),
    "shards_n": (
        "{n} 个，{tokens} 词元，自批次 {batch} 起",
        "{n} with {tokens} tokens, from batch {batch} on",
    ),
    # settings
    "settings": ("设定", "Settings"),
    "recipe": ("配方（决定结果的部分）", "Recipe (settings that affect the result)"),
    "mfu_note": (
        "MFU = 每秒位置 × 每位置 FLOPs ÷ 全部设备的峰值。FLOPs 按 PaLM：6 × 参与矩阵乘的参数 + 12 × 层 × 宽 "
        "× 上下文，"
        "注意力不因因果而减半，重算不计。GPU 峰值取厂商的 bf16 稠密值；CPU 取开始时实测的 fp32 矩阵乘。",
        "MFU = positions/s × FLOPs per position ÷ peak of all devices. FLOPs as in PaLM: 6 "
        "× matmul parameters + 12 × layers × width × context. Causal attention counts in "
        "full; recomputation does not count. A GPU's peak is its maker's dense bf16 rate; "
        "a CPU's is an fp32 matrix product measured at the start.",
    ),
    "bits_note": (
        "每字节比特 = 文档全部目标（含结尾）的 nats ÷ ln 2 ÷ UTF-8 字节数；超过上下文的文档切段，段间不重叠。"
        "",
        "Bits per byte = nats of all targets of a document, including its end ÷ ln 2 ÷ "
        "UTF-8 bytes. Documents longer than the context are cut without overlap.",
    ),
}
