"""Unsupported fields of OpenAI's and vLLM's requests, and which of them are refused.

A field that would change the answer is refused by name, unless its value means the default behaviour
(`NO_EFFECT`). A field that only informs (`IGNORED`) is accepted with any value. So is null, which counts as
missing. An unknown field is refused too: it may have a meaning.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

MOST_NAMED = 8  # fields to name in a refusal
#: Of completions and chats: fields about billing, tracing, caching and speed, or about features that do not
#: exist here.
IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "prediction",  # a guess that may speed up an answer
        "parallel_tool_calls",
        "include_reasoning",
        "spaces_between_special_tokens",
    }
)
#: Of completions and chats: values that ask for the default behaviour; () if every value is refused.
NO_EFFECT: dict[str, tuple[Any, ...]] = {
    # tools, other kinds of answers
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "suffix": ("",),
    "audio": (),
    "modalities": ([], ["text"]),
    "web_search_options": (),
    "moderation": (),
    "reasoning_effort": ("none",),
    "thinking_token_budget": (),
    "verbosity": ("medium",),
    # which tokens may come, and when an answer ends
    "logit_bias": ({},),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "logits_processors": ([],),
    "min_tokens": (0,),
    "include_stop_str_in_output": (False,),
    "repetition_detection": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "structured_outputs": (),
    "structural_tag": (),
    # several answers
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    # how a prompt is built
    "echo": (False,),
    "add_special_tokens": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "truncate_prompt_tokens": (),
    # what is returned with an answer
    "prompt_logprobs": (),  # `echo` with `logprobs` returns the same
    "logprob_token_ids": ([],),
    "skip_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "return_prompt_text": (False,),
    "request_id": (),
    # how the engine treats it
    "priority": (0,),
    "cache_salt": (),
    "kv_transfer_params": (),
    "vllm_xargs": ({},),
}
#: Of one message.
MESSAGE_IGNORED = frozenset({"name", "cache_control"})
MESSAGE_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "tool_calls": ([],),
    "tool_call_id": (),
    "function_call": (),
    "audio": (),
    "refusal": ("",),
    "annotations": ([],),
    "reasoning": ("",),
    "reasoning_content": ("",),
    "prefix": (False,),
    "partial": (False,),
}
_HEARD_OF = {*IGNORED, *NO_EFFECT, *MESSAGE_NO_EFFECT}


def drop_idle(
    body: dict[str, Any],
    fields: Collection[str],
    ignored: Collection[str],
    no_effect: dict[str, tuple[Any, ...]],
) -> dict[str, Any]:
    """A request with its `fields`, and of other fields the first ones that must be refused."""
    obeyed = {name: value for name, value in body.items() if name in fields}
    binding = (
        (name, value)
        for name, value in body.items()
        if not (name in fields or value is None or name in ignored or value in no_effect.get(name, ()))
    )
    return obeyed | dict(islice(binding, MOST_NAMED))


def describe_refusal(name: str, fields: Iterable[str]) -> str:
    """Explains why a field that is not in `fields` is refused."""
    if name in _HEARD_OF:
        return f"`{name}` is not supported by this server"
    close = difflib.get_close_matches(name, fields, n=1)
    return f"unknown parameter `{name[:100]}`" + (f": did you mean `{close[0]}`?" if close else "")
