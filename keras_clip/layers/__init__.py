"""What a layer's variables are: which axes make a unit, which pattern names which variable."""
