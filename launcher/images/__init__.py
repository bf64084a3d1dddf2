"""What images require of engine and settings, and the prompt of an image for llama-server."""
