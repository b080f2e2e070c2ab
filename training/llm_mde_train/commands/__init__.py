"""The commands of `llm-mde-train`: options in, one call of the library, a table out."""
