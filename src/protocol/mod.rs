//! How one kind of upstream is asked.
//!
//! | file | duty |
//! |---|---|
//! | `tokenize` | how many tokens a prompt has |

pub mod tokenize;
