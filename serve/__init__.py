"""Import paths and configurations for Ray Serve."""
