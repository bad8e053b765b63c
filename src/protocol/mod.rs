//! How one kind of upstream is asked.
