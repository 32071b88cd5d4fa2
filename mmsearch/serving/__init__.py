"""The engine as a service: an HTTP API, a web page, and tools for agents."""
