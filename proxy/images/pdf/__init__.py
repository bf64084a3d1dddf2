"""A PDF → its pages as images, rendered by a process of its own: PDFium parses files that anybody may have written."""
