"""The commands of ``concept-cam``, one file each; they parse, call the library and print."""
