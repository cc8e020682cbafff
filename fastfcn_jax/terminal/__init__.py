"""Progress and log lines on the terminal."""
