"""The engine inside other people's pipelines; each module needs the extra of its name."""
