"""The host's configuration: files, folders, credentials, the family file."""
