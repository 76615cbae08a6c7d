"""The model as a service: an OpenAI-compatible API with keys and limits, a page, and Ray Serve around
both."""
