"""Steps over a whole corpus: a module and its function are a name that a recipe may `use` under `passes`."""
