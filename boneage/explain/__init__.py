"""What a model looked at: maps for months and age groups, their figure, and the job that makes both for runs."""
