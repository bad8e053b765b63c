//! How an upstream is asked.
//!
//! | file | duty |
//! |---|---|
//! | `relay` | the paths of OpenAI's protocol that are passed on |
//! | `tokenize` | the number of tokens of a prompt |

pub mod relay;
pub mod tokenize;
