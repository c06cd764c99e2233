"""`report.html`: what came of a run. `page` writes it from what lies in the workdir."""
