"""Stage 1: seeds -> what the teacher is asked -> answers in the ledger -> curated dataset.

generate.py asks; curate/ decides what is kept and why; dataset.py writes what the student sees.
"""
