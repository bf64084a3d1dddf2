"""The inputs of a request that is not one document: texts and images, computed side by side, each with its vectors."""
