"""Steps over a whole corpus. A module and its function form a name for `use` under `passes`."""
