"""Figures as plain data, and what draws them: for pages, and as files for papers."""
