"""How a GGUF file is finished, whoever wrote its header and tensors."""

import gguf


def finish_file(writer: gguf.GGUFWriter) -> None:
    """Write what was added to the file, and close it. Raises OSError."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
