//! Questions to an upstream that differ between the kinds of servers.
//!
//! | file | duty |
//! |---|---|
//! | `tokenize` | the number of tokens of a prompt |

pub mod tokenize;
