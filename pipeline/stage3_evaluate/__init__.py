"""Stage 3: the same items for teacher, student before and after -> answers, scores, report."""
