"""Matter: atomic publishing, locks, the link ladder, the sorted walk. The lowest floor that touches the disk."""
