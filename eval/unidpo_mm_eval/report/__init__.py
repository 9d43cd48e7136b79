"""Results as people read them: in the terminal, as Markdown, CSV and one HTML page."""
