"""The Hugging Face hub and its cache: listings, downloads, files."""
