"""What touches the machine: files, folders, processes, locks, checksums. Imports only errors."""
