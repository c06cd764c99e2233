"""The report of a search: one page from what lies in a study."""
