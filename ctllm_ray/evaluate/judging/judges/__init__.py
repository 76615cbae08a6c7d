"""Judges, by the names of `evaluate.judge.use`: the scores stand under the same name.

A judge has `CLASSES` (the values of the items' column `category`) and the texts `SYSTEM`, `PROMPT` (with `{question}`
and `{answer}`) and `REMINDER` (with `{code}`). The prompt asks for a mark from 1 to 10, in the form `[[7]]`.
"""
