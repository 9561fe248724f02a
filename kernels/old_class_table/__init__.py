"""The class-table engine until its rewriting: this folder goes as a whole."""
