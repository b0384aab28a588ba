"""The pages to look at: what each shows is computed without HTML, and drawn by a template without a script."""
