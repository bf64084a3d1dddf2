"""The last step of every GGUF file that is written here."""

import gguf


def finish_file(writer: gguf.GGUFWriter) -> None:
    """Write what was added to the file, and close it. Raises OSError."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
