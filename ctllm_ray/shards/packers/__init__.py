"""Packers, by the names of `train.packing`: a module has a function of its own name.

It takes `targets` int [documents], the width of a row and a 64-bit seed, and returns a `Packing`. If the rows follow
from the sum of the targets alone, the module also has `fills_of_total(targets, width)`: then no unit is packed only to
count its rows.
"""
