"""Services that draw curves, by the names of `resources.train.trackers`.

A module has `open_tracker(run)`, which returns a `Tracker` for that run (train/tracking/tracker.py).
"""
