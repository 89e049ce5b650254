"""Stage 2: the curated dataset -> a trained student (TRL)."""
