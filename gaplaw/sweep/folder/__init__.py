"""What is finished, and whose is what is not? Run folders, claims, and both on an object store."""
