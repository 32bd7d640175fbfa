"""What a run was like: records of its norms, and what they tell."""
