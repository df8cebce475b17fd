//! Filled in by the loader.
