"""What the pipeline leaves on disk, in bytes that depend on the content only."""
