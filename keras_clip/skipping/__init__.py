"""Updates that are not applied, and why."""
