"""Mixture laws: functions from shares of groups to the loss on one held-out group.

A module is a law: `NAME` (Chinese, English) for the report, `count(groups)`, `fit(shares_NG, losses_DN, kept_DN)` and
`predict(parameters, shares_NG)`. A sweep tries all of them.
"""
