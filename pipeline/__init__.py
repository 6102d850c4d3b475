"""What a pipeline file says: pure data and functions, no event loop and no client."""

__version__ = "0.1.0"
