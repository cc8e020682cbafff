"""Fast forms of single operations, each beside the direct form that it is tested against."""
