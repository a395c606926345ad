"""The report of a study, as a Markdown file and as one HTML page that needs no other file."""
