"""Fast forms of single operations, each with the direct form that it is tested against."""
