"""Terminal output of corpus commands: funnel of a section, tokens by group, explanation of a page, replay."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ctllm_ray.corpus import tokenizer
from ctllm_ray.corpus.engine.input_files import InputFile
from ctllm_ray.corpus.engine.losses import NAMED, describe, list_lossy
from ctllm_ray.corpus.explain.page_cluster import Cluster
from ctllm_ray.corpus.explain.replay import Replay
from ctllm_ray.corpus.explain.why import Judgement, PageHistory
from ctllm_ray.corpus.pipeline import TOKENIZER, TOKENS
from ctllm_ray.shards.manifest import Manifest, Shard
from ctllm_ray.shards.tokens import HELD_OUT, TRAIN

#: The label that names evaluation items: set, item, overlap, spans; one line each.
HITS = "decontaminate.hits"
TEXT_SHOWN = 2000  # characters of a page's text to print


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def print_section(name: str, finished: Manifest, folder: str) -> None:
    """Prints the result of a finished section."""
    if name == TOKENIZER:
        tokenizer.print_report(folder, _console())
    else:
        (tokens if name == TOKENS else funnel)(finished, folder)


def funnel(finished: Manifest, folder: str) -> None:
    """Prints the number of documents, the drops of each rule, and the documents kept."""
    total = finished.documents
    table = Table(
        "step",
        "documents",
        "share",
        title=f"{finished.name} {finished.version}: {finished.section}",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, count in finished.count_skipped().items():
        table.add_row(kind, f"{count:,}", "")
    table.add_row("in", f"{total:,}", "")
    for rule, count in finished.rejects().items():
        table.add_row(f"- {rule}", f"{count:,}", f"{count / max(1, total):.1%}")
    kept = finished.counts["kept"]
    table.add_row("kept", f"{kept:,}", f"{kept / max(1, total):.1%}", style="bold")
    console = _console()
    console.print(table)
    print_input_files(list_lossy(finished.inputs)[:NAMED])
    console.print(f"shards: {folder}")


def print_input_files(files: Sequence[InputFile]) -> None:
    """Prints what was read of each file, what was lost, and why; a line each."""
    for file in files:
        _console().print(Text(_plain(describe(file))))


def tokens(finished: Manifest, folder: str) -> None:
    """Prints the documents and tokens of each group, and the held-out part."""
    table = Table(
        "group",
        "documents",
        "tokens",
        "bytes per token",
        "held out",
        "its tokens",
        title=f"{finished.name} {finished.version}: {finished.section}",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for group in sorted({shard.group for shard in finished.shards}):
        table.add_row(group, *_sums([shard for shard in finished.shards if shard.group == group]))
    table.add_row("all", *_sums(finished.shards), style="bold")
    console = _console()
    console.print(table)
    console.print(f"shards: {folder}")


def _sums(shards: list[Shard]) -> list[str]:
    """The cells of a row. Tokens include BOS and EOS; bytes are of the text alone."""
    train, held_out = ([s for s in shards if s.path.startswith(f"{kind}/")] for kind in (TRAIN, HELD_OUT))
    sizes = [sum(s.rows for s in train), sum(s.tokens for s in train)]
    share = sum(s.text_bytes for s in shards) / max(1, sum(s.tokens for s in shards))
    aside = [sum(s.rows for s in held_out), sum(s.tokens for s in held_out)]
    return [*(f"{n:,}" for n in sizes), f"{share:.2f}", *(f"{n:,}" for n in aside)]


def print_pages(page_histories: list[PageHistory]) -> None:
    """Prints the explanation of each page."""
    for page in page_histories:
        _page(_console(), page)


def _page(console: Console, page: PageHistory) -> None:
    row = page.row
    verdict = f"dropped by {row['reject']}" if row["reject"] else "kept"
    if row["reject_value"] is not None and not math.isnan(row["reject_value"]):
        verdict += f": {row['reject_value']:g}, the threshold is {row['reject_bound']:g}"
    for name in ("id", "url", "title", "date", "source"):
        if row[name]:
            console.print(Text(f"{name:>8}  {_plain(row[name])}"))
    console.print(Text(f"{'shard':>8}  {page.shard}"))
    labels = ", ".join(f"{name} {value}" for name, value in row["labels"].items() if value and name != HITS)
    console.print(Text(f"{'labels':>8}  {labels}"))
    for item in filter(None, (row["labels"].get(HITS) or "").split("; ")):
        console.print(Text(f"{'holds':>8}  {_plain(item)}"))
    console.print(Text(f"{'verdict':>8}  {verdict}", style="bold"))
    table = Table("rule", "value", "bounds", "outcome")
    for judgement in page.judgements:
        style = "bold" if judgement.outcome == "DROPPED IT" else ""
        table.add_row(
            judgement.rule.name, _value(judgement), _bounds(judgement), judgement.outcome, style=style
        )
    console.print(table)
    for cluster in page.clusters:
        _cluster(console, cluster)
    for cut in row["cuts"] or []:
        console.print(Text(f"cut by {cut['rule']}: {_plain(cut['text'])}", style="dim"))
    console.print(Text(_plain(row["text"] or "(no text kept)", newlines=True)[:TEXT_SHOWN]))


def _cluster(console: Console, cluster: Cluster) -> None:
    console.print(
        Text(f"{cluster.use:>8}  {cluster.size:,} copies; {_plain(cluster.survivor)} stays", style="bold")
    )
    for member in cluster.members:
        alike = "" if member.similarity is None else f"  {member.similarity:.3f}"
        console.print(Text(f"{'':>8}  {_plain(member.id)}{alike}  {_plain(member.url or '')}".rstrip()))
    if cluster.size - 1 > len(cluster.members):
        console.print(Text(f"{'':>8}  and {cluster.size - 1 - len(cluster.members):,} more"))


def _value(judgement: Judgement) -> str:
    value = judgement.value
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _bounds(judgement: Judgement) -> str:
    rule = judgement.rule
    if rule.accept is not None:
        return "in " + ", ".join(a or "(none)" for a in rule.accept)
    signs = {"min": ">=", "max": "<=", "above": ">", "below": "<"}
    bounds = " and ".join(f"{signs[key]} {value:g}" for key, value in rule.bounds.items())
    genres = [*(f"only {g}" for g in rule.only), *(f"not {g}" for g in rule.unless)]
    return bounds + (f" ({', '.join(genres)})" if genres else "")


def _plain(text: str, newlines: bool = False) -> str:
    """Corpus text made safe for a terminal: control characters are escaped."""
    return "".join(
        c if c.isprintable() or (newlines and c == "\n") or c == "\u3000" else f"\\x{ord(c):02x}"
        for c in text
    )


def print_replay(replay: Replay) -> None:
    """Prints how the decisions would change."""
    console = _console()
    table = Table("reason", "before", "after", "difference")
    for column in table.columns[1:]:
        column.justify = "right"
    for reason in ["kept", *sorted((replay.before | replay.after).keys() - {"kept"})]:
        before, after = replay.before[reason], replay.after[reason]
        if before != after or reason == "kept":
            table.add_row(reason, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    console.print(table)
    if not replay.moves:
        console.print("no decision would change")
    for (old, new), count in replay.moves.most_common():
        console.print(
            Text(f"{count:,} pages: {old} -> {new}, for example {', '.join(replay.examples[old, new])}")
        )
    if replay.unmeasured:
        console.print(
            f"{replay.unmeasured:,} pages would be kept that were dropped before the last "
            "measures ran; a real run may still drop them."
        )
