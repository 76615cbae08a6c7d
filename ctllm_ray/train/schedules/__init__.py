"""Schedules of the learning rate, by the names of `train.schedule.use`: a module has a function of its own name.

Its keyword-only parameters are what it reads of `train.schedule`, and `total_tokens` of the run; options of its own may
be among them. It returns a `Decay` (train/schedule.py) and raises `RecipeError` for values that it cannot take. The
warm-up is linear for all of them.
"""
