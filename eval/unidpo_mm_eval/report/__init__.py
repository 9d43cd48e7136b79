"""Results for people: in the terminal, as Markdown, CSV, JSON and HTML pages."""
