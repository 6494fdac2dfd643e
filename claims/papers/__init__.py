"""A file a paper: TITLE, YEAR and CLAIMS, in the paper's order."""
