"""Published weights by name: where they are, their checksums, and a copy of them kept here."""
