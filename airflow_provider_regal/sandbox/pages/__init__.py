"""The web pages: their content is computed without HTML, and rendered by a template without scripts."""
