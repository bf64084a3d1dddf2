"""The handlers of the batch APIs, OpenAI's and Jina's. What reads or writes files, and so blocks, is in a thread."""
