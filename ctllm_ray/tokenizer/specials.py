"""The 64 special pieces that no text can spell: framing, padding, chat roles, control tokens and a reserve.

They take the first ids of every tokenizer that is trained here, so that a later stage (chat, conditional
pretraining, tools) finds its token in a model that was pretrained before anyone thought of it. SentencePiece
holds them as control symbols: a document that contains the letters `<|user|>` is encoded as those letters.
"""

from __future__ import annotations

UNK, BOS, EOS, PAD = (
    "<unk>",
    "<s>",
    "</s>",
    "<pad>",
)  # ids 0 to 3; unk never occurs: unknown characters become bytes
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"  # turns of a conversation
GOOD, BAD = "<|good|>", "<|bad|>"  # replaces BOS in conditional pretraining

_NAMED = (UNK, BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END, GOOD, BAD)
COUNT = 64  # ids 0 to 63; the 256 bytes follow

#: All specials in order of their ids.
SPECIALS = (*_NAMED, *(f"<|reserved_{i}|>" for i in range(COUNT - len(_NAMED))))
