"""The rows, one file for one kind of work. Each file ends with ROWS: a name and the function that measures it."""
